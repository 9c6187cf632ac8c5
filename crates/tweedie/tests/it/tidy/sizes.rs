//! One idea, one file: how long files may get.

use super::report;
use super::tree::{self, Source};

/// Folders of the library whose files are methods.
const METHODS: &[&str] = &[
    "denoiser", "discrete", "edit", "grid", "guide", "operator", "parallel", "process", "prune",
    "quant", "restore", "sampler", "system", "tap", "train",
];

/// How many lines a Rust file may have, and what kind of file it is.
fn limit(path: &str) -> (usize, &'static str) {
    let Some(inner) = path.strip_prefix("crates/tweedie/src/") else { return (800, "file") };
    let folder = inner.split('/').next().unwrap_or_default();
    if !METHODS.contains(&folder) {
        return (800, if folder == "model" { "network" } else { "file" });
    }
    if inner == format!("{folder}/mod.rs") { (300, "seam's mod.rs") } else { (400, "method") }
}

fn too_long(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter_map(|s| {
            let lines = s.text.lines().count();
            let (limit, kind) = limit(&s.path);
            (lines > limit).then(|| {
                format!(
                    "{}: {lines} lines, a {kind} has at most {limit}; find the second idea in it and give it a file",
                    s.path
                )
            })
        })
        .collect()
}

#[test]
fn rust_files_hold_one_idea() {
    report(&too_long(&tree::sources()));
}

#[test]
fn a_long_file_is_found() {
    let file = |path, lines| Source::new(path, &"\n".repeat(lines));
    let cases = [
        ("crates/tweedie/src/sampler/heun.rs", 400),
        ("crates/tweedie/src/tap/cache/deepcache.rs", 400),
        ("crates/tweedie/src/sampler/mod.rs", 300),
        ("crates/tweedie/src/model/unet.rs", 800),
        ("crates/tweedie-cli/src/main.rs", 800),
    ];
    for (path, most) in cases {
        assert!(too_long(&[file(path, most)]).is_empty(), "{path}");
        assert_eq!(too_long(&[file(path, most + 1)]).len(), 1, "{path}");
    }
}

/// The repository is cloned by everybody: only the built-in models may be large.
const LARGEST: u64 = 2 << 20;
/// The weights of one built-in model.
const LARGEST_MODEL: u64 = 8 << 20;

fn too_heavy(files: &[(String, u64)]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut models: Vec<(&str, u64)> = Vec::new();
    for (path, bytes) in files {
        // The models of the bench stand side by side in a folder of their own.
        let inner = path.strip_prefix("models/").map(|p| p.strip_prefix("bench/").unwrap_or(p));
        match inner.and_then(|rest| rest.split_once('/')) {
            Some((name, _)) => match models.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sum)) => *sum += bytes,
                None => models.push((name, *bytes)),
            },
            None if *bytes > LARGEST => findings.push(format!(
                "{path}: {bytes} bytes, a file outside models/ has at most {LARGEST}; keep data out of the repository"
            )),
            None => {}
        }
    }
    for (name, bytes) in models {
        // A card, a log and an evaluation stand beside the weights.
        if bytes > LARGEST_MODEL + LARGEST {
            findings.push(format!(
                "models/{name}: {bytes} bytes, a built-in model has at most {LARGEST_MODEL} and its papers {LARGEST}; \
                 store the weights in f16 or choose a smaller network"
            ));
        }
    }
    findings
}

#[test]
fn the_repository_stays_light() {
    let root = tree::root();
    let size = |f: &String| std::fs::metadata(root.join(f)).map_or(0, |m| m.len());
    let files: Vec<_> = tree::files().into_iter().map(|f| (f.clone(), size(&f))).collect();
    report(&too_heavy(&files));
}

#[test]
fn a_heavy_file_is_found() {
    let file = |path: &str, bytes| (path.to_owned(), bytes);
    assert!(
        too_heavy(&[file("docs/a.png", LARGEST), file("models/m/w.safetensors", LARGEST_MODEL)])
            .is_empty()
    );
    assert_eq!(too_heavy(&[file("docs/a.png", LARGEST + 1)]).len(), 1);
    let parts = [file("models/m/unet/w", LARGEST_MODEL), file("models/m/vae/w", LARGEST + 1)];
    assert_eq!(too_heavy(&parts).len(), 1);
}

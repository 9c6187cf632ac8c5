//! Words that must not stand somewhere, because they mean that a rule of ARCHITECTURE.md was walked around.

use super::report;
use super::tree::{self, Source};

/// Names of published models. Code that knows one has made a case of it.
const MODEL_NAMES: &[&str] = &[
    "sdxl",
    "sd15",
    "sd1.5",
    "sd21",
    "sd2.1",
    "sd3",
    "flux",
    "pixart",
    "sana",
    "lumina",
    "hunyuan",
    "kandinsky",
    "auraflow",
    "cogvideo",
    "stable-diffusion",
    "stable_diffusion",
    "stablediffusion",
    "playground",
    "z-image",
    "qwen",
    "wan2",
    "ltx",
];

/// Whether `name` stands in `text` (lower case) with no letter on either side.
fn names(text: &str, name: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic());
    text.match_indices(name).any(|(i, _)| {
        !letter(text[..i].chars().next_back()) && !letter(text[i + name.len()..].chars().next())
    })
}

/// Invariant 10: nothing is keyed on a model's name.
fn model_names(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for s in sources {
        let Some(inner) = s.in_library() else { continue };
        if inner.starts_with("hub/") {
            continue;
        }
        for (line, text) in &s.scan.strings {
            let lower = text.to_lowercase();
            if let Some(name) = MODEL_NAMES.iter().find(|&&n| names(&lower, n)) {
                findings.push(format!(
                    "{}:{line}: a string with the model name `{name}`; read the capability from the model folder in hub",
                    s.path
                ));
            }
        }
    }
    findings
}

#[test]
fn nothing_is_keyed_on_a_models_name() {
    report(&model_names(&tree::sources()));
}

#[test]
fn a_models_name_is_found() {
    let at = |path, text| model_names(&[Source::new(path, text)]).len();
    let engine = "crates/tweedie/src/engine.rs";
    assert_eq!(at(engine, r#"if name == "sdxl" {}"#), 1);
    assert_eq!(at(engine, r#"if name.contains("FLUX.1-dev") {}"#), 1);
    assert_eq!(at(engine, r#"let what = "heat flux and fluxes"; "#), 1);
    assert_eq!(at(engine, r#"let what = "fluxes"; // "sdxl""#), 0);
    assert_eq!(at(engine, r#"#[cfg(test)] mod tests { const N: &str = "sdxl"; }"#), 0);
    assert_eq!(at("crates/tweedie/src/hub/folder.rs", r#"if name == "sdxl" {}"#), 0);
}

/// Where the product of alphas may be spoken of: where levels, paths and predictions are made, and where files are read.
const ALPHA_BAR: &[&str] = &["level.rs", "prediction.rs", "process/", "hub/", "oracle/"];

/// Invariant 3: conversions between predictions exist once.
fn alpha_bars(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for s in sources {
        let Some(inner) = s.in_library() else { continue };
        if ALPHA_BAR.iter().any(|a| inner.starts_with(a)) {
            continue;
        }
        for (n, line) in s.scan.product.lines().enumerate() {
            if ["alpha_bar", "alphas_cumprod", "abar"].iter().any(|w| line.contains(w)) {
                findings.push(format!(
                    "{}:{}: converts by hand; take alpha, sigma or lambda from the `Level`, estimates from `prediction`",
                    s.path,
                    n + 1
                ));
            }
        }
    }
    findings
}

#[test]
fn predictions_are_converted_in_one_place() {
    report(&alpha_bars(&tree::sources()));
}

#[test]
fn a_conversion_by_hand_is_found() {
    let at = |path, text| alpha_bars(&[Source::new(path, text)]).len();
    let text = "// alpha_bar in words is fine\nlet e = (x - alpha_bar.sqrt() * x0) / (1.0 - alpha_bar).sqrt();\n";
    assert_eq!(at("crates/tweedie/src/sampler/ddim.rs", text), 1);
    assert_eq!(at("crates/tweedie/src/prediction.rs", text), 0);
    assert_eq!(at("crates/tweedie/src/process/vp.rs", text), 0);
    assert_eq!(at("crates/tweedie-lab/src/main.rs", text), 0);
}

/// Only the kernels may say `unsafe`, and each time with the reason why it is sound.
fn unsafe_code(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for s in sources {
        let lines: Vec<&str> = s.text.lines().collect();
        for (n, line) in s.scan.code.lines().enumerate() {
            if !has_word(line, "unsafe") {
                continue;
            }
            let place = format!("{}:{}", s.path, n + 1);
            if !s.path.starts_with("crates/tweedie-kernels/") {
                findings.push(format!("{place}: `unsafe` outside tweedie-kernels; move it there, behind a safe function"));
            } else if !declares(line) && !reasoned(&lines, n) {
                findings.push(format!(
                    "{place}: `unsafe` without a reason; write `// SAFETY: ...` above it"
                ));
            }
        }
    }
    findings
}

/// Whether `unsafe` only declares a function within the crate, whose condition its callers state.
fn declares(line: &str) -> bool {
    line.contains("unsafe fn") && !line.trim_start().starts_with("pub unsafe fn")
}

/// Whether a reason stands for the `unsafe` of line `n`: in its line or the twelve above (a statement may be long), or
/// in the comment above an item that encloses it, such as an `impl` whose functions all have the same condition.
///
/// Enclosing items are read off the indentation, which rustfmt keeps.
fn reasoned(lines: &[&str], n: usize) -> bool {
    let gives = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    if lines[n.saturating_sub(12)..=n].iter().any(|line| gives(line)) {
        return true;
    }
    let indent = |line: &str| line.len() - line.trim_start().len();
    let remark = |line: &str| ["//", "#["].iter().any(|p| line.trim_start().starts_with(p));
    let mut depth = indent(lines[n]) + 1;
    let mut above_opener = false;
    for line in lines[..=n].iter().rev() {
        if above_opener && remark(line) {
            if gives(line) {
                return true;
            }
        } else if !line.trim().is_empty() && indent(line) < depth && !remark(line) {
            depth = indent(line);
            above_opener = true;
        } else {
            above_opener = false;
        }
    }
    false
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(i, _)| {
        !part(line[..i].chars().next_back()) && !part(line[i + word.len()..].chars().next())
    })
}

#[test]
fn unsafe_stays_in_the_kernels() {
    report(&unsafe_code(&tree::sources()));
}

#[test]
fn stray_unsafe_is_found() {
    let at = |path, text: &str| unsafe_code(&[Source::new(path, text)]).len();
    assert_eq!(at("crates/tweedie/src/state.rs", "// SAFETY: no\nunsafe { f() }"), 1);
    assert_eq!(at("crates/tweedie/src/state.rs", "#![deny(unsafe_code)] // unsafe"), 0);
    assert_eq!(at("crates/tweedie-kernels/src/silu.rs", "unsafe { f() }"), 1);
    assert_eq!(
        at(
            "crates/tweedie-kernels/src/silu.rs",
            "// SAFETY: `f` has no conditions.\nunsafe { f() }"
        ),
        0
    );
}

/// Crates that would make the library do what is the command line's or the server's work (invariant 14).
const NOT_IN_THE_LIBRARY: &[&str] =
    &["anyhow", "axum", "clap", "ctrlc", "hyper", "indicatif", "reqwest", "tokio", "ureq"];

fn library_dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = match manifest.parse() {
        Ok(table) => table,
        Err(e) => return vec![format!("crates/tweedie/Cargo.toml: {e}")],
    };
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    NOT_IN_THE_LIBRARY
        .iter()
        .filter(|name| dependencies.is_some_and(|d| d.contains_key(**name)))
        .map(|name| {
            format!("crates/tweedie/Cargo.toml: the library depends on `{name}`; that is for the command line or the server")
        })
        .collect()
}

#[test]
fn the_library_knows_no_http_and_no_terminal() {
    report(&library_dependencies(&tree::read("crates/tweedie/Cargo.toml")));
}

#[test]
fn a_foreign_dependency_is_found() {
    assert!(
        library_dependencies("[dependencies]\nburn = \"1\"\n[dev-dependencies]\nclap = \"4\"\n")
            .is_empty()
    );
    assert_eq!(library_dependencies("[dependencies]\nclap = \"4\"\ntokio = \"1\"\n").len(), 2);
}

/// Beginnings of absolute paths of somebody's machine. In two pieces, so that this file does not find itself.
const MACHINE_PATHS: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/Us", "ers/"),
    ("C:\\", "Users"),
    ("/tm", "p/bash"),
];

/// What only stands where a private mirror of a registry was configured.
const REGISTRIES: &[(&str, &str)] = &[
    ("replace-", "with"),
    ("registry+https", "://"),
    ("sparse+", "http"),
    ("index.", "crates.io"),
    ("static.", "crates.io"),
    ("--index-", "url"),
    ("pypi", ".org"),
];

/// The index of crates.io as every lock file names it.
const PUBLIC_INDEX: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn machine_words(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.replace(PUBLIC_INDEX, "");
        let place = format!("{path}:{}", n + 1);
        for (a, b) in MACHINE_PATHS {
            if line.contains(&format!("{a}{b}")) {
                findings.push(format!(
                    "{place}: a path of one machine, `{a}{b}`; write it relative to the repository"
                ));
            }
        }
        for (a, b) in REGISTRIES {
            if line.contains(&format!("{a}{b}")) {
                findings.push(format!("{place}: names a registry host, `{a}{b}`; that belongs in a user's own settings"));
            }
        }
    }
    findings
}

#[test]
fn no_file_names_a_machine() {
    let findings: Vec<String> = tree::files()
        .iter()
        .filter_map(|f| tree::read_if_text(f).map(|text| machine_words(f, &text)))
        .flatten()
        .collect();
    report(&findings);
}

#[test]
fn a_machines_path_is_found() {
    for (a, b) in MACHINE_PATHS.iter().chain(REGISTRIES) {
        assert_eq!(machine_words("README.md", &format!("see {a}{b}x")).len(), 1, "{a}{b}");
    }
    assert!(machine_words("Cargo.lock", &format!("source = \"{PUBLIC_INDEX}\"")).is_empty());
    assert!(
        machine_words("README.md", "network/ homework /proc/meminfo https://crates.io").is_empty()
    );
}

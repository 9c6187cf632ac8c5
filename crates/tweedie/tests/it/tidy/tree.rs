//! The files of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::scan::{Scan, scan};

/// A Rust file, with its comments, strings and tests told apart from its code.
pub(super) struct Source {
    /// The path from the workspace's root, with forward slashes.
    pub(super) path: String,
    /// The file as it is.
    pub(super) text: String,
    /// The file taken apart.
    pub(super) scan: Scan,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), scan: scan(text) }
    }

    /// The path below the library's `src`, if it stands there.
    pub(super) fn in_library(&self) -> Option<&str> {
        self.path.strip_prefix("crates/tweedie/src/")
    }
}

/// The workspace's root.
pub(super) fn root() -> PathBuf {
    let mut dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    dir.pop();
    dir.pop();
    dir
}

/// All files that belong to the repository, sorted, as paths from the root with forward slashes.
///
/// Asks git for the files that it does not ignore; without git (an unpacked archive) walks the folders and leaves out
/// what `.gitignore` names.
pub(super) fn files() -> Vec<String> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output();
    let mut files = match listed {
        Ok(out) if out.status.success() => String::from_utf8(out.stdout)
            .expect("paths are UTF-8")
            .split('\0')
            .filter(|f| !f.is_empty() && root.join(f).is_file())
            .map(str::to_owned)
            .collect(),
        _ => {
            let mut found = Vec::new();
            walk(&root, &root, &mut found);
            found
        }
    };
    files.sort();
    files.dedup();
    files
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("a folder of the repository can be read") {
        let path = entry.expect("a folder of the repository can be read").path();
        let relative =
            path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        let ignored = relative == ".git"
            || relative == "out"
            || relative == "target"
            || relative.starts_with("target-")
            || Path::new(&relative).extension().is_some_and(|e| e == "tmp");
        if ignored {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, found);
        } else {
            found.push(relative);
        }
    }
}

/// All Rust files of the repository.
pub(super) fn sources() -> Vec<Source> {
    files()
        .iter()
        .filter(|f| Path::new(f).extension().is_some_and(|e| e == "rs"))
        .map(|f| Source::new(f, &read(f)))
        .collect()
}

/// A file of the repository as text.
pub(super) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A file of the repository as text, or nothing where it is not text.
pub(super) fn read_if_text(path: &str) -> Option<String> {
    String::from_utf8(std::fs::read(root().join(path)).ok()?).ok()
}

#[test]
fn the_root_is_the_workspace() {
    assert!(read("Cargo.toml").contains("[workspace]"));
    let files = files();
    assert!(files.iter().any(|f| f == "crates/tweedie/src/lib.rs"), "{files:?}");
    assert!(!files.iter().any(|f| f.starts_with("target/") || f.starts_with(".git/")));
}

#[test]
fn the_walk_finds_what_git_lists() {
    let root = root();
    let mut walked = Vec::new();
    walk(&root, &root, &mut walked);
    for file in files() {
        assert!(walked.contains(&file), "{file}");
    }
}

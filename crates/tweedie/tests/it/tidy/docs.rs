//! The documents that the repository promises: there, short enough, and linking to what exists.

use std::path::Path;

use super::{report, tree};

/// Documents that must be there, and how many lines each may have.
const DOCUMENTS: &[(&str, usize)] = &[
    ("README.md", 150),
    ("ARCHITECTURE.md", 300),
    ("CHANGELOG.md", usize::MAX),
    ("THIRD_PARTY.md", usize::MAX),
    ("LICENSE-MIT", usize::MAX),
    ("LICENSE-APACHE", usize::MAX),
    ("docs/notation.md", usize::MAX),
    ("docs/style.md", usize::MAX),
    ("docs/choosing.md", usize::MAX),
];

fn length(path: &str, text: Option<&str>, limit: usize) -> Option<String> {
    let Some(text) = text else { return Some(format!("{path}: missing; every clone needs it")) };
    let lines = text.lines().count();
    (lines > limit).then(|| {
        format!("{path}: {lines} lines, at most {limit}; move the detail to a page under docs/")
    })
}

#[test]
fn the_documents_are_there_and_short() {
    let findings: Vec<_> = DOCUMENTS
        .iter()
        .filter_map(|(path, limit)| length(path, tree::read_if_text(path).as_deref(), *limit))
        .collect();
    report(&findings);
}

#[test]
fn a_missing_or_long_document_is_found() {
    assert!(length("A.md", Some("1\n2\n"), 2).is_none());
    assert!(length("A.md", Some("1\n2\n3\n"), 2).is_some());
    assert!(length("A.md", None, 2).is_some());
}

/// The targets of `[text](target)` and `![text](target)`, outside code.
fn links(markdown: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (n, line) in markdown.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece between backticks is code.
        for piece in line.split('`').step_by(2) {
            for (i, _) in piece.match_indices("](") {
                let target = &piece[i + 2..];
                if let Some(end) = target.find(')') {
                    found.push((n + 1, target[..end].to_owned()));
                }
            }
        }
    }
    found
}

/// Relative links of a page at `path` that lead to nothing.
fn dead_links(path: &str, markdown: &str, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    links(markdown)
        .into_iter()
        .filter(|(_, target)| {
            !target.contains("://") && !target.starts_with('#') && !target.starts_with("mailto:")
        })
        .filter(|(_, target)| !exists(&folder.join(target.split('#').next().unwrap_or_default())))
        .map(|(line, target)| {
            format!(
                "{path}:{line}: links to `{target}`, which does not exist; mend or drop the link"
            )
        })
        .collect()
}

#[test]
fn links_between_documents_hold() {
    let root = tree::root();
    let findings: Vec<String> = tree::files()
        .iter()
        .filter(|f| Path::new(f).extension().is_some_and(|e| e == "md"))
        .flat_map(|f| dead_links(f, &tree::read(f), |p| root.join(p).exists()))
        .collect();
    report(&findings);
}

#[test]
fn a_dead_link_is_found() {
    let page = "[a](b.md) ![c](d.png#x) [e](https://f) `[g](h)`\n```\n[i](j)\n```\n[k](#l)\n";
    let dead = dead_links("docs/a.md", page, |_| false);
    assert_eq!(dead.len(), 2, "{dead:?}");
    assert!(dead_links("docs/a.md", page, |p| p.starts_with("docs")).is_empty());
}

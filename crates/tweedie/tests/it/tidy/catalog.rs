//! The catalogue against the folders: every method has its card, every card its file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tweedie::catalog::{Card, Made, Seam, cards};
use tweedie::{grid, guide, process, reward, sampler, search, tap, tune};

use super::ledger::{self, Paper, is_kebab};
use super::report;
use super::tree::{self, Source};

/// Folders of the library whose files are methods of the catalogue, each with its card.
const SEAM_FOLDERS: &[&str] = &[
    "edit",
    "grid",
    "guide",
    "process",
    "reward",
    "sampler",
    "search",
    "tap",
    "train/level_sampling",
    "train/weighting",
];

/// Files in those folders that are no method, and what they are.
const NO_METHOD: &[(&str, &str)] = &[
    ("edit/branches.rs", "two walks in one batch"),
    ("edit/inverted.rs", "a picture inverted, whatever the method"),
    ("edit/reverse.rs", "what inversions by undone steps have in common"),
    ("edit/taped.rs", "what inversions into noises have in common"),
    ("grid/spaced.rs", "what grids of sigmas have in common"),
    ("guide/guided.rs", "a guide around a denoiser"),
    ("guide/memory.rs", "what a guide remembers of a row"),
    ("guide/push.rs", "what guides have in common that push the state after a step"),
    ("guide/weakened.rs", "what guides by a weakened pass have in common"),
    ("reward/read.rs", "how rewards are read and followed"),
    ("reward/sum.rs", "several rewards that add up"),
    ("sampler/blend.rs", "any sampler with a part of the state kept, which no spec can hold"),
    ("sampler/encode.rs", "any sampler led along a given path, which no spec can hold"),
    ("sampler/gaussian.rs", "a step as mean and deviation"),
    ("sampler/multistep.rs", "what linear multistep methods have in common"),
    ("sampler/stride.rs", "where an even stride of a table lands"),
    ("sampler/testing.rs", "one number through a step or a run, for tests"),
    ("search/particles.rs", "a weighted population, for searches"),
    ("tap/feature.rs", "what passes through a site"),
    ("tap/only.rs", "keeps the taps of runs apart that share a call; the exam tests it"),
];

/// What a card says, borrowed or made up for a test.
struct Entry<'a> {
    id: &'a str,
    seam: &'a str,
    title: &'a str,
    year: u16,
    what: &'a str,
    aliases: &'a [&'a str],
    ledger: &'a str,
    file: &'a str,
}

impl From<&'static Card> for Entry<'static> {
    fn from(card: &'static Card) -> Self {
        Self {
            id: card.id,
            seam: card.seam.name(),
            title: card.title,
            year: card.year,
            what: card.what,
            aliases: card.aliases,
            ledger: card.ledger,
            file: card.file,
        }
    }
}

/// `file!()` has the platform's separators.
fn forward(path: &str) -> String {
    path.replace('\\', "/")
}

fn stem(file: &str) -> String {
    let file = forward(file);
    let stem =
        Path::new(&file).file_stem().map_or(String::new(), |s| s.to_string_lossy().into_owned());
    stem.replace('_', "-")
}

/// What is wrong with the cards themselves.
fn card_findings(entries: &[Entry], papers: &[Paper]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut ids = BTreeSet::new();
    let mut names: BTreeMap<(&str, String), &str> = BTreeMap::new();
    for e in entries {
        let mut find =
            |what: String| findings.push(format!("{}: card `{}`: {what}", forward(e.file), e.id));
        if !ids.insert(e.id) {
            find("another card has this id; ids are unique over all seams".into());
        }
        if !is_kebab(e.id) {
            find("the id is not kebab-case; write lower-case words joined by hyphens".into());
        }
        if stem(e.file) != e.id {
            find(format!(
                "the file's stem makes `{}`; name the file and the card alike",
                stem(e.file)
            ));
        }
        if !forward(e.file).contains(&format!("/src/{}/", e.seam))
            && e.seam != Seam::Objective.name()
        {
            find(format!("its seam is {}, whose folder it does not stand in", e.seam));
        }
        if e.what.is_empty() || e.what.contains('\n') || e.what.ends_with('.') {
            find("`what` is one line without a full stop, and not empty".into());
        }
        for name in std::iter::once(&e.id).chain(e.aliases) {
            if let Some(other) = names.insert((e.seam, name.to_lowercase()), e.id)
                && other != e.id
            {
                find(format!("the name `{name}` is taken by `{other}` of the same seam"));
            }
        }
        if e.ledger.is_empty() {
            continue;
        }
        match papers.iter().find(|p| p.id == e.ledger) {
            None => find(format!("no row of ledger/papers.toml is called `{}`", e.ledger)),
            Some(p) if p.title != e.title || p.year != e.year => {
                find(format!(
                    "the ledger says \"{}\" ({}); write the same title and year",
                    p.title, p.year
                ));
            }
            Some(_) => {}
        }
    }
    findings
}

#[test]
fn cards_are_well_formed() {
    let entries: Vec<Entry> = cards().map(Entry::from).collect();
    report(&card_findings(&entries, &ledger::papers()));
}

#[test]
fn a_bad_card_is_found() {
    let papers = ledger::papers();
    let good = || Entry {
        id: "heun",
        seam: "sampler",
        title: "Heun",
        year: 2022,
        what: "second order, two evaluations",
        aliases: &["Heun", "k_heun"],
        ledger: "",
        file: "crates/tweedie/src/sampler/heun.rs",
    };
    let count = |entries: &[Entry]| card_findings(entries, &papers).len();
    assert_eq!(count(&[good()]), 0);
    assert_eq!(count(&[Entry { file: "crates\\tweedie\\src\\sampler\\heun.rs", ..good() }]), 0);
    for bad in [
        Entry { id: "Heun", ..good() },
        Entry { file: "crates/tweedie/src/sampler/other.rs", ..good() },
        Entry { seam: "grid", ..good() },
        Entry { what: "", ..good() },
        Entry { what: "A sentence.", ..good() },
        Entry { ledger: "no-such-title", ..good() },
        Entry { ledger: "pndm", ..good() },
    ] {
        assert!(count(&[bad]) > 0);
    }
    assert!(count(&[good(), good()]) > 0, "an id twice");
    let pndm = papers.iter().find(|p| p.id == "pndm").expect("the ledger has PNDM");
    assert_eq!(
        count(&[Entry { ledger: "pndm", title: &pndm.title, year: pndm.year, ..good() }]),
        0
    );
    let euler = Entry {
        id: "euler",
        file: "crates/tweedie/src/sampler/euler.rs",
        aliases: &["K_HEUN"],
        ..good()
    };
    assert_eq!(count(&[good(), euler]), 1, "an alias twice");
}

/// Files that stand in a seam's folder and are not in the catalogue, or do not look like a method.
fn folder_findings(sources: &[Source], listed: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for s in sources {
        let Some(inner) = s.in_library() else { continue };
        let Some((folder, file)) = inner.rsplit_once('/') else { continue };
        let exempt = file.ends_with("mod.rs") || NO_METHOD.iter().any(|(f, _)| *f == inner);
        if !SEAM_FOLDERS.contains(&folder) || exempt {
            continue;
        }
        let mut find = |what: &str| findings.push(format!("{}: {what}", s.path));
        if !s.scan.product.contains("const CARD: Card") {
            find(
                "a method without its card; write `pub(crate) const CARD: Card = ...`, or name the file in NO_METHOD",
            );
        } else if !listed.contains(&s.path) {
            find(
                "its card is not in the catalogue; add its `ENTRY` to the list in the folder's mod.rs",
            );
        }
        if !s.text.starts_with("//! ") {
            find(
                "a method opens with `//!`: what it is in a line, the paper, the update in the crate's notation",
            );
        }
    }
    findings
}

#[test]
fn every_method_is_in_the_catalogue() {
    let listed = cards().map(|c| forward(c.file)).collect();
    report(&folder_findings(&tree::sources(), &listed));
}

#[test]
fn a_method_outside_the_catalogue_is_found() {
    let path = "crates/tweedie/src/sampler/heun.rs";
    let text = "//! Heun.\npub(crate) const CARD: Card = Card { id: \"heun\" };\n#[cfg(test)]\nmod tests {}\n";
    let count = |path: &str, text: &str, listed: &[&str]| {
        folder_findings(&[Source::new(path, text)], &listed.iter().map(|&l| l.to_owned()).collect())
            .len()
    };
    assert_eq!(count(path, text, &[path]), 0);
    assert_eq!(count(path, text, &[]), 1, "not listed");
    assert_eq!(count(path, &text.replace("CARD", "LETTER"), &[path]), 1, "no card");
    assert_eq!(count(path, &text.replace("//! Heun.", ""), &[path]), 1, "no documentation");
    assert_eq!(count("crates/tweedie/src/sampler/mod.rs", "", &[]), 0);
    assert_eq!(count("crates/tweedie/src/guide/guided.rs", "", &[]), 0);
    assert_eq!(count("crates/tweedie/src/engine.rs", "", &[]), 0);
}

/// The names between the brackets of `const ENTRIES: ... = &[a::ENTRY, b::ENTRY];`, in order.
fn listed_entries(source: &Source) -> Option<Vec<String>> {
    let code = &source.scan.product;
    let list = &code[code.find("const ENTRIES")?..];
    let list = &list[list.find('=')?..];
    let list = &list[list.find("&[")? + 2..];
    let list = &list[..list.find(']')?];
    Some(list.split(',').map(|e| e.trim().to_owned()).filter(|e| !e.is_empty()).collect())
}

#[test]
fn lists_are_alphabetical() {
    let mut findings = Vec::new();
    for s in tree::sources() {
        if let Some(entries) = listed_entries(&s)
            && !entries.is_sorted()
        {
            findings.push(format!("{}: ENTRIES is not in alphabetical order; sort it", s.path));
        }
    }
    report(&findings);
}

#[test]
fn an_unsorted_list_is_seen() {
    let list = |text| listed_entries(&Source::new("mod.rs", text)).expect("a list");
    let text = "pub(crate) const ENTRIES: &[Entry] =\n    &[b::ENTRY, a::ENTRY];";
    assert_eq!(list(text), ["b::ENTRY", "a::ENTRY"]);
    assert!(!list(text).is_sorted());
    assert!(list("const ENTRIES: &[Entry] = &[];").is_empty());
    assert!(listed_entries(&Source::new("mod.rs", "fn f() {}")).is_none());
}

/// What stands between backticks in the second column of a page's tables and is not a setting or a file.
fn recommended(markdown: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (n, line) in markdown.lines().enumerate() {
        let Some(cell) = line.strip_prefix('|').and_then(|row| row.split('|').nth(1)) else {
            continue;
        };
        let names =
            cell.split('`').skip(1).step_by(2).filter(|name| !name.contains(['=', '.', '/']));
        found.extend(names.map(|name| (n + 1, name.to_owned())));
    }
    found
}

#[test]
fn choosing_recommends_what_exists() {
    let ids: BTreeSet<&str> = cards().map(|c| c.id).collect();
    let page = tree::read("docs/choosing.md");
    let names = recommended(&page);
    let mut findings: Vec<String> = names
        .iter()
        .filter(|(_, name)| !ids.contains(name.as_str()))
        .map(|(line, name)| {
            format!(
                "docs/choosing.md:{line}: nothing is called `{name}`; name a method of METHODS.md"
            )
        })
        .collect();
    if names.is_empty() {
        findings.push(
            "docs/choosing.md: recommends nothing; give one default for each situation".into(),
        );
    }
    report(&findings);
}

#[test]
fn a_recommendation_is_read() {
    let page = "text `a`\n| when | take | why |\n| `x` | `b` with `eta = 0`, `c` | `d` |\n";
    assert_eq!(recommended(page), [(3, "b".to_owned()), (3, "c".to_owned())]);
}

/// Known failures that name no conformance test.
fn stale_failures<'a>(
    known: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    tests: &str,
) -> Vec<String> {
    let mut findings = Vec::new();
    for (id, test, why) in known {
        if !tests.contains(&format!("\"{test}\"")) {
            findings.push(format!(
                "`{id}`: the known failure `{test}` is no conformance test; drop or rename it"
            ));
        }
        if why.is_empty() {
            findings.push(format!(
                "`{id}`: the known failure `{test}` gives no reason; say why it fails"
            ));
        }
    }
    findings
}

#[test]
fn known_failures_name_tests() {
    fn of<T: ?Sized>(
        entries: &'static [Made<T>],
    ) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        entries
            .iter()
            .flat_map(|e| e.known_failures.iter().map(|(test, why)| (e.card.id, *test, *why)))
    }
    let conformance = |s: &Source| s.path.starts_with("crates/tweedie/tests/it/conformance");
    let tests: String = tree::sources().into_iter().filter(conformance).map(|s| s.text).collect();
    let known = of(process::entries())
        .chain(of(grid::entries()))
        .chain(of(sampler::entries()))
        .chain(of(guide::entries()))
        .chain(of(tap::entries()))
        .chain(of(tune::entries()))
        .chain(of(reward::entries()))
        .chain(of(search::entries()));
    report(&stale_failures(known, &tests));
}

#[test]
fn a_stale_known_failure_is_found() {
    let count = |test, why| {
        stale_failures(std::iter::once(("heun", test, why)), "over(\"weak order\", f)").len()
    };
    assert_eq!(count("weak order", "the last step is of first order"), 0);
    assert_eq!(count("weak order", ""), 1);
    assert_eq!(count("order", "an old name"), 1);
}

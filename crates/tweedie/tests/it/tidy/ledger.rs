//! `ledger/papers.toml`: the assignment, complete and well-formed.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{report, tree};

/// How many titles the project was given.
const TITLES: usize = 215;

/// The groups of the assignment.
const FAMILIES: &[&str] = &[
    "process",
    "sampler",
    "accelerate",
    "distill_arch",
    "restore",
    "edit",
    "language_time",
    "video_3d",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ledger {
    paper: Vec<Paper>,
}

/// One title of the assignment.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paper {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) year: u16,
    pub(super) family: String,
    seeds: Vec<String>,
    #[serde(default)]
    pub(super) served_by: Vec<String>,
    #[serde(default)]
    pub(super) why: String,
}

/// The ledger; its own test says what is wrong with it.
pub(super) fn papers() -> Vec<Paper> {
    parse(&tree::read("ledger/papers.toml")).expect("the ledger parses")
}

fn parse(text: &str) -> Result<Vec<Paper>, String> {
    toml::from_str::<Ledger>(text).map(|l| l.paper).map_err(|e| format!("ledger/papers.toml: {e}"))
}

/// Lower-case words and numbers joined by single hyphens.
pub(super) fn is_kebab(id: &str) -> bool {
    let word =
        |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    id.split('-').all(word)
}

fn check(papers: &[Paper], wanted: usize) -> Vec<String> {
    let mut findings = Vec::new();
    let mut find = |what: String| findings.push(format!("ledger/papers.toml: {what}"));
    if papers.len() != wanted {
        find(format!(
            "{} titles, the assignment has {wanted}; restore the missing or drop the added",
            papers.len()
        ));
    }
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for p in papers {
        let id = &p.id;
        if !ids.insert(id) {
            find(format!("`{id}` stands twice; every title has one entry"));
        }
        if !titles.insert(p.title.to_lowercase()) {
            find(format!("`{id}`: the title stands twice; every title has one entry"));
        }
        if !is_kebab(id) {
            find(format!("`{id}` is not kebab-case; write lower-case words joined by hyphens"));
        }
        if p.title.trim().is_empty() || p.title.trim() != p.title {
            find(format!("`{id}`: the title is empty or padded; write it as the paper does"));
        }
        if !(2000..2100).contains(&p.year) {
            find(format!("`{id}`: year {} is no year of a paper", p.year));
        }
        if !FAMILIES.contains(&p.family.as_str()) {
            find(format!("`{id}`: no family is called `{}`; take one of {FAMILIES:?}", p.family));
        }
        let list = |s: &String| s.len() == 3 && s.bytes().all(|b| b.is_ascii_digit());
        if p.seeds.is_empty() || !p.seeds.iter().all(list) {
            find(format!(
                "`{id}`: seeds {:?} are not reading lists; write them as \"000\" to \"004\"",
                p.seeds
            ));
        }
        if p.served_by.is_empty() != p.why.is_empty() {
            find(format!("`{id}`: `served_by` and `why` stand together or not at all"));
        }
        if !p.served_by.iter().all(|s| is_kebab(s)) {
            find(format!("`{id}`: served_by {:?} is not kebab-case", p.served_by));
        }
    }
    findings
}

#[test]
fn the_ledger_holds_every_title_once() {
    match parse(&tree::read("ledger/papers.toml")) {
        Ok(papers) => report(&check(&papers, TITLES)),
        Err(e) => report(&[e]),
    }
}

#[test]
fn a_bad_ledger_is_found() {
    const GOOD: &str = "[[paper]]\nid = \"a-1\"\ntitle = \"A\"\nyear = 2024\nfamily = \"edit\"\nseeds = [\"000\"]\n";
    let findings = |text: &str, wanted| check(&parse(text).expect("parses"), wanted);
    assert!(findings(GOOD, 1).is_empty());
    assert_eq!(findings(GOOD, 2).len(), 1, "a missing title");
    assert_eq!(findings(&format!("{GOOD}{GOOD}"), 2).len(), 2, "id and title twice");
    for (good, bad) in [
        ("a-1", "a_1"),
        ("a-1", "A-1"),
        ("a-1", "a--1"),
        ("\"A\"", "\" A\""),
        ("2024", "24"),
        ("edit", "editing"),
        ("[\"000\"]", "[]"),
        ("[\"000\"]", "[\"0\"]"),
        ("[\"000\"]", "[\"000\"]\nserved_by = [\"oracle\"]"),
        ("[\"000\"]", "[\"000\"]\nwhy = \"survey\""),
        ("[\"000\"]", "[\"000\"]\nwhy = \"survey\"\nserved_by = [\"the oracle\"]"),
    ] {
        assert_eq!(findings(&GOOD.replace(good, bad), 1).len(), 1, "{bad}");
    }
    assert!(parse(&format!("{GOOD}status = \"done\"\n")).is_err(), "nobody types a status");
}

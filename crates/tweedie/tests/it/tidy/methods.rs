//! METHODS.md and the counts in README.md: generated from the cards, the ledger and the laboratory's records, never typed.
//!
//! `TWEEDIE_BLESS=1 cargo test --release -p tweedie --test it` writes both anew.

use std::fmt::Write;

use serde::Deserialize;
use tweedie::catalog::{Card, Seam, cards};

use super::ledger::{self, Paper};
use super::{report, tree};

const COUNTS_BEGIN: &str = "<!-- counts: begin (generated) -->";
const COUNTS_END: &str = "<!-- counts: end -->";

/// The families of the ledger as headings, in its order.
const FAMILIES: &[(&str, &str)] = &[
    ("process", "Processes, theory, training data"),
    ("sampler", "Samplers, search, guidance, inversion"),
    ("accelerate", "Acceleration, parallel inference, quantisation, pruning"),
    ("distill_arch", "Distillation, architectures, representation, adapters"),
    ("restore", "Inverse problems, restoration, perception"),
    ("edit", "Editing, control, composition, protection"),
    ("language_time", "Language, audio, time series, decisions"),
    ("video_3d", "Video, 3D, 4D"),
];

/// The laboratory's record of a check, as far as the page needs it. That a record is of the code as it stands is held by
/// the laboratory's own test.
#[derive(Deserialize)]
struct Record {
    id: String,
    verdict: String,
    measure: String,
    world: String,
    bar: Bar,
    measured: Vec<Measured>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Deserialize)]
struct Measured {
    arm: String,
    values: Vec<f64>,
}

impl Record {
    /// The method's worst value beside its bar: `0.0123, wanted at most 0.03`.
    fn figure(&self) -> String {
        let values =
            self.measured.iter().filter(|m| m.arm == "method").flat_map(|m| &m.values).copied();
        let (worst, side, bar) = match self.bar {
            Bar::AtMost(bar) => (values.fold(f64::NEG_INFINITY, f64::max), "most", bar),
            Bar::AtLeast(bar) => (values.fold(f64::INFINITY, f64::min), "least", bar),
        };
        format!("{worst:.4}, wanted at {side} {bar}")
    }
}

const RECORDS: &str = "crates/tweedie-lab/results/";

fn records() -> Vec<Record> {
    tree::files()
        .iter()
        .filter(|f| {
            f.starts_with(RECORDS)
                && std::path::Path::new(f).extension().is_some_and(|e| e == "json")
        })
        .map(|f| serde_json::from_str(&tree::read(f)).unwrap_or_else(|e| panic!("{f}: {e}")))
        .collect()
}

/// All that the page is made of.
struct Book<'a> {
    cards: &'a [&'a Card],
    papers: &'a [Paper],
    records: &'a [Record],
}

impl Book<'_> {
    /// `checked` or `short` where a record says so, else `built`.
    fn of_card(&self, card: &Card) -> &str {
        self.records.iter().find(|r| r.id == card.id).map_or("built", |r| &r.verdict)
    }

    /// What stands of a title: as its card where one answers it, else `planned`.
    fn of_title(&self, paper: &Paper) -> &str {
        self.cards.iter().find(|c| c.ledger == paper.id).map_or("planned", |c| self.of_card(c))
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// A link to the paper where the source is an arXiv number, else the source as it is.
fn source(card: &Card) -> String {
    let number = card.source.trim_start_matches("arXiv:");
    let arxiv = number.len() >= 9 && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    if arxiv { format!("[{number}](https://arxiv.org/abs/{number})") } else { cell(card.source) }
}

fn parts_table(book: &Book, seam: Seam) -> String {
    let mut out = String::from(
        "| id | what | paper | source | parts | status | also called |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for c in book.cards.iter().filter(|c| c.seam == seam) {
        let parts: Vec<&str> = c.parts.iter().map(|p| p.id).collect();
        let _ = writeln!(
            out,
            "| [`{}`]({}) | {} | {} ({}) | {} | {} | {} | {} |",
            c.id,
            c.file.replace('\\', "/"),
            cell(c.what),
            cell(c.title),
            c.year,
            source(c),
            parts.join(", "),
            book.of_card(c),
            cell(&c.aliases.join(", "))
        );
    }
    out
}

fn records_table(records: &[Record]) -> String {
    let mut out =
        String::from("| id | measured | in | figure | status |\n| --- | --- | --- | --- | --- |\n");
    for r in records {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            r.id,
            cell(&r.measure),
            cell(&r.world),
            r.figure(),
            r.verdict
        );
    }
    out
}

/// The whole of METHODS.md.
fn methods(book: &Book) -> String {
    let (served, titles): (Vec<&Paper>, Vec<&Paper>) =
        book.papers.iter().partition(|p| !p.served_by.is_empty());
    let standing = |list: &[&Paper]| list.iter().filter(|p| book.of_title(p) != "planned").count();
    let mut out = String::from(
        "# Methods\n\n\
         Generated from the cards in the methods' files, from ledger/papers.toml and from the laboratory's records; do not \
         edit. `TWEEDIE_BLESS=1 cargo test --release -p tweedie --test it` writes it anew.\n\n\
         - **checked**: in the library, and its claim is measured in miniature against a baseline and with the method \
         switched off; a record of code that has changed since fails the tests.\n\
         - **short**: measured, and below its bar.\n\
         - **built**: in the library, listed, and run by the conformance tests of its seam.\n\
         - **planned**: a title of the ledger that nothing answers yet.\n",
    );
    let _ = writeln!(
        out,
        "\nParts in the library: {}. Titles of the ledger: {}, of which {} stand; besides, {} surveys and works of theory, \
         of which {} are served.",
        book.cards.len(),
        titles.len(),
        standing(&titles),
        served.len(),
        standing(&served)
    );
    out.push_str("\n## Parts\n");
    for seam in Seam::ALL {
        if book.cards.iter().any(|c| c.seam == seam) {
            let _ = write!(out, "\n### {}\n\n{}", seam.name(), parts_table(book, seam));
        }
    }
    if !book.records.is_empty() {
        out.push_str(
            "\n## Checks in miniature\n\nThe figure is the worst of at least three seeds.\n\n",
        );
        out.push_str(&records_table(book.records));
    }
    out.push_str("\n## The ledger\n");
    for (family, heading) in FAMILIES {
        let _ = write!(
            out,
            "\n### {heading}\n\n| id | title | year | status |\n| --- | --- | --- | --- |\n"
        );
        for p in titles.iter().filter(|p| p.family == *family) {
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} |",
                p.id,
                cell(&p.title),
                p.year,
                book.of_title(p)
            );
        }
    }
    out.push_str(
        "\n## Surveys and theory\n\nCounted apart: they have no algorithm to list as a method.\n\n",
    );
    out.push_str("| id | title | year | how it is to be served | status |\n| --- | --- | --- | --- | --- |\n");
    for p in &served {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            p.id,
            cell(&p.title),
            p.year,
            cell(&p.why),
            book.of_title(p)
        );
    }
    out
}

/// The table of README.md: how many parts each seam has, and what stands of the ledger.
fn counts(book: &Book) -> String {
    let mut out = String::from("| seam | parts |\n| --- | --- |\n");
    for seam in Seam::ALL {
        let count = book.cards.iter().filter(|c| c.seam == seam).count();
        if count > 0 {
            let _ = writeln!(out, "| {} | {count} |", seam.name());
        }
    }
    let methods: Vec<&Paper> = book.papers.iter().filter(|p| p.served_by.is_empty()).collect();
    let standing = methods.iter().filter(|p| book.of_title(p) != "planned").count();
    let _ = writeln!(out, "\nOf the ledger's {} methods, {standing} stand.", methods.len());
    out
}

/// README.md with the text between the markers replaced.
fn with_counts(readme: &str, counts: &str) -> Result<String, String> {
    let missing = || {
        format!(
            "README.md: the lines `{COUNTS_BEGIN}` and `{COUNTS_END}` are missing or out of order"
        )
    };
    let begin = readme.find(COUNTS_BEGIN).ok_or_else(missing)? + COUNTS_BEGIN.len();
    let end = readme[begin..].find(COUNTS_END).ok_or_else(missing)? + begin;
    Ok(format!("{}\n{}{}", &readme[..begin], counts, &readme[end..]))
}

/// The first line in which what stands differs from what would be generated.
fn difference(path: &str, stands: &str, generated: &str) -> Option<String> {
    if stands == generated {
        return None;
    }
    let mut lines = (1..).zip(stands.lines().map(Some).chain(std::iter::repeat(None)));
    let mut wanted = generated.lines();
    let line = loop {
        let ((n, found), want) = (lines.next()?, wanted.next());
        if found != want || found.is_none() {
            break n;
        }
    };
    Some(format!(
        "{path}:{line}: not what would be generated; write it with \
         `TWEEDIE_BLESS=1 cargo test --release -p tweedie --test it` and commit it"
    ))
}

/// Compares, or writes where the caller asked for it.
fn hold(path: &str, generated: &str) -> Option<String> {
    if std::env::var_os("TWEEDIE_BLESS").is_some_and(|v| v == "1") {
        let written = std::fs::write(tree::root().join(path), generated);
        return written.err().map(|e| format!("{path}: {e}"));
    }
    difference(path, &tree::read_if_text(path).unwrap_or_default(), generated)
}

#[test]
fn methods_md_is_what_would_be_generated() {
    let (cards, papers, records) = (cards().collect::<Vec<_>>(), ledger::papers(), records());
    let book = Book { cards: &cards, papers: &papers, records: &records };
    report(&Vec::from_iter(hold("METHODS.md", &methods(&book))));
}

#[test]
fn readme_counts_are_what_would_be_generated() {
    let (cards, papers, records) = (cards().collect::<Vec<_>>(), ledger::papers(), records());
    let book = Book { cards: &cards, papers: &papers, records: &records };
    let finding = match with_counts(&tree::read("README.md"), &counts(&book)) {
        Ok(readme) => hold("README.md", &readme),
        Err(e) => Some(e),
    };
    report(&Vec::from_iter(finding));
}

#[test]
fn a_stale_page_is_found() {
    assert!(difference("A.md", "a\nb\n", "a\nb\n").is_none());
    assert!(difference("A.md", "a\nc\n", "a\nb\n").is_some_and(|d| d.starts_with("A.md:2")));
    assert!(difference("A.md", "", "a\n").is_some_and(|d| d.starts_with("A.md:1")));
    assert!(difference("A.md", "a\n\n", "a\n").is_some());
    assert!(with_counts("no markers", "x").is_err());
    let page = format!("a\n{COUNTS_BEGIN}\nold\n{COUNTS_END}\nb\n");
    let fresh = with_counts(&page, "new\n").expect("markers are there");
    assert_eq!(fresh, format!("a\n{COUNTS_BEGIN}\nnew\n{COUNTS_END}\nb\n"));
    assert_eq!(with_counts(&fresh, "new\n").expect("markers are there"), fresh);
}

#[test]
fn a_title_is_built_once_a_card_answers_it() {
    static CARD: Card = Card {
        id: "plms",
        seam: Seam::Sampler,
        title: "Pseudo | Numerical",
        source: "2202.09778",
        year: 2022,
        what: "multistep",
        aliases: &["PLMS"],
        ledger: "pndm",
        parts: &[],
        file: "crates/tweedie/src/sampler/plms.rs",
    };
    let papers = ledger::papers();
    let page =
        |cards: &[&Card], records: &[Record]| methods(&Book { cards, papers: &papers, records });
    let (none, one) = (page(&[], &[]), page(&[&CARD], &[]));
    assert!(none.contains("Manifolds | 2022 | planned |"), "{none}");
    assert!(one.contains("Manifolds | 2022 | built |"));
    assert!(one.contains(
        "[`plms`](crates/tweedie/src/sampler/plms.rs) | multistep | Pseudo \\| Numerical (2022) |"
    ));
    assert!(one.contains("https://arxiv.org/abs/2202.09778"));
    let listed = |text: &str| {
        text.lines()
            .filter(|l| ["planned |", "built |", "short |"].iter().any(|s| l.ends_with(s)))
            .count()
    };
    assert_eq!(listed(&none), papers.len());
    let record = r#"{"id": "plms", "verdict": "short", "measure": "error", "world": "a plane", "bar": {"at-most": 0.5},
        "measured": [{"arm": "baseline", "values": [9]}, {"arm": "method", "values": [0.25, 0.75, 0.5]}]}"#;
    let record: Record = serde_json::from_str(record).expect("a record");
    let short = page(&[&CARD], &[record]);
    assert!(short.contains("Manifolds | 2022 | short |"));
    assert!(
        short.contains("| `plms` | error | a plane | 0.7500, wanted at most 0.5 | short |"),
        "{short}"
    );
}

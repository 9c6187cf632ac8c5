//! METHODS.md and the counts in README.md: generated from the cards and the ledger, never typed.
//!
//! `TWEEDIE_BLESS=1 cargo test --release -p tweedie --test it` writes both anew.

use std::fmt::Write;

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

/// What stands of a title: `built` where a card answers it, else `planned`.
fn status(paper: &Paper, cards: &[&Card]) -> &'static str {
    if cards.iter().any(|c| c.ledger == paper.id) { "built" } else { "planned" }
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

/// What the record of a method's miniature check says: verdict, bar and the worst figure of the
/// method. That the record is of the code as it stands is a test of the lab.
fn checked(id: &str) -> String {
    let path = tree::root().join("crates/tweedie-lab/results").join(format!("{id}.json"));
    let Ok(text) = std::fs::read_to_string(&path) else { return String::new() };
    let record: serde_json::Value = serde_json::from_str(&text).expect("a record is JSON");
    let (sign, bar) = match (record["bar"]["at-most"].as_f64(), record["bar"]["at-least"].as_f64())
    {
        (Some(bar), _) => ("at most", bar),
        (None, Some(bar)) => ("at least", bar),
        _ => panic!("{}: no bar", path.display()),
    };
    let arms = record["measured"].as_array().expect("a record has measures");
    let method = arms.iter().find(|a| a["arm"] == "method").expect("a record has the method");
    let values = method["values"].as_array().expect("a measure has values");
    let values = values.iter().filter_map(serde_json::Value::as_f64);
    let worst = values.fold(f64::NAN, |w, v| if sign == "at most" { v.max(w) } else { v.min(w) });
    let verdict = record["verdict"].as_str().unwrap_or_default();
    format!("{verdict}: {sign} {bar}, measured {worst:.3}")
}

fn parts_table(cards: &[&Card]) -> String {
    let mut out = String::from(
        "| id | what | paper | source | parts | also called | checked in miniature |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for c in cards {
        let parts: Vec<&str> = c.parts.iter().map(|p| p.id).collect();
        let file = c.file.replace('\\', "/");
        let _ = writeln!(
            out,
            "| [`{}`]({file}) | {} | {} ({}) | {} | {} | {} | {} |",
            c.id,
            cell(c.what),
            cell(c.title),
            c.year,
            source(c),
            parts.join(", "),
            cell(&c.aliases.join(", ")),
            checked(c.id)
        );
    }
    out
}

/// The whole of METHODS.md.
fn methods(cards: &[&Card], papers: &[Paper]) -> String {
    let (served, titles): (Vec<&Paper>, Vec<&Paper>) =
        papers.iter().partition(|p| !p.served_by.is_empty());
    let built = |list: &[&Paper]| list.iter().filter(|p| status(p, cards) == "built").count();
    let mut out = String::from(
        "# Methods\n\n\
         Generated from the cards in the methods' files and from ledger/papers.toml; do not edit. \
         `TWEEDIE_BLESS=1 cargo test --release -p tweedie --test it` writes it anew.\n\n\
         - **checked**: its claim was measured in miniature (the record names the world) with a baseline \
         and with the method switched off; **short**: measured, and below its bar.\n\
         - **built**: in the library, listed, and run by the conformance tests of its seam.\n\
         - **planned**: a title of the ledger that nothing answers yet.\n",
    );
    let _ = writeln!(
        out,
        "\nParts in the library: {}. Titles of the ledger: {}, of which {} are built; besides, {} surveys and works of theory, \
         of which {} are served.",
        cards.len(),
        titles.len(),
        built(&titles),
        served.len(),
        built(&served)
    );
    out.push_str("\n## Parts\n");
    for seam in Seam::ALL {
        let of_seam: Vec<&Card> = cards.iter().copied().filter(|c| c.seam == seam).collect();
        if !of_seam.is_empty() {
            let _ = write!(out, "\n### {}\n\n{}", seam.name(), parts_table(&of_seam));
        }
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
                status(p, cards)
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
            status(p, cards)
        );
    }
    out
}

/// The table of README.md: how many parts each seam has.
fn counts(cards: &[&Card], papers: &[Paper]) -> String {
    let mut out = String::from("| seam | parts |\n| --- | --- |\n");
    for seam in Seam::ALL {
        let ids: Vec<String> =
            cards.iter().filter(|c| c.seam == seam).map(|c| format!("`{}`", c.id)).collect();
        if !ids.is_empty() {
            let _ = writeln!(out, "| {} | {} |", seam.name(), ids.len());
        }
    }
    let methods = papers.iter().filter(|p| p.served_by.is_empty());
    let (built, all) =
        methods.fold((0, 0), |(b, n), p| (b + usize::from(status(p, cards) == "built"), n + 1));
    let _ = writeln!(out, "\nOf the ledger's {all} methods, {built} are built.");
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
    let cards: Vec<&Card> = cards().collect();
    report(&Vec::from_iter(hold("METHODS.md", &methods(&cards, &ledger::papers()))));
}

#[test]
fn readme_counts_are_what_would_be_generated() {
    let cards: Vec<&Card> = cards().collect();
    let finding = match with_counts(&tree::read("README.md"), &counts(&cards, &ledger::papers())) {
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
    let (none, one) = (methods(&[], &papers), methods(&[&CARD], &papers));
    assert!(none.contains("Manifolds | 2022 | planned |"), "{none}");
    assert!(one.contains("Manifolds | 2022 | built |"));
    assert!(one.contains(
        "[`plms`](crates/tweedie/src/sampler/plms.rs) | multistep | Pseudo \\| Numerical (2022) |"
    ));
    assert!(one.contains("https://arxiv.org/abs/2202.09778"));
    let listed = |text: &str| {
        text.lines().filter(|l| l.ends_with("planned |") || l.ends_with("built |")).count()
    };
    assert_eq!(listed(&none), papers.len());
}

//! Conformance: one loop a seam over the catalogue, so that a method is tested the moment it is
//! listed.

use tweedie::catalog::{Made, Seam};
use tweedie::spec::PartSpec;

mod edit;
mod edit_pairs;
mod grid;
mod guide;
mod oracle;
mod pairwise;
mod prediction;
mod process;
mod sampler;
mod stochastic;
mod superdiff;
mod tap;
mod tiny;
mod world;

/// What a check found: nothing, or what is wrong.
type Found = Result<(), String>;

/// Fails with what is wrong unless it holds.
fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(wrong()) }
}

/// Every entry with its default settings, and the variants that stand for more settings of some.
fn cases<T: ?Sized>(entries: &'static [Made<T>], variants: &[&str]) -> Vec<PartSpec> {
    let defaults = entries.iter().map(|e| PartSpec::named(e.card.id));
    defaults.chain(variants.iter().map(|v| v.parse().unwrap())).collect()
}

/// Runs a check over parts. A failure that the entry lists as known is expected, and one that the
/// entry lists and that does not happen is an error too.
fn hold<T: ?Sized>(
    entries: &'static [Made<T>],
    seam: Seam,
    parts: &[PartSpec],
    name: &str,
    check: impl Fn(&PartSpec) -> Found,
) {
    let wrong: Vec<String> = parts
        .iter()
        .filter_map(|part| {
            let entry = tweedie::catalog::find(entries, seam, &part.name).unwrap();
            let known = entry.known_failures.iter().find(|(test, _)| *test == name);
            verdict(known.map(|(_, why)| *why), check(part)).err().map(|w| format!("{part}: {w}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{name}\n{}", wrong.join("\n"));
}

fn verdict(known: Option<&str>, found: Found) -> Found {
    match (known, found) {
        (None, found) => found,
        (Some(_), Err(_)) => Ok(()),
        (Some(why), Ok(())) => Err(format!("passes, though it is listed as known to fail: {why}")),
    }
}

#[test]
fn known_failures_are_held_both_ways() {
    assert!(verdict(None, Ok(())).is_ok());
    assert!(verdict(None, Err("x".into())).is_err());
    assert!(verdict(Some("because"), Err("x".into())).is_ok());
    assert!(verdict(Some("because"), Ok(())).is_err());
}

/// The names that `known_failures` may speak of.
const TESTS: &[&str] = &[
    "lambda falls",
    "lambda inverts",
    "rates are derivatives",
    "variance is preserved",
    "grid falls",
    "order",
    "weak order",
    "recursion",
    "goodness of fit",
    "evaluations",
    "batch",
    "reset",
    "fork and select",
    "noise",
    "ends",
    "reconstruction",
    "edit",
    "mask",
];

#[test]
fn known_failures_name_tests_that_exist() {
    fn all<T: ?Sized>(entries: &'static [Made<T>]) -> Vec<&'static str> {
        entries.iter().flat_map(|e| e.known_failures.iter().map(|(test, _)| *test)).collect()
    }
    let named = [
        all(tweedie::process::entries()),
        all(tweedie::grid::entries()),
        all(tweedie::sampler::entries()),
        all(tweedie::guide::entries()),
        all(tweedie::tap::entries()),
        all(tweedie::edit::entries()),
        all(tweedie::tune::entries()),
        all(tweedie::reward::entries()),
        all(tweedie::search::entries()),
    ];
    for test in named.concat() {
        assert!(TESTS.contains(&test), "known_failures names `{test}`, which does not exist");
    }
}

#[test]
fn lists_are_in_order_and_defaults_can_be_read() {
    fn check<T: ?Sized>(entries: &'static [Made<T>], seam: Seam) {
        let ids: Vec<_> = entries.iter().map(|e| e.card.id.replace('-', "_")).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        for entry in entries {
            assert_eq!(entry.card.seam, seam, "{}", entry.card.id);
            assert!((entry.defaults)().is_object(), "{}", entry.card.id);
            assert!(entry.card.file.ends_with(&format!("{}.rs", entry.card.id.replace('-', "_"))));
            let bad = PartSpec::named(entry.card.id).with("no_such_setting", 1);
            let error = bad.make(entries, seam).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains("no_such_setting"), "{}: {error}", entry.card.id);
        }
    }
    check(tweedie::process::entries(), Seam::Process);
    check(tweedie::grid::entries(), Seam::Grid);
    check(tweedie::sampler::entries(), Seam::Sampler);
    check(tweedie::guide::entries(), Seam::Guide);
    check(tweedie::tap::entries(), Seam::Tap);
    check(tweedie::edit::entries(), Seam::Edit);
    check(tweedie::tune::entries(), Seam::Tune);
    check(tweedie::reward::entries(), Seam::Reward);
    check(tweedie::search::entries(), Seam::Search);
}

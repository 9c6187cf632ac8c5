//! The layout of the repository, held by tests: sizes, layers, the ledger, words that must not stand somewhere.
//!
//! Every check is a plain function from what it reads to a list of findings, so that it can be shown to fail on
//! small bad inputs. A finding says where and how to mend it.

mod catalog;
mod docs;
mod layers;
mod ledger;
mod methods;
mod places;
mod scan;
mod sizes;
mod tree;
mod words;

/// Fails with all findings, one a line.
fn report(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

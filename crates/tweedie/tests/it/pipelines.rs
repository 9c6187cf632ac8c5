//! Where the tiny pipelines and what other programs made of them stand.

use std::path::PathBuf;

/// A file of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The folder of a tiny pipeline: `one` or `two` text encoders (`tools/parity/tiny.py`).
pub(crate) fn pipeline(name: &str) -> PathBuf {
    data("pipelines").join(name)
}

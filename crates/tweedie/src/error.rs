//! What can go wrong, said in terms that the caller can act on.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong.
///
/// Messages start in lower case, end without a full stop and name the culprit: the file, the key,
/// what was found and what was wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A part looks at space and the data has another rank.
    #[error("`{part}` works on data of rank {wanted}, this is of rank {got}")]
    Rank {
        /// Who asked.
        part: &'static str,
        /// The rank it works on.
        wanted: usize,
        /// The rank the data has.
        got: usize,
    },
    /// Two things that must agree in shape do not.
    #[error("{what}: wanted shape {wanted:?}, found {found:?}")]
    Shape {
        /// What was compared.
        what: String,
        /// The shape wanted.
        wanted: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A part was asked for something that it or its partner cannot do.
    #[error("`{part}` needs {needs}")]
    Unsupported {
        /// The part.
        part: String,
        /// What it needs and does not have.
        needs: String,
    },
    /// A setting is out of its range or makes no sense.
    #[error("`{key}`: {why}")]
    Setting {
        /// The setting.
        key: String,
        /// What was found and what was wanted.
        why: String,
    },
    /// A name that nothing goes by.
    #[error("no {kind} is called `{name}`{}", near_hint(.near))]
    Unknown {
        /// What was looked for: `sampler`, `key of sampler ddim` …
        kind: String,
        /// The name that was given.
        name: String,
        /// The nearest names that exist, best first.
        near: Vec<String>,
    },
    /// A file does not say what its format demands.
    #[error("{}: {}{why}", .file.display(), key_hint(.key))]
    Format {
        /// The file.
        file: PathBuf,
        /// The key in it; empty where the whole file is meant.
        key: String,
        /// What was found and what was wanted.
        why: String,
    },
    /// The system refused a file.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An observer ended the run.
    #[error("stopped by request")]
    Stopped,
    /// A number that must be finite is not.
    #[error("{what} is not finite")]
    NotFinite {
        /// What was computed.
        what: String,
    },
}

impl Error {
    /// An unknown name, with the nearest of `known` as suggestions.
    pub fn unknown<'a>(
        kind: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let lower = name.to_lowercase();
        let mut near: Vec<(f64, &str)> = known
            .into_iter()
            .map(|k| (strsim::jaro_winkler(&lower, &k.to_lowercase()), k))
            .filter(|(score, _)| *score > 0.72)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        near.dedup_by(|a, b| a.1 == b.1);
        let near = near.into_iter().take(3).map(|(_, k)| k.to_owned()).collect();
        Self::Unknown { kind: kind.into(), name: name.to_owned(), near }
    }

    /// A setting that is wrong, and why.
    pub fn setting(key: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Setting { key: key.into(), why: why.into() }
    }

    /// A file whose content is wrong at `key`, and why.
    pub fn format(
        file: impl Into<PathBuf>,
        key: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self::Format { file: file.into(), key: key.into(), why: why.into() }
    }

    /// Something that a part needs and does not have.
    pub fn unsupported(part: impl Into<String>, needs: impl Into<String>) -> Self {
        Self::Unsupported { part: part.into(), needs: needs.into() }
    }

    /// Wraps an input or output error with the file it is about.
    pub fn io(file: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { file, source: innermost(source) }
    }
}

/// What the system said, without the name of a temporary file that was put behind it on the way (by
/// `tempfile`, which does not give the error inside).
fn innermost(error: std::io::Error) -> std::io::Error {
    let text = error.to_string();
    match text.split_once(" at path \"") {
        Some((said, _)) if error.raw_os_error().is_none() => {
            std::io::Error::new(error.kind(), said.to_owned())
        }
        _ => error,
    }
}

fn near_hint(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; did you mean `{one}`?"),
        many => format!("; did you mean one of `{}`?", many.join("`, `")),
    }
}

fn key_hint(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("`{key}`: ") }
}

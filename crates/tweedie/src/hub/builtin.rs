//! The models in the binary, and models by name.

use super::folder::{Embedded, Folder};
use super::json::one_line;
use crate::{Error, Result};

/// What a name of a built-in model begins with.
pub const PREFIX: &str = "builtin:";

/// The folders under `models/` when the library was built: name and files.
const MODELS: &[(&str, Embedded)] = include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// The names of the built-in models, each as [`Folder::resolve`] takes it.
#[must_use]
pub fn names() -> Vec<String> {
    MODELS.iter().map(|(name, _)| format!("{PREFIX}{name}")).collect()
}

/// The built-in model of this name (`builtin:fashion`).
///
/// # Errors
/// None has it.
pub(crate) fn named(name: &str) -> Result<Folder> {
    let short = name.strip_prefix(PREFIX).unwrap_or(name);
    let Some((_, files)) = MODELS.iter().find(|(model, _)| *model == short) else {
        let known = names();
        let known = known.iter().map(String::as_str);
        return Err(Error::unknown("built-in model", &one_line(name), known));
    };
    Folder::embedded(name, files)
}

impl Folder {
    /// The model of this name: `builtin:NAME`, the path of a model folder or of a file of weights, or
    /// `organisation/name` in the local Hugging Face cache. [`Parts`](super::Parts) takes parts of it
    /// from elsewhere and tells what was decided.
    ///
    /// # Errors
    /// Those of [`Parts::open`](super::Parts::open).
    pub fn resolve(name: &str) -> Result<Self> {
        super::Parts::new(name).open().map(|opened| opened.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_model_opens() {
        for name in names() {
            let folder = Folder::resolve(&name).unwrap();
            for part in folder.components().map(str::to_owned).collect::<Vec<_>>() {
                let part = folder.component(&part).unwrap();
                assert!(!part.has_weights() || part.tensors().is_ok(), "{name}/{}", part.name);
            }
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        for name in ["builtin:no", "builtin:", "builtin:../x", "no/such/folder", "", "a\0b"] {
            let message = Folder::resolve(name).unwrap_err().to_string();
            assert!(!message.contains('\n'), "{message}");
        }
        let here = tempfile::tempdir().unwrap();
        let index = r#"{"_class_name":"X"}"#;
        std::fs::write(here.path().join("model_index.json"), index).unwrap();
        assert!(Folder::resolve(here.path().to_str().unwrap()).is_ok());
    }
}

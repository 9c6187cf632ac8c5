//! The local Hugging Face cache: models by `organisation/name`, without any network.
//!
//! ```text
//! models--ORG--NAME/refs/main                     the commit that `main` is, as text
//! models--ORG--NAME/snapshots/COMMIT/...          the folder; its files are links into blobs/
//! ```

use std::path::{Path, PathBuf};

use super::json::one_line;
use crate::{Error, Result};

/// The folders that may be the cache, in the order in which Hugging Face's own library asks for them:
/// `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub`, and
/// `.cache/huggingface/hub` in the home folder. The first that is set counts.
pub(crate) fn root(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let hub = |home: PathBuf| home.join("hub");
    let within = |cache: PathBuf| cache.join("huggingface").join("hub");
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| variable("HF_HOME").map(hub))
        .or_else(|| variable("XDG_CACHE_HOME").map(within))
        .or_else(|| {
            variable("HOME").or_else(|| variable("USERPROFILE")).map(|h| within(h.join(".cache")))
        })
}

/// The variable of this name in the environment of the process.
pub(crate) fn environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Splits `organisation/name` or `organisation/name@revision`; `None` for what is no such name.
pub(crate) fn parse(name: &str) -> Option<(&str, &str, &str)> {
    let (path, revision) = name.split_once('@').unwrap_or((name, "main"));
    let (organisation, model) = path.split_once('/')?;
    let plain = |s: &str| {
        !s.is_empty()
            && s.len() <= 96
            && !s.starts_with('.')
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    (plain(organisation) && plain(model) && plain(revision)).then_some((
        organisation,
        model,
        revision,
    ))
}

/// The folder of a model in the cache at `root`.
///
/// # Errors
/// The model is not in the cache, or not in this revision; the error says where was looked.
pub(crate) fn find(root: &Path, name: &str) -> Result<PathBuf> {
    let Some((organisation, model, revision)) = parse(name) else {
        return Err(Error::unknown("model", &one_line(name), []));
    };
    let folder = root.join(format!("models--{organisation}--{model}"));
    let snapshots = folder.join("snapshots");
    let reference = folder.join("refs").join(revision);
    let commit = match std::fs::read_to_string(&reference) {
        // A reference is forty digits; anything else would lead somewhere else.
        Ok(text) if text.trim().chars().all(|c| c.is_ascii_alphanumeric()) => {
            text.trim().to_owned()
        }
        Ok(text) => {
            let why = format!("wanted the id of a commit, found {}", one_line(text.trim()));
            return Err(Error::format(reference, "", why));
        }
        // A revision may be a commit itself; and a cache that was filled by hand may have no reference.
        Err(_) if snapshots.join(revision).is_dir() => revision.to_owned(),
        Err(_) if revision == "main" => only_entry(&snapshots).unwrap_or_default(),
        Err(_) => String::new(),
    };
    let found = snapshots.join(&commit);
    if commit.is_empty() || !found.is_dir() {
        let why = format!(
            "`{}` is not in the local Hugging Face cache (revision {revision}); fetch it with Hugging Face's own tools, or give the path of its folder",
            one_line(name)
        );
        return Err(Error::format(folder, "", why));
    }
    Ok(found)
}

/// The name of the one entry of a folder.
fn only_entry(folder: &Path) -> Option<String> {
    let mut entries = std::fs::read_dir(folder).ok()?;
    let first = entries.next()?.ok()?.file_name().into_string().ok()?;
    entries.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_its_variables_say() {
        let with = |set: &[(&str, &str)]| {
            root(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v)))
        };
        let path = |p: &str| Some(PathBuf::from(p));
        assert_eq!(with(&[("HF_HUB_CACHE", "/a"), ("HF_HOME", "/b")]), path("/a"));
        assert_eq!(with(&[("HF_HOME", "/b"), ("HOME", "/h")]), path("/b/hub"));
        assert_eq!(with(&[("HOME", "/h")]), path("/h/.cache/huggingface/hub"));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn names_are_two_plain_parts() {
        assert_eq!(parse("org/name.v1"), Some(("org", "name.v1", "main")));
        assert_eq!(parse("org/name@fp16"), Some(("org", "name", "fp16")));
        for name in ["name", "a/b/c", "../x", "a/..", "/a", "a/", "a/b@../c", "a b/c"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_model_is_found_through_its_reference_and_links() {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--org--name");
        let snapshot = model.join("snapshots/0123abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::create_dir_all(model.join("blobs")).unwrap();
        std::fs::write(model.join("blobs/f00"), "{\"_class_name\":\"X\"}").unwrap();
        std::os::unix::fs::symlink("../../blobs/f00", snapshot.join("model_index.json")).unwrap();
        // The only snapshot, without a reference; then by reference; then by its own name.
        assert_eq!(find(cache.path(), "org/name").unwrap(), snapshot);
        std::fs::write(model.join("refs/main"), "0123abc\n").unwrap();
        assert_eq!(find(cache.path(), "org/name").unwrap(), snapshot);
        assert_eq!(find(cache.path(), "org/name@0123abc").unwrap(), snapshot);
        let folder = super::super::Folder::open(&snapshot).unwrap();
        assert_eq!(folder.index().unwrap().class, "X");
        assert!(
            find(cache.path(), "org/other").unwrap_err().to_string().contains("models--org--other")
        );
        assert!(find(cache.path(), "org/name@v2").is_err());
        std::fs::write(model.join("refs/main"), "../../../etc").unwrap();
        assert!(find(cache.path(), "org/name").is_err());
        // A link that ends at a folder or nowhere is no file.
        std::fs::remove_file(snapshot.join("model_index.json")).unwrap();
        std::os::unix::fs::symlink("../../blobs", snapshot.join("model_index.json")).unwrap();
        assert!(super::super::Folder::open(&snapshot).is_err());
    }
}

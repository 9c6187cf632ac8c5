//! Where data sets lie on this machine.

use std::path::{Path, PathBuf};

/// The environment variable that names the folder of data sets.
pub const VARIABLE: &str = "TWEEDIE_DATA";

/// The folders in which a set is looked for, first to last.
///
/// If [`VARIABLE`] is set, its folder alone. Else `shared/data` beside the current directory or
/// beside one of its parents (so `../shared/data` seen from a checkout, wherever in the checkout
/// one stands), then [`own`].
pub fn candidates() -> Vec<PathBuf> {
    if let Some(dir) = std::env::var_os(VARIABLE).filter(|d| !d.is_empty()) {
        return vec![PathBuf::from(dir)];
    }
    let here = std::env::current_dir().unwrap_or_default();
    beside(&here).into_iter().chain(own()).collect()
}

/// `shared/data` in every parent of a directory, the nearest first.
fn beside(here: &Path) -> Vec<PathBuf> {
    here.ancestors().skip(1).map(|a| a.join("shared").join("data")).collect()
}

/// The folder that fetched sets go to: [`VARIABLE`] if it is set, else `tweedie/data` in the
/// user's cache folder; `None` if the system does not tell where that is.
pub fn own() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = var(VARIABLE) {
        return Some(dir);
    }
    cache_folder().map(|c| c.join("data"))
}

/// The folder `tweedie` in the user's cache folder; `None` if the system does not tell where that is.
pub fn cache_folder() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = if cfg!(windows) {
        var("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        var("HOME").map(|h| h.join("Library").join("Caches"))
    } else {
        var("XDG_CACHE_HOME").or_else(|| var("HOME").map(|h| h.join(".cache")))
    };
    cache.map(|c| c.join("tweedie"))
}

/// The folder of the set `name` (`fashion-mnist` …), if it is on this machine.
pub fn find(name: &str) -> Option<PathBuf> {
    candidates().into_iter().map(|c| c.join(name)).find(|p| p.is_dir())
}

/// Why a set is not there, and how to get it, in one line.
pub fn absent(name: &str) -> String {
    format!("the data set `{name}` is not here; `tweedie data get {name}` or set {VARIABLE}")
}

/// For tests that need a data set: its folder, or else the test prints `skipped: <reason>` and
/// returns.
///
/// With `TWEEDIE_DATA_REQUIRED` set it fails instead, so that a machine that has the data cannot
/// pass by looking in the wrong place.
#[doc(hidden)]
#[macro_export]
macro_rules! data_or_skip {
    ($name:expr) => {
        match $crate::data::root::find($name) {
            Some(folder) => folder,
            None => {
                let reason = $crate::data::root::absent($name);
                assert!(std::env::var_os("TWEEDIE_DATA_REQUIRED").is_none(), "{reason}");
                println!("skipped: {reason}");
                return;
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_finds_the_folder_beside_it_from_anywhere_inside() {
        let found = beside(Path::new("/a/checkout/crates/x"));
        assert_eq!(found[1], Path::new("/a/checkout/shared/data"));
        assert_eq!(found[2], Path::new("/a/shared/data"));
        assert_eq!(beside(Path::new("/a/checkout"))[0], Path::new("/a/shared/data"));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(find("no-such-set"), None);
        assert!(absent("no-such-set").contains("tweedie data get no-such-set"));
    }
}

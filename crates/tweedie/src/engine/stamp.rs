//! Hashes of weights that were taken before, so that files of gigabytes are read for them once.
//!
//! A hash is kept under a stamp of the files that it is of: their paths, sizes and times. Whoever
//! changes a file changes the time at which the system saw that, which no program sets.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::hub::Folder;

/// A file as young as this may be written once more within the same tick of the clock.
const SETTLED: Duration = Duration::from_secs(2);

/// Digits of a hash.
const DIGITS: usize = 64;

/// A name for the weights of a folder as they lie on the disk; `None` where they do not, or have only
/// just been written.
pub(super) fn stamp(folder: &Folder) -> Option<String> {
    let mut sum = blake3::Hasher::new();
    for name in folder.components() {
        let component = folder.component(name).ok()?;
        if !component.has_weights() {
            continue;
        }
        sum.update(name.as_bytes()).update(&[0]);
        for file in component.stored().ok()?.paths() {
            let path = std::fs::canonicalize(file).ok()?;
            sum.update(path.as_os_str().as_encoded_bytes()).update(&[0]);
            for number in numbers(&path)? {
                sum.update(&number.to_le_bytes());
            }
        }
    }
    Some(sum.finalize().to_hex().to_string())
}

/// Size and times of a file.
fn numbers(path: &Path) -> Option<Vec<i128>> {
    let data = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let written = data.modified().ok()?;
    if SystemTime::now().duration_since(written).ok()? < SETTLED {
        return None;
    }
    let since = written.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let mut numbers = vec![i128::from(data.len()), since.as_nanos() as i128];
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let seen = [data.ctime(), data.ctime_nsec()];
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs() as i64;
        if now.saturating_sub(seen[0]) < SETTLED.as_secs() as i64 {
            return None;
        }
        numbers.extend([seen[0], seen[1], data.ino() as i64, data.dev() as i64].map(i128::from));
    }
    Some(numbers)
}

/// The hash kept under a stamp, if there is one.
pub(super) fn read(place: &Path) -> Option<String> {
    let text = std::fs::read_to_string(place).ok()?;
    let whole = text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    whole.then_some(text)
}

/// Keeps a hash. That it cannot be kept is no error: it is taken anew then.
pub(super) fn write(place: &Path, hash: &str) {
    let Some(folder) = place.parent() else { return };
    let beside = PathBuf::from(format!("{}.{}.part", place.display(), std::process::id()));
    let kept = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&beside, hash))
        .and_then(|()| std::fs::rename(&beside, place));
    if kept.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_and_nothing_else_is() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().join("a").join("stamp");
        assert_eq!(read(&place), None);
        let hash = "0f".repeat(DIGITS / 2);
        write(&place, &hash);
        assert_eq!(read(&place), Some(hash.clone()));
        assert_eq!(std::fs::read_dir(place.parent().unwrap()).unwrap().count(), 1);
        for broken in [&hash[1..], "", &"zz".repeat(DIGITS / 2)] {
            write(&place, broken);
            assert_eq!(read(&place), None, "{broken}");
        }
        // Where nothing can be written, nothing happens.
        write(&temp.path().join("a").join("stamp").join("under-a-file"), &hash);
    }

    #[test]
    fn a_changed_file_has_another_stamp() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("weights");
        std::fs::write(&path, b"1234").unwrap();
        // Just written, it may change again unnoticed.
        assert_eq!(numbers(&path), None);
        assert_eq!(numbers(&temp.path().join("nothing")), None);
        assert_eq!(numbers(temp.path()), None);
    }
}

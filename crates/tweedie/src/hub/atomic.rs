//! Files and folders that are whole or not there.
//!
//! A file is written beside its final place, flushed to the disk and then renamed, so that a full
//! disk, a signal or a crash leaves the old file (or none) and never half of a new one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Writes a file in one piece: `fill` writes its content, and the file appears under `path` only
/// when all of it is on the disk. What was there before is replaced.
///
/// # Errors
/// The folder does not exist or cannot be written, the disk is full, or `fill` fails; nothing is
/// left behind then.
pub fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let folder = parent(path);
    if path.is_dir() {
        return Err(Error::format(path, "", "wanted a file to write, found a folder"));
    }
    let mut temporary = tempfile::Builder::new();
    temporary.prefix(".tweedie-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As for any other new file: the process's mask takes from this what it takes.
        temporary.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let temporary = temporary.tempfile_in(&folder).map_err(Error::io(path))?;
    let mut out = BufWriter::with_capacity(1 << 18, temporary);
    fill(&mut out).map_err(Error::io(path))?;
    let temporary = out.into_inner().map_err(|e| Error::io(path)(e.into_error()))?;
    temporary.as_file().sync_all().map_err(Error::io(path))?;
    temporary.persist(path).map_err(|e| Error::io(path)(e.error))?;
    sync_folder(&folder);
    Ok(())
}

/// Writes a folder in one piece: `fill` writes into a temporary sibling, which then takes the name
/// `path`. A folder that is already there is moved aside first and removed at the end, and comes
/// back if the renaming fails.
///
/// # Errors
/// `path` is a file, its parent cannot be written, or `fill` fails; nothing is left behind then.
pub fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = parent(path);
    if path.exists() && !path.is_dir() {
        return Err(Error::format(path, "", "wanted a folder to write, found a file"));
    }
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tweedie-").suffix(".part");
    let scratch = builder.tempdir_in(&folder).map_err(Error::io(path))?;
    let fresh = scratch.path().join("new");
    std::fs::create_dir(&fresh).map_err(Error::io(path))?;
    fill(&fresh).map_err(|error| match error {
        // The name that the file would have had; the temporary one says nothing to anybody.
        Error::Io { file, source } => {
            let file = file.strip_prefix(&fresh).map_or(file.clone(), |rest| path.join(rest));
            Error::Io { file, source }
        }
        other => other,
    })?;
    let old = scratch.path().join("old");
    let replaces = path.exists();
    if replaces {
        std::fs::rename(path, &old).map_err(Error::io(path))?;
    }
    if let Err(e) = std::fs::rename(&fresh, path) {
        if replaces {
            std::fs::rename(&old, path).map_err(Error::io(path))?;
        }
        return Err(Error::io(path)(e));
    }
    sync_folder(&folder);
    Ok(())
}

/// The folder that holds `path`.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Asks for the renaming itself to reach the disk. Not every file system offers this for a folder,
/// and the file is whole either way, so a refusal is no error.
fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_file(&path, |out| out.write_all(b"one")).unwrap();
        write_file(&path, |out| out.write_all(b"two")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let failed = write_file(&path, |out| {
            out.write_all(&vec![0; 1 << 20])?;
            Err(std::io::ErrorKind::StorageFull.into())
        });
        assert!(failed.unwrap_err().to_string().contains("a.txt"));
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(entries(folder.path()), ["a.txt"]);
        assert!(write_file(folder.path(), |_| Ok(())).is_err());
        let missing = folder.path().join("no/such/file");
        let refused = write_file(&missing, |_| Ok(())).unwrap_err().to_string();
        assert!(refused.contains("no/such/file") && !refused.contains(".part"), "{refused}");
    }

    #[test]
    fn a_folder_is_whole_or_not_there() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model");
        let put = |text: &'static str| {
            move |at: &Path| std::fs::write(at.join("f"), text).map_err(Error::io(at))
        };
        write_folder(&path, put("one")).unwrap();
        write_folder(&path, put("two")).unwrap();
        assert_eq!(std::fs::read(path.join("f")).unwrap(), b"two");
        let failed = write_folder(&path, |at| {
            std::fs::write(at.join("f"), "half").map_err(Error::io(at))?;
            Err(Error::Stopped)
        });
        assert!(failed.is_err());
        let nowhere = |at: &Path| {
            let file = at.join("no/f");
            std::fs::write(&file, "half").map_err(Error::io(&file))
        };
        let failed = write_folder(&path, nowhere).unwrap_err().to_string();
        assert!(failed.contains("model/no/f") && !failed.contains(".part"), "{failed}");
        assert_eq!(std::fs::read(path.join("f")).unwrap(), b"two");
        assert_eq!(entries(root.path()), ["model"]);
        assert!(write_folder(&path.join("f"), |_| Ok(())).is_err());
    }
}

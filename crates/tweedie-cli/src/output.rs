//! What the program says, and the files it writes.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// A line for people, on standard error where it is not in the way of results.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A line of the result, on standard output. A closed pipe (`| head`) is no error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Whether a person looks at the progress.
pub(crate) fn watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Writes a file in one piece: it is there whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: the folder cannot be made", folder.display()))?;
    }
    tweedie::hub::atomic::write_file(path, |out| out.write_all(bytes))?;
    Ok(())
}

/// Seconds as people read them.
pub(crate) fn seconds(time: std::time::Duration) -> String {
    let s = time.as_secs_f64();
    if s < 100.0 {
        format!("{s:.1} s")
    } else {
        format!("{} min {:02} s", s as u64 / 60, s as u64 % 60)
    }
}

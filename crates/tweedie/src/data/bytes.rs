//! Files that may be gzip, read within a bound.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::{Error, Result};

/// Opens a file and unpacks it if it starts with the magic number of gzip (RFC 1952), whatever
/// its name says.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).map_err(Error::io(path))?;
    if file.metadata().map_err(Error::io(path))?.is_dir() {
        return Err(Error::format(path, "", "is a folder where a file was wanted"));
    }
    let mut file = BufReader::with_capacity(1 << 16, file);
    let packed = file.fill_buf().map_err(Error::io(path))?.starts_with(&[0x1f, 0x8b]);
    Ok(if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Says of a failed read whether the file or the system is to blame.
pub(crate) fn blame(path: &Path, source: std::io::Error) -> Error {
    match source.kind() {
        ErrorKind::UnexpectedEof => Error::format(path, "", "is cut short"),
        ErrorKind::InvalidData | ErrorKind::InvalidInput => {
            Error::format(path, "", format!("is damaged: {source}"))
        }
        _ => Error::io(path)(source),
    }
}

/// Reads exactly `wanted` bytes. Memory grows with what is there, not with what is claimed.
pub(crate) fn exactly(from: &mut dyn Read, wanted: usize, path: &Path) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    from.take(wanted as u64).read_to_end(&mut data).map_err(|e| blame(path, e))?;
    if data.len() < wanted {
        let why = format!("ends after {} of the {wanted} bytes that its header claims", data.len());
        return Err(Error::format(path, "", why));
    }
    Ok(data)
}

/// Checks that nothing follows. Reading to the end also checks gzip's own checksum.
pub(crate) fn ended(from: &mut dyn Read, path: &Path) -> Result<()> {
    let mut rest = Vec::new();
    from.take(1).read_to_end(&mut rest).map_err(|e| blame(path, e))?;
    if rest.is_empty() {
        return Ok(());
    }
    Err(Error::format(path, "", "goes on after the end that its header claims"))
}

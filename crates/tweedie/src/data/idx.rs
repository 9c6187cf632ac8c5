//! The idx format of MNIST and its successors, packed with gzip or not.
//!
//! Two zero bytes, a type code, the number of axes, the axes as big-endian 32-bit numbers, then
//! the values (LeCun, Cortes and Burges, "The MNIST database", file formats). Only unsigned bytes
//! (code 0x08) are read: all published picture sets in this format are of that type.

use std::path::Path;

use super::{Images, bytes};
use crate::{Error, Result};

/// The most bytes that a file may unpack to: 2 GiB, forty times MNIST.
pub const MAX_BYTES: usize = 2 << 30;

/// The most axes that a file may have.
const MAX_AXES: u8 = 8;

/// What an idx file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idx {
    /// The length of each axis, slowest first.
    pub dims: Vec<usize>,
    /// The values, the last axis fastest.
    pub data: Vec<u8>,
}

/// Reads an idx file of unsigned bytes.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is not idx, holds another
/// type, claims more than [`MAX_BYTES`], is cut short, goes on after its end or is damaged.
pub fn read(path: &Path) -> Result<Idx> {
    let mut from = bytes::open(path)?;
    let magic = bytes::exactly(&mut from, 4, path)
        .map_err(|e| rename(e, path, "is too short for an idx file"))?;
    let [0, 0, kind, axes] = magic[..] else {
        let why = format!("starts with {magic:02x?}, an idx file with [00, 00, type, axes]");
        return Err(Error::format(path, "magic", why));
    };
    if kind != 0x08 {
        let why = format!("is 0x{kind:02x}, only 0x08 (unsigned byte) can be read");
        return Err(Error::format(path, "type", why));
    }
    if axes == 0 || axes > MAX_AXES {
        return Err(Error::format(path, "axes", format!("are {axes}, wanted 1 to {MAX_AXES}")));
    }
    let dims: Vec<usize> = bytes::exactly(&mut from, 4 * usize::from(axes), path)?
        .chunks_exact(4)
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .collect();
    let size = dims.iter().try_fold(1usize, |a, b| a.checked_mul(*b)).filter(|s| *s <= MAX_BYTES);
    let Some(size) = size else {
        let why = format!("claim {dims:?} bytes, the limit is {MAX_BYTES}");
        return Err(Error::format(path, "axes", why));
    };
    let data = bytes::exactly(&mut from, size, path)?;
    bytes::ended(&mut from, path)?;
    Ok(Idx { dims, data })
}

/// Reads a file of grey pictures, `[n, rows, columns]`, and optionally the file of their labels.
///
/// # Errors
/// Those of [`read`]; [`Error::Format`] if the axes are not those of pictures or labels, or if
/// the two files disagree in number.
pub fn images(pictures: &Path, labels: Option<&Path>) -> Result<Images> {
    let Idx { dims, data } = read(pictures)?;
    let [n, height, width] = dims[..] else {
        let why = format!("are {dims:?}, pictures have three: number, rows, columns");
        return Err(Error::format(pictures, "axes", why));
    };
    let set = Images::new([n, 1, height, width], data)?;
    let Some(path) = labels else { return Ok(set) };
    let Idx { dims, data } = read(path)?;
    if dims != [n] {
        let why = format!("are {dims:?}, the pictures need [{n}]");
        return Err(Error::format(path, "axes", why));
    }
    set.with_labels(data.into_iter().map(u32::from).collect(), Vec::new())
}

/// Says more plainly what a file shorter than its magic number is.
fn rename(error: Error, path: &Path, why: &str) -> Error {
    match error {
        Error::Format { why: found, .. } if found.starts_with("ends after") => {
            Error::format(path, "", why)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn packed(data: &[u8]) -> Vec<u8> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::default());
        gz.write_all(data).unwrap();
        gz.finish().unwrap()
    }

    fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 8, dims.len() as u8];
        out.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
        out.extend_from_slice(data);
        out
    }

    /// What reading these bytes says.
    fn said(data: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), data).unwrap();
        match read(file.path()) {
            Ok(idx) => format!("{:?}", idx.dims),
            Err(e) => {
                let said = e.to_string();
                let name = file.path().display().to_string();
                assert!(said.starts_with(&name), "{said} does not name the file");
                said[name.len() + 2..].to_owned()
            }
        }
    }

    #[test]
    fn good_files_are_read_packed_or_not() {
        let plain = idx(&[2, 2, 3], &[7; 12]);
        assert_eq!(said(&plain), "[2, 2, 3]");
        assert_eq!(said(&packed(&plain)), "[2, 2, 3]");
        assert_eq!(said(&idx(&[0], &[])), "[0]");
    }

    #[test]
    fn bad_files_are_named_with_what_is_wrong() {
        let plain = idx(&[2, 2, 3], &[7; 12]);
        assert_eq!(said(&[]), "is too short for an idx file");
        assert_eq!(said(&[0, 0, 8]), "is too short for an idx file");
        assert!(said(b"\x89PNG....").starts_with("`magic`: starts with [89, 50"));
        assert!(said(&[0, 0, 0x0d, 1, 0, 0, 0, 0]).starts_with("`type`: is 0x0d"));
        assert!(said(&[0, 0, 8, 0]).starts_with("`axes`: are 0"));
        assert!(said(&[0, 0, 8, 9]).starts_with("`axes`: are 9"));
        assert!(said(&[0, 0, 8, 3, 0, 0]).contains("2 of the 12 bytes"));
        assert!(said(&plain[..27]).contains("ends after 11 of the 12 bytes"));
        assert!(said(&[plain.clone(), vec![1]].concat()).contains("goes on after the end"));
        assert!(said(&idx(&[u32::MAX; 4], &[])).contains("the limit is"));
        assert!(said(&idx(&[u32::MAX, 1], &[])).contains("the limit is"));
    }

    #[test]
    fn damaged_gzip_is_an_error_and_never_other_data() {
        let data: Vec<u8> = (0..120).map(|i| (i * i % 251) as u8).collect();
        let good = packed(&idx(&[10, 3, 4], &data));
        for end in 2..good.len() {
            assert!(!said(&good[..end]).starts_with("[1"), "cut at {end} was read");
        }
        for at in 10..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            // A few bits of the packed form mean nothing; any other flip must be noticed.
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bad).unwrap();
            assert!(read(file.path()).map_or(true, |i| i.data == data), "at {at}");
        }
        assert_eq!(said(&[good.clone(), vec![1, 2]].concat()), "is cut short");
        assert!(said(&[good, vec![1; 40]].concat()).starts_with("is damaged"));
    }

    #[test]
    fn pictures_and_labels_must_agree() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, data: Vec<u8>| {
            let path = dir.path().join(name);
            std::fs::write(&path, data).unwrap();
            path
        };
        let pictures = put("p", packed(&idx(&[3, 2, 2], &[5; 12])));
        let labels = put("l", idx(&[3], &[0, 9, 1]));
        let set = images(&pictures, Some(&labels)).unwrap();
        assert_eq!((set.n, set.shape(), set.labels), (3, [1, 2, 2], Some(vec![0, 9, 1])));
        let two = put("two", idx(&[2], &[0, 9]));
        assert!(images(&pictures, Some(&two)).unwrap_err().to_string().contains("need [3]"));
        assert!(images(&labels, None).unwrap_err().to_string().contains("pictures have three"));
        assert!(matches!(images(&dir.path().join("none"), None), Err(Error::Io { .. })));
        assert!(read(dir.path()).unwrap_err().to_string().contains("is a folder"));
    }
}

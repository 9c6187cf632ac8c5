//! The header of a safetensors file, read within bounds.
//!
//! A file is eight bytes with the length of the header, the header in JSON, and the data. The
//! header gives each tensor a dtype, a shape and the range of its bytes in the data. Nothing in it
//! is believed: the length is compared with the file before anything is read, tensors and
//! dimensions are counted while they are parsed, products are checked for overflow, and the ranges
//! must cover the data exactly, one after the other. (The `safetensors` crate, whose dtypes are
//! used here, adds up the sizes without such a check, so that eight tensors of 2^61 bytes pass for
//! an empty file.)

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::json::one_line;
use crate::{Error, Result};

/// The longest header that is read, as in the reference implementation.
pub(crate) const MAX_HEADER: usize = 100_000_000;
/// The most tensors a file may hold; the largest published ones hold some ten thousand.
pub(crate) const MAX_TENSORS: usize = 200_000;
/// The most dimensions a tensor may have.
pub(crate) const MAX_RANK: usize = 16;
/// The longest name a tensor may have, in bytes.
pub(crate) const MAX_NAME: usize = 1024;

/// One tensor as its header describes it, checked.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Its bytes, counted from the start of the file.
    pub(crate) range: Range<usize>,
    /// The distance of neighbours along each dimension, in numbers; `None` where they lie row after
    /// row. Only PyTorch's files have it.
    pub(crate) strides: Option<Vec<usize>>,
}

/// A whole header, checked against the length of its file.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) tensors: BTreeMap<String, Entry>,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Header {
    /// Reads the header of the file with these `bytes`; `file` is named in errors.
    pub(crate) fn read(file: &Path, bytes: &[u8]) -> Result<Self> {
        let fail = |why: String| Error::format(file, "", why);
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            let why = format!("not a safetensors file: {} bytes, not even a header", bytes.len());
            return Err(fail(why));
        };
        let claimed = u64::from_le_bytes(*length);
        let length = usize::try_from(claimed).unwrap_or(usize::MAX);
        if length > MAX_HEADER {
            return Err(fail(format!(
                "not a safetensors file: it claims a header of {claimed} bytes, the limit is {MAX_HEADER}"
            )));
        }
        if length > rest.len() {
            return Err(fail(format!(
                "truncated: it claims a header of {length} bytes, {} follow",
                rest.len()
            )));
        }
        let (text, data) = rest.split_at(length);
        let text =
            std::str::from_utf8(text).map_err(|e| fail(format!("the header is not UTF-8: {e}")))?;
        let raw: RawHeader = serde_json::from_str(text)
            .map_err(|e| fail(format!("the header is wrong: {}", one_line(&e.to_string()))))?;
        let tensors = place(file, raw.tensors, length + 8, data.len())?;
        Ok(Self { tensors, metadata: raw.metadata })
    }
}

/// Checks sizes and ranges, and moves the ranges to count from the start of the file.
fn place(
    file: &Path,
    raw: BTreeMap<String, RawEntry>,
    start: usize,
    length: usize,
) -> Result<BTreeMap<String, Entry>> {
    let fail = |name: &str, why: String| Error::format(file, one_line(name), why);
    let mut order: Vec<(&String, &RawEntry)> = raw.iter().collect();
    order.sort_by_key(|(name, entry)| (entry.data_offsets, *name));
    let mut covered = 0;
    for (name, entry) in order {
        let size = size_of(entry.dtype, &entry.shape.0).ok_or_else(|| {
            fail(
                name,
                format!(
                    "{:?} of shape {:?} has no size in whole bytes",
                    entry.dtype, entry.shape.0
                ),
            )
        })?;
        let (from, to) = entry.data_offsets;
        if from != covered || to.checked_sub(from) != Some(size) {
            return Err(fail(
                name,
                format!(
                    "{:?} of shape {:?} at bytes {from} to {to}: wanted {size} bytes from {covered} on",
                    entry.dtype, entry.shape.0
                ),
            ));
        }
        if to > length {
            return Err(fail(
                name,
                format!("truncated: its data end at byte {to}, the file holds {length}"),
            ));
        }
        covered = to;
    }
    if covered != length {
        let why = format!("the tensors cover {covered} bytes of data, the file holds {length}");
        return Err(Error::format(file, "", why));
    }
    Ok(raw
        .into_iter()
        .map(|(name, RawEntry { dtype, shape, data_offsets: (from, to) })| {
            let range = start + from..start + to;
            (name, Entry { dtype, shape: shape.0, range, strides: None })
        })
        .collect())
}

/// The bytes that a tensor takes; `None` where they overflow or end inside a byte.
fn size_of(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let bits = shape.iter().try_fold(dtype.bitsize(), |n, d| n.checked_mul(*d))?;
    bits.is_multiple_of(8).then_some(bits >> 3)
}

struct RawHeader {
    tensors: BTreeMap<String, RawEntry>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (usize, usize),
}

/// A list of dimensions that stops growing at [`MAX_RANK`].
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = list.next_element()? {
                    if dims.len() == MAX_RANK {
                        return Err(de::Error::custom(format!(
                            "a shape of more than {MAX_RANK} dimensions"
                        )));
                    }
                    dims.push(dim);
                }
                Ok(Shape(dims))
            }
        }
        deserializer.deserialize_seq(Dims)
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader { tensors: BTreeMap::new(), metadata: BTreeMap::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
                        continue;
                    }
                    if header.tensors.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    if name.is_empty() || name.len() > MAX_NAME {
                        map.next_value::<IgnoredAny>()?;
                        let why = format!("a tensor name of {} bytes", name.len());
                        return Err(de::Error::custom(why));
                    }
                    let entry: RawEntry = map.next_value()?;
                    if header.tensors.contains_key(&name) {
                        return Err(de::Error::custom(format!("two tensors are called `{name}`")));
                    }
                    header.tensors.insert(name, entry);
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

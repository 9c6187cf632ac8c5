//! One file of weights, opened once and read tensor by tensor: safetensors, or what `torch.save`
//! writes (told apart by their first bytes; see [`torch`](super::torch) for what is read of the latter).
//!
//! ```
//! use tweedie::hub::{Dtype, Output, TensorFile, encode_safetensors};
//!
//! let weight = Output::f32("weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0], Dtype::F16);
//! let bytes = encode_safetensors(&[weight], &Default::default())?;
//! let file = TensorFile::from_bytes(bytes, "model.safetensors")?;
//! assert_eq!(file.info("weight")?.shape, [2, 2]);
//! assert_eq!(file.read_f32("weight")?, [1.0, 2.0, 3.0, 4.0]);
//! # Ok::<(), tweedie::Error>(())
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use safetensors::Dtype;
use serde::Serialize;

use super::bytes::Bytes;
use super::decode;
use super::header::{Entry, Header};
use super::json::one_line;
use super::torch;
use crate::{Error, Result};

/// What a file says of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorInfo {
    /// How its numbers are stored.
    pub dtype: Dtype,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// How many bytes it takes.
    pub bytes: usize,
}

impl TensorInfo {
    /// How many numbers it holds.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A file of weights: its header is read and checked once, its tensors when they are asked for.
/// Cloning shares the file.
#[derive(Clone)]
pub struct TensorFile {
    name: PathBuf,
    bytes: Bytes,
    header: Arc<Header>,
}

impl std::fmt::Debug for TensorFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorFile")
            .field("name", &self.name)
            .field("tensors", &self.header.tensors.len())
            .finish_non_exhaustive()
    }
}

impl TensorFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// The system refuses the file; it is truncated; its header is not JSON, claims more than the
    /// file holds, more than 200,000 tensors or more than 16 dimensions, or its tensors do not
    /// cover the data exactly.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::new(path.to_owned(), Bytes::open(path)?)
    }

    /// Reads a file that is already in memory: part of the binary (`&'static [u8]`), shared
    /// (`Arc<[u8]>`) or owned (`Vec<u8>`). `display_name` stands for the file in errors.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) but the system's.
    pub fn from_bytes(bytes: impl IntoBytes, display_name: impl Into<PathBuf>) -> Result<Self> {
        Self::new(display_name.into(), bytes.into_bytes().0)
    }

    pub(crate) fn new(name: PathBuf, bytes: Bytes) -> Result<Self> {
        let header = if torch::is_torch(bytes.as_slice()) {
            torch::read(&name, bytes.as_slice())?
        } else {
            Header::read(&name, bytes.as_slice())?
        };
        Ok(Self { name, bytes, header: Arc::new(header) })
    }

    /// The path of the file, or the name that stands for it.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Gives the pages of a mapped file back to the system; they are read again when touched.
    pub(crate) fn release(&self) {
        self.bytes.release();
    }

    /// The names of the tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.tensors.len()
    }

    /// Whether there is no tensor at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header.tensors.is_empty()
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// The text that the writer of the file left in its header (`__metadata__`).
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The size of the file in bytes, its header included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// What the file says of the tensor `name`.
    ///
    /// # Errors
    /// There is no such tensor; the error names the nearest ones.
    pub fn info(&self, name: &str) -> Result<TensorInfo> {
        let Entry { dtype, shape, .. } = self.entry(name)?;
        let mut info = TensorInfo { dtype: *dtype, shape: shape.clone(), bytes: 0 };
        // The header was checked: this does not overflow.
        info.bytes = (info.elements() * dtype.bitsize()).div_ceil(8);
        Ok(info)
    }

    /// The stored bytes of the tensor `name`, little endian, row after row: those of the file, or a
    /// copy where PyTorch stored them in another order.
    ///
    /// # Errors
    /// There is no such tensor.
    pub fn raw(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        let Entry { dtype, shape, range, strides } = self.entry(name)?;
        // The header was checked against these bytes, so the range lies within them.
        let bytes = self.bytes.as_slice().get(range.clone()).ok_or_else(|| {
            Error::format(&self.name, one_line(name), "the file has become shorter")
        })?;
        let Some(strides) = strides else { return Ok(Cow::Borrowed(bytes)) };
        torch::gather(bytes, dtype.bitsize() >> 3, shape, strides)
            .map(Cow::Owned)
            .ok_or_else(|| Error::format(&self.name, one_line(name), "its strides leave its bytes"))
    }

    /// The stored bytes of the tensor `name` as those of a tensor, without a copy; `None` where that
    /// cannot be: the file is not mapped, they do not lie row after row or not at a multiple of `align`.
    pub(crate) fn share(&self, name: &str, align: usize) -> Option<burn::tensor::Bytes> {
        let Entry { range, strides, .. } = self.header.tensors.get(name)?;
        if strides.is_some() || cfg!(target_endian = "big") {
            return None;
        }
        self.bytes.share(range.clone(), align)
    }

    /// The tensor `name` as `f32`, whatever it is stored as (f32, f16, bf16, f64, fp8 E4M3 and
    /// E5M2, whole numbers, truth values), row after row.
    ///
    /// # Errors
    /// There is no such tensor, or it holds no plain real numbers (complex ones, or blocks of 4 or
    /// 6 bits).
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let dtype = self.entry(name)?.dtype;
        decode::to_f32(dtype, &self.raw(name)?).ok_or_else(|| {
            Error::format(
                &self.name,
                one_line(name),
                format!("wanted real numbers, found {dtype:?}"),
            )
        })
    }

    /// The tensor `name` as `i64`, where it is stored as whole numbers or truth values.
    ///
    /// # Errors
    /// There is no such tensor, it is not stored as whole numbers, or one does not fit.
    pub fn read_i64(&self, name: &str) -> Result<Vec<i64>> {
        let dtype = self.entry(name)?.dtype;
        decode::to_i64(dtype, &self.raw(name)?).ok_or_else(|| {
            let why = format!("wanted whole numbers within 64 bits, found {dtype:?}");
            Error::format(&self.name, one_line(name), why)
        })
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.header.tensors.get(name).ok_or_else(|| {
            Error::unknown(
                format!("tensor of {}", self.name.display()),
                &one_line(name),
                self.names().map(|n| if n.len() > 160 { "" } else { n }),
            )
        })
    }
}

/// Bytes of a file that [`TensorFile::from_bytes`] takes: static, shared or owned.
pub trait IntoBytes {
    #[doc(hidden)]
    fn into_bytes(self) -> Held;
}

/// Bytes on their way into a [`TensorFile`].
#[doc(hidden)]
pub struct Held(Bytes);

impl IntoBytes for &'static [u8] {
    fn into_bytes(self) -> Held {
        Held(self.into())
    }
}

impl IntoBytes for Arc<[u8]> {
    fn into_bytes(self) -> Held {
        Held(self.into())
    }
}

impl IntoBytes for Vec<u8> {
    fn into_bytes(self) -> Held {
        Held(self.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Result<TensorFile> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        TensorFile::from_bytes(bytes, "t.safetensors")
    }

    fn message(header: &str, data: usize) -> String {
        let message = file(header, data).unwrap_err().to_string();
        assert!(!message.contains('\n') && message.starts_with("t.safetensors: "), "{message}");
        message
    }

    #[test]
    fn a_file_is_read() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"I64","shape":[],"data_offsets":[8,16]},
            "a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},
            "none":{"dtype":"F32","shape":[0,5],"data_offsets":[8,8]}}"#;
        let file = file(header, 16).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b", "none"]);
        assert_eq!(file.metadata()["format"], "pt");
        assert_eq!(file.read_f32("a").unwrap(), [0.0; 4]);
        assert_eq!(file.read_i64("b").unwrap(), [0]);
        assert_eq!(file.info("b").unwrap().elements(), 1);
        assert_eq!(file.read_f32("none").unwrap(), [0.0; 0]);
        assert_eq!(file.raw("b").unwrap().len(), 8);
        assert!(file.read_i64("a").unwrap_err().to_string().contains("F16"));
    }

    #[test]
    fn claims_are_not_believed() {
        // A petabyte in the shape, in the range, and in the header's length.
        let huge = r#"{"w":{"dtype":"F32","shape":[1048576,268435456],"data_offsets":[0,1125899906842624]}}"#;
        assert!(message(huge, 16).contains("`w`: truncated"));
        let small = r#"{"w":{"dtype":"F32","shape":[1048576,268435456],"data_offsets":[0,16]}}"#;
        assert!(message(small, 16).contains("wanted 1125899906842624 bytes"));
        let mut bytes = (1_u64 << 50).to_le_bytes().to_vec();
        bytes.extend(b"{}");
        let error = TensorFile::from_bytes(bytes, "t").unwrap_err().to_string();
        assert!(error.contains("claims a header of 1125899906842624 bytes"), "{error}");
        // A product that overflows, and sizes that add up to 2^64.
        let over = r#"{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}"#;
        assert!(message(over, 16).contains("no size"));
        let eighth = usize::MAX >> 3;
        let around: Vec<String> = (0..8_usize)
            .map(|i| {
                let (from, to) = (eighth * i, eighth * (i + 1));
                format!(
                    r#""t{i}":{{"dtype":"U8","shape":[{eighth}],"data_offsets":[{from},{to}]}}"#
                )
            })
            .collect();
        assert!(message(&format!("{{{}}}", around.join(",")), 16).contains("`t0`"));
    }

    #[test]
    fn ranges_cover_the_data_exactly() {
        let two = |b: &str| {
            format!(
                r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},
                    "b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
            )
        };
        assert!(file(&two("[4,8]"), 8).is_ok());
        assert!(message(&two("[2,6]"), 8).contains("`b`"));
        assert!(message(&two("[5,9]"), 9).contains("`b`"));
        assert!(message(&two("[8,4]"), 8).contains("`b`"));
        assert!(message(&two("[4,8]"), 7).contains("truncated"));
        assert!(message(&two("[4,8]"), 9).contains("cover 8 bytes"));
    }

    #[test]
    fn headers_that_are_no_headers() {
        assert!(message("", 0).contains("header"));
        for (header, says) in [
            ("[]", "object of tensors"),
            ("{\"w\":1}", "invalid type"),
            (r#"{"w":{"dtype":"F32\n","shape":[1],"data_offsets":[0,4]}}"#, "unknown variant"),
            (r#"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, "invalid value"),
            (r#"{"w":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#, "invalid type"),
            (r#"{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}"#, "header is wrong"),
            (r#"{"w":{"dtype":"F32","shape":[1]}}"#, "data_offsets"),
            (r#"{"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, "name of 0 bytes"),
            (r#"{"__metadata__":{"a":1}}"#, "invalid type"),
        ] {
            let message = message(header, 4);
            assert!(message.contains(says), "{header}: {message}");
        }
        let ranks = format!(
            r#"{{"w":{{"dtype":"U8","shape":[{}1],"data_offsets":[0,1]}}}}"#,
            "1,".repeat(16)
        );
        assert!(message(&ranks, 1).contains("16 dimensions"));
        let twice = r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        assert!(message(twice, 1).contains("two tensors"));
        for length in 0..8 {
            let error = TensorFile::from_bytes(vec![0; length], "t").unwrap_err();
            assert!(error.to_string().contains("not even a header"));
        }
    }

    #[test]
    fn missing_files_and_tensors_are_named() {
        let error = TensorFile::open("no/such/file.safetensors").unwrap_err().to_string();
        assert!(error.starts_with("no/such/file.safetensors: "), "{error}");
        let error = TensorFile::open(std::env::temp_dir()).unwrap_err().to_string();
        assert!(error.contains("not a plain file"), "{error}");
        let file = file(r#"{"conv_in.weight":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1)
            .unwrap();
        let error = file.read_f32("conv_in.weights").unwrap_err().to_string();
        assert!(error.contains("did you mean `conv_in.weight`"), "{error}");
    }
}

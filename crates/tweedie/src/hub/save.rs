//! Writing safetensors files.
//!
//! The same tensors give the same bytes on every machine: names are in order, the metadata too,
//! and tensors whose numbers are wider come first, so that each lies at a multiple of its width
//! (the header is padded to eight bytes).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::json;

use super::tensor_set::TensorSet;
use super::{atomic, narrow};
use crate::{Error, Result};

/// The numbers of a tensor to be written, row after row.
#[derive(Clone, Debug)]
pub enum Values<'a> {
    /// Real numbers.
    F32(Cow<'a, [f32]>),
    /// Real numbers of double width.
    F64(Cow<'a, [f64]>),
    /// Whole numbers.
    I64(Cow<'a, [i64]>),
    /// Bytes.
    U8(Cow<'a, [u8]>),
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::U8(v) => v.len(),
        }
    }
}

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Output<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Its numbers.
    pub values: Values<'a>,
    /// How they are stored: f32, f16 or bf16 for [`Values::F32`]; f64, i64 and u8 as they are.
    pub dtype: Dtype,
}

impl<'a> Output<'a> {
    /// A tensor of real numbers, stored as `dtype` (f32, f16 or bf16).
    #[must_use]
    pub fn f32(name: &'a str, shape: &[usize], values: &'a [f32], dtype: Dtype) -> Self {
        let values = Values::F32(values.into());
        Self { name: name.into(), shape: shape.to_vec(), values, dtype }
    }

    /// A tensor of whole numbers.
    #[must_use]
    pub fn i64(name: &'a str, shape: &[usize], values: &'a [i64]) -> Self {
        let values = Values::I64(values.into());
        Self { name: name.into(), shape: shape.to_vec(), values, dtype: Dtype::I64 }
    }

    /// A tensor of bytes.
    #[must_use]
    pub fn u8(name: &'a str, shape: &[usize], values: &'a [u8]) -> Self {
        let values = Values::U8(values.into());
        Self { name: name.into(), shape: shape.to_vec(), values, dtype: Dtype::U8 }
    }

    fn check(&self) -> Result<()> {
        let setting = |why: String| Error::setting(self.name.clone(), why);
        let stored = match self.values {
            Values::F32(_) => matches!(self.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16),
            Values::F64(_) => self.dtype == Dtype::F64,
            Values::I64(_) => self.dtype == Dtype::I64,
            Values::U8(_) => self.dtype == Dtype::U8,
        };
        if !stored {
            return Err(setting(format!("cannot be stored as {:?}", self.dtype)));
        }
        let wanted = self.shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        if wanted != Some(self.values.len()) {
            let (shape, found) = (&self.shape, self.values.len());
            return Err(setting(format!("{found} numbers do not make the shape {shape:?}")));
        }
        // A weight that overflows would come back as infinity, far from here and unexplained.
        if let (Values::F32(values), Dtype::F16) = (&self.values, self.dtype)
            && let Some(v) =
                values.iter().find(|v| v.is_finite() && f16::from_f32(**v).is_infinite())
        {
            return Err(setting(format!("{v} is beyond the range of f16 (65504)")));
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.values.len() * (self.dtype.bitsize() >> 3)
    }

    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        match (&self.values, self.dtype) {
            (Values::F32(v), Dtype::F16) => blocks(out, v, |v| f16::from_f32(v).to_le_bytes()),
            (Values::F32(v), Dtype::BF16) => blocks(out, v, |v| bf16::from_f32(v).to_le_bytes()),
            (Values::F32(v), _) => blocks(out, v, f32::to_le_bytes),
            (Values::F64(v), _) => blocks(out, v, f64::to_le_bytes),
            (Values::I64(v), _) => blocks(out, v, i64::to_le_bytes),
            (Values::U8(v), _) => out.write_all(v),
        }
    }
}

fn blocks<T: Copy, const N: usize>(
    out: &mut dyn Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> std::io::Result<()> {
    let mut block = Vec::with_capacity(N << 12);
    for chunk in values.chunks(1 << 12) {
        block.clear();
        block.extend(chunk.iter().flat_map(|v| bytes(*v)));
        out.write_all(&block)?;
    }
    Ok(())
}

/// Writes a safetensors file, whole or not at all. `metadata` goes into the header (Python readers
/// expect `format` = `pt` there; it is added where it is missing).
///
/// # Errors
/// Two tensors of one name, a number of values that is not that of the shape, a dtype that does
/// not suit the values, a finite number that does not fit into f16, or the system refuses.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[Output<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let (header, order) = prepare(tensors, metadata)?;
    atomic::write_file(path.as_ref(), |out| write_all(out, &header, &order))
}

/// The bytes of a safetensors file; see [`write_safetensors`].
///
/// # Errors
/// As there, but for those of the system.
pub fn encode_safetensors(
    tensors: &[Output<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let (header, order) = prepare(tensors, metadata)?;
    let mut out = Vec::new();
    write_all(&mut out, &header, &order).map_err(Error::io("memory"))?;
    Ok(out)
}

/// Writes the tensors of a set as a safetensors file, whole or not at all, one after the other: real
/// numbers as `dtype`, where one is given, all others and everything without one as they are stored.
///
/// # Errors
/// A tensor cannot be read, a finite number is beyond the range of `dtype`, or the system refuses.
pub(crate) fn write_set(
    path: &Path,
    set: &TensorSet,
    dtype: Option<Dtype>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    if let Some(dtype) = dtype
        && !narrow::is_target(dtype)
    {
        return Err(Error::setting(
            "dtype",
            format!("wanted f32, f16, bf16 or fp8, found {dtype:?}"),
        ));
    }
    let mut order = Vec::new();
    for name in set.names() {
        let info = set.info(name)?;
        let to = dtype.filter(|_| narrow::is_real(info.dtype)).unwrap_or(info.dtype);
        order.push((name, info, to));
    }
    order.sort_by(|a, b| b.2.bitsize().cmp(&a.2.bitsize()).then_with(|| a.0.cmp(b.0)));
    let mut told: BTreeMap<&str, &str> = metadata.iter().copied().collect();
    told.insert("format", "pt");
    let mut map = serde_json::Map::new();
    map.insert("__metadata__".to_owned(), json!(told));
    let mut start = 0;
    for (name, info, to) in &order {
        let end = start + (info.elements() * to.bitsize()).div_ceil(8);
        let entry = json!({ "dtype": to, "shape": info.shape, "data_offsets": [start, end] });
        map.insert((*name).to_owned(), entry);
        start = end;
    }
    let mut header = serde_json::Value::Object(map).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut failed = None;
    let written = atomic::write_file(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (name, info, to) in &order {
            let bytes = set.raw(name).and_then(|bytes| {
                if *to == info.dtype {
                    return Ok(bytes);
                }
                narrow::convert(info.dtype, &bytes, *to)
                    .map(Cow::Owned)
                    .map_err(|why| Error::format(set.name(), super::json::one_line(name), why))
            });
            match bytes {
                Ok(bytes) => out.write_all(&bytes)?,
                Err(error) => {
                    failed = Some(error);
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
            }
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => written,
    }
}

fn write_all(out: &mut dyn Write, header: &[u8], order: &[&Output<'_>]) -> std::io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    order.iter().try_for_each(|tensor| tensor.write(out))
}

/// The header, and the tensors in the order of their data.
fn prepare<'t, 'a>(
    tensors: &'t [Output<'a>],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<&'t Output<'a>>)> {
    let mut order: Vec<&Output<'_>> = tensors.iter().collect();
    order.sort_by(|a, b| {
        b.dtype.bitsize().cmp(&a.dtype.bitsize()).then_with(|| a.name.cmp(&b.name))
    });
    let mut metadata = metadata.clone();
    metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    let mut map = serde_json::Map::new();
    map.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for tensor in &order {
        tensor.check()?;
        let end = start + tensor.bytes();
        let entry = json!({
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end],
        });
        if map.insert(tensor.name.to_string(), entry).is_some() {
            return Err(Error::setting(tensor.name.clone(), "two tensors go by this name"));
        }
        start = end;
    }
    let mut header = serde_json::Value::Object(map).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok((header, order))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::TensorFile;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let values: Vec<f32> = (0..10_000).map(|i| i as f32 * 0.25 - 900.0).collect();
        let metadata = BTreeMap::from([("step".to_owned(), "7".to_owned())]);
        let tensors = [
            Output::f32("half", &[10_000], &values, Dtype::F16),
            Output::f32("brain", &[100, 100], &values, Dtype::BF16),
            Output::f32("full", &[10, 1000], &values, Dtype::F32),
            Output::i64("ids", &[3], &[1, -2, i64::MAX]),
            Output::u8("odd", &[5], b"tweed"),
        ];
        write_safetensors(&path, &tensors, &metadata).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.metadata()["step"], "7");
        assert_eq!(file.metadata()["format"], "pt");
        assert_eq!(file.read_f32("full").unwrap(), values);
        let half: Vec<f32> = values.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
        assert_eq!(file.read_f32("half").unwrap(), half);
        let brain: Vec<f32> = values.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
        assert_eq!(file.read_f32("brain").unwrap(), brain);
        assert_eq!(file.read_i64("ids").unwrap(), [1, -2, i64::MAX]);
        assert_eq!(&*file.raw("odd").unwrap(), b"tweed");
        assert_eq!(file.info("full").unwrap().shape, [10, 1000]);
        // The order of the arguments does not matter to the bytes.
        let mut reversed = tensors.to_vec();
        reversed.reverse();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(encode_safetensors(&reversed, &metadata).unwrap(), bytes);
        // The reference implementation reads the same.
        let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(reference.tensor("half").unwrap().data(), &*file.raw("half").unwrap());
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let none = BTreeMap::new();
        let error = |t: &[Output<'_>]| encode_safetensors(t, &none).unwrap_err().to_string();
        let two = Output::f32("w", &[1], &[1.0], Dtype::F32);
        assert!(error(&[two.clone(), two]).contains("`w`: two tensors"));
        assert!(error(&[Output::f32("w", &[2], &[1.0], Dtype::F32)]).contains("shape [2]"));
        assert!(error(&[Output::f32("w", &[1], &[1.0], Dtype::I64)]).contains("I64"));
        assert!(error(&[Output::f32("w", &[1], &[7e4], Dtype::F16)]).contains("70000"));
        assert!(error(&[Output::f32("w", &[usize::MAX, 2], &[1.0], Dtype::F32)]).contains("shape"));
    }
}

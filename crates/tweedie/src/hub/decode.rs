//! Stored numbers as `f32` and `i64`.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

/// The numbers in `bytes` (little endian) as `f32`, rounded to the nearest where `f32` is
/// narrower; truth values become 0 and 1. `None` for a dtype that holds no plain real numbers
/// (complex ones, and those of less than a byte, which only mean something with their scales).
pub(crate) fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 => halves(bytes, f16::from_le_bytes),
        Dtype::BF16 => halves(bytes, bf16::from_le_bytes),
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F8_E4M3 => each(bytes, |[b]| e4m3(b)),
        Dtype::F8_E5M2 => each(bytes, |[b]| f16::from_bits(u16::from(b) << 8).to_f32()),
        Dtype::F8_E8M0 => each(bytes, |[b]| e8m0(b)),
        Dtype::BOOL => each(bytes, |[b]| f32::from(u8::from(b != 0))),
        Dtype::U8 => each(bytes, |[b]| f32::from(b)),
        Dtype::I8 => each(bytes, |b| f32::from(i8::from_le_bytes(b))),
        Dtype::U16 => each(bytes, |b| f32::from(u16::from_le_bytes(b))),
        Dtype::I16 => each(bytes, |b| f32::from(i16::from_le_bytes(b))),
        Dtype::U32 => each(bytes, |b| u32::from_le_bytes(b) as f32),
        Dtype::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
        Dtype::U64 => each(bytes, |b| u64::from_le_bytes(b) as f32),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
        _ => return None,
    })
}

/// The whole numbers in `bytes` as `i64`. `None` for a dtype that is not one of whole numbers, and
/// where a number is beyond `i64`.
pub(crate) fn to_i64(dtype: Dtype, bytes: &[u8]) -> Option<Vec<i64>> {
    Some(match dtype {
        Dtype::BOOL => each(bytes, |[b]| i64::from(b != 0)),
        Dtype::U8 => each(bytes, |[b]| i64::from(b)),
        Dtype::I8 => each(bytes, |b| i64::from(i8::from_le_bytes(b))),
        Dtype::U16 => each(bytes, |b| i64::from(u16::from_le_bytes(b))),
        Dtype::I16 => each(bytes, |b| i64::from(i16::from_le_bytes(b))),
        Dtype::U32 => each(bytes, |b| i64::from(u32::from_le_bytes(b))),
        Dtype::I32 => each(bytes, |b| i64::from(i32::from_le_bytes(b))),
        Dtype::I64 => each(bytes, i64::from_le_bytes),
        Dtype::U64 => {
            let wide: Vec<u64> = each(bytes, u64::from_le_bytes);
            return wide.into_iter().map(|n| i64::try_from(n).ok()).collect();
        }
        _ => return None,
    })
}

fn each<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

/// Sixteen-bit floats go through `half`'s slice conversion, a block at a time: it uses the
/// processor's instruction, the conversion of single numbers asks for it each time.
fn halves<H: Copy + Default>(bytes: &[u8], read: impl Fn([u8; 2]) -> H) -> Vec<f32>
where
    [H]: HalfFloatSliceExt,
{
    let stored = bytes.as_chunks::<2>().0;
    let mut out = vec![0.0_f32; stored.len()];
    let mut block = [H::default(); 1024];
    for (wide, narrow) in out.chunks_mut(block.len()).zip(stored.chunks(1024)) {
        let block = &mut block[..narrow.len()];
        for (h, b) in block.iter_mut().zip(narrow) {
            *h = read(*b);
        }
        block.convert_to_f32_slice(wide);
    }
    out
}

/// The eight-bit float with four bits of exponent, in the variant without infinities that weights
/// are stored in (Micikevicius et al., "FP8 formats for deep learning", arXiv:2209.05433,
/// section 3).
fn e4m3(bits: u8) -> f32 {
    let mantissa = f32::from(bits & 0b111);
    let size = match (bits >> 3) & 0b1111 {
        0 => mantissa * 2.0_f32.powi(-9),
        15 if bits & 0b111 == 0b111 => f32::NAN,
        e => (1.0 + mantissa * 0.125) * 2.0_f32.powi(i32::from(e) - 7),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

/// The eight-bit power of two of the OCP microscaling formats, version 1.0, section 5.4.1.
fn e8m0(bits: u8) -> f32 {
    match bits {
        255 => f32::NAN,
        e => 2.0_f64.powi(i32::from(e) - 127) as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_every_width() {
        let values = [0.0_f32, -0.0, 1.0, -2.5, 448.0, 0.015625];
        let f16s: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let bf16s: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f64s: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        // The same values by hand: sign, four bits of exponent (bias 7), three of mantissa.
        let e4m3s = [0x00, 0x80, 0x38, 0xc2, 0x7e, 0x08];
        // Sign, five bits of exponent (bias 15), two of mantissa; 448 = 1.75 * 2^8.
        let e5m2s = [0x00, 0x80, 0x3c, 0xc1, 0x5f, 0x24];
        for (dtype, bytes) in [
            (Dtype::F16, f16s.as_slice()),
            (Dtype::BF16, &bf16s),
            (Dtype::F32, &f32s),
            (Dtype::F64, &f64s),
            (Dtype::F8_E4M3, &e4m3s),
            (Dtype::F8_E5M2, &e5m2s),
        ] {
            let read = to_f32(dtype, bytes).unwrap();
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&read), bits(&values), "{dtype:?}");
        }
        assert!(to_f32(Dtype::F8_E4M3, &[0x7f]).unwrap()[0].is_nan());
        assert_eq!(to_f32(Dtype::F8_E5M2, &[0xfc]).unwrap(), [f32::NEG_INFINITY]);
        // The smallest numbers of both.
        assert_eq!(to_f32(Dtype::F8_E4M3, &[1]).unwrap(), [2.0_f32.powi(-9)]);
        assert_eq!(to_f32(Dtype::F8_E5M2, &[1]).unwrap(), [2.0_f32.powi(-16)]);
        assert_eq!(
            to_f32(Dtype::F8_E8M0, &[0, 127, 254]).unwrap(),
            [2.0_f32.powi(-127), 1.0, 2.0_f32.powi(127)]
        );
    }

    #[test]
    fn long_half_tensors_are_whole() {
        let bytes: Vec<u8> =
            (0..3000_u16).flat_map(|i| f16::from_f32(f32::from(i % 2048)).to_le_bytes()).collect();
        let read = to_f32(Dtype::F16, &bytes).unwrap();
        assert_eq!(read.len(), 3000);
        assert!(read.iter().enumerate().all(|(i, v)| *v == (i % 2048) as f32));
    }

    #[test]
    fn whole_numbers_and_what_is_none() {
        assert_eq!(to_i64(Dtype::I8, &[0xff, 1]).unwrap(), [-1, 1]);
        assert_eq!(to_i64(Dtype::I64, &(-7_i64).to_le_bytes()).unwrap(), [-7]);
        assert_eq!(to_f32(Dtype::I32, &(-7_i32).to_le_bytes()).unwrap(), [-7.0]);
        assert_eq!(to_f32(Dtype::BOOL, &[0, 1, 2]).unwrap(), [0.0, 1.0, 1.0]);
        assert!(to_i64(Dtype::U64, &u64::MAX.to_le_bytes()).is_none());
        assert!(to_i64(Dtype::F32, &[0; 4]).is_none());
        assert!(to_f32(Dtype::C64, &[0; 8]).is_none());
    }
}

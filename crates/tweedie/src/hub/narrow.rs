//! Real numbers from one stored type into another.

use half::{bf16, f16};
use safetensors::Dtype;

use super::decode;

/// Whether a type is one of real numbers that can be read.
pub(crate) fn is_real(dtype: Dtype) -> bool {
    use Dtype as D;
    matches!(dtype, D::F64 | D::F32 | D::F16 | D::BF16 | D::F8_E4M3 | D::F8_E5M2)
}

/// Whether real numbers can be written as this type.
pub(crate) fn is_target(dtype: Dtype) -> bool {
    is_real(dtype) && dtype != Dtype::F64
}

/// The stored numbers as another type, rounded to the nearest, ties to even. The error says which
/// finite number is beyond the range of the type.
pub(crate) fn convert(from: Dtype, bytes: &[u8], to: Dtype) -> Result<Vec<u8>, String> {
    let values = decode::to_f32(from, bytes).ok_or_else(|| format!("{from:?} cannot be read"))?;
    let most = match to {
        Dtype::F16 => 65504.0,
        Dtype::F8_E4M3 => 448.0,
        Dtype::F8_E5M2 => 57344.0,
        _ => f32::MAX,
    };
    let out: Vec<u8> = match to {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F8_E4M3 => values.iter().map(|v| small::<4, 3>(*v, 0x7f)).collect(),
        Dtype::F8_E5M2 => values.iter().map(|v| small::<5, 2>(*v, 0x7e)).collect(),
        other => return Err(format!("{other:?} cannot be written")),
    };
    // A number that only rounds beyond the range is caught as well: what comes back is not finite.
    let back = decode::to_f32(to, &out).unwrap_or_default();
    match values.iter().zip(&back).find(|(v, b)| v.is_finite() && !b.is_finite()) {
        Some((v, _)) => Err(format!("{v} is beyond the range of {to:?} ({most})")),
        None => Ok(out),
    }
}

/// A number in eight bits: a sign, `E` bits of exponent, `M` of mantissa (Micikevicius et al., "FP8
/// formats for deep learning", arXiv:2209.05433, table 1). `nan` is what stands for no number, and for
/// what is beyond the range where the format has no infinity.
fn small<const E: i32, const M: i32>(value: f32, nan: u8) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let bias = (1 << (E - 1)) - 1;
    let infinite = if E == 5 { 0x7c } else { nan };
    if value.is_nan() {
        return sign | nan;
    }
    let size = f64::from(value.abs());
    if size == 0.0 {
        return sign;
    }
    if size.is_infinite() {
        return sign | infinite;
    }
    // The exponent of the number, not below that of the smallest normal one.
    let exponent = (((size.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(1 - bias);
    // How many steps of the mantissa's last bit; a power of two divides exactly.
    let steps = (size / 2.0_f64.powi(exponent - M)).round_ties_even() as i32;
    // Numbers below the normal ones have fewer steps than the hidden bit and exponent 0; a carry out of
    // the mantissa goes into the exponent by itself.
    let code = ((exponent + bias - 1) << M) + steps;
    let last = i32::from(if E == 5 { 0x7b_u8 } else { 0x7e });
    if code > last { sign | infinite } else { sign | code as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_number_survives_and_others_go_to_the_nearest() {
        for dtype in [Dtype::F8_E4M3, Dtype::F8_E5M2] {
            let all: Vec<u8> = (0..=255).collect();
            let wide = decode::to_f32(dtype, &all).unwrap();
            let finite: Vec<u8> =
                all.iter().filter(|b| wide[**b as usize].is_finite()).copied().collect();
            let values: Vec<u8> =
                finite.iter().flat_map(|b| wide[*b as usize].to_le_bytes()).collect();
            assert_eq!(convert(Dtype::F32, &values, dtype).unwrap(), finite, "{dtype:?}");
            // Between two neighbours: the nearer one, and the even one from the middle.
            for pair in finite.windows(2).filter(|p| p[1] < 0x80) {
                let [a, b] = [pair[0], pair[1]].map(|b| wide[b as usize]);
                let code = |v: f32| convert(Dtype::F32, &v.to_le_bytes(), dtype).unwrap()[0];
                let middle = f32::midpoint(a, b);
                assert_eq!(code(middle), if pair[0] % 2 == 0 { pair[0] } else { pair[1] });
                assert_eq!(code(a + (b - a) * 0.49), pair[0]);
                assert_eq!(code(a + (b - a) * 0.51), pair[1]);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let f32s = |v: f32| v.to_le_bytes();
        for (dtype, value) in [(Dtype::F16, 7e4), (Dtype::F8_E4M3, 500.0), (Dtype::F8_E5M2, 6.2e4)]
        {
            let error = convert(Dtype::F32, &f32s(value), dtype).unwrap_err();
            assert!(error.contains("beyond the range"), "{error}");
            // What is no number or infinite stays so.
            assert!(convert(Dtype::F32, &f32s(f32::NAN), dtype).is_ok());
            assert!(convert(Dtype::F32, &f32s(f32::NEG_INFINITY), dtype).is_ok());
        }
        assert_eq!(convert(Dtype::F16, &[0, 0x3c], Dtype::F32).unwrap(), f32s(1.0));
        assert_eq!(convert(Dtype::F32, &f32s(1.0), Dtype::BF16).unwrap(), [0x80, 0x3f]);
        assert!(convert(Dtype::I64, &[0; 8], Dtype::I32).is_err());
    }
}

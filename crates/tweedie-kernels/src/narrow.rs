//! The 16-bit formats.

use half::slice::HalfFloatSliceExt;

/// A 16-bit format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
}

/// Numbers that are converted at once.
const BLOCK: usize = 1 << 12;

impl Half {
    /// The number of these bits.
    pub fn number(self, bits: u16) -> f32 {
        match self {
            Self::F16 => half::f16::from_bits(bits).to_f32(),
            Self::Bf16 => half::bf16::from_bits(bits).to_f32(),
        }
    }

    /// The numbers of `bytes`, lowest byte first, in `wide`.
    ///
    /// # Panics
    /// Where these are not twice as many.
    pub fn widen(self, bytes: &[u8], wide: &mut [f32]) {
        let stored = bytes.as_chunks::<2>().0;
        assert_eq!(
            (stored.len(), bytes.len()),
            (wide.len(), 2 * wide.len()),
            "the bytes of numbers"
        );
        for (wide, stored) in wide.chunks_mut(BLOCK).zip(stored.chunks(BLOCK)) {
            match self {
                // The slice conversion uses the processor's instruction; that of single numbers asks
                // for it each time.
                Self::F16 => {
                    let mut block = [half::f16::ZERO; BLOCK];
                    let block = &mut block[..stored.len()];
                    for (h, b) in block.iter_mut().zip(stored) {
                        *h = half::f16::from_le_bytes(*b);
                    }
                    block.convert_to_f32_slice(wide);
                }
                Self::Bf16 => {
                    for (w, b) in wide.iter_mut().zip(stored) {
                        *w = half::bf16::from_le_bytes(*b).to_f32();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_16_bits_is_widened() {
        for half in [Half::F16, Half::Bf16] {
            let all: Vec<u16> = (0..=u16::MAX).collect();
            let bytes: Vec<u8> = all.iter().flat_map(|x| x.to_le_bytes()).collect();
            let mut wide = vec![0.0; all.len()];
            half.widen(&bytes, &mut wide);
            for (bits, wide) in all.iter().zip(wide) {
                let number = half.number(*bits);
                assert!(number.to_bits() == wide.to_bits() || number.is_nan() && wide.is_nan());
            }
        }
        assert_eq!(Half::F16.number(0x3e00), 1.5);
        assert_eq!(Half::Bf16.number(0xc000), -2.0);
    }
}

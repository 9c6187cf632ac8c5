//! Counter-based random numbers: a draw is a function of its key and nothing else.
//!
//! A key is (seed, stream, index); ChaCha with 8 rounds turns it into bits, and the transforms to
//! uniform and normal numbers use only `+ - * / sqrt`, which IEEE 754 rounds the same way
//! everywhere, so that a seed means the same noise on every machine.
//!
//! Beside it stand the two generators of torch, for noise that other programs drew.

pub mod mersenne;
pub mod philox;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Which numbers are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The user's seed.
    pub seed: u64,
    /// What it is for; forking derives a new one.
    pub stream: u64,
    /// The count of the draw within its stream.
    pub index: u64,
}

impl Key {
    /// A key.
    pub const fn new(seed: u64, stream: u64, index: u64) -> Self {
        Self { seed, stream, index }
    }

    /// A generator that starts at this key.
    pub fn generator(self) -> Generator {
        let mut seed = [0_u8; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&self.stream.to_le_bytes());
        seed[16..24].copy_from_slice(&self.index.to_le_bytes());
        seed[24..].copy_from_slice(b"tweedie1");
        Generator(ChaCha8Rng::from_seed(seed))
    }

    /// A stream that is unlike this key's and unlike that of any other `branch`.
    #[must_use]
    pub fn derive(self, branch: u64) -> u64 {
        let mut generator =
            Self::new(self.seed ^ self.index.rotate_left(17), self.stream, branch).generator();
        generator.bits() | 1 << 63
    }
}

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Generator(ChaCha8Rng);

impl Generator {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in the open interval (0, 1), in steps of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1_u64 << 53) as f64;
        ((self.bits() >> 11) as f64 + 0.5) * STEP
    }

    /// Uniform among `0..count`, without bias; 0 for an empty range.
    pub fn below(&mut self, count: u64) -> u64 {
        if count == 0 {
            return 0;
        }
        let limit = u64::MAX - u64::MAX % count;
        loop {
            let bits = self.bits();
            if bits < limit {
                return bits % count;
            }
        }
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        normal_quantile(self.uniform())
    }

    /// Fills with standard normal numbers.
    pub fn fill_normal(&mut self, out: &mut [f64]) {
        for v in out.iter_mut() {
            *v = self.normal();
        }
    }

    /// A permutation of `0..count` (Fisher and Yates).
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

/// The natural logarithm from `+ - * /` alone, to about 1e-16 relative; for positive normal numbers.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut sum = 0.0;
    for k in (0..12).rev() {
        sum = sum * z + 1.0 / f64::from(2 * k + 1);
    }
    2.0 * s * sum + exponent as f64 * std::f64::consts::LN_2
}

/// The standard normal quantile, Wichura's AS 241 (PPND16), accurate to about 1e-16.
///
/// Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", 1988.
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 8] = [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ];
    const B: [f64; 8] = [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_545,
    ];
    const C: [f64; 8] = [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        7.745_450_142_783_414e-4,
    ];
    const D: [f64; 8] = [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ];
    const E: [f64; 8] = [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ];
    const F: [f64; 8] = [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ];
    let poly = |c: &[f64; 8], x: f64| c.iter().rev().fold(0.0, |sum, c| sum * x + c);
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * poly(&A, r) / poly(&B, r);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = (-ln(tail)).sqrt();
    let value = if r <= 5.0 {
        poly(&C, r - 1.6) / poly(&D, r - 1.6)
    } else {
        poly(&E, r - 5.0) / poly(&F, r - 5.0)
    };
    if q < 0.0 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_logarithm_is_the_logarithm() {
        for i in 1..2000 {
            let x = f64::from(i) * 1e-3;
            assert!((ln(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(1.0), "{x}");
        }
        assert!((ln(1e-300) - 1e-300_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn quantile_meets_known_points() {
        for (p, z) in [
            (0.5, 0.0),
            (0.975, 1.959_963_984_540_054),
            (0.001, -3.090_232_306_167_813),
            (1e-12, -7.034_483_825_301_132),
            (0.9, 1.281_551_565_544_600_4),
        ] {
            assert!((normal_quantile(p) - z).abs() < 2e-14, "{p}: {}", normal_quantile(p));
        }
    }

    #[test]
    fn moments_of_a_million_draws() {
        let mut generator = Key::new(7, 0, 0).generator();
        let (mut m, mut v, mut k, n) = (0.0, 0.0, 0.0, 1_000_000);
        for _ in 0..n {
            let z = generator.normal();
            m += z;
            v += z * z;
            k += z * z * z * z;
        }
        let n = f64::from(n);
        assert!((m / n).abs() < 5.0 / n.sqrt());
        assert!((v / n - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
        assert!((k / n - 3.0).abs() < 5.0 * (96.0 / n).sqrt());
    }
}

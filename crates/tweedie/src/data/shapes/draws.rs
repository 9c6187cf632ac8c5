//! The numbers behind scenes and captions: a counter-based generator keyed by what is drawn.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream of draws is for. Streams of different purpose share nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The objects of a scene; the number is that of the split.
    Scene(u8),
    /// The wording of a caption.
    Caption,
    /// Noise that is added to a picture.
    Noise,
    /// A shift of a picture's colours.
    Shift,
    /// A change of a scene; the number is that of its kind.
    Change(u8),
}

/// A stream of numbers that is a function of (seed, index, purpose) alone.
///
/// The three are the key of ChaCha8, so that any scene can be drawn without drawing those before it.
pub(super) struct Draws(ChaCha8Rng);

impl Draws {
    pub(super) fn new(seed: u64, index: u64, purpose: Purpose) -> Self {
        let tag: u64 = match purpose {
            Purpose::Scene(split) => 0x100 + u64::from(split),
            Purpose::Caption => 0x200,
            Purpose::Noise => 0x300,
            Purpose::Shift => 0x400,
            Purpose::Change(kind) => 0x500 + u64::from(kind),
        };
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&index.to_le_bytes());
        key[16..24].copy_from_slice(&tag.to_le_bytes());
        key[24..].copy_from_slice(b"shapes 1");
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub(super) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform in [low, high).
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Uniform in 0..`n`. `n` must not be 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        // The product of a 64-bit draw and n, of which the upper half counts: the bias is n / 2^64.
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// One of `items`, which must not be empty.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Nearly normal, of mean 0 and variance 1: the sum of twelve uniforms less 6.
    ///
    /// It needs no logarithm, so its bits are the same on every platform.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Puts `items` in random order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_pinned() {
        let mut draws = Draws::new(1, 2, Purpose::Caption);
        let got: Vec<usize> = (0..8).map(|_| draws.below(1000)).collect();
        assert_eq!(got, [6, 131, 585, 987, 130, 705, 43, 346]);
    }

    #[test]
    fn draws_are_uniform_and_normal() {
        let mut draws = Draws::new(7, 0, Purpose::Noise);
        let mut counts = [0; 10];
        (0..50_000).for_each(|_| counts[draws.below(10)] += 1);
        assert!(counts.iter().all(|c| (4700..5300).contains(c)), "{counts:?}");
        let values: Vec<f64> = (0..50_000).map(|_| draws.normal()).collect();
        let mean = values.iter().sum::<f64>() / 50_000.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 50_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}

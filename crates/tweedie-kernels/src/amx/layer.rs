//! Layers: weights that are packed once, times rows or the windows of an image.
//!
//! An output is a sum over *steps*, each of which is 32 channels of one element of the kernel (a
//! *tap*; a linear layer has one). The image is split once into *lines*: the high parts of 32
//! channels of a pixel, and their low parts, 64 bytes each. Its pixels, with the zeros around them,
//! are numbered row by row, so that sixteen neighbours are a tile as they lie and a tap's tile is
//! the same one some lines further on: no window is ever copied. Where a row ends and the next
//! begins there are positions that are no output; they are computed and left out.
//!
//! The order of sums of an output element depends on the channels and the taps alone.

use std::arch::x86_64::{
    _mm512_castsi256_si512, _mm512_cvtps_ph, _mm512_inserti64x4, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_permutexvar_epi16,
    _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_storeu_si512,
};

use super::{INTERLEAVED, STEPS, TILE, available, first, larger, scale, split_pair};
use crate::gemm::{Columns, Transposed};
use crate::memory::{Aligned, Ptr, Scratch, parallel};
use crate::narrow::Half;
use crate::simd::{Avx512, LANES};

pub(crate) use super::image::image;
pub(crate) use super::rows::{gates, rows};

/// Outputs of a block of weights, and positions that are multiplied with it at once.
pub(super) const SIDE: usize = 32;

/// Numbers of a step of a block: its high parts, sixteen outputs behind sixteen, and its low ones.
pub(super) const STEP: usize = 4 * TILE;

/// Numbers that a step takes where 16-bit weights are kept as they are, and split when they are used.
pub(super) const NARROW_STEP: usize = 2 * TILE;

/// Most steps that a block of weights takes at once, so that it stays in the first-level cache.
pub(super) const DEPTH: usize = 9;

/// The weights of a linear layer or a convolution.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(super) outputs: usize,
    pub(super) channels: usize,
    pub(super) taps: usize,
    /// What is kept of a number: as it was in 16 bits, or split.
    pub(super) narrow: Option<Half>,
    /// For every [`SIDE`] outputs, the steps (the taps of 32 channels, then of the next) and the
    /// factors that undo the scaling.
    blocks: Aligned,
}

impl Layer {
    /// Packs `w` `[outputs, channels, taps]`; none where the machine has no tiles.
    pub(crate) fn new([outputs, channels, taps]: [usize; 3], w: &[f32]) -> Option<Self> {
        assert_eq!(w.len(), outputs * channels * taps, "the numbers of a layer");
        let (w, row) = (Ptr::of(w), channels * taps);
        Self::with([outputs, channels, taps], None, |i, pack| pack(w.at(i * SIDE * row)))
    }

    /// As [`Layer::new`] from 16-bit numbers, lowest byte first, which are kept in as many bits.
    pub(crate) fn narrow(
        [outputs, channels, taps]: [usize; 3],
        w: &[u8],
        half: Half,
    ) -> Option<Self> {
        assert_eq!(w.len(), 2 * outputs * channels * taps, "the bytes of a layer");
        let row = channels * taps;
        Self::with([outputs, channels, taps], Some(half), |i, pack| {
            let rows = SIDE.min(outputs - i * SIDE);
            let mut wide = Scratch::new(rows * row);
            let from = &w[2 * i * SIDE * row..][..2 * rows * row];
            // SAFETY: the scratch is that long, and is initialised here.
            half.widen(from, unsafe {
                wide.ptr().write_bytes(0, rows * row);
                std::slice::from_raw_parts_mut(wide.ptr(), rows * row)
            });
            pack(wide.ptr());
        })
    }

    /// A layer whose every block is packed from the rows that `rows` hands on.
    fn with(
        [outputs, channels, taps]: [usize; 3],
        narrow: Option<Half>,
        rows: impl Fn(usize, &dyn Fn(*const f32)) + Sync + Send,
    ) -> Option<Self> {
        if !available() {
            return None;
        }
        let mut layer = Self { outputs, channels, taps, narrow, blocks: Aligned::default() };
        let (count, len) = (outputs.div_ceil(SIDE), layer.block_len());
        let pack = |to: *mut f32| {
            let to = Ptr::new(to);
            parallel(count, SIDE * channels * taps, |i| {
                let columns = SIDE.min(outputs - i * SIDE);
                rows(i, &|w| {
                    // SAFETY: the block's rows, and its place; the tiles are there.
                    unsafe { layer.pack(columns, w, to.at(i * len)) };
                });
            });
        };
        // SAFETY: each block is packed, and a block is whole lines.
        layer.blocks = unsafe { Aligned::written(count * len, pack) };
        Some(layer)
    }

    /// The numbers, as far as they are kept.
    pub(crate) fn unpack(&self) -> Vec<f32> {
        let mut w = vec![0.0; self.outputs * self.channels * self.taps];
        for (i, x) in w.iter_mut().enumerate() {
            let (o, c, tap) =
                (i / self.taps / self.channels, i / self.taps % self.channels, i % self.taps);
            let step = c / STEPS * self.taps + tap;
            let (half, column, pair) = (o % SIDE / LANES, o % LANES, c % STEPS / 2);
            let at = step * self.step_len() + half * TILE + pair * LANES + column;
            let block = self.block(o / SIDE);
            // SAFETY: inside the block: its steps, and its factors behind them.
            let (pair, factor) =
                unsafe { ((*block.add(at)).to_bits(), *block.add(self.factors() + o % SIDE)) };
            // Of two channels side by side the first is the lower half.
            let part = |bits: u32| (bits >> (c % 2 * 16)) as u16;
            let kept = match self.narrow {
                Some(half) => half.number(part(pair)),
                None => {
                    // SAFETY: the low parts of the same step.
                    let low = unsafe { *block.add(at + 2 * TILE) }.to_bits();
                    Half::Bf16.number(part(pair)) + Half::Bf16.number(part(low))
                }
            };
            *x = kept * factor;
        }
        w
    }

    /// Bytes of memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.bytes()
    }

    /// Outputs, channels and taps.
    pub(crate) fn sizes(&self) -> [usize; 3] {
        [self.outputs, self.channels, self.taps]
    }

    /// Groups of 32 channels.
    pub(super) fn groups(&self) -> usize {
        self.channels.div_ceil(STEPS)
    }

    pub(super) fn steps(&self) -> usize {
        self.groups() * self.taps
    }

    /// Numbers of a step as it is kept.
    pub(super) fn step_len(&self) -> usize {
        if self.narrow.is_some() { NARROW_STEP } else { STEP }
    }

    /// Where the factors of a block are.
    pub(super) fn factors(&self) -> usize {
        self.steps() * self.step_len()
    }

    fn block_len(&self) -> usize {
        self.factors() + SIDE
    }

    pub(super) fn block(&self, i: usize) -> *const f32 {
        self.blocks.at(i * self.block_len())
    }

    /// Steps that a block takes at once, in parts of one size.
    pub(super) fn depth(&self) -> usize {
        self.steps().div_ceil(self.steps().div_ceil(DEPTH).max(1)).max(1)
    }

    /// Packs the block of `columns` outputs.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn pack(&self, columns: usize, w: *const f32, to: *mut f32) {
        let row = self.channels * self.taps;
        let mut up = [1.0_f32; SIDE];
        let mut aside = Scratch::new(STEPS * self.taps * SIDE);
        // SAFETY: the caller's rows and block.
        unsafe {
            let factors = to.add(self.factors());
            for (n, up) in up.iter_mut().enumerate() {
                if n < columns {
                    *up = scale(largest(w.add(n * row), row));
                }
                *factors.add(n) = 1.0 / *up;
            }
            let w = Transposed { b: w, stride: row };
            for group in 0..self.groups() {
                let channels = STEPS.min(self.channels - group * STEPS);
                let first = group * STEPS * self.taps;
                let depth = channels * self.taps;
                w.panel::<Avx512>(0, columns, first, depth, SIDE, aside.ptr());
                for tap in 0..self.taps {
                    let from = aside.ptr().add(tap * SIDE).cast_const();
                    let to = to.add((group * self.taps + tap) * self.step_len());
                    self.pack_step(columns, channels, from, &up, to);
                }
            }
        }
    }

    /// Packs one step from a panel whose channels lie `taps` rows apart.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn pack_step(
        &self,
        columns: usize,
        channels: usize,
        from: *const f32,
        up: &[f32; SIDE],
        to: *mut f32,
    ) {
        // SAFETY: the caller's panel and step.
        unsafe {
            let order = _mm512_loadu_si512(INTERLEAVED.as_ptr().cast());
            for half in 0..2 {
                let valid = first(columns.saturating_sub(half * LANES));
                let factor = _mm512_loadu_ps(up.as_ptr().add(half * LANES));
                for pair in 0..STEPS / 2 {
                    let channel = |c: usize| {
                        let valid = if c < channels { valid } else { 0 };
                        let from = from.wrapping_add(c * self.taps * SIDE + half * LANES);
                        _mm512_mul_ps(_mm512_maskz_loadu_ps(valid, from), factor)
                    };
                    let (x, y) = (channel(2 * pair), channel(2 * pair + 1));
                    let to = to.add(half * TILE + pair * LANES);
                    if self.narrow == Some(Half::F16) {
                        let [x, y] = [x, y].map(|x| _mm512_cvtps_ph::<0>(x));
                        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(x), y);
                        let both = _mm512_permutexvar_epi16(order, both);
                        _mm512_storeu_si512(to.cast(), both);
                        continue;
                    }
                    let (high, low) = split_pair(x, y, order);
                    _mm512_storeu_si512(to.cast(), high);
                    if self.narrow.is_some() {
                        continue;
                    }
                    _mm512_storeu_si512(to.add(2 * TILE).cast(), low);
                }
            }
        }
    }
}

/// The largest size of `len` numbers; what is not a number is passed over.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn largest(from: *const f32, len: usize) -> f32 {
    let mut most = _mm512_set1_ps(0.0);
    for i in (0..len).step_by(LANES) {
        // SAFETY: the caller's numbers, up to the last.
        most = larger(most, unsafe { _mm512_maskz_loadu_ps(first(len - i), from.add(i)) });
    }
    _mm512_reduce_max_ps(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    /// What is packed comes out again, to 2^-16 of each number.
    #[test]
    fn weights_come_out_again() {
        if !available() {
            return;
        }
        for [o, c, taps] in [[16, 16, 9], [33, 47, 1], [5, 70, 4]] {
            let mut w = numbers(o * c * taps, 4);
            w[..c * taps].iter_mut().for_each(|x| *x *= 1e-35);
            let found = Layer::new([o, c, taps], &w).unwrap().unpack();
            for (found, w) in found.iter().zip(&w) {
                assert!((found - w).abs() <= w.abs() * 2.0_f32.powi(-16), "{found} {w}");
            }
        }
    }
}

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

use std::arch::asm;
use std::arch::x86_64::{
    __m512, _CMP_GT_OQ, _CMP_LT_OQ, _mm512_add_ps, _mm512_castsi256_si512, _mm512_castsi512_si256,
    _mm512_cvtph_ps, _mm512_cvtps_ph, _mm512_extracti64x4_epi64, _mm512_inserti64x4,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_cmp_ps_mask, _mm512_mask_i32gather_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_permutexvar_epi16,
    _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_setzero_si512, _mm512_storeu_si512,
};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    HUGE, INTERLEAVED, STEPS, TILE, Tiles, available, first, larger, scale, split, split_pair,
};
use crate::conv::{Planes, Shape};
use crate::gemm::{Columns, Transposed};
use crate::memory::{Aligned, Output, Ptr, Scratch, parallel};
use crate::narrow::Half;
use crate::simd::{Avx512, LANES, Simd};

/// Outputs of a block of weights, and positions that are multiplied with it at once.
const SIDE: usize = 32;

/// Numbers of a step of a block: its high parts, sixteen outputs behind sixteen, and its low ones.
const STEP: usize = 4 * TILE;

/// Numbers that a step takes where 16-bit weights are kept as they are, and split when they are used.
const NARROW_STEP: usize = 2 * TILE;

/// Numbers of a line: 32 high or low parts.
const LINE: usize = 16;

/// Most steps that a block of weights takes at once, so that it stays in the first-level cache.
const DEPTH: usize = 9;

/// Numbers of an image that stay in the second-level cache.
const NEAR: usize = 1 << 18;

/// Most positions of a strip.
const STRIP: usize = 1024;

/// Lines whose largest number is smaller may lose too much, if all of a window are so.
const LEAST: f32 = 8.673_617e-19; // 2^-60

/// The weights of a linear layer or a convolution.
#[derive(Debug)]
pub(crate) struct Layer {
    outputs: usize,
    channels: usize,
    taps: usize,
    /// What is kept of a number: as it was in 16 bits, or split.
    narrow: Option<Half>,
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
            // SAFETY: the scratch is that long, and initialised.
            half.widen(from, unsafe { std::slice::from_raw_parts_mut(wide.ptr(), rows * row) });
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
    fn groups(&self) -> usize {
        self.channels.div_ceil(STEPS)
    }

    fn steps(&self) -> usize {
        self.groups() * self.taps
    }

    /// Numbers of a step as it is kept.
    fn step_len(&self) -> usize {
        if self.narrow.is_some() { NARROW_STEP } else { STEP }
    }

    /// Where the factors of a block are.
    fn factors(&self) -> usize {
        self.steps() * self.step_len()
    }

    fn block_len(&self) -> usize {
        self.factors() + SIDE
    }

    fn block(&self, i: usize) -> *const f32 {
        self.blocks.at(i * self.block_len())
    }

    /// Steps that a block takes at once, in parts of one size.
    fn depth(&self) -> usize {
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

/// Multiplies `steps` steps of lines and of a block of weights into `R` by `W` tiles of 16 by 16
/// sums, which are written one behind the other, or added to what is there.
///
/// # Safety
/// [`Tiles`] are configured; at `lines`, at each of the `offsets` and `low` bytes further on lie
/// `16 R` lines; `steps` steps of `b`; four tiles of `sums`.
#[inline(always)]
unsafe fn multiply<const R: usize, const W: usize>(
    offsets: &[usize],
    lines: *const f32,
    low: usize,
    b: *const f32,
    sums: *mut f32,
    add: bool,
) {
    // The order of the three products is the same in all shapes, so the bits are too.
    macro_rules! run {
        ($($line:literal),* $(,)?) => {
            // SAFETY: the caller's lines and weights; the registers named are all that is changed.
            unsafe {
                asm!(
                    "test {p}, {p}", "jz 3f",
                    "tileloadd tmm0, [{to} + {s}]",
                    "tileloadd tmm1, [{to} + {s} + 1024]",
                    "tileloadd tmm2, [{to} + {s} + 2048]",
                    "tileloadd tmm3, [{to} + {s} + 3072]",
                    "jmp 2f",
                    "3:",
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "2:",
                    "mov {p}, [{t}]", "add {p}, {a}", "lea {q}, [{p} + {l}]",
                    $($line,)*
                    "add {t}, 8", "add {b}, 4096", "dec {n}", "jnz 2b",
                    "tilestored [{to} + {s}], tmm0",
                    "tilestored [{to} + {s} + 1024], tmm1",
                    "tilestored [{to} + {s} + 2048], tmm2",
                    "tilestored [{to} + {s} + 3072], tmm3",
                    p = inout(reg) usize::from(add) => _, q = out(reg) _,
                    t = inout(reg) offsets.as_ptr() => _, a = in(reg) lines, l = in(reg) low,
                    b = inout(reg) b => _, n = inout(reg) offsets.len() => _,
                    to = in(reg) sums, s = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                )
            }
        };
    }
    if offsets.is_empty() {
        return;
    }
    match (R, W) {
        (2, 2) => run!(
            "tileloadd tmm6, [{b} + {s}]",
            "tileloadd tmm4, [{q} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{q} + {s} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{p} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{p} + {s} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{b} + {s} + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
        ),
        (1, 2) => run!(
            "tileloadd tmm6, [{b} + {s}]",
            "tileloadd tmm4, [{q} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{p} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
        ),
        (2, 1) => run!(
            "tileloadd tmm6, [{b} + {s}]",
            "tileloadd tmm4, [{q} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{q} + {s} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm4, [{p} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{p} + {s} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
        ),
        _ => run!(
            "tileloadd tmm6, [{b} + {s}]",
            "tileloadd tmm4, [{q} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm4, [{p} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
        ),
    }
}

/// Multiplies the same steps `times` times, out of the first-level cache; gives how many products and sums
/// of f32 that stands for.
pub(crate) fn exercise(times: usize) -> f64 {
    let offsets = [0; DEPTH - 1];
    let mut operands = Scratch::new((2 + offsets.len()) * STEP);
    let at = operands.ptr();
    let (weights, sums) = (at.wrapping_add(STEP), at.wrapping_add((1 + offsets.len()) * STEP));
    // SAFETY: whoever uses the set has asked for the tiles; a step of lines, the steps of weights and
    // four tiles of sums lie in the scratch.
    unsafe {
        let _tiles = Tiles::new();
        for _ in 0..times {
            multiply::<2, 2>(&offsets, at, 2 * TILE * 4, weights, sums, false);
        }
    }
    (times * offsets.len() * SIDE * SIDE * STEPS * 2) as f64
}

/// The lines of one sample, and where each step's begin.
struct Lines<'a> {
    /// The high parts of the first position.
    first: *const f32,
    /// From high parts to low ones, in bytes.
    low: usize,
    /// Of each step, in bytes.
    offsets: &'a [usize],
}

/// The sums of the block `block` of outputs at `count` positions from `first` on: for each [`SIDE`]
/// of them four tiles.
///
/// # Safety
/// [`Tiles`] are configured; the lines of these positions, rounded up to sixteen; room for the sums.
unsafe fn sums(
    layer: &Layer,
    block: usize,
    lines: &Lines,
    first: usize,
    count: usize,
    to: *mut f32,
) {
    let weights = layer.block(block);
    let wide = layer.outputs - block * SIDE > LANES;
    let depth = layer.depth();
    let mut split = layer.narrow.map(|half| (half, Scratch::new(depth * STEP)));
    for (i, offsets) in lines.offsets.chunks(depth).enumerate() {
        let mut b = weights.wrapping_add(i * depth * layer.step_len());
        if let Some((half, split)) = &mut split {
            // SAFETY: these steps, and room for them.
            unsafe { split_steps(offsets.len(), *half, b, split.ptr()) };
            b = split.ptr();
        }
        for p in (0..count).step_by(SIDE) {
            let (a, low) = (lines.first.wrapping_add((first + p) * LINE), lines.low);
            let to = to.wrapping_add(p / SIDE * 4 * TILE);
            // SAFETY: the caller's.
            unsafe {
                match (count - p > LANES, wide) {
                    (true, true) => multiply::<2, 2>(offsets, a, low, b, to, i > 0),
                    (true, false) => multiply::<2, 1>(offsets, a, low, b, to, i > 0),
                    (false, true) => multiply::<1, 2>(offsets, a, low, b, to, i > 0),
                    (false, false) => multiply::<1, 1>(offsets, a, low, b, to, i > 0),
                }
            }
        }
    }
}

/// Splits `steps` steps that are kept in 16 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn split_steps(steps: usize, half: Half, from: *const f32, to: *mut f32) {
    for i in 0..steps * NARROW_STEP / LANES {
        // SAFETY: the caller's steps.
        unsafe {
            let both = _mm512_loadu_si512(from.add(i * LANES).cast());
            let (step, at) = (i * LANES / NARROW_STEP, i * LANES % NARROW_STEP);
            let to = to.add(step * STEP + at);
            let (high, low) = match half {
                Half::Bf16 => (both, _mm512_setzero_si512()),
                Half::F16 => split(
                    _mm512_cvtph_ps(_mm512_castsi512_si256(both)),
                    _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(both)),
                ),
            };
            _mm512_storeu_si512(to.cast(), high);
            _mm512_storeu_si512(to.add(2 * TILE).cast(), low);
        }
    }
}

/// How positions and outputs are shared out: strips of positions, and ranges of blocks of outputs.
struct Shares {
    strip: usize,
    strips: usize,
    range: usize,
    ranges: usize,
}

impl Shares {
    /// Of `samples` times `positions`.
    fn new(layer: &Layer, samples: usize, positions: usize) -> Self {
        let most = (NEAR / layer.channels.max(1)).clamp(2 * SIDE, STRIP) / SIDE * SIDE;
        let strip = positions.div_ceil(positions.div_ceil(most).max(1)).next_multiple_of(SIDE);
        let strips = positions.div_ceil(strip.max(1));
        let blocks = layer.outputs.div_ceil(SIDE);
        let wanted = 4 * rayon::current_num_threads();
        let ranges = wanted.div_ceil((samples * strips).max(1)).clamp(1, blocks.max(1));
        let range = blocks.div_ceil(ranges);
        Self { strip, strips, range, ranges: blocks.div_ceil(range.max(1)) }
    }
}

/// `y[rows, outputs] = x[rows, channels] w^T + bias`.
pub(crate) fn rows(layer: &Layer, rows: usize, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (n, k) = (layer.outputs, layer.channels);
    debug_assert!(layer.taps == 1 && x.len() == rows * k);
    let mut y = Output::new(rows * n);
    let out = y.ptr();
    let mut lines = Scratch::new((2 * layer.groups() * rows + SIDE) * LINE);
    let mut factors = vec![1.0; rows.next_multiple_of(LANES)];
    let (to, by_row) = (Ptr::new(lines.ptr()), Ptr::new(factors.as_mut_ptr()));
    let from = Ptr::of(x);
    parallel(rows.div_ceil(LANES), LANES * k, |i| {
        let first = i * LANES;
        // SAFETY: each unit has its own rows.
        unsafe {
            let to = to.at(first * LINE);
            let count = LANES.min(rows - first);
            split_rows(count, k, from.at(first * k), rows, to, by_row.at(first));
        }
    });
    let offsets: Vec<usize> = (0..layer.groups()).map(|g| 2 * g * rows * 4 * LINE).collect();
    let s = Shares::new(layer, 1, rows);
    parallel(s.strips * s.ranges, s.strip * s.range * SIDE * k, |unit| {
        let (range, first) = (unit / s.strips, unit % s.strips * s.strip);
        let count = s.strip.min(rows - first);
        let mut scratch = Scratch::new(s.strip * SIDE);
        let lines = Lines { first: to.at(0), low: rows * 4 * LINE, offsets: &offsets };
        // SAFETY: the tiles are there, or there would be no layer; each unit writes its own part.
        unsafe {
            let _tiles = Tiles::new();
            for block in range * s.range..((range + 1) * s.range).min(n.div_ceil(SIDE)) {
                sums(layer, block, &lines, first, count, scratch.ptr());
                let columns = SIDE.min(n - block * SIDE);
                let bias = bias.map(|b| b.as_ptr().wrapping_add(block * SIDE));
                let factors = layer.block(block).wrapping_add(layer.factors());
                let to = out.at(first * n + block * SIDE);
                let by_row = by_row.at(first);
                write_rows(count, columns, scratch.ptr(), by_row, factors, bias, to, n);
            }
        }
    });
    drop(lines);
    // SAFETY: every row was written.
    unsafe { y.finish() }
}

/// Splits `count` rows, at most sixteen, of `k` numbers into lines: those of a group of channels lie
/// `rows` apart, high and low ones behind each other.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn split_rows(
    count: usize,
    k: usize,
    from: *const f32,
    rows: usize,
    to: *mut f32,
    factors: *mut f32,
) {
    // SAFETY: the caller's rows and lines.
    unsafe {
        for r in 0..count {
            let row = from.add(r * k);
            let most = split_row(k, row, _mm512_set1_ps(1.0), rows, to.add(r * LINE));
            let up = scale(most);
            if up != 1.0 {
                split_row(k, row, _mm512_set1_ps(up), rows, to.add(r * LINE));
            }
            *factors.add(r) = 1.0 / up;
        }
    }
}

/// Splits one row times `up`; gives its largest size.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn split_row(k: usize, from: *const f32, up: __m512, rows: usize, to: *mut f32) -> f32 {
    let mut most = _mm512_set1_ps(0.0);
    // SAFETY: the caller's row, up to its end, and its lines.
    unsafe {
        for (group, at) in (0..k).step_by(STEPS).enumerate() {
            let part = |i: usize| {
                let valid = first(k.saturating_sub(at + i));
                _mm512_maskz_loadu_ps(valid, from.wrapping_add(at + i))
            };
            let (x, y) = (part(0), part(LANES));
            most = larger(larger(most, x), y);
            let (high, low) = split(_mm512_mul_ps(x, up), _mm512_mul_ps(y, up));
            let to = to.add(2 * group * rows * LINE);
            _mm512_storeu_si512(to.cast(), high);
            _mm512_storeu_si512(to.add(rows * LINE).cast(), low);
        }
    }
    _mm512_reduce_max_ps(most)
}

/// Writes the sums of a block of outputs, plus the bias, into rows `row` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn write_rows(
    rows: usize,
    columns: usize,
    sums: *const f32,
    row_factors: *const f32,
    column_factors: *const f32,
    bias: Option<*const f32>,
    to: *mut f32,
    row: usize,
) {
    for half in 0..columns.div_ceil(LANES) {
        let valid = first(columns - half * LANES);
        // SAFETY: the caller's; what lies behind the last column is neither read nor written.
        unsafe {
            let by_column = _mm512_loadu_ps(column_factors.add(half * LANES));
            let bias = bias.map_or(_mm512_set1_ps(0.0), |bias| {
                _mm512_maskz_loadu_ps(valid, bias.wrapping_add(half * LANES))
            });
            for r in 0..rows {
                let tile = r / LANES / 2 * 4 + r / LANES % 2 * 2 + half;
                let sum = _mm512_loadu_ps(sums.add(tile * TILE + r % LANES * LANES));
                // Powers of two, whose product comes first: it is exact, while the sum times one of
                // them may be too small to be.
                let factor = _mm512_mul_ps(_mm512_set1_ps(*row_factors.add(r)), by_column);
                let y = _mm512_add_ps(_mm512_mul_ps(sum, factor), bias);
                _mm512_mask_storeu_ps(to.add(r * row + half * LANES), valid, y);
            }
        }
    }
}

/// Sixteen positions from `first` on that lie in one row of outputs, as far as `lanes` says.
struct Run {
    lanes: u16,
    /// Where the first of the sixteen would be written.
    to: isize,
}

/// The convolution of [`crate::conv::forward`]; none where a sample holds numbers so small or large
/// that too much would be lost of them.
pub(crate) fn image(layer: &Layer, s: &Shape, x: &[f32], bias: Option<&[f32]>) -> Option<Vec<f32>> {
    debug_assert_eq!(layer.sizes(), [s.o, s.c, s.kh * s.kw]);
    let mut planes = Planes::new(s);
    // Each position is one output at most.
    planes.row = planes.row.max(s.ow);
    let places = planes.sample(s) / s.c;
    let groups = layer.groups();
    let sample = 2 * groups * places * LINE;
    let mut lines = Scratch::new(s.batch * sample + (SIDE + planes.row) * LINE);
    let (to, from) = (Ptr::new(lines.ptr()), Ptr::of(x));
    // What lies right of the last row: in all others the next one's left.
    // SAFETY: behind the last sample.
    unsafe { to.at(s.batch * sample).write_bytes(0, planes.row * LINE) };
    let lost = AtomicBool::new(false);
    // Rows of a plane that are split at once.
    let rows = (4096 / planes.row).clamp(1, planes.rows);
    let parts = planes.rows.div_ceil(rows);
    parallel(s.batch * groups * parts, STEPS * rows * planes.row, |unit| {
        let (image, group, part) = (unit / parts / groups, unit / parts % groups, unit % parts);
        let channels = STEPS.min(s.c - group * STEPS);
        // SAFETY: each unit has its own rows of its own lines.
        unsafe {
            let from = from.at((image * s.c + group * STEPS) * s.h * s.w);
            let to = to.at(image * sample + 2 * group * places * LINE);
            let rows = (part * rows, ((part + 1) * rows).min(planes.rows));
            if !split_image(s, &planes, rows, channels, from, places, to) {
                lost.store(true, Ordering::Relaxed);
            }
        }
    });
    if lost.into_inner() {
        return None;
    }
    let (row, pixels) = (planes.row, s.oh * s.ow);
    // Offsets of the taps of one channel, whose planes are `places` numbers.
    let one = Shape { c: 1, ..*s };
    let taps = planes.offsets(&one);
    let offset = |group: usize, tap: &usize| (2 * group * places + tap) * 4 * LINE;
    let offsets: Vec<usize> =
        (0..groups).flat_map(|group| taps.iter().map(move |tap| offset(group, tap))).collect();
    let positions = (s.oh - 1) * row + s.ow;
    let mut y = Output::new(s.batch * s.o * pixels);
    let out = y.ptr();
    let shares = Shares::new(layer, s.batch, positions);
    let work = shares.strip * shares.range * SIDE * layer.channels * layer.taps;
    parallel(s.batch * shares.strips * shares.ranges, work, |unit| {
        let (range, place) = (unit / (s.batch * shares.strips), unit % (s.batch * shares.strips));
        let (image, first) = (place / shares.strips, place % shares.strips * shares.strip);
        let count = shares.strip.min(positions - first);
        let runs = runs(s, row, first, count);
        let mut scratch = Scratch::new(shares.strip * SIDE);
        let lines =
            Lines { first: to.at(image * sample), low: places * 4 * LINE, offsets: &offsets };
        // SAFETY: the tiles are there, or there would be no layer; each unit writes its own part.
        unsafe {
            let _tiles = Tiles::new();
            let last = ((range + 1) * shares.range).min(s.o.div_ceil(SIDE));
            for block in range * shares.range..last {
                sums(layer, block, &lines, first, count, scratch.ptr());
                let outputs = SIDE.min(s.o - block * SIDE);
                let bias = bias.map(|b| b.as_ptr().wrapping_add(block * SIDE));
                let factors = layer.block(block).wrapping_add(layer.factors());
                let to = out.at((image * s.o + block * SIDE) * pixels);
                write_image(&runs, outputs, scratch.ptr(), factors, bias, to, pixels);
            }
        }
    });
    drop(lines);
    // SAFETY: every pixel of every output was written.
    Some(unsafe { y.finish() })
}

/// For each sixteen of the `count` positions from `first` on, the runs of outputs among them.
fn runs(s: &Shape, row: usize, first: usize, count: usize) -> Vec<Vec<Run>> {
    let block = |p: usize| {
        let mut runs = Vec::new();
        let (mut at, end) = (p, (p + LANES).min(first + count));
        while at < end {
            let (y, x) = (at / row, at % row);
            let wide = s.ow.saturating_sub(x).min(end - at);
            if wide > 0 {
                let lane = at - p;
                let lanes = (((1_u32 << wide) - 1) << lane) as u16;
                runs.push(Run { lanes, to: (y * s.ow + x) as isize - lane as isize });
            }
            at += row - x;
        }
        runs
    };
    (first..first + count).step_by(LANES).map(block).collect()
}

/// Splits the rows `rows` of every plane of up to 32 channels into lines; gives whether none of them
/// holds numbers of which too much may be lost.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn split_image(
    s: &Shape,
    planes: &Planes,
    rows: (usize, usize),
    channels: usize,
    from: *const f32,
    places: usize,
    to: *mut f32,
) -> bool {
    let mut kept = true;
    let step = s.stride[1];
    // The gather's places of sixteen neighbours of a plane.
    let mut places_of: [i32; LANES] = [0; LANES];
    for (l, place) in places_of.iter_mut().enumerate() {
        *place = (l * step) as i32;
    }
    for residue in 0..planes.residues[0] * planes.residues[1] {
        let (a, b) = (residue / planes.residues[1], residue % planes.residues[1]);
        // Columns of the plane that are columns of the image.
        let left = b as isize - s.before[1];
        let begin = (-left).max(0) as usize;
        let begin = begin.div_ceil(step);
        let end = (s.w as isize - left).max(0) as usize;
        let end = end.div_ceil(step);
        for r in rows.0..rows.1 {
            let y = (r * s.stride[0] + a) as isize - s.before[0];
            let outside = y < 0 || y >= s.h as isize;
            // SAFETY: the caller's image and lines; lanes outside the image are not read.
            unsafe {
                let to = to.add((residue * planes.plane() + r * planes.row) * LINE);
                for j in (0..planes.row).step_by(LANES) {
                    let count = LANES.min(planes.row - j);
                    let to = to.add(j * LINE);
                    let lanes = if outside {
                        0
                    } else {
                        first(end.saturating_sub(j).min(count)) & !first(begin.saturating_sub(j))
                    };
                    if lanes == 0 {
                        for l in 0..count {
                            _mm512_storeu_si512(to.add(l * LINE).cast(), _mm512_setzero_si512());
                            let low = to.add((places + l) * LINE);
                            _mm512_storeu_si512(low.cast(), _mm512_setzero_si512());
                        }
                        continue;
                    }
                    let at = y * s.w as isize + left + (j * step) as isize;
                    let mut pixels = [[Avx512::splat(0.0); LANES]; 2];
                    let mut most = _mm512_set1_ps(0.0);
                    for c in 0..channels {
                        let from = from.wrapping_add(c * s.h * s.w).wrapping_offset(at);
                        let x = if step == 1 {
                            _mm512_maskz_loadu_ps(lanes, from)
                        } else {
                            let index = _mm512_loadu_si512(places_of.as_ptr().cast());
                            let zero = _mm512_set1_ps(0.0);
                            _mm512_mask_i32gather_ps::<4>(zero, lanes, index, from.cast())
                        };
                        most = larger(most, x);
                        pixels[c / LANES][c % LANES] = Avx512::from_register(x);
                    }
                    kept &= safe(most, lanes);
                    let [x, y] = [Avx512::transpose(&pixels[0]), Avx512::transpose(&pixels[1])];
                    for l in 0..count {
                        let (high, low) = split(x[l].register(), y[l].register());
                        _mm512_storeu_si512(to.add(l * LINE).cast(), high);
                        _mm512_storeu_si512(to.add((places + l) * LINE).cast(), low);
                    }
                }
            }
        }
    }
    kept
}

/// Whether the largest numbers of sixteen lines are zero or far from both ends of what a number of
/// 32 bits can be.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
fn safe(most: __m512, lanes: u16) -> bool {
    let some = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(lanes, most, _mm512_set1_ps(0.0));
    let low = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(some, most, _mm512_set1_ps(LEAST));
    let high = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(lanes, most, _mm512_set1_ps(HUGE));
    low | high == 0
}

/// Writes the sums of a block of outputs, plus the bias, into planes of `pixels` numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn write_image(
    runs: &[Vec<Run>],
    outputs: usize,
    sums: *const f32,
    factors: *const f32,
    bias: Option<*const f32>,
    to: *mut f32,
    pixels: usize,
) {
    for (i, runs) in runs.iter().enumerate() {
        for half in 0..outputs.div_ceil(LANES) {
            // SAFETY: the caller's sums, outputs and planes.
            unsafe {
                let tile = i / 2 * 4 + i % 2 * 2 + half;
                let factor = _mm512_loadu_ps(factors.add(half * LANES));
                let mut rows = [Avx512::splat(0.0); LANES];
                for (r, row) in rows.iter_mut().enumerate() {
                    let sum = _mm512_loadu_ps(sums.add(tile * TILE + r * LANES));
                    *row = Avx512::from_register(_mm512_mul_ps(sum, factor));
                }
                let columns = Avx512::transpose(&rows);
                for (o, y) in columns.iter().enumerate().take(outputs - half * LANES) {
                    let o = half * LANES + o;
                    let bias = _mm512_set1_ps(bias.map_or(0.0, |bias| *bias.add(o)));
                    let y = _mm512_add_ps(y.register(), bias);
                    for run in runs {
                        let to = to.wrapping_add(o * pixels).wrapping_offset(run.to);
                        _mm512_mask_storeu_ps(to, run.lanes, y);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    /// The definition in f64: the sum and the sum of the products' sizes.
    fn exact(s: &Shape, x: &[f32], w: &[f32], i: usize) -> (f64, f64) {
        let (ox, oy) = (i % s.ow, i / s.ow % s.oh);
        let (o, b) = (i / s.ow / s.oh % s.o, i / s.ow / s.oh / s.o);
        let (mut sum, mut size) = (0.0, 0.0);
        for c in 0..s.c {
            for t in 0..s.kh * s.kw {
                let y = (oy * s.stride[0] + t / s.kw) as isize - s.before[0];
                let column = (ox * s.stride[1] + t % s.kw) as isize - s.before[1];
                if (0..s.h as isize).contains(&y) && (0..s.w as isize).contains(&column) {
                    let at = (b * s.c + c) * s.h + y as usize;
                    let p = f64::from(x[at * s.w + column as usize])
                        * f64::from(w[(o * s.c + c) * s.kh * s.kw + t]);
                    sum += p;
                    size += p.abs();
                }
            }
        }
        (sum, size)
    }

    fn shape(
        sizes: [usize; 5],
        kernel: [usize; 2],
        stride: [usize; 2],
        before: [isize; 2],
    ) -> Shape {
        let [batch, c, o, h, w] = sizes;
        let side = |n: usize, k: usize, b: isize, step: usize| {
            ((n as isize + 2 * b - k as isize) as usize) / step + 1
        };
        let oh = side(h, kernel[0], before[0], stride[0]);
        let ow = side(w, kernel[1], before[1], stride[1]);
        Shape { batch, c, h, w, o, kh: kernel[0], kw: kernel[1], stride, before, oh, ow }
    }

    fn shapes() -> Vec<Shape> {
        vec![
            shape([1, 16, 16, 4, 4], [3, 3], [1, 1], [1, 1]),
            shape([2, 17, 33, 7, 5], [3, 3], [1, 1], [1, 1]),
            shape([1, 40, 70, 9, 50], [3, 3], [1, 1], [0, 1]),
            shape([1, 3, 70, 30, 31], [3, 3], [1, 1], [1, 0]),
            shape([2, 40, 5, 33, 18], [3, 3], [1, 1], [2, 2]),
            shape([1, 100, 20, 13, 17], [3, 3], [2, 2], [1, 1]),
            shape([2, 33, 48, 8, 9], [1, 1], [1, 1], [0, 0]),
            shape([1, 20, 18, 12, 11], [5, 2], [2, 1], [2, 0]),
            shape([1, 64, 31, 40, 40], [4, 4], [3, 2], [1, 1]),
            shape([2, 18, 11, 8, 3], [2, 1], [1, 1], [0, 2]),
            shape([1, 300, 64, 3, 2], [2, 2], [1, 1], [1, 1]),
        ]
    }

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

    /// 16-bit weights are kept exactly, and multiply as the same numbers in 32 bits do.
    #[test]
    fn narrow_weights_give_the_same_bits() {
        if !available() {
            return;
        }
        for half in [Half::F16, Half::Bf16] {
            for s in shapes() {
                let sizes = [s.o, s.c, s.kh * s.kw];
                let narrow: Vec<u16> = numbers(sizes.iter().product(), 5)
                    .iter()
                    .map(|&x| match half {
                        Half::F16 => half::f16::from_f32(x).to_bits(),
                        Half::Bf16 => half::bf16::from_f32(x).to_bits(),
                    })
                    .collect();
                let bytes: Vec<u8> = narrow.iter().flat_map(|x| x.to_le_bytes()).collect();
                let wide: Vec<f32> = narrow.iter().map(|&x| half.number(x)).collect();
                let kept = Layer::narrow(sizes, &bytes, half).unwrap();
                assert_eq!(kept.unpack(), wide);
                let split = Layer::new(sizes, &wide).unwrap();
                assert!(kept.bytes() * 10 < split.bytes() * 6);
                let x = numbers(s.batch * s.c * s.h * s.w, 1);
                assert_eq!(image(&kept, &s, &x, None), image(&split, &s, &x, None));
            }
        }
    }

    /// Within 2^-15 of the sum of the products' sizes, of any kernel, stride and zeros around.
    #[test]
    fn windows_of_images_are_right() {
        if !available() {
            return;
        }
        for s in shapes() {
            let taps = s.kh * s.kw;
            let (x, w) = (numbers(s.batch * s.c * s.h * s.w, 1), numbers(s.o * s.c * taps, 2));
            let bias = numbers(s.o, 3);
            let layer = Layer::new([s.o, s.c, taps], &w).unwrap();
            let got = image(&layer, &s, &x, Some(&bias)).unwrap();
            assert_eq!(got.len(), s.batch * s.o * s.oh * s.ow);
            for (i, got) in got.iter().enumerate() {
                let (sum, size) = exact(&s, &x, &w, i);
                let wanted = sum + f64::from(bias[i / s.ow / s.oh % s.o]);
                let error = (f64::from(*got) - wanted).abs();
                assert!(error <= (size + 1.0) * 2.0_f64.powi(-15), "{s:?} at {i}: {got} {wanted}");
            }
        }
    }

    /// Rows from the smallest to the largest numbers.
    #[test]
    fn rows_are_right_at_every_magnitude() {
        if !available() {
            return;
        }
        for (m, n, k) in [(1, 1, 16), (16, 16, 32), (33, 47, 70), (5, 100, 300), (64, 31, 515)] {
            for (of_x, of_w) in [
                (1.0, 1.0),
                (1e30, 1e-30),
                (1e-30, 1e30),
                (1e-40, 1.0),
                (1.0, 1e-41),
                (1e-17, 1e-17),
            ] {
                let x: Vec<f32> = numbers(m * k, 1).iter().map(|x| x * of_x).collect();
                let w: Vec<f32> = numbers(n * k, 2).iter().map(|x| x * of_w).collect();
                let got = rows(&Layer::new([n, k, 1], &w).unwrap(), m, &x, None);
                for (i, got) in got.iter().enumerate() {
                    let (mut sum, mut size) = (0.0, 0.0);
                    for l in 0..k {
                        let p = f64::from(x[i / n * k + l]) * f64::from(w[i % n * k + l]);
                        sum += p;
                        size += p.abs();
                    }
                    let bound = size * 2.0_f64.powi(-15) + f64::from(f32::from_bits(1));
                    let error = (f64::from(*got) - sum).abs();
                    assert!(error <= bound, "{m} {n} {k}, {of_x} {of_w} at {i}: {got} {sum}");
                }
            }
        }
    }

    /// Images of numbers so small that parts of them would be lost are refused; what is not finite is
    /// refused or stays so.
    #[test]
    fn images_at_the_ends_of_the_numbers_are_refused() {
        if !available() {
            return;
        }
        let s = shape([1, 40, 16, 6, 6], [3, 3], [1, 1], [1, 1]);
        let w = numbers(s.o * s.c * 9, 2);
        let layer = Layer::new([s.o, s.c, 9], &w).unwrap();
        let mut x = numbers(s.c * 36, 1);
        assert!(image(&layer, &s, &x, None).is_some());
        for of in [1e-30, 1e30] {
            let all: Vec<f32> = x.iter().map(|x| x * of).collect();
            assert!(image(&layer, &s, &all, None).is_none());
        }
        // One pixel of all channels.
        let mut pixel = x.clone();
        pixel.iter_mut().skip(7).step_by(36).for_each(|x| *x *= 1e-30);
        assert!(image(&layer, &s, &pixel, None).is_none());
        pixel.iter_mut().skip(7).step_by(36).for_each(|x| *x = 0.0);
        assert!(image(&layer, &s, &pixel, None).is_some());
        x[5 * 36 + 8] = f32::NAN;
        let got = image(&layer, &s, &x, None).unwrap();
        assert!(got.iter().take(36).enumerate().all(|(i, y)| {
            let near = (i / 6).abs_diff(1) < 2 && (i % 6).abs_diff(2) < 2;
            y.is_nan() == near
        }));
    }

    /// The bits of a row or a sample do not hang on the others or on the threads.
    #[test]
    fn bits_do_not_depend_on_batch_or_threads() {
        if !available() {
            return;
        }
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let s = shape([3, 40, 70, 19, 22], [3, 3], [1, 1], [1, 1]);
        let (x, w) = (numbers(s.batch * s.c * s.h * s.w, 1), numbers(s.o * s.c * 9, 2));
        let layer = Layer::new([s.o, s.c, 9], &w).unwrap();
        let whole = pool(1).install(|| image(&layer, &s, &x, None)).unwrap();
        assert_eq!(whole, pool(2).install(|| image(&layer, &s, &x, None)).unwrap());
        let alone = image(&layer, &Shape { batch: 1, ..s }, &x[..s.c * s.h * s.w], None).unwrap();
        assert_eq!(alone[..], whole[..alone.len()]);
        let (rows_of, n, k) = (77, 70, 200);
        let (x, w) = (numbers(rows_of * k, 1), numbers(n * k, 2));
        let layer = Layer::new([n, k, 1], &w).unwrap();
        let whole = pool(1).install(|| rows(&layer, rows_of, &x, None));
        assert_eq!(whole, pool(2).install(|| rows(&layer, rows_of, &x, None)));
        assert_eq!(rows(&layer, 5, &x[..5 * k], None)[..], whole[..5 * n]);
    }
}

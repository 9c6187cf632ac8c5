//! The sums of a layer's outputs at some positions: the products that rows and images share.

use std::arch::asm;
use std::arch::x86_64::{
    _mm512_castsi512_si256, _mm512_cvtph_ps, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
    _mm512_setzero_si512, _mm512_storeu_si512,
};

use super::layer::{DEPTH, Layer, NARROW_STEP, SIDE, STEP};
use super::{STEPS, TILE, Tiles, split};
use crate::memory::Scratch;
use crate::narrow::Half;
use crate::simd::LANES;

/// Numbers of a line: 32 high or low parts.
pub(super) const LINE: usize = 16;

/// Numbers of an image that stay in the second-level cache.
const NEAR: usize = 1 << 17;

/// Most positions of a strip.
const STRIP: usize = 1024;

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
pub(super) struct Lines<'a> {
    /// The high parts of the first position.
    pub(super) first: *const f32,
    /// From high parts to low ones, in bytes.
    pub(super) low: usize,
    /// Of each step, in bytes.
    pub(super) offsets: &'a [usize],
    /// From the lines of [`SIDE`] positions to those of the next, in numbers.
    pub(super) stride: usize,
}

/// The sums of the block `block` of outputs at `count` positions from `first` on, a multiple of [`SIDE`]:
/// for each [`SIDE`] of them four tiles.
///
/// # Safety
/// [`Tiles`] are configured; the lines of these positions, rounded up to sixteen; room for the sums.
pub(super) unsafe fn sums(
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
            let (a, low) = (lines.first.wrapping_add((first + p) / SIDE * lines.stride), lines.low);
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
pub(super) struct Shares {
    pub(super) strip: usize,
    pub(super) strips: usize,
    pub(super) range: usize,
    pub(super) ranges: usize,
}

impl Shares {
    /// Of `samples` times `positions` of `channels`, and `blocks` of outputs.
    pub(super) fn new(channels: usize, blocks: usize, samples: usize, positions: usize) -> Self {
        let most = (NEAR / channels.max(1)).clamp(8 * SIDE, STRIP) / SIDE * SIDE;
        let strip = positions.div_ceil(positions.div_ceil(most).max(1)).next_multiple_of(SIDE);
        let strips = positions.div_ceil(strip.max(1));
        let wanted = 4 * rayon::current_num_threads();
        let ranges = wanted.div_ceil((samples * strips).max(1)).clamp(1, blocks.max(1));
        let range = blocks.div_ceil(ranges);
        Self { strip, strips, range, ranges: blocks.div_ceil(range.max(1)) }
    }
}

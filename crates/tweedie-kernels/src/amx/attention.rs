//! Attention without a bias: scores, exponentials and the sum of values, a chunk of keys at a time, so
//! that scores never leave the caches.
//!
//! Rows keep their largest score so far (Milakov and Gimelshein, "Online normalizer calculation for
//! softmax", 2018, [arXiv:1805.02867](https://arxiv.org/abs/1805.02867)): where a chunk raises it, what
//! was summed before is multiplied by the exponential of the difference. Keys come packed as the columns
//! of a product over the features, values as those of one over the keys ([`super::blocks::prepack`]).
//!
//! The order of sums of an output depends on the numbers of features and of keys alone.

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_mov_ps,
    _mm512_mask_storeu_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_reduce_max_ps, _mm512_reduce_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps,
    _mm512_storeu_si512,
};

use super::blocks::{DEPTH, SIDE, block_len, block_start, multiply, pack_rows};
use super::{STEPS, TILE, Tiles, first, split};
use crate::attention::Shape;
use crate::gemm::Rows;
use crate::memory::Scratch;
use crate::simd::LANES;

/// Queries that meet a chunk of keys one after the other, while it is near.
pub(crate) const QUERIES: usize = 128;

/// Numbers of the scores of a block of queries with a chunk of keys, and of their exponentials split.
const CHUNK: usize = SIDE * DEPTH;

/// Whether these shapes are attended to here.
pub(crate) fn takes(s: &Shape) -> bool {
    super::blocks::takes(s.d) && super::blocks::takes(s.s) && s.d <= DEPTH && s.scale > 0.0
}

/// What is kept of a row between chunks.
#[derive(Clone, Copy)]
struct Row {
    /// The largest score so far, before it is scaled.
    top: f32,
    /// The sum of exponentials of what lies below it.
    sum: f32,
}

/// The outputs of `m` queries, at most [`QUERIES`], of one head, rows of `e` numbers one after the
/// other; largest score and sum of each row go to `stats` where it is given.
///
/// # Safety
/// [`super::available`]; `m` queries of `d` numbers, the packed keys and values, room for the outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(crate) unsafe fn attend(
    s: &Shape,
    m: usize,
    q: *const f32,
    keys: *const f32,
    values: *const f32,
    out: *mut f32,
    stats: Option<*mut f32>,
) {
    let (block, wide) = (block_len(s.d), s.e.next_multiple_of(SIDE));
    let mut queries = Scratch::new(m.div_ceil(SIDE) * block);
    let mut scores = Scratch::new(CHUNK);
    let mut split = Scratch::new(CHUNK);
    let mut sums = Scratch::new(4 * TILE);
    let mut total = Scratch::new(QUERIES * wide);
    let mut rows = [Row { top: f32::NEG_INFINITY, sum: 0.0 }; QUERIES];
    let steps = s.d.div_ceil(STEPS);
    // SAFETY: the caller's numbers; the scratch has room for each block.
    unsafe {
        let total = total.ptr();
        total.write_bytes(0, m * wide);
        for (i, first) in (0..m).step_by(SIDE).enumerate() {
            let from = Rows::new(q.add(first * s.d), s.d, 1);
            pack_rows(s.d, SIDE.min(m - first), from, queries.ptr().add(i * block));
        }
        let plain_keys = (0..s.s.div_ceil(SIDE)).all(|j| plain(keys.add((j + 1) * block - SIDE)));
        let _tiles = Tiles::new();
        for k0 in (0..s.s).step_by(DEPTH) {
            let depth = DEPTH.min(s.s - k0);
            for (i, first) in (0..m).step_by(SIDE).enumerate() {
                let count = SIDE.min(m - first);
                let query = queries.ptr().add(i * block).cast_const();
                for j in 0..depth.div_ceil(SIDE) {
                    let key = keys.add((k0 / SIDE + j) * block);
                    let to = scores.ptr().add(j * 4 * TILE);
                    match count > LANES {
                        true => multiply::<2, 2>(steps, query, key, to),
                        false => multiply::<1, 2>(steps, query, key, to),
                    }
                }
                let by_row = query.add(block - SIDE);
                if !plain_keys || !plain(by_row) {
                    let by_key = keys.add(k0 / SIDE * block + block - SIDE);
                    unscale(count, depth, by_row, by_key, block, scores.ptr());
                }
                let rows = &mut rows[first..first + count];
                let total = total.add(first * wide);
                let weigh = if depth == DEPTH { weigh::<true> } else { weigh::<false> };
                weigh(s.scale, rows, depth, scores.ptr(), split.ptr(), wide, total);
                for column in (0..s.e).step_by(SIDE) {
                    let value = values.add(block_start(k0, s.e) + column / SIDE * block_len(depth));
                    let (steps, p, to) = (depth.div_ceil(STEPS), split.ptr(), sums.ptr());
                    match (count > LANES, s.e - column > LANES) {
                        (true, true) => multiply::<2, 2>(steps, p, value, to),
                        (true, false) => multiply::<2, 1>(steps, p, value, to),
                        (false, true) => multiply::<1, 2>(steps, p, value, to),
                        (false, false) => multiply::<1, 1>(steps, p, value, to),
                    }
                    let by_column = value.add(block_len(depth) - SIDE);
                    add(count, sums.ptr(), by_column, total.add(column), wide);
                }
            }
        }
        for (r, row) in rows.iter().enumerate().take(m) {
            write(s.e, total.add(r * wide), 1.0 / row.sum, out.add(r * s.e));
            if let Some(stats) = stats {
                *stats.add(2 * r) = row.top * s.scale;
                *stats.add(2 * r + 1) = row.sum;
            }
        }
    }
}

/// Where vector `half` of row `r` of a block of 32 by 32 sums lies.
fn place(r: usize, half: usize) -> usize {
    (r / LANES * 2 + half) * TILE + r % LANES * LANES
}

/// Whether the factors of a block are all one.
unsafe fn plain(factors: *const f32) -> bool {
    // SAFETY: the caller's block has as many.
    (0..SIDE).all(|i| unsafe { *factors.add(i) } == 1.0)
}

/// Multiplies scores by what undoes the scaling of queries and keys.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn unscale(
    rows: usize,
    depth: usize,
    by_row: *const f32,
    by_key: *const f32,
    block: usize,
    scores: *mut f32,
) {
    // SAFETY: the caller's factors and scores.
    unsafe {
        for j in 0..depth.div_ceil(SIDE) {
            for half in 0..2 {
                let key = _mm512_loadu_ps(by_key.add(j * block + half * LANES));
                for r in 0..rows {
                    let at = scores.add(j * 4 * TILE + place(r, half));
                    let factor = _mm512_mul_ps(_mm512_set1_ps(*by_row.add(r)), key);
                    _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_loadu_ps(at), factor));
                }
            }
        }
    }
}

/// `2^t` to 1.5e-7 of it: a polynomial of the fifth degree on what is left of `t` above an integer.
/// Not a number stays so, and minus infinity gives 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
fn power_of_two(t: __m512) -> __m512 {
    // The least of the largest relative error on [0, 1].
    const C: [f32; 6] =
        [1.0, 0.693_153_1, 0.240_153_61, 0.055_826_318, 0.008_989_34, 0.001_877_576_7];
    // Rounding down, to whole numbers, without exceptions.
    let r = _mm512_reduce_ps::<0b1001>(t);
    let mut p = _mm512_set1_ps(C[5]);
    for c in C[..5].iter().rev() {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
    }
    _mm512_scalef_ps(p, t)
}

/// The exponentials of a chunk's scores, split, and what was summed before multiplied for the new
/// largest scores. `WHOLE`: the chunk has [`DEPTH`] keys.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn weigh<const WHOLE: bool>(
    scale: f32,
    rows: &mut [Row],
    depth: usize,
    scores: *const f32,
    to: *mut f32,
    wide: usize,
    total: *mut f32,
) {
    let low = _mm512_set1_ps(f32::NEG_INFINITY);
    // e^x is 2^(x log2 e).
    let scale = scale * std::f32::consts::LOG2_E;
    let (factor, zero) = (_mm512_set1_ps(scale), _mm512_set1_ps(0.0));
    let blocks = if WHOLE { DEPTH / SIDE } else { depth.div_ceil(SIDE) };
    let lanes = |j: usize, half: usize| first(depth.saturating_sub(j * SIDE + half * LANES));
    for (r, row) in rows.iter_mut().enumerate() {
        // SAFETY: the caller's scores, exponentials and sums.
        unsafe {
            let load = |j: usize, half: usize| {
                let x = _mm512_loadu_ps(scores.add(j * 4 * TILE + place(r, half)));
                if WHOLE { x } else { _mm512_mask_mov_ps(low, lanes(j, half), x) }
            };
            let mut most = [low; 2];
            for j in 0..blocks {
                for (half, most) in most.iter_mut().enumerate() {
                    // What is not a number is passed over here, and stays one below.
                    *most = _mm512_max_ps(load(j, half), *most);
                }
            }
            let top = row.top.max(_mm512_reduce_max_ps(_mm512_max_ps(most[0], most[1])));
            let minus = _mm512_set1_ps(-top * scale);
            let weight = |x: __m512| power_of_two(_mm512_fmadd_ps(x, factor, minus));
            let mut sum = [zero; 2];
            for j in 0..blocks {
                let (x, y) = (weight(load(j, 0)), weight(load(j, 1)));
                sum = [_mm512_add_ps(sum[0], x), _mm512_add_ps(sum[1], y)];
                let (high, low) = split(x, y);
                let to = to.add(j * 4 * TILE + r / LANES * TILE + r % LANES * LANES);
                _mm512_storeu_si512(to.cast(), high);
                _mm512_storeu_si512(to.add(2 * TILE).cast(), low);
            }
            let sum = _mm512_reduce_add_ps(_mm512_add_ps(sum[0], sum[1]));
            if top > row.top && row.top > f32::NEG_INFINITY {
                let fall = ((row.top - top) * scale).exp2();
                row.sum *= fall;
                let fall = _mm512_set1_ps(fall);
                for i in (0..wide).step_by(LANES) {
                    let at = total.add(r * wide + i);
                    _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_loadu_ps(at), fall));
                }
            }
            (row.top, row.sum) = (top, row.sum + sum);
        }
    }
}

/// Adds the sums of a chunk.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn add(rows: usize, sums: *const f32, by_column: *const f32, to: *mut f32, wide: usize) {
    for half in 0..2 {
        // SAFETY: the caller's sums and totals.
        unsafe {
            let factor = _mm512_loadu_ps(by_column.add(half * LANES));
            for r in 0..rows {
                let at = to.add(r * wide + half * LANES);
                let sum = _mm512_loadu_ps(sums.add(place(r, half)));
                _mm512_storeu_ps(at, _mm512_fmadd_ps(sum, factor, _mm512_loadu_ps(at)));
            }
        }
    }
}

/// Writes a row of `e` numbers times `factor`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn write(e: usize, from: *const f32, factor: f32, to: *mut f32) {
    for i in (0..e).step_by(LANES) {
        // SAFETY: the caller's row; what lies behind its end is not written.
        unsafe {
            let y = _mm512_mul_ps(_mm512_loadu_ps(from.add(i)), _mm512_set1_ps(factor));
            _mm512_mask_storeu_ps(to.add(i), first(e - i), y);
        }
    }
}

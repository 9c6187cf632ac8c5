//! Products of any two matrices.
//!
//! Operands are packed into tiles: 16 rows of 32 steps of `k` for `a`, and 16 columns of 32 steps
//! for `b`, two steps side by side. A block holds up to [`DEPTH`] steps of [`SIDE`] rows or columns:
//! for every 32 steps two tiles of the high parts and two of the low ones, and behind them the
//! factors that undo the scaling. The order of sums of an output element depends on `k` alone.

use std::arch::asm;
use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_div_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_reduce_max_ps,
    _mm512_set1_ps, _mm512_storeu_ps, _mm512_storeu_si512,
};

use super::{INTERLEAVED, STEPS, TILE, Tiles, first, larger, plain, scale, split, split_pair};
use crate::gemm::{Columns, Rows};
use crate::memory::Scratch;
use crate::simd::{Avx512, LANES, Simd};

/// Steps of `k` in a block.
pub(crate) const DEPTH: usize = 256;

/// Rows or columns of a block.
pub(crate) const SIDE: usize = 32;

/// Products with fewer steps than this are left to the vectors: most of a tile would be zeros.
const LEAST_STEPS: usize = 16;

/// Whether products of `k` steps are made here.
pub(crate) fn takes(k: usize) -> bool {
    k >= LEAST_STEPS
}

/// Numbers of a block of `depth` steps.
pub(crate) fn block_len(depth: usize) -> usize {
    depth.next_multiple_of(STEPS) * SIDE + SIDE
}

/// Numbers that all blocks of `k` steps by `n` rows or columns take.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    n.div_ceil(SIDE) * (k.next_multiple_of(STEPS) * SIDE + k.div_ceil(DEPTH) * SIDE)
}

/// Where the blocks of the steps from `k0` on begin, of `n` rows or columns.
pub(crate) fn block_start(k0: usize, n: usize) -> usize {
    n.div_ceil(SIDE) * (k0 * SIDE + k0 / DEPTH * SIDE)
}

/// Packs a panel of 32 columns by `depth` rows of f32, which lie [`SIDE`] apart; columns from
/// `columns` on become zeros.
///
/// # Safety
/// [`super::available`]; `depth * SIDE` numbers of `from`, of which the vectors that hold the first
/// `columns` are read; [`block_len`] of `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn pack_panel(depth: usize, columns: usize, from: *const f32, to: *mut f32) {
    for half in 0..2 {
        let valid = first(columns.saturating_sub(half * LANES));
        // SAFETY: the caller's panel: `depth` rows of two vectors.
        unsafe {
            let from = from.add(half * LANES);
            let (tiles, factors) = (to.add(half * TILE), to.add(block_len(depth) - SIDE));
            let factors = factors.add(half * LANES);
            let one = _mm512_set1_ps(1.0);
            let most = pack_half(depth, valid, from, one, tiles);
            _mm512_storeu_ps(factors, one);
            if !plain(most, valid) {
                let mut up = [0.0_f32; LANES];
                _mm512_storeu_ps(up.as_mut_ptr(), most);
                up = up.map(scale);
                pack_half(depth, valid, from, _mm512_loadu_ps(up.as_ptr()), tiles);
                _mm512_storeu_ps(factors, _mm512_div_ps(one, _mm512_loadu_ps(up.as_ptr())));
            }
        }
    }
}

/// Packs sixteen columns, multiplied by `up`; gives their largest sizes.
///
/// # Safety
/// As [`pack_panel`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn pack_half(
    depth: usize,
    valid: u16,
    from: *const f32,
    up: __m512,
    to: *mut f32,
) -> __m512 {
    let mut most = _mm512_set1_ps(0.0);
    // SAFETY: the caller's panel and block.
    unsafe {
        let order = _mm512_loadu_si512(INTERLEAVED.as_ptr().cast());
        for step in 0..depth.div_ceil(STEPS) {
            let (from, to) = (from.wrapping_add(step * STEPS * SIDE), to.add(4 * step * TILE));
            let whole = (step + 1) * STEPS <= depth;
            for i in 0..STEPS / 2 {
                let (row, k) = (from.wrapping_add(2 * i * SIDE), step * STEPS + 2 * i);
                let (x, y) = if whole {
                    (
                        _mm512_maskz_loadu_ps(valid, row),
                        _mm512_maskz_loadu_ps(valid, row.wrapping_add(SIDE)),
                    )
                } else {
                    let [first, second] = [k, k + 1].map(|k| if k < depth { valid } else { 0 });
                    (
                        _mm512_maskz_loadu_ps(first, row),
                        _mm512_maskz_loadu_ps(second, row.wrapping_add(SIDE)),
                    )
                };
                most = larger(larger(most, x), y);
                let (high, low) = split_pair(_mm512_mul_ps(x, up), _mm512_mul_ps(y, up), order);
                _mm512_storeu_si512(to.add(i * LANES).cast(), high);
                _mm512_storeu_si512(to.add(2 * TILE + i * LANES).cast(), low);
            }
        }
    }
    most
}

/// Packs the `rows` rows of a block of `depth` steps; rows from `rows` on become zeros.
///
/// # Safety
/// [`super::available`]; `rows` rows and `depth` steps of `a`; [`block_len`] of `to`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_rows(depth: usize, rows: usize, a: Rows, to: *mut f32) {
    // SAFETY: the caller's rows and block.
    unsafe {
        let factors = to.add(block_len(depth) - SIDE);
        if a.step == 1 {
            let steps = depth.div_ceil(STEPS);
            for r in 0..SIDE {
                let row = a.a.wrapping_add(r * a.row);
                let depth = if r < rows { depth } else { 0 };
                let to = to.add(r / LANES * TILE + r % LANES * LANES);
                let most = pack_row(depth, steps, row, 1.0, to);
                let up = scale(most);
                if up != 1.0 {
                    pack_row(depth, steps, row, up, to);
                }
                *factors.add(r) = 1.0 / up;
            }
            return;
        }
        // The transpose: sixteen rows are a vector of each step, so pairs of steps are packed as
        // columns are and then turned.
        let mut turned = Scratch::new(block_len(depth));
        let mut aside = Scratch::new(depth * SIDE);
        for i in 0..depth {
            let (from, to) = (a.a.wrapping_add(i * a.step), aside.ptr().add(i * SIDE));
            if a.row == 1 {
                for half in 0..2 {
                    let valid = first(rows.saturating_sub(half * LANES));
                    let x = _mm512_maskz_loadu_ps(valid, from.wrapping_add(half * LANES));
                    _mm512_storeu_ps(to.add(half * LANES), x);
                }
            } else {
                for r in 0..rows {
                    *to.add(r) = *from.add(r * a.row);
                }
            }
        }
        pack_panel(depth, rows, aside.ptr(), turned.ptr());
        for tile in 0..4 * depth.div_ceil(STEPS) {
            let (from, to) = (turned.ptr().add(tile * TILE), to.add(tile * TILE));
            let mut pairs = [Avx512::splat(0.0); LANES];
            for (i, v) in pairs.iter_mut().enumerate() {
                *v = Avx512::load(from.add(i * LANES));
            }
            for (i, v) in Avx512::transpose(&pairs).iter().enumerate() {
                v.store(to.add(i * LANES));
            }
        }
        std::ptr::copy_nonoverlapping(turned.ptr().add(block_len(depth) - SIDE), factors, SIDE);
    }
}

/// Packs one row of `depth` numbers times `up` to every fourth of `4 steps` tiles from `to` on; gives
/// the row's largest size.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn pack_row(depth: usize, steps: usize, from: *const f32, up: f32, to: *mut f32) -> f32 {
    let up = _mm512_set1_ps(up);
    let mut most = _mm512_set1_ps(0.0);
    // SAFETY: the caller's row, read up to `depth`, and its tiles.
    unsafe {
        for step in 0..steps {
            let (k, from) = (step * STEPS, from.wrapping_add(step * STEPS));
            let (x, y) = if k + STEPS <= depth {
                (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(LANES)))
            } else {
                let rest = depth.saturating_sub(k);
                (
                    _mm512_maskz_loadu_ps(first(rest), from),
                    _mm512_maskz_loadu_ps(
                        first(rest.saturating_sub(LANES)),
                        from.wrapping_add(LANES),
                    ),
                )
            };
            most = larger(larger(most, x), y);
            let (high, low) = split(_mm512_mul_ps(x, up), _mm512_mul_ps(y, up));
            let to = to.add(4 * step * TILE);
            _mm512_storeu_si512(to.cast(), high);
            _mm512_storeu_si512(to.add(2 * TILE).cast(), low);
        }
    }
    _mm512_reduce_max_ps(most)
}

/// Packs all blocks of `m` rows and `k` steps, [`packed_len`] numbers.
///
/// # Safety
/// [`super::available`]; the rows and steps of `a`; the numbers of `to`.
pub(crate) unsafe fn prepack_rows(m: usize, k: usize, a: Rows, to: *mut f32) {
    for k0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - k0);
        for (i, first) in (0..m).step_by(SIDE).enumerate() {
            // SAFETY: inside the rows and the blocks.
            unsafe {
                let from = Rows { a: a.a.add(first * a.row + k0 * a.step), ..a };
                let to = to.add(block_start(k0, m) + i * block_len(depth));
                pack_rows(depth, SIDE.min(m - first), from, to);
            }
        }
    }
}

/// Packs the blocks of the columns `part` of `n`, which begin at a multiple of [`SIDE`], and of `k`
/// steps; all of them are [`packed_len`] numbers.
///
/// # Safety
/// [`super::available`]; `b` has these rows and columns; the numbers of `to`.
pub(crate) unsafe fn prepack<C: Columns>(
    k: usize,
    n: usize,
    part: (usize, usize),
    b: &C,
    to: *mut f32,
) {
    for k0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - k0);
        for column in (part.0..part.1).step_by(SIDE) {
            // SAFETY: inside `b` and the blocks.
            unsafe {
                let to = to.add(block_start(k0, n) + column / SIDE * block_len(depth));
                pack_columns(b, column, SIDE.min(n - column), k0, depth, to);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn pack_columns<C: Columns>(
    b: &C,
    column: usize,
    columns: usize,
    k0: usize,
    depth: usize,
    to: *mut f32,
) {
    let mut aside = Scratch::new(DEPTH * SIDE);
    // SAFETY: the caller's.
    unsafe {
        let panel = b.panel::<Avx512>(column, columns, k0, depth, SIDE, aside.ptr());
        pack_panel(depth, columns, panel, to);
    }
}

/// Multiplies `steps` times 32 steps of a block of `a` with one of `b` into `R` by `W` tiles of
/// 16 by 16 sums, which are written one behind the other.
///
/// # Safety
/// [`Tiles`] are configured; the blocks have these steps; four tiles of `to`.
#[inline(always)]
pub(super) unsafe fn multiply<const R: usize, const W: usize>(
    steps: usize,
    a: *const f32,
    b: *const f32,
    to: *mut f32,
) {
    // The order of the three products is the same in all shapes, so the bits are too.
    macro_rules! run {
        ($($line:literal),* $(,)?) => {
            // SAFETY: the caller's blocks; the registers named are all that is changed.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "2:",
                    $($line,)*
                    "add {a}, 4096", "add {b}, 4096", "dec {n}", "jnz 2b",
                    "tilestored [{to} + {s}], tmm0",
                    "tilestored [{to} + {s} + 1024], tmm1",
                    "tilestored [{to} + {s} + 2048], tmm2",
                    "tilestored [{to} + {s} + 3072], tmm3",
                    a = inout(reg) a => _, b = inout(reg) b => _, n = inout(reg) steps => _,
                    to = in(reg) to, s = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                )
            }
        };
    }
    if steps == 0 {
        return;
    }
    match (R, W) {
        (2, 2) => run!(
            "tileloadd tmm6, [{b} + {s}]",
            "tileloadd tmm4, [{a} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {s} + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a} + {s} + 1024]",
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
            "tileloadd tmm4, [{a} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{a} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {s} + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
        ),
        (2, 1) => run!(
            "tileloadd tmm6, [{b} + {s}]",
            "tileloadd tmm4, [{a} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {s} + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm4, [{a} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {s} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
        ),
        _ => run!(
            "tileloadd tmm6, [{b} + {s}]",
            "tileloadd tmm4, [{a} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm4, [{a} + {s}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm6, [{b} + {s} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
        ),
    }
}

/// Adds the sums of a block to `c`, or writes them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn write(
    rows: usize,
    columns: usize,
    sums: *const f32,
    row_factors: *const f32,
    column_factors: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    for half in 0..columns.div_ceil(LANES) {
        let valid = (columns - half * LANES).min(LANES);
        let mask = (1_u32 << valid).wrapping_sub(1) as u16;
        // SAFETY: the caller's; what lies behind the last column is neither read nor written.
        unsafe {
            let by_column = _mm512_loadu_ps(column_factors.add(half * LANES));
            for r in 0..rows {
                let sum = sums.add((r / LANES * 2 + half) * TILE + r % LANES * LANES);
                // Powers of two, whose product comes first: it is exact, while the sum times one of
                // them may be too small to be.
                let factor = _mm512_mul_ps(_mm512_set1_ps(*row_factors.add(r)), by_column);
                let mut y = _mm512_mul_ps(_mm512_loadu_ps(sum), factor);
                let to = c.add(r * c_row + half * LANES);
                if add {
                    y = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), y);
                }
                _mm512_mask_storeu_ps(to, mask, y);
            }
        }
    }
}

/// `c[m, n] (+)= a[m, k] b[k, n]`, as [`crate::gemm::gemm`].
///
/// # Safety
/// [`super::available`]; shapes as there.
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
pub(crate) unsafe fn gemm<C: Columns>(
    m: usize,
    n: usize,
    k: usize,
    a: Rows,
    b: &C,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    let depth = DEPTH.min(k);
    let mut rows = Scratch::new(if a.packed { 0 } else { m.div_ceil(SIDE) * block_len(depth) });
    let mut panel = Scratch::new(block_len(depth));
    let mut sums = Scratch::new(4 * TILE);
    let sums = sums.ptr();
    // SAFETY: the caller's.
    unsafe {
        let _tiles = Tiles::new();
        for k0 in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - k0);
            let block = block_len(depth);
            let steps = depth.div_ceil(STEPS);
            let blocks = if a.packed {
                a.a.add(block_start(k0, a.row))
            } else {
                for (i, first) in (0..m).step_by(SIDE).enumerate() {
                    let from = Rows { a: a.a.add(first * a.row + k0 * a.step), ..a };
                    pack_rows(depth, SIDE.min(m - first), from, rows.ptr().add(i * block));
                }
                rows.ptr().cast_const()
            };
            for column in (0..n).step_by(SIDE) {
                let columns = SIDE.min(n - column);
                let b = match b.tiles(column, k0, depth) {
                    Some(tiles) => tiles,
                    None => {
                        pack_columns(b, column, columns, k0, depth, panel.ptr());
                        panel.ptr().cast_const()
                    }
                };
                for (i, first) in (0..m).step_by(SIDE).enumerate() {
                    let a = blocks.add(i * block);
                    let rows = SIDE.min(m - first);
                    match (rows > LANES, columns > LANES) {
                        (true, true) => multiply::<2, 2>(steps, a, b, sums),
                        (true, false) => multiply::<2, 1>(steps, a, b, sums),
                        (false, true) => multiply::<1, 2>(steps, a, b, sums),
                        (false, false) => multiply::<1, 1>(steps, a, b, sums),
                    }
                    let (by_row, by_column) = (a.add(block - SIDE), b.add(block - SIDE));
                    let to = c.add(first * c_row + column);
                    write(rows, columns, sums, by_row, by_column, to, c_row, add || k0 > 0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::available;
    use super::*;
    use crate::gemm::{RowMajor, Transposed};
    use crate::testing::numbers;

    /// `a[m, k] b[k, n]` through the tiles, and in f64 with the sum of the products' sizes.
    fn both(m: usize, n: usize, k: usize, a: &[f32], b: &[f32]) -> (Vec<f32>, Vec<(f64, f64)>) {
        let mut c = vec![0.0; m * n];
        let rows = Rows::new(a.as_ptr(), k, 1);
        // SAFETY: shapes as declared; the caller has asked whether the tiles are there.
        unsafe {
            gemm(m, n, k, rows, &RowMajor { b: b.as_ptr(), stride: n }, c.as_mut_ptr(), n, false);
        }
        let exact = (0..m * n)
            .map(|i| {
                (0..k).fold((0.0, 0.0), |(sum, size), l| {
                    let p = f64::from(a[i / n * k + l]) * f64::from(b[l * n + i % n]);
                    (sum + p, size + p.abs())
                })
            })
            .collect();
        (c, exact)
    }

    /// Within 2^-15 of the sum of the products' sizes: at odd sizes, and for numbers from the
    /// smallest to the largest.
    #[test]
    fn products_are_right_at_every_magnitude() {
        if !available() {
            return;
        }
        for (m, n, k) in [(1, 1, 16), (16, 16, 32), (33, 47, 70), (5, 100, 300), (64, 31, 515)] {
            for (of_a, of_b) in [
                (1.0, 1.0),
                (1e30, 1e-30),
                (1e-30, 1e30),
                (1e-40, 1.0),
                (1.0, 1e-41),
                (3e-43, 1e20),
                (3.4e38, 1e-3),
                (1e-20, 3.4e38),
            ] {
                let a: Vec<f32> = numbers(m * k, 1).iter().map(|x| x * of_a).collect();
                let b: Vec<f32> = numbers(k * n, 2).iter().map(|x| x * of_b).collect();
                let (got, exact) = both(m, n, k, &a, &b);
                for (i, (got, (wanted, size))) in got.iter().zip(exact).enumerate() {
                    // The last bit of the smallest numbers is all that f32 itself has.
                    let bound = size * 2.0_f64.powi(-15) + f64::from(f32::from_bits(1));
                    let error = (f64::from(*got) - wanted).abs();
                    assert!(error <= bound, "{m} {n} {k}, {of_a} {of_b} at {i}: {got} {wanted}");
                }
            }
        }
    }

    /// What is not finite stays so, and only in its own row or column.
    #[test]
    fn what_is_not_finite_stays_not_finite() {
        if !available() {
            return;
        }
        let (m, n, k) = (20, 40, 50);
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let (mut a, mut b) = (numbers(m * k, 1), numbers(k * n, 2));
            a[3 * k + 7] = bad;
            b[11 * n + 35] = bad;
            let (got, _) = both(m, n, k, &a, &b);
            for (i, x) in got.iter().enumerate() {
                assert_eq!(x.is_finite(), i / n != 3 && i % n != 35, "{bad} at {i}");
            }
        }
    }

    /// Rows packed before, in either layout, and columns packed before give the same bits, and a row
    /// of tiny numbers does not change its neighbours.
    #[test]
    fn packing_changes_no_bit() {
        if !available() {
            return;
        }
        let (m, n, k) = (45, 50, 300);
        let (mut a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let plain = both(m, n, k, &a, &b).0;
        a[5 * k..6 * k].iter_mut().for_each(|x| *x *= 1e-30);
        let wanted = both(m, n, k, &a, &b).0;
        let others = |c: &[f32]| [&c[..5 * n], &c[6 * n..]].concat();
        assert_eq!(others(&plain), others(&wanted));
        let turned = |rows: usize, columns: usize, x: &[f32]| -> Vec<f32> {
            (0..rows * columns).map(|i| x[i % rows * columns + i / rows]).collect()
        };
        let (at, bt) = (turned(m, k, &a), turned(k, n, &b));
        let columns = Transposed { b: bt.as_ptr(), stride: k };
        for rows in [Rows::new(a.as_ptr(), k, 1), Rows::new(at.as_ptr(), 1, m)] {
            let (mut blocks, mut tiles) =
                (Scratch::new(packed_len(k, m)), Scratch::new(packed_len(k, n)));
            let mut c = vec![0.0; m * n];
            // SAFETY: shapes as declared.
            unsafe {
                prepack_rows(m, k, rows, blocks.ptr());
                prepack(k, n, (0, n), &columns, tiles.ptr());
                let packed = Rows { a: blocks.ptr(), row: m, step: 1, packed: true, far: false };
                let tiles = crate::gemm::Packed { panels: tiles.ptr(), n };
                gemm(m, n, k, packed, &tiles, c.as_mut_ptr(), n, false);
            }
            assert_eq!(c, wanted);
        }
    }
}

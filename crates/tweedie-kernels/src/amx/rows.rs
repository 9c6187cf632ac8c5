//! The rows of a linear layer.

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
    _mm512_mul_ps, _mm512_reduce_max_ps, _mm512_set1_ps, _mm512_storeu_si512,
};

use super::layer::{Layer, SIDE};
use super::sums::{LINE, Lines, Shares, sums};
use super::{STEPS, TILE, Tiles, first, larger, scale, split};
use crate::memory::{Output, Ptr, Scratch, parallel};
use crate::simd::LANES;

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

#[cfg(test)]
mod tests {
    use super::super::available;
    use super::*;
    use crate::testing::numbers;

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

    /// The bits of a row do not hang on the others or on the threads.
    #[test]
    fn bits_do_not_depend_on_other_rows_or_threads() {
        if !available() {
            return;
        }
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (rows_of, n, k) = (77, 70, 200);
        let (x, w) = (numbers(rows_of * k, 1), numbers(n * k, 2));
        let layer = Layer::new([n, k, 1], &w).unwrap();
        let whole = pool(1).install(|| rows(&layer, rows_of, &x, None));
        assert_eq!(whole, pool(2).install(|| rows(&layer, rows_of, &x, None)));
        assert_eq!(rows(&layer, 5, &x[..5 * k], None)[..], whole[..5 * n]);
    }
}

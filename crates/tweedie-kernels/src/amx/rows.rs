//! The rows of a linear layer.

use std::arch::x86_64::{
    __m512, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_reduce_max_ps, _mm512_set1_ps,
    _mm512_storeu_si512,
};

use super::layer::{Layer, SIDE, STEP};
use super::sums::{LINE, Lines, Shares, sums};
use super::{STEPS, Tiles, first, larger, scale, split};
use crate::epilogue::Epilogue;
use crate::memory::{Output, Ptr, Scratch, parallel};
use crate::simd::LANES;
use crate::write::{Part, write_rows};

/// `y[rows, outputs] = x[rows, channels] w^T + bias`, and what follows: a gate halves the outputs, whose
/// halves must be whole blocks ([`gates`]).
pub(crate) fn rows(
    layer: &Layer,
    rows: usize,
    x: &[f32],
    bias: Option<&[f32]>,
    epilogue: Epilogue,
) -> Vec<f32> {
    let (n, k) = (epilogue.outputs(layer.outputs), layer.channels);
    debug_assert!(layer.taps == 1 && x.len() == rows * k);
    let mut y = Output::new(rows * n);
    let out = y.ptr();
    // For every block of rows its steps one behind the other, as they are read.
    let stride = layer.groups() * STEP;
    let mut lines = Scratch::new(rows.div_ceil(SIDE) * stride);
    let mut factors = vec![1.0; rows.next_multiple_of(LANES)];
    let (to, by_row) = (Ptr::new(lines.ptr()), Ptr::new(factors.as_mut_ptr()));
    let from = Ptr::of(x);
    parallel(rows.div_ceil(LANES), LANES * k, |i| {
        let first = i * LANES;
        // SAFETY: each unit has its own rows.
        unsafe {
            let to = to.at(first / SIDE * stride + first % SIDE * LINE);
            let count = LANES.min(rows - first);
            split_rows(count, k, from.at(first * k), to, by_row.at(first));
        }
    });
    let offsets: Vec<usize> = (0..layer.groups()).map(|g| g * 4 * STEP).collect();
    let blocks = n.div_ceil(SIDE);
    let s = Shares::new(layer.channels, blocks, 1, rows);
    parallel(s.strips * s.ranges, s.strip * s.range * SIDE * k, |unit| {
        let (range, first) = (unit / s.strips, unit % s.strips * s.strip);
        let count = s.strip.min(rows - first);
        let gated = matches!(epilogue, Epilogue::Gated(_));
        let mut scratch = Scratch::new((1 + usize::from(gated)) * s.strip * SIDE);
        let lines = Lines { first: to.at(0), low: 4 * SIDE * LINE, offsets: &offsets, stride };
        // SAFETY: the tiles are there, or there would be no layer; each unit writes its own part.
        unsafe {
            let _tiles = Tiles::new();
            let part = |block: usize, sums_at: *mut f32| {
                sums(layer, block, &lines, first, count, sums_at);
                Part {
                    sums: sums_at,
                    factors: layer.block(block).wrapping_add(layer.factors()),
                    bias: bias.map(|b| b.as_ptr().wrapping_add(block * SIDE)),
                }
            };
            for block in range * s.range..((range + 1) * s.range).min(blocks) {
                let value = part(block, scratch.ptr());
                let gate =
                    gated.then(|| part(blocks + block, scratch.ptr().wrapping_add(s.strip * SIDE)));
                let columns = SIDE.min(n - block * SIDE);
                let to = out.at(first * n + block * SIDE);
                write_rows(
                    count,
                    columns,
                    &value,
                    gate.as_ref(),
                    epilogue,
                    by_row.at(first),
                    to,
                    n,
                );
            }
        }
    });
    drop(lines);
    // SAFETY: every row was written.
    unsafe { y.finish() }
}

/// Whether a layer's outputs can be gated as they are written.
pub(crate) fn gates(layer: &Layer) -> bool {
    layer.outputs.is_multiple_of(2 * SIDE)
}

/// Splits `count` rows, at most sixteen, of `k` numbers into the lines of a block: for each group of
/// channels the high ones of [`SIDE`] rows, and behind them the low ones.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn split_rows(count: usize, k: usize, from: *const f32, to: *mut f32, factors: *mut f32) {
    // SAFETY: the caller's rows and lines.
    unsafe {
        for r in 0..count {
            let row = from.add(r * k);
            let most = split_row(k, row, _mm512_set1_ps(1.0), to.add(r * LINE));
            let up = scale(most);
            if up != 1.0 {
                split_row(k, row, _mm512_set1_ps(up), to.add(r * LINE));
            }
            *factors.add(r) = 1.0 / up;
        }
    }
}

/// Splits one row times `up`; gives its largest size.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn split_row(k: usize, from: *const f32, up: __m512, to: *mut f32) -> f32 {
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
            let to = to.add(group * STEP);
            _mm512_storeu_si512(to.cast(), high);
            _mm512_storeu_si512(to.add(SIDE * LINE).cast(), low);
        }
    }
    _mm512_reduce_max_ps(most)
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
                let got = rows(&Layer::new([n, k, 1], &w).unwrap(), m, &x, None, Epilogue::Plain);
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
        let whole = pool(1).install(|| rows(&layer, rows_of, &x, None, Epilogue::Plain));
        assert_eq!(whole, pool(2).install(|| rows(&layer, rows_of, &x, None, Epilogue::Plain)));
        assert_eq!(rows(&layer, 5, &x[..5 * k], None, Epilogue::Plain)[..], whole[..5 * n]);
    }
}

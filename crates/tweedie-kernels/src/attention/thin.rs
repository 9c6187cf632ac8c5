//! Attention of heads so thin that a matrix product's tiles would be mostly empty: sixteen queries
//! stand in the lanes, keys and values come one number at a time. U-Nets over pixels have heads of
//! eight numbers.

use super::{Gradients, Shape};
use crate::math::exp;
use crate::memory::{Output, Ptr, Scratch, parallel};
use crate::simd::{LANES, Simd, dispatch};

/// Most numbers of a head; thinner ones are filled with zeros.
const WIDTH: usize = 8;

/// Whether this is how heads of these shapes are attended to.
pub(super) fn takes(s: &Shape) -> bool {
    s.d.max(s.e) <= WIDTH && s.scale > 0.0 && s.s > 0
}

/// Rows of `width` numbers, each filled up to [`WIDTH`] with zeros.
unsafe fn padded(rows: usize, width: usize, from: *const f32, to: *mut f32) {
    for r in 0..rows {
        for i in 0..WIDTH {
            // SAFETY: the caller's rows.
            unsafe {
                *to.add(r * WIDTH + i) = if i < width { *from.add(r * width + i) } else { 0.0 }
            };
        }
    }
}

/// Up to sixteen rows of `width` numbers as columns: number `i` of row `l` in lane `l` of vector `i`.
#[inline(always)]
unsafe fn columns<S: Simd>(rows: usize, width: usize, from: *const f32) -> [S; WIDTH] {
    let mut columns = [[0.0_f32; LANES]; WIDTH];
    for (i, column) in columns.iter_mut().enumerate().take(width) {
        for (l, x) in column.iter_mut().enumerate().take(rows) {
            // SAFETY: the caller's rows.
            *x = unsafe { *from.add(l * width + i) };
        }
    }
    // SAFETY: whole vectors.
    unsafe {
        let mut vectors = [S::splat(0.0); WIDTH];
        for (v, column) in vectors.iter_mut().zip(&columns) {
            *v = S::load(column.as_ptr());
        }
        vectors
    }
}

/// The other way round, times `factor` lane by lane.
#[inline(always)]
unsafe fn write_columns<S: Simd>(
    columns: &[S; WIDTH],
    factor: S,
    rows: usize,
    width: usize,
    to: *mut f32,
) {
    let mut lanes = [0.0_f32; LANES];
    for (i, column) in columns.iter().enumerate().take(width) {
        // SAFETY: a whole vector, and the caller's rows.
        unsafe {
            column.mul(factor).store(lanes.as_mut_ptr());
            for (l, x) in lanes.iter().enumerate().take(rows) {
                *to.add(l * width + i) = *x;
            }
        }
    }
}

/// `sum_i columns[i] * row[i]`, lane by lane.
#[inline(always)]
unsafe fn dot<S: Simd>(columns: &[S; WIDTH], row: *const f32) -> S {
    // SAFETY: the caller's row of `WIDTH` numbers.
    unsafe {
        let mut sum = columns[0].mul(S::splat(*row));
        for (i, column) in columns.iter().enumerate().skip(1) {
            sum = column.fma(S::splat(*row.add(i)), sum);
        }
        sum
    }
}

/// `sums[i] += x * row[i]`, lane by lane.
#[inline(always)]
unsafe fn gather<S: Simd>(sums: &mut [S; WIDTH], x: S, row: *const f32) {
    for (i, sum) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's row of `WIDTH` numbers.
        unsafe { *sum = x.fma(S::splat(*row.add(i)), *sum) };
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn forward_body<S: Simd>(
    s: &Shape,
    rows: usize,
    q: *const f32,
    k: *const f32,
    v: *const f32,
    scores: *mut f32,
    y: *mut f32,
    stats: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let q = columns::<S>(rows, s.d, q);
        let mut most = S::splat(f32::NEG_INFINITY);
        for key in 0..s.s {
            let score = dot(&q, k.add(key * WIDTH));
            score.store(scores.add(key * LANES));
            most = score.max(most);
        }
        let factor = S::splat(s.scale);
        let top = most.mul(factor);
        let down = S::splat(0.0).sub(top);
        let mut sum = S::splat(0.0);
        let mut sums = [S::splat(0.0); WIDTH];
        for key in 0..s.s {
            let p = exp(S::load(scores.add(key * LANES)).fma(factor, down));
            sum = sum.add(p);
            gather(&mut sums, p, v.add(key * WIDTH));
        }
        write_columns(&sums, S::splat(1.0).div(sum), rows, s.e, y);
        let mut lanes = [[0.0_f32; LANES]; 2];
        top.store(lanes[0].as_mut_ptr());
        sum.store(lanes[1].as_mut_ptr());
        for l in 0..rows {
            *stats.add(2 * l) = lanes[0][l];
            *stats.add(2 * l + 1) = lanes[1][l];
        }
    }
}

dispatch! {
    /// Up to sixteen queries of one head; keys and values are filled up to [`WIDTH`].
    ///
    /// # Safety
    /// The queries, keys and values of the shape, a vector of `scores` for each key, and two numbers
    /// of `stats` for each query.
    fn forward_rows(
        s: &Shape, rows: usize, q: *const f32, k: *const f32, v: *const f32, scores: *mut f32,
        y: *mut f32, stats: *mut f32,
    ) = forward_body
}

/// As [`super::forward`] without a bias.
pub(super) fn forward(s: &Shape, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let heads = s.batch * s.heads;
    let mut y = Output::new(heads * s.t * s.e);
    let mut stats = Output::new(2 * heads * s.t);
    let (out, to) = (y.ptr(), stats.ptr());
    let (q, k, v) = (Ptr::of(q), Ptr::of(k), Ptr::of(v));
    parallel(heads, s.t * s.s * 2 * WIDTH, |head| {
        let mut keys = Scratch::new(s.s * WIDTH);
        let mut values = Scratch::new(s.s * WIDTH);
        let mut scores = Scratch::new(s.s * LANES);
        // SAFETY: each unit has its own head.
        unsafe {
            padded(s.s, s.d, k.at(head * s.s * s.d), keys.ptr());
            padded(s.s, s.e, v.at(head * s.s * s.e), values.ptr());
            for t in (0..s.t).step_by(LANES) {
                let (row, rows) = (head * s.t + t, LANES.min(s.t - t));
                let (q, y, stats) = (q.at(row * s.d), out.at(row * s.e), to.at(2 * row));
                let (k, v) = (keys.ptr(), values.ptr());
                forward_rows(s, rows, q, k, v, scores.ptr(), y, stats);
            }
        }
    });
    // SAFETY: every query's row was written.
    unsafe { (y.finish(), stats.finish()) }
}

/// What the backward pass of a head works on.
struct Head {
    /// Keys and values, filled up to [`WIDTH`].
    k: *const f32,
    v: *const f32,
    /// A vector of the map and one of its gradient for each key.
    map: *mut f32,
    slope: *mut f32,
    /// The gradients of sixteen keys, number by number, then those of their values.
    sums: *mut f32,
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn backward_body<S: Simd>(
    s: &Shape,
    rows: usize,
    q: *const f32,
    g: *const f32,
    stats: *const f32,
    head: &Head,
    dq: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let (mut tops, mut rates) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        for l in 0..rows {
            tops[l] = -*stats.add(2 * l);
            rates[l] = 1.0 / *stats.add(2 * l + 1);
        }
        let (down, rate) = (S::load(tops.as_ptr()), S::load(rates.as_ptr()));
        let factor = S::splat(s.scale);
        let (q_columns, g_columns) = (columns::<S>(rows, s.d, q), columns::<S>(rows, s.e, g));
        let mut total = S::splat(0.0);
        for key in 0..s.s {
            // Lanes without a query have a rate of zero, and with it no share in anything.
            let score = dot(&q_columns, head.k.add(key * WIDTH));
            let p = exp(score.fma(factor, down)).mul(rate);
            let dp = dot(&g_columns, head.v.add(key * WIDTH));
            total = p.fma(dp, total);
            p.store(head.map.add(key * LANES));
            dp.store(head.slope.add(key * LANES));
        }
        let mut sums = [S::splat(0.0); WIDTH];
        for key in 0..s.s {
            let p = S::load(head.map.add(key * LANES));
            let dp = S::load(head.slope.add(key * LANES));
            let ds = p.mul(dp.sub(total)).mul(factor);
            ds.store(head.slope.add(key * LANES));
            gather(&mut sums, ds, head.k.add(key * WIDTH));
        }
        write_columns(&sums, S::splat(1.0), rows, s.d, dq);
        // Now sixteen keys in the lanes, query by query.
        let (mut q_rows, mut g_rows) = ([0.0_f32; LANES * WIDTH], [0.0_f32; LANES * WIDTH]);
        padded(rows, s.d, q, q_rows.as_mut_ptr());
        padded(rows, s.e, g, g_rows.as_mut_ptr());
        for key in (0..s.s).step_by(LANES) {
            let to = head.sums.add(key * 2 * WIDTH);
            for (from, rows_of, to) in [
                (head.slope, q_rows.as_ptr(), to),
                (head.map, g_rows.as_ptr(), to.add(WIDTH * LANES)),
            ] {
                let mut block = [S::splat(0.0); LANES];
                for (l, v) in block.iter_mut().enumerate().take(s.s - key) {
                    *v = S::load(from.add((key + l) * LANES));
                }
                let turned = S::transpose(&block);
                let mut sums = [S::splat(0.0); WIDTH];
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::load(to.add(i * LANES));
                }
                for (row, x) in turned.iter().enumerate().take(rows) {
                    gather(&mut sums, *x, rows_of.add(row * WIDTH));
                }
                for (i, sum) in sums.iter().enumerate() {
                    sum.store(to.add(i * LANES));
                }
            }
        }
    }
}

dispatch! {
    /// Up to sixteen queries of one head: their gradients, and their share in those of its keys and
    /// values, which is added to the head's sums.
    ///
    /// # Safety
    /// What the shape and [`Head`] say.
    fn backward_rows(
        s: &Shape, rows: usize, q: *const f32, g: *const f32, stats: *const f32, head: &Head,
        dq: *mut f32,
    ) = backward_body
}

#[inline(always)]
unsafe fn finish_body<S: Simd>(s: &Shape, sums: *const f32, dk: *mut f32, dv: *mut f32) {
    for key in (0..s.s).step_by(LANES) {
        let rows = LANES.min(s.s - key);
        // SAFETY: the caller's.
        unsafe {
            let of = sums.add(key * 2 * WIDTH);
            let mut columns = [S::splat(0.0); WIDTH];
            for (i, column) in columns.iter_mut().enumerate() {
                *column = S::load(of.add(i * LANES));
            }
            write_columns(&columns, S::splat(1.0), rows, s.d, dk.add(key * s.d));
            for (i, column) in columns.iter_mut().enumerate() {
                *column = S::load(of.add((WIDTH + i) * LANES));
            }
            write_columns(&columns, S::splat(1.0), rows, s.e, dv.add(key * s.e));
        }
    }
}

dispatch! {
    /// Writes the gradients of a head's keys and values from its sums.
    ///
    /// # Safety
    /// What the shape says.
    fn finish(s: &Shape, sums: *const f32, dk: *mut f32, dv: *mut f32) = finish_body
}

/// As [`super::backward`] without a bias.
pub(super) fn backward(
    s: &Shape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    stats: &[f32],
    g: &[f32],
) -> Gradients {
    let heads = s.batch * s.heads;
    let mut dq = Output::new(heads * s.t * s.d);
    let mut dk = Output::new(heads * s.s * s.d);
    let mut dv = Output::new(heads * s.s * s.e);
    let (to_q, to_k, to_v) = (dq.ptr(), dk.ptr(), dv.ptr());
    let (q, k, v, g) = (Ptr::of(q), Ptr::of(k), Ptr::of(v), Ptr::of(g));
    let stats = Ptr::of(stats);
    parallel(heads, s.t * s.s * 5 * WIDTH, |head| {
        let mut keys = Scratch::new(s.s * WIDTH);
        let mut values = Scratch::new(s.s * WIDTH);
        let mut map = Scratch::new(s.s * LANES);
        let mut slope = Scratch::new(s.s * LANES);
        let len = s.s.next_multiple_of(LANES) * 2 * WIDTH;
        let mut sums = Scratch::new(len);
        // SAFETY: each unit has its own head.
        unsafe {
            padded(s.s, s.d, k.at(head * s.s * s.d), keys.ptr());
            padded(s.s, s.e, v.at(head * s.s * s.e), values.ptr());
            sums.ptr().write_bytes(0, len);
            let parts = Head {
                k: keys.ptr(),
                v: values.ptr(),
                map: map.ptr(),
                slope: slope.ptr(),
                sums: sums.ptr(),
            };
            for t in (0..s.t).step_by(LANES) {
                let (row, rows) = (head * s.t + t, LANES.min(s.t - t));
                let (q, g) = (q.at(row * s.d), g.at(row * s.e));
                backward_rows(s, rows, q, g, stats.at(2 * row), &parts, to_q.at(row * s.d));
            }
            let (dk, dv) = (to_k.at(head * s.s * s.d), to_v.at(head * s.s * s.e));
            finish(s, parts.sums, dk, dv);
        }
    });
    // SAFETY: every head wrote its rows.
    unsafe { Gradients { q: dq.finish(), k: dk.finish(), v: dv.finish(), bias: None } }
}

//! Products of rows with a weight matrix, and their gradients.

use std::mem::MaybeUninit;

use crate::gemm::{
    Columns, Packed, RowMajor, Rows, Transposed, gemm, packed_len, prepack_shared, tiled,
};
use crate::memory::{Output, Ptr, Scratch, parallel, sum_groups};
use crate::simd::{LANES, Simd, dispatch, load_part, store_part};

/// Most rows that one unit of work multiplies: each of its panels of weights comes from far away.
const ROWS: usize = 144;

/// Fewest, where there are enough units of them.
const FEWEST_ROWS: usize = 48;

/// Outputs that one unit of work makes where the weights are the rows.
const OUTPUTS: usize = 32;

/// Least rows of a partial gradient of the weights.
const GROUP: usize = 512;

/// Most partial gradients of the weights, which are summed in order.
const GROUPS: usize = 8;

/// `y[rows, n] = x[rows, k] b[k, n] + bias[n]`.
fn product<C: Columns>(
    rows: usize,
    k: usize,
    n: usize,
    x: &[f32],
    b: &C,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let mut y = Output::new(rows * n);
    let out = y.ptr();
    let mut scratch = Scratch::new(packed_len(k, n));
    let (x, panels) = (Ptr::of(x), Ptr::new(scratch.ptr()));
    // SAFETY: `b` has k rows and n columns.
    unsafe { prepack_shared(k, n, b, panels) };
    // Even shares of all threads; how the rows are shared changes no bit.
    let shares = 4 * rayon::current_num_threads();
    let unit = rows.div_ceil(shares).next_multiple_of(8).clamp(FEWEST_ROWS, ROWS);
    parallel(rows.div_ceil(unit), unit * k * n, |i| {
        let first = i * unit;
        let m = unit.min(rows - first);
        // SAFETY: each unit writes its own rows.
        unsafe {
            let to = out.at(first * n);
            if let Some(bias) = bias {
                for r in 0..m {
                    std::ptr::copy_nonoverlapping(bias.as_ptr(), to.add(r * n), n);
                }
            } else if k == 0 {
                to.write_bytes(0, m * n);
            }
            let a = Rows::new(x.at(first * k), k, 1);
            gemm(m, n, k, a, &Packed { panels: panels.at(0), n }, to, n, bias.is_some());
        }
    });
    // SAFETY: every row was written.
    unsafe { y.finish() }
}

/// [`forward`] for few rows: `y^T = w x^T`, so that the weights are read where they are, once, and
/// what is packed is the smaller factor. The same bits: a product's factors may change places.
fn few(rows: usize, k: usize, n: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut y = Output::new(rows * n);
    let mut scratch = Scratch::new(packed_len(k, rows));
    let (out, panels) = (y.ptr(), Ptr::new(scratch.ptr()));
    // SAFETY: `rows` rows of `k` numbers.
    unsafe { prepack_shared(k, rows, &Transposed { b: x.as_ptr(), stride: k }, panels) };
    let w = Ptr::of(w);
    let wide = rows.next_multiple_of(LANES);
    parallel(n.div_ceil(OUTPUTS), OUTPUTS * k * rows, |i| {
        let first = i * OUTPUTS;
        let m = OUTPUTS.min(n - first);
        let mut aside = Scratch::new(OUTPUTS.next_multiple_of(LANES) * wide);
        let c = aside.ptr();
        // SAFETY: each unit writes its own columns of the output, by way of its own scratch.
        unsafe {
            if let Some(bias) = bias {
                for r in 0..m {
                    let row = c.add(r * wide).cast::<MaybeUninit<f32>>();
                    let row = std::slice::from_raw_parts_mut(row, rows);
                    row.fill(MaybeUninit::new(bias[first + r]));
                }
            }
            let a = Rows::new(w.at(first * k), k, 1).far();
            let b = Packed { panels: panels.at(0), n: rows };
            gemm(m, rows, k, a, &b, c, wide, bias.is_some());
            turn(m, rows, c, wide, out.at(first), n);
        }
    });
    // SAFETY: every column was written.
    unsafe { y.finish() }
}

#[inline(always)]
unsafe fn turn_body<S: Simd>(
    m: usize,
    n: usize,
    from: *const f32,
    wide: usize,
    to: *mut f32,
    row: usize,
) {
    for i in (0..m).step_by(LANES) {
        let lanes = LANES.min(m - i);
        for j in (0..n).step_by(LANES) {
            // SAFETY: the caller's whole vectors, and the part of `to` that there is.
            unsafe {
                let mut rows = [S::splat(0.0); 16];
                for (r, v) in rows.iter_mut().enumerate() {
                    *v = S::load(from.add((i + r) * wide + j));
                }
                let turned = S::transpose(&rows);
                for (l, v) in turned.iter().enumerate().take(n - j) {
                    store_part(*v, to.add((j + l) * row + i), lanes);
                }
            }
        }
    }
}

dispatch! {
    /// `to[j, i] = from[i, j]` for `m` by `n` numbers, rows `wide` and `row` apart.
    ///
    /// # Safety
    /// Of `from` whole vectors are readable both ways: `m` and `n` rounded up.
    fn turn(m: usize, n: usize, from: *const f32, wide: usize, to: *mut f32, row: usize) = turn_body
}

/// `y[rows, out] = x[rows, in] w[out, in]^T + bias[out]`.
pub(crate) fn forward(
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
    // Where few rows meet them, most of the time would go into packing the weights. Tiles want both
    // factors packed.
    if 4 * rows <= inputs && !tiled(inputs) {
        return few(rows, inputs, outputs, x, w, bias);
    }
    let w = Transposed { b: w.as_ptr(), stride: inputs };
    product(rows, inputs, outputs, x, &w, bias)
}

/// The gradient by `x`, of the output's gradient `g[rows, out]`.
pub(crate) fn grad_input(
    rows: usize,
    inputs: usize,
    outputs: usize,
    w: &[f32],
    g: &[f32],
) -> Vec<f32> {
    let w = RowMajor { b: w.as_ptr(), stride: inputs };
    product(rows, outputs, inputs, g, &w, None)
}

/// The gradient by `w`, `[out, in]`: groups of rows, whose partial sums are added in order.
pub(crate) fn grad_weights(
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    g: &[f32],
) -> Vec<f32> {
    let per_group = rows.div_ceil(GROUPS).next_multiple_of(GROUP);
    let groups = rows.div_ceil(per_group.max(1));
    let len = inputs * outputs;
    if groups == 0 || len == 0 {
        return vec![0.0; len];
    }
    let mut partial = Scratch::new(groups * len);
    let (to, x, g) = (Ptr::new(partial.ptr()), Ptr::of(x), Ptr::of(g));
    // Where the groups are few, the columns are split too, which changes no bit.
    let parts = if groups > 1 { 1 } else { rayon::current_num_threads() };
    let wide = inputs.div_ceil(parts).next_multiple_of(LANES);
    let parts = inputs.div_ceil(wide);
    parallel(groups * parts, per_group.min(rows) * outputs * wide, |unit| {
        let (group, column) = (unit / parts, unit % parts * wide);
        let first = group * per_group;
        let depth = per_group.min(rows - first);
        let a = Rows::new(g.at(first * outputs), 1, outputs);
        let b = RowMajor { b: x.at(first * inputs + column), stride: inputs };
        // SAFETY: each unit writes its own columns of its own partial gradient.
        unsafe {
            let to = to.at(group * len + column);
            gemm(outputs, wide.min(inputs - column), depth, a, &b, to, inputs, false);
        }
    });
    // SAFETY: all of it was written above.
    sum_groups(unsafe { std::slice::from_raw_parts(partial.ptr(), groups * len) }, len)
}

#[inline(always)]
unsafe fn add_rows_body<S: Simd>(rows: usize, n: usize, g: *const f32, sums: *mut f32) {
    for i in (0..n).step_by(LANES) {
        let lanes = LANES.min(n - i);
        // SAFETY: the caller's rows.
        unsafe {
            let mut sum = S::splat(0.0);
            for r in 0..rows {
                sum = sum.add(load_part(g.add(r * n + i), lanes));
            }
            store_part(sum, sums.add(i), lanes);
        }
    }
}

dispatch! {
    /// The sum of `rows` rows of `n` numbers.
    ///
    /// # Safety
    /// That many numbers of `g`, `n` of `sums`.
    fn add_rows(rows: usize, n: usize, g: *const f32, sums: *mut f32) = add_rows_body
}

/// The gradient by the bias: the sum of the rows, in blocks of 64.
pub(crate) fn grad_bias(rows: usize, n: usize, g: &[f32]) -> Vec<f32> {
    const BLOCK: usize = 64;
    let blocks = rows.div_ceil(BLOCK);
    let mut sums = vec![0.0; blocks * n];
    let (to, g) = (Ptr::new(sums.as_mut_ptr()), Ptr::of(g));
    parallel(blocks, BLOCK * n, |i| {
        let first = i * BLOCK;
        // SAFETY: each unit has its own rows and its own sums.
        unsafe { add_rows(BLOCK.min(rows - first), n, g.at(first * n), to.at(i * n)) };
    });
    sum_groups(&sums, n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::InstructionSet;
    use crate::testing::{numbers, with_each_set};

    /// Both ways round, with and without bias, at odd sizes: the same bits.
    #[test]
    fn weights_as_rows_or_as_columns_give_the_same_bits() {
        with_each_set(|set| {
            // Which has three products for each, in the order of their sides.
            if set == InstructionSet::Amx {
                return;
            }
            for (rows, k, n) in
                [(1, 40, 70), (3, 17, 1), (16, 300, 33), (49, 200, 96), (77, 768, 5)]
            {
                let (x, w) = (numbers(rows * k, 1), numbers(n * k, 2));
                let bias = numbers(n, 3);
                for bias in [None, Some(&bias[..])] {
                    let columns = Transposed { b: w.as_ptr(), stride: k };
                    let wanted = product(rows, k, n, &x, &columns, bias);
                    let found = few(rows, k, n, &x, &w, bias);
                    assert_eq!(found, wanted, "{set:?} {rows} {k} {n}");
                }
            }
        });
    }
}

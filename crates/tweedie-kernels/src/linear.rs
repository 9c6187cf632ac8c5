//! Products of rows with a weight matrix, and their gradients.

use crate::gemm::{Columns, Packed, RowMajor, Rows, Transposed, gemm, packed_len, prepack};
use crate::memory::{Output, Ptr, Scratch, parallel, sum_groups};
use crate::simd::{LANES, Simd, dispatch, load_part, store_part};

/// Rows that one unit of work multiplies.
const ROWS: usize = 48;

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
    let mut panels = Scratch::new(packed_len(k, n));
    // SAFETY: `b` has k rows and n columns.
    unsafe { prepack(k, n, b, panels.ptr()) };
    let (x, panels) = (Ptr::of(x), Ptr::new(panels.ptr()));
    parallel(rows.div_ceil(ROWS), ROWS * k * n, |i| {
        let first = i * ROWS;
        let m = ROWS.min(rows - first);
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

/// `y[rows, out] = x[rows, in] w[out, in]^T + bias[out]`.
pub(crate) fn forward(
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
) -> Vec<f32> {
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

//! Many inner products at once: rows of one matrix with rows of another, along memory. The
//! gradient of a convolution's weights, where both operands lie along the image.

use crate::simd::{LANES, Simd, dispatch};

/// Rows of the left matrix that are taken together, on every instruction set.
pub(crate) const LEFT: usize = 4;

/// A stack of images (one or more samples) whose rows are multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    /// First number of the first sample's first row.
    pub(crate) base: *const f32,
    /// From sample to sample.
    pub(crate) sample: usize,
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn tile<S: Simd, const R: usize, const C: usize>(
    samples: usize,
    vectors: usize,
    a: Stack,
    a_rows: &[usize; R],
    b: Stack,
    b_rows: &[usize; C],
) -> [[f32; C]; R] {
    // SAFETY: the caller's: `vectors` whole vectors from each row of each sample.
    unsafe {
        let mut sums = [[S::splat(0.0); C]; R];
        for s in 0..samples {
            let (a, b) = (a.base.add(s * a.sample), b.base.add(s * b.sample));
            let mut left = [a; R];
            for (p, row) in left.iter_mut().zip(a_rows) {
                *p = a.add(*row);
            }
            let mut right = [b; C];
            for (p, row) in right.iter_mut().zip(b_rows) {
                *p = b.add(*row);
            }
            for q in 0..vectors {
                let mut x = [S::splat(0.0); R];
                for (x, p) in x.iter_mut().zip(&left) {
                    *x = S::load(p.add(q * LANES));
                }
                for (j, p) in right.iter().enumerate() {
                    let y = S::load(p.add(q * LANES));
                    for (row, x) in sums.iter_mut().zip(&x) {
                        row[j] = x.fma(y, row[j]);
                    }
                }
            }
        }
        let mut out = [[0.0; C]; R];
        for (out, sums) in out.iter_mut().zip(&sums) {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum.sum();
            }
        }
        out
    }
}

/// `rows` (at most [`LEFT`]) rows of `a` with all rows of `b`, in tiles of `R` by `C`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn strip<S: Simd, const R: usize, const C: usize>(
    samples: usize,
    vectors: usize,
    a: Stack,
    a_row: usize,
    rows: usize,
    b: Stack,
    b_rows: &[usize],
    out: *mut f32,
    out_row: usize,
) {
    for i0 in (0..rows).step_by(R) {
        let mut left = [0; R];
        for (i, row) in left.iter_mut().enumerate() {
            *row = (i0 + i).min(rows - 1) * a_row;
        }
        for (block, from) in b_rows.chunks(C).enumerate() {
            let mut right = [from[from.len() - 1]; C];
            right[..from.len()].copy_from_slice(from);
            // SAFETY: the caller's; missing rows repeat the last one and are thrown away.
            unsafe {
                let sums = tile::<S, R, C>(samples, vectors, a, &left, b, &right);
                for (i, row) in sums.iter().enumerate().take(rows - i0) {
                    for (j, sum) in row.iter().enumerate().take(from.len()) {
                        *out.add((i0 + i) * out_row + block * C + j) += sum;
                    }
                }
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn dots_body<S: Simd>(
    samples: usize,
    vectors: usize,
    a: Stack,
    a_row: usize,
    rows: usize,
    b: Stack,
    b_rows: &[usize],
    out: *mut f32,
    out_row: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        if S::ROWS == 8 {
            strip::<S, 4, 6>(samples, vectors, a, a_row, rows, b, b_rows, out, out_row);
        } else {
            strip::<S, 2, 3>(samples, vectors, a, a_row, rows, b, b_rows, out, out_row);
        }
    }
}

dispatch! {
    /// `out[i, j] += sum over samples s and numbers q of a[s, i, q] * b[s, j, q]`, for `rows` rows
    /// of `a` (which are `a_row` apart) and the rows of `b` at the offsets `b_rows`, over `vectors`
    /// times [`LANES`] numbers. Every sum is taken lane by lane, then over the lanes.
    ///
    /// # Safety
    /// All these numbers can be read, and `out` has `rows` rows of `b_rows.len()` numbers.
    pub(crate) fn dots(
        samples: usize, vectors: usize, a: Stack, a_row: usize, rows: usize, b: Stack,
        b_rows: &[usize], out: *mut f32, out_row: usize,
    ) = dots_body
}

#[inline(always)]
unsafe fn sum_body<S: Simd>(x: &[f32]) -> f32 {
    // SAFETY: whole vectors inside `x`.
    unsafe {
        let mut sum = S::splat(0.0);
        let whole = x.chunks_exact(LANES);
        let rest = whole.remainder();
        for v in whole {
            sum = sum.add(S::load(v.as_ptr()));
        }
        rest.iter().fold(sum.sum(), |s, x| s + x)
    }
}

dispatch! {
    /// The sum of `x`, lane by lane.
    ///
    /// # Safety
    /// None of the caller.
    pub(crate) fn sum(x: &[f32]) -> f32 = sum_body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, with_each_set};

    #[test]
    fn inner_products_of_odd_numbers_of_rows() {
        with_each_set(|set| {
            for (samples, vectors, rows, columns) in
                [(1, 1, 1, 1), (3, 2, 4, 6), (2, 5, 3, 13), (1, 7, 4, 8)]
            {
                let q = vectors * LANES;
                let a = numbers(samples * rows * q, 1);
                let b = numbers(samples * columns * q, 2);
                let offsets: Vec<usize> = (0..columns).map(|j| j * q).collect();
                let mut out = vec![1.0; rows * columns];
                // SAFETY: shapes as declared.
                unsafe {
                    dots(
                        samples,
                        vectors,
                        Stack { base: a.as_ptr(), sample: rows * q },
                        q,
                        rows,
                        Stack { base: b.as_ptr(), sample: columns * q },
                        &offsets,
                        out.as_mut_ptr(),
                        columns,
                    );
                }
                for i in 0..rows {
                    for j in 0..columns {
                        let wanted = 1.0
                            + (0..samples * q)
                                .map(|p| {
                                    let (s, p) = (p / q, p % q);
                                    f64::from(a[(s * rows + i) * q + p])
                                        * f64::from(b[(s * columns + j) * q + p])
                                })
                                .sum::<f64>();
                        let got = f64::from(out[i * columns + j]);
                        assert!((got - wanted).abs() < 1e-5, "{set:?} {got} {wanted}");
                    }
                }
            }
            for len in [0, 1, 15, 16, 47, 100] {
                let x = numbers(len, 5);
                let wanted: f64 = x.iter().map(|x| f64::from(*x)).sum();
                // SAFETY: no condition.
                let got = f64::from(unsafe { sum(&x) });
                assert!((got - wanted).abs() < 1e-5, "{len}");
            }
        });
    }
}

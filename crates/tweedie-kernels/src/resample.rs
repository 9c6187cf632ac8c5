//! Nearest-neighbour enlargement and its gradient.

use crate::memory::{Output, Ptr, parallel};
use crate::simd::{Simd, dispatch};

#[inline(always)]
unsafe fn enlarge_body<S: Simd>(factor: usize, w: usize, x: *const f32, y: *mut f32) {
    // SAFETY: the caller's rows.
    unsafe {
        match factor {
            2 => {
                for j in 0..w {
                    let v = *x.add(j);
                    *y.add(2 * j) = v;
                    *y.add(2 * j + 1) = v;
                }
            }
            _ => {
                for j in 0..w {
                    for l in 0..factor {
                        *y.add(j * factor + l) = *x.add(j);
                    }
                }
            }
        }
        for r in 1..factor {
            std::ptr::copy_nonoverlapping(y, y.add(r * factor * w), factor * w);
        }
    }
}

dispatch! {
    /// One row of `w` numbers to `factor` rows of `factor * w`.
    ///
    /// # Safety
    /// That many numbers.
    fn enlarge(factor: usize, w: usize, x: *const f32, y: *mut f32) = enlarge_body
}

#[inline(always)]
unsafe fn shrink_body<S: Simd>(factor: usize, w: usize, g: *const f32, dx: *mut f32) {
    for j in 0..w {
        // SAFETY: the caller's rows.
        unsafe {
            let at = |r: usize, l: usize| *g.add(r * factor * w + j * factor + l);
            *dx.add(j) = if factor == 2 {
                (at(0, 0) + at(0, 1)) + (at(1, 0) + at(1, 1))
            } else {
                let mut sum = 0.0;
                for r in 0..factor {
                    for l in 0..factor {
                        sum += at(r, l);
                    }
                }
                sum
            };
        }
    }
}

dispatch! {
    /// The sums of squares of `factor` by `factor` numbers of `factor` rows.
    ///
    /// # Safety
    /// That many numbers.
    fn shrink(factor: usize, w: usize, g: *const f32, dx: *mut f32) = shrink_body
}

/// Rows of an image of width `w`, each repeated `factor` times in both directions.
pub(crate) fn forward(rows: usize, w: usize, factor: usize, x: &[f32]) -> Vec<f32> {
    let each = factor * factor * w;
    let mut y = Output::new(rows * each);
    let (out, x) = (y.ptr(), Ptr::of(x));
    parallel(rows, each, |i| {
        // SAFETY: each unit has its own row.
        unsafe { enlarge(factor, w, x.at(i * w), out.at(i * each)) };
    });
    // SAFETY: every row was written.
    unsafe { y.finish() }
}

/// The gradient of [`forward`].
pub(crate) fn backward(rows: usize, w: usize, factor: usize, g: &[f32]) -> Vec<f32> {
    let each = factor * factor * w;
    let mut dx = Output::new(rows * w);
    let (out, g) = (dx.ptr(), Ptr::of(g));
    parallel(rows, each, |i| {
        // SAFETY: each unit has its own row.
        unsafe { shrink(factor, w, g.at(i * each), out.at(i * w)) };
    });
    // SAFETY: every row was written.
    unsafe { dx.finish() }
}

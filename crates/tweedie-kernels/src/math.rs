//! Elementary functions on vectors, of our own, so that every machine has the same ones.

use crate::simd::Simd;

/// `e^x`. Relative error at most 2e-7 for x in [-87.3, 88]; 0 below, infinity from 88.4 on; not a
/// number stays so.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; the exponential of `r` is its series to the seventh
/// power (remainder below 1e-8).
///
/// # Safety
/// The instruction set of `S` is there.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S) -> S {
    // Adding this rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LOWEST: f32 = -87.336_54;
    // SAFETY: arithmetic only.
    unsafe {
        let clamped = S::splat(88.8).min(S::splat(LOWEST).max(x));
        let shifted = clamped.fma(S::splat(std::f32::consts::LOG2_E), S::splat(ROUND));
        let n = shifted.sub(S::splat(ROUND));
        // ln 2 in two parts, the first of which has few bits, so that its product is exact.
        let r = n.fma(S::splat(-0.693_359_4), clamped);
        let r = n.fma(S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p.fma(r, S::splat(c));
        }
        let y = p.mul(shifted.power_of_low_bits());
        x.if_less(S::splat(LOWEST), S::splat(0.0), y)
    }
}

/// `1 / (1 + e^-x)`, to the precision of [`exp`].
///
/// # Safety
/// The instruction set of `S` is there.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S) -> S {
    // SAFETY: arithmetic only.
    unsafe {
        let one = S::splat(1.0);
        one.div(one.add(exp(S::splat(0.0).sub(x))))
    }
}

/// The normal distribution function and `e^(-x^2/2)` (the density times the root of 2 pi), by the
/// rational approximation 7.1.26 of Abramowitz and Stegun; absolute error at most 3e-7.
///
/// # Safety
/// The instruction set of `S` is there.
#[inline(always)]
pub(crate) unsafe fn normal<S: Simd>(x: S) -> (S, S) {
    // SAFETY: arithmetic only.
    unsafe {
        let one = S::splat(1.0);
        let zero = S::splat(0.0);
        let negated = zero.sub(x);
        let z = x.if_less(zero, negated, x).mul(S::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = one.div(z.fma(S::splat(0.327_591_1), one));
        let mut p = S::splat(1.061_405_4);
        for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = p.fma(t, S::splat(c));
        }
        let gauss = exp(zero.sub(z.mul(z)));
        // Half the complementary error function: the tail beyond |x|.
        let tail = p.mul(t).mul(gauss).mul(S::splat(0.5));
        (x.if_less(zero, tail, one.sub(tail)), gauss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{LANES, dispatch};
    use crate::testing::with_each_set;

    #[inline(always)]
    unsafe fn eval_body<S: Simd>(which: usize, x: &[f32; LANES], y: &mut [f32; LANES]) {
        // SAFETY: whole arrays.
        unsafe {
            let x = S::load(x.as_ptr());
            let v = match which {
                0 => exp(x),
                1 => sigmoid(x),
                2 => normal(x).0,
                _ => normal(x).1,
            };
            v.store(y.as_mut_ptr());
        }
    }
    dispatch! {
        /// # Safety
        /// None.
        fn eval(which: usize, x: &[f32; LANES], y: &mut [f32; LANES]) = eval_body
    }

    fn sweep(which: usize, from: f32, to: f32, mut check: impl FnMut(f64, f64)) {
        let n = 1 << 16;
        for i in (0..n).step_by(LANES) {
            let x: [f32; LANES] =
                std::array::from_fn(|l| from + (to - from) * (i + l) as f32 / n as f32);
            let mut y = [0.0; LANES];
            // SAFETY: no condition.
            unsafe { eval(which, &x, &mut y) };
            for (x, y) in x.iter().zip(&y) {
                check(f64::from(*x), f64::from(*y));
            }
        }
    }

    #[test]
    fn within_the_stated_errors() {
        with_each_set(|_| {
            sweep(0, -87.3, 88.0, |x, y| assert!((y / x.exp() - 1.0).abs() < 2e-7, "{x} {y}"));
            sweep(1, -87.0, 87.0, |x, y| {
                assert!((y * (1.0 + (-x).exp()) - 1.0).abs() < 4e-7, "{x} {y}");
            });
            // The distribution function by Simpson's rule over the density, in f64.
            let phi = |x: f64| {
                let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
                let steps = 200;
                let h = x / f64::from(steps);
                let mut sum = density(0.0) + density(x);
                for i in 1..steps {
                    sum += density(h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 };
                }
                0.5 + sum * h / 3.0
            };
            let mut i = 0;
            sweep(2, -9.0, 9.0, |x, y| {
                i += 1;
                if i % 16 == 0 {
                    assert!((y - phi(x)).abs() < 3e-7, "{x} {y} {}", phi(x));
                }
            });
            sweep(3, -9.0, 9.0, |x, y| {
                assert!((y - (-x * x / 2.0).exp()).abs() < 3e-7, "{x} {y}");
            });
        });
    }

    #[test]
    fn ends_and_not_a_number() {
        with_each_set(|_| {
            let mut x = [0.0; LANES];
            x[..6].copy_from_slice(&[f32::NEG_INFINITY, -1e30, f32::INFINITY, 89.0, 0.0, f32::NAN]);
            let mut y = [1.0; LANES];
            // SAFETY: no condition.
            unsafe { eval(0, &x, &mut y) };
            assert_eq!(y[..5], [0.0, 0.0, f32::INFINITY, f32::INFINITY, 1.0]);
            assert!(y[5].is_nan());
        });
    }
}

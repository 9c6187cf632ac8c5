//! Activations and their gradients, sixteen numbers at a time.

use crate::math::{exp, normal, sigmoid};
use crate::memory::{Output, Ptr, parallel};
use crate::simd::{LANES, Simd, dispatch, load_part, store_part};

/// An activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// `x Phi(x)`.
    Gelu,
    /// Its tanh approximation, `x sigmoid(2 u)` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
    GeluTanh,
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
}

/// `sqrt(2 / pi)`.
const ROOT: f32 = 0.797_884_6;
const CUBE: f32 = 0.044_715;

/// `x sigmoid(x)`.
///
/// # Safety
/// The instruction set of `S` is there.
#[inline(always)]
pub(crate) unsafe fn silu<S: Simd>(x: S) -> S {
    // SAFETY: arithmetic only.
    unsafe { x.div(S::splat(1.0).add(exp(S::splat(0.0).sub(x)))) }
}

/// The derivative of [`silu`]: `s (1 + x (1 - s))`.
///
/// # Safety
/// The instruction set of `S` is there.
#[inline(always)]
pub(crate) unsafe fn silu_slope<S: Simd>(x: S) -> S {
    // SAFETY: arithmetic only.
    unsafe {
        let one = S::splat(1.0);
        let s = sigmoid(x);
        s.mul(x.fma(one.sub(s), one))
    }
}

/// The activation, which is a constant wherever this is inlined.
///
/// # Safety
/// The instruction set of `S` is there.
#[inline(always)]
pub(crate) unsafe fn value<S: Simd>(f: Activation, x: S) -> S {
    // SAFETY: arithmetic only.
    unsafe {
        match f {
            Activation::Silu => silu(x),
            Activation::Gelu => x.mul(normal(x).0),
            Activation::GeluTanh => {
                let u = x.mul(x).mul(S::splat(2.0 * ROOT * CUBE)).add(S::splat(2.0 * ROOT));
                x.mul(sigmoid(u.mul(x)))
            }
            Activation::QuickGelu => x.mul(sigmoid(x.mul(S::splat(1.702)))),
        }
    }
}

#[inline(always)]
unsafe fn slope<S: Simd>(f: Activation, x: S) -> S {
    // SAFETY: arithmetic only.
    unsafe {
        let one = S::splat(1.0);
        match f {
            Activation::Silu => silu_slope(x),
            Activation::Gelu => {
                let (phi, gauss) = normal(x);
                // The density is gauss / sqrt(2 pi).
                x.mul(gauss).fma(S::splat(0.398_942_3), phi)
            }
            Activation::GeluTanh => {
                let square = x.mul(x);
                let u = square.mul(S::splat(2.0 * ROOT * CUBE)).add(S::splat(2.0 * ROOT));
                let du = square.mul(S::splat(6.0 * ROOT * CUBE)).add(S::splat(2.0 * ROOT));
                let s = sigmoid(u.mul(x));
                s.mul(x.mul(du).fma(one.sub(s), one))
            }
            Activation::QuickGelu => {
                let u = x.mul(S::splat(1.702));
                let s = sigmoid(u);
                s.mul(u.fma(one.sub(s), one))
            }
        }
    }
}

#[inline(always)]
unsafe fn forward_body<S: Simd>(f: Activation, len: usize, x: *const f32, y: *mut f32) {
    // One loop for each activation, so that the choice is made once.
    macro_rules! each {
        ($($f:ident),*) => { match f { $(Activation::$f => {
            for i in (0..len).step_by(LANES) {
                let n = LANES.min(len - i);
                // SAFETY: inside both ranges.
                unsafe {
                    store_part(value::<S>(Activation::$f, load_part(x.add(i), n)), y.add(i), n);
                }
            }
        })* } };
    }
    each!(Silu, Gelu, GeluTanh, QuickGelu);
}

#[inline(always)]
unsafe fn backward_body<S: Simd>(
    f: Activation,
    len: usize,
    x: *const f32,
    g: *const f32,
    dx: *mut f32,
) {
    macro_rules! each {
        ($($f:ident),*) => { match f { $(Activation::$f => {
            for i in (0..len).step_by(LANES) {
                let n = LANES.min(len - i);
                // SAFETY: inside all ranges.
                unsafe {
                    let slope = slope::<S>(Activation::$f, load_part(x.add(i), n));
                    store_part(slope.mul(load_part(g.add(i), n)), dx.add(i), n);
                }
            }
        })* } };
    }
    each!(Silu, Gelu, GeluTanh, QuickGelu);
}

#[inline(always)]
unsafe fn gated_body<S: Simd>(f: Activation, rows: usize, n: usize, x: *const f32, y: *mut f32) {
    macro_rules! each {
        ($($f:ident),*) => { match f { $(Activation::$f => {
            for r in 0..rows {
                for i in (0..n).step_by(LANES) {
                    let part = LANES.min(n - i);
                    // SAFETY: inside the rows.
                    unsafe {
                        let (a, b) = (x.add(2 * r * n + i), x.add((2 * r + 1) * n + i));
                        let gate = value::<S>(Activation::$f, load_part(b, part));
                        store_part(load_part::<S>(a, part).mul(gate), y.add(r * n + i), part);
                    }
                }
            }
        })* } };
    }
    each!(Silu, Gelu, GeluTanh, QuickGelu);
}

dispatch! {
    /// See [`gated`].
    ///
    /// # Safety
    /// `rows` rows of `2 n` numbers of `x` and of `n` of `y`.
    fn gated_part(f: Activation, rows: usize, n: usize, x: *const f32, y: *mut f32) = gated_body
}

/// The first half of each of `rows` rows of `2 n` numbers times the activation of the second.
pub(crate) fn gated(f: Activation, rows: usize, n: usize, x: &[f32]) -> Vec<f32> {
    let mut y = Output::new(rows * n);
    let (x, out) = (Ptr::of(&x[..2 * rows * n]), y.ptr());
    let each = (PART / n.max(1)).max(1);
    parallel(rows.div_ceil(each), 8 * PART, |i| {
        let first = i * each;
        // SAFETY: each unit has its own rows.
        unsafe {
            gated_part(f, each.min(rows - first), n, x.at(2 * first * n), out.at(first * n));
        }
    });
    // SAFETY: every row was written.
    unsafe { y.finish() }
}

dispatch! {
    /// `y = f(x)`; `y` may be `x`.
    ///
    /// # Safety
    /// `len` numbers each.
    fn forward_part(f: Activation, len: usize, x: *const f32, y: *mut f32) = forward_body
}

dispatch! {
    /// `dx = g f'(x)`; `dx` may be `g` or `x`.
    ///
    /// # Safety
    /// `len` numbers each.
    fn backward_part(f: Activation, len: usize, x: *const f32, g: *const f32, dx: *mut f32) = backward_body
}

/// Numbers that one unit of work takes.
const PART: usize = 1 << 14;

/// `y = f(x)`; `y` may be `x`.
///
/// # Safety
/// `len` numbers each.
pub(crate) unsafe fn forward(f: Activation, len: usize, x: Ptr, y: Ptr) {
    parallel(len.div_ceil(PART), 4 * PART, |i| {
        let at = i * PART;
        // SAFETY: the caller's ranges, in disjoint parts.
        unsafe { forward_part(f, PART.min(len - at), x.at(at), y.at(at)) };
    });
}

/// `dx = g f'(x)`; `dx` may be `g` or `x`.
///
/// # Safety
/// `len` numbers each.
pub(crate) unsafe fn backward(f: Activation, len: usize, x: Ptr, g: Ptr, dx: Ptr) {
    parallel(len.div_ceil(PART), 4 * PART, |i| {
        let at = i * PART;
        // SAFETY: the caller's ranges, in disjoint parts.
        unsafe { backward_part(f, PART.min(len - at), x.at(at), g.at(at), dx.at(at)) };
    });
}

//! One step of AdamW in one pass over memory.

use crate::AdamwStep;
use crate::memory::{Ptr, parallel};
use crate::simd::{LANES, Simd, dispatch, load_part, store_part};

/// The step's coefficients in f32.
#[derive(Debug, Clone, Copy)]
struct Coefficients {
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    keep: f32,
    rate: f32,
    root: f32,
    eps: f32,
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn step_body<S: Simd>(
    c: &Coefficients,
    len: usize,
    p: *mut f32,
    g: *const f32,
    m: *mut f32,
    v: *mut f32,
) {
    for i in (0..len).step_by(LANES) {
        let n = LANES.min(len - i);
        // SAFETY: the caller's ranges.
        unsafe {
            let grad = load_part::<S>(g.add(i), n);
            let first = load_part::<S>(m.add(i), n).mul(S::splat(c.beta1));
            let first = grad.fma(S::splat(c.rest1), first);
            let second = load_part::<S>(v.add(i), n).mul(S::splat(c.beta2));
            let second = grad.mul(grad).fma(S::splat(c.rest2), second);
            let scale = second.sqrt().fma(S::splat(c.root), S::splat(c.eps));
            let update = first.mul(S::splat(c.rate)).div(scale);
            let param = load_part::<S>(p.add(i), n).mul(S::splat(c.keep)).sub(update);
            store_part(first, m.add(i), n);
            store_part(second, v.add(i), n);
            store_part(param, p.add(i), n);
        }
    }
}

dispatch! {
    /// Updates `len` numbers.
    ///
    /// # Safety
    /// That many of each.
    fn step_part(
        c: &Coefficients, len: usize, p: *mut f32, g: *const f32, m: *mut f32, v: *mut f32,
    ) = step_body
}

/// Updates parameter and moments in place.
pub(crate) fn step(s: &AdamwStep, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
    const PART: usize = 1 << 15;
    let (c1, c2) = s.corrections();
    let c = Coefficients {
        beta1: s.beta1 as f32,
        beta2: s.beta2 as f32,
        rest1: (1.0 - s.beta1) as f32,
        rest2: (1.0 - s.beta2) as f32,
        keep: (1.0 - s.lr * s.weight_decay) as f32,
        rate: (s.lr / c1) as f32,
        root: (1.0 / c2.sqrt()) as f32,
        eps: s.eps as f32,
    };
    let len = p.len().min(g.len()).min(m.len()).min(v.len());
    let (p, m, v) = (Ptr::new(p.as_mut_ptr()), Ptr::new(m.as_mut_ptr()), Ptr::new(v.as_mut_ptr()));
    let g = Ptr::of(g);
    parallel(len.div_ceil(PART), 8 * PART, |i| {
        let at = i * PART;
        // SAFETY: inside the least length, in disjoint parts.
        unsafe { step_part(&c, PART.min(len - at), p.at(at), g.at(at), m.at(at), v.at(at)) };
    });
}

//! Group and layer normalisation, with SiLU behind the former, and their gradients.

use crate::activation::{silu, silu_slope};
use crate::memory::{Ptr, parallel, sum_groups};
use crate::simd::{LANES, Simd, dispatch, load_part, store_part};

/// Mean and reciprocal of the deviation of `len` numbers, in two passes.
#[inline(always)]
unsafe fn moments<S: Simd>(len: usize, x: *const f32, eps: f32) -> (f32, f32) {
    // SAFETY: the caller's range; lanes behind its end count nothing.
    unsafe {
        let whole = len / LANES * LANES;
        let mut sum = S::splat(0.0);
        for i in (0..whole).step_by(LANES) {
            sum = sum.add(S::load(x.add(i)));
        }
        if whole < len {
            sum = sum.add(load_part(x.add(whole), len - whole));
        }
        let mean = sum.sum() / len as f32;
        let centre = S::splat(mean);
        let mut squares = S::splat(0.0);
        for i in (0..whole).step_by(LANES) {
            let d = S::load(x.add(i)).sub(centre);
            squares = d.fma(d, squares);
        }
        let mut variance = squares.sum();
        for i in whole..len {
            let d = *x.add(i) - mean;
            variance += d * d;
        }
        (mean, 1.0 / (variance / len as f32 + eps).sqrt())
    }
}

/// Shapes of a group normalisation: `count` groups of `channels` of `n` numbers for each sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) batch: usize,
    pub(crate) count: usize,
    /// Channels of one group.
    pub(crate) channels: usize,
    pub(crate) n: usize,
    pub(crate) eps: f32,
    pub(crate) silu: bool,
}

#[inline(always)]
unsafe fn group_forward_body<S: Simd>(
    s: &Groups,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    y: *mut f32,
) -> (f32, f32) {
    // SAFETY: the caller's group of `channels` times `n` numbers.
    unsafe {
        let (mean, rate) = moments::<S>(s.channels * s.n, x, s.eps);
        for c in 0..s.channels {
            let scale = *weight.add(c) * rate;
            let (scale, shift) = (S::splat(scale), S::splat(*bias.add(c) - mean * scale));
            let (x, y) = (x.add(c * s.n), y.add(c * s.n));
            for i in (0..s.n).step_by(LANES) {
                let n = LANES.min(s.n - i);
                let z = load_part::<S>(x.add(i), n).fma(scale, shift);
                store_part(if s.silu { silu(z) } else { z }, y.add(i), n);
            }
        }
        (mean, rate)
    }
}

dispatch! {
    /// Normalises one group; gives its mean and the reciprocal of its deviation. `y` may be `x`.
    ///
    /// # Safety
    /// `channels * n` numbers of `x` and `y`, `channels` of the others.
    fn group_forward_one(
        s: &Groups, x: *const f32, weight: *const f32, bias: *const f32, y: *mut f32,
    ) -> (f32, f32) = group_forward_body
}

/// Normalises; gives mean and reciprocal deviation of each group. `y` may be `x`.
///
/// # Safety
/// `x` and `y` have the batch's numbers, `weight` and `bias` one for each channel.
pub(crate) unsafe fn group_forward(
    s: &Groups,
    x: Ptr,
    weight: &[f32],
    bias: &[f32],
    y: Ptr,
) -> Vec<f32> {
    let len = s.channels * s.n;
    let mut stats = vec![0.0; 2 * s.batch * s.count];
    let out = Ptr::new(stats.as_mut_ptr());
    parallel(s.batch * s.count, 4 * len, |i| {
        let c = i % s.count * s.channels;
        // SAFETY: each unit has its own group.
        unsafe {
            let (mean, rate) = group_forward_one(
                s,
                x.at(i * len),
                weight[c..].as_ptr(),
                bias[c..].as_ptr(),
                y.at(i * len),
            );
            *out.at(2 * i) = mean;
            *out.at(2 * i + 1) = rate;
        }
    });
    stats
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn group_backward_body<S: Simd>(
    s: &Groups,
    mean: f32,
    rate: f32,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    g: *const f32,
    dx: *mut f32,
    d_weight: *mut f32,
    d_bias: *mut f32,
) {
    // SAFETY: the caller's group. `dx` may be `g`: a vector is read before it is written.
    unsafe {
        let centre = S::splat(mean);
        // Sums over the group of the gradient by the normalised numbers, plain and times them.
        let (mut plain, mut along) = (0.0, 0.0);
        for c in 0..s.channels {
            let at = c * s.n;
            let scale = *weight.add(c) * rate;
            let (scale, shift) = (S::splat(scale), S::splat(*bias.add(c) - mean * scale));
            let (mut sum, mut moment) = (S::splat(0.0), S::splat(0.0));
            for i in (0..s.n).step_by(LANES) {
                let n = LANES.min(s.n - i);
                // Lanes behind the end have no gradient and so add nothing.
                let x = load_part::<S>(x.add(at + i), n);
                let mut g = load_part::<S>(g.add(at + i), n);
                if s.silu {
                    g = g.mul(silu_slope(x.fma(scale, shift)));
                    store_part(g, dx.add(at + i), n);
                }
                sum = sum.add(g);
                moment = g.fma(x.sub(centre), moment);
            }
            let (sum, moment) = (sum.sum(), moment.sum() * rate);
            *d_bias.add(c) = sum;
            *d_weight.add(c) = moment;
            plain += *weight.add(c) * sum;
            along += *weight.add(c) * moment;
        }
        let len = (s.channels * s.n) as f32;
        // dx = rate (w g - plain / len - normalised along / len).
        let slope = -rate * rate * along / len;
        let offset = S::splat(-rate * plain / len - slope * mean);
        let slope = S::splat(slope);
        let from = if s.silu { dx.cast_const() } else { g };
        for c in 0..s.channels {
            let at = c * s.n;
            let scale = S::splat(*weight.add(c) * rate);
            for i in (0..s.n).step_by(LANES) {
                let n = LANES.min(s.n - i);
                let x = load_part::<S>(x.add(at + i), n);
                let g = load_part::<S>(from.add(at + i), n);
                store_part(g.fma(scale, x.fma(slope, offset)), dx.add(at + i), n);
            }
        }
    }
}

dispatch! {
    /// Gradients of one group.
    ///
    /// # Safety
    /// `channels * n` numbers of `x`, `g` and `dx` (which may be `g`), `channels` of the others.
    fn group_backward_one(
        s: &Groups, mean: f32, rate: f32, x: *const f32, weight: *const f32, bias: *const f32,
        g: *const f32, dx: *mut f32, d_weight: *mut f32, d_bias: *mut f32,
    ) = group_backward_body
}

/// Writes the gradient by `x` to `dx` (which may be `g`), and gives those by weight and bias.
///
/// # Safety
/// As for [`group_forward`], whose result `stats` is.
pub(crate) unsafe fn group_backward(
    s: &Groups,
    stats: &[f32],
    x: Ptr,
    weight: &[f32],
    bias: &[f32],
    g: Ptr,
    dx: Ptr,
) -> (Vec<f32>, Vec<f32>) {
    let len = s.channels * s.n;
    let all = s.count * s.channels;
    let mut d_weight = vec![0.0; s.batch * all];
    let mut d_bias = vec![0.0; s.batch * all];
    let (to_weight, to_bias) = (Ptr::new(d_weight.as_mut_ptr()), Ptr::new(d_bias.as_mut_ptr()));
    parallel(s.batch * s.count, 8 * len, |i| {
        let c = i % s.count * s.channels;
        // SAFETY: each unit has its own group.
        unsafe {
            group_backward_one(
                s,
                stats[2 * i],
                stats[2 * i + 1],
                x.at(i * len),
                weight[c..].as_ptr(),
                bias[c..].as_ptr(),
                g.at(i * len),
                dx.at(i * len),
                to_weight.at(i * s.channels),
                to_bias.at(i * s.channels),
            );
        }
    });
    (sum_groups(&d_weight, all), sum_groups(&d_bias, all))
}

/// Rows that one unit of a layer normalisation takes; also the rows whose gradients by weight and
/// bias are summed before the others'.
const ROWS: usize = 64;

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn layer_forward_body<S: Simd>(
    rows: usize,
    c: usize,
    eps: f32,
    x: *const f32,
    weight: Option<*const f32>,
    bias: Option<*const f32>,
    y: *mut f32,
    stats: *mut f32,
) {
    for r in 0..rows {
        // SAFETY: the caller's rows.
        unsafe {
            let (x, y) = (x.add(r * c), y.add(r * c));
            let (mean, rate) = moments::<S>(c, x, eps);
            *stats.add(2 * r) = mean;
            *stats.add(2 * r + 1) = rate;
            let (mean, rate) = (S::splat(mean), S::splat(rate));
            for i in (0..c).step_by(LANES) {
                let n = LANES.min(c - i);
                let mut z = load_part::<S>(x.add(i), n).sub(mean).mul(rate);
                if let Some(weight) = weight {
                    z = z.mul(load_part(weight.add(i), n));
                }
                if let Some(bias) = bias {
                    z = z.add(load_part(bias.add(i), n));
                }
                store_part(z, y.add(i), n);
            }
        }
    }
}

dispatch! {
    /// Normalises `rows` rows of `c` numbers.
    ///
    /// # Safety
    /// These numbers of `x` and `y` (which may be `x`), `c` of weight and bias, two of `stats` a row.
    fn layer_forward_rows(
        rows: usize, c: usize, eps: f32, x: *const f32, weight: Option<*const f32>,
        bias: Option<*const f32>, y: *mut f32, stats: *mut f32,
    ) = layer_forward_body
}

/// Normalises rows of `c` numbers; gives mean and reciprocal deviation of each. `y` may be `x`.
///
/// # Safety
/// `rows * c` numbers of `x` and `y`, `c` of weight and bias.
pub(crate) unsafe fn layer_forward(
    rows: usize,
    c: usize,
    eps: f32,
    x: Ptr,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    y: Ptr,
) -> Vec<f32> {
    let mut stats = vec![0.0; 2 * rows];
    let out = Ptr::new(stats.as_mut_ptr());
    let (weight, bias) = (weight.map(Ptr::of), bias.map(Ptr::of));
    parallel(rows.div_ceil(ROWS), 4 * ROWS * c, |i| {
        let r = i * ROWS;
        let (weight, bias) =
            (weight.map(|w| w.at(0).cast_const()), bias.map(|b| b.at(0).cast_const()));
        // SAFETY: each unit has its own rows.
        unsafe {
            layer_forward_rows(
                ROWS.min(rows - r),
                c,
                eps,
                x.at(r * c),
                weight,
                bias,
                y.at(r * c),
                out.at(2 * r),
            );
        }
    });
    stats
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn layer_backward_body<S: Simd>(
    rows: usize,
    c: usize,
    stats: *const f32,
    x: *const f32,
    weight: Option<*const f32>,
    g: *const f32,
    dx: *mut f32,
    d_weight: *mut f32,
    d_bias: *mut f32,
) {
    for r in 0..rows {
        // SAFETY: the caller's rows. `dx` may be `g`: a vector is read before it is written.
        unsafe {
            let (x, g, dx) = (x.add(r * c), g.add(r * c), dx.add(r * c));
            let (mean, rate) = (S::splat(*stats.add(2 * r)), S::splat(*stats.add(2 * r + 1)));
            let (mut plain, mut along) = (S::splat(0.0), S::splat(0.0));
            for i in (0..c).step_by(LANES) {
                let n = LANES.min(c - i);
                let z = load_part::<S>(x.add(i), n).sub(mean).mul(rate);
                // Lanes behind the end have no gradient.
                let mut g = load_part::<S>(g.add(i), n);
                let (w, b) = (d_weight.add(i), d_bias.add(i));
                store_part(g.fma(z, load_part(w, n)), w, n);
                store_part(g.add(load_part(b, n)), b, n);
                if let Some(weight) = weight {
                    g = g.mul(load_part(weight.add(i), n));
                }
                plain = plain.add(g);
                along = g.fma(z, along);
            }
            let plain = S::splat(-plain.sum() / c as f32);
            let along = S::splat(-along.sum() / c as f32);
            for i in (0..c).step_by(LANES) {
                let n = LANES.min(c - i);
                let z = load_part::<S>(x.add(i), n).sub(mean).mul(rate);
                let mut g = load_part::<S>(g.add(i), n);
                if let Some(weight) = weight {
                    g = g.mul(load_part(weight.add(i), n));
                }
                store_part(z.fma(along, g.add(plain)).mul(rate), dx.add(i), n);
            }
        }
    }
}

dispatch! {
    /// Gradients of `rows` rows; those by weight and bias are added to what is there.
    ///
    /// # Safety
    /// As for `layer_forward_rows`.
    fn layer_backward_rows(
        rows: usize, c: usize, stats: *const f32, x: *const f32, weight: Option<*const f32>,
        g: *const f32, dx: *mut f32, d_weight: *mut f32, d_bias: *mut f32,
    ) = layer_backward_body
}

/// Writes the gradient by `x` to `dx` (which may be `g`), and gives those by weight and bias.
///
/// # Safety
/// As for [`layer_forward`], whose result `stats` is.
pub(crate) unsafe fn layer_backward(
    rows: usize,
    c: usize,
    stats: &[f32],
    x: Ptr,
    weight: Option<&[f32]>,
    g: Ptr,
    dx: Ptr,
) -> (Vec<f32>, Vec<f32>) {
    let blocks = rows.div_ceil(ROWS);
    let mut d_weight = vec![0.0; blocks.max(1) * c];
    let mut d_bias = vec![0.0; blocks.max(1) * c];
    let (to_weight, to_bias) = (Ptr::new(d_weight.as_mut_ptr()), Ptr::new(d_bias.as_mut_ptr()));
    let weight = weight.map(Ptr::of);
    parallel(blocks, 8 * ROWS * c, |i| {
        let r = i * ROWS;
        // SAFETY: each unit has its own rows and its own sums.
        unsafe {
            layer_backward_rows(
                ROWS.min(rows - r),
                c,
                stats[2 * r..].as_ptr(),
                x.at(r * c),
                weight.map(|w| w.at(0).cast_const()),
                g.at(r * c),
                dx.at(r * c),
                to_weight.at(i * c),
                to_bias.at(i * c),
            );
        }
    });
    (sum_groups(&d_weight, c), sum_groups(&d_bias, c))
}

//! Scaled dot-product attention and its gradients, a block of queries at a time, so that the map
//! of a head never exists as a whole; the gradient computes it again from the row's maximum and
//! sum.

#[cfg(target_arch = "x86_64")]
use crate::amx::{attention as amx, blocks};
use crate::gemm::{Packed, RowMajor, Rows, Transposed, gemm, packed_len, prepack};
use crate::math::exp;
use crate::memory::{Output, Ptr, Scratch, parallel};
use crate::simd::{LANES, Simd, dispatch, load_part, store_part};

mod thin;

/// Queries of one block.
const BLOCK: usize = 64;

/// Shapes of one attention: `batch * heads` products of `t` queries with `s` keys of `d` numbers
/// and values of `e` numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) t: usize,
    pub(crate) s: usize,
    pub(crate) d: usize,
    pub(crate) e: usize,
    pub(crate) scale: f32,
}

impl Shape {
    /// Multiplications by the definition.
    pub(crate) fn products(&self) -> usize {
        self.batch * self.heads * self.t * self.s * (self.d + self.e)
    }
}

/// A bias of shape `dims`, each of which is one or that of the scores.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bias<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) dims: [usize; 4],
}

impl Bias<'_> {
    /// Where the row of a query of one head begins.
    fn row(&self, heads: usize, head: usize, t: usize) -> usize {
        let [b, h, rows, columns] = self.dims;
        let index = |i: usize, n: usize| if n == 1 { 0 } else { i };
        ((index(head / heads, b) * h + index(head % heads, h)) * rows + index(t, rows)) * columns
    }
}

/// `row * scale + bias`, then minus its maximum, then the exponential; gives maximum and sum.
#[inline(always)]
unsafe fn softmax_body<S: Simd>(
    len: usize,
    row: *mut f32,
    scale: f32,
    bias: Option<(*const f32, usize)>,
) -> (f32, f32) {
    // SAFETY: the caller's row.
    unsafe {
        let factor = scaled::<S>(len, row, scale, bias);
        let whole = len / LANES * LANES;
        let mut most = S::splat(f32::NEG_INFINITY);
        for i in (0..whole).step_by(LANES) {
            most = S::load(row.add(i)).max(most);
        }
        let mut lanes = [0.0_f32; LANES];
        most.store(lanes.as_mut_ptr());
        let mut top = lanes.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x));
        for i in whole..len {
            top = top.max(*row.add(i));
        }
        let top = top * factor;
        (top, exponentials::<S>(len, row, factor, top))
    }
}

/// `row * scale + bias`, or the factor that is left to multiply with where the scale alone is:
/// scores of many keys are not gone through once more for it.
#[inline(always)]
unsafe fn scaled<S: Simd>(
    len: usize,
    row: *mut f32,
    scale: f32,
    bias: Option<(*const f32, usize)>,
) -> f32 {
    if bias.is_none() && scale > 0.0 {
        return scale;
    }
    // SAFETY: the caller's row.
    unsafe { add_bias::<S>(len, row, scale, bias) };
    1.0
}

/// `row = row * scale + bias`; a bias of one column holds for the whole row.
#[inline(always)]
unsafe fn add_bias<S: Simd>(
    len: usize,
    row: *mut f32,
    scale: f32,
    bias: Option<(*const f32, usize)>,
) {
    // SAFETY: the caller's row.
    unsafe {
        let factor = S::splat(scale);
        for i in (0..len).step_by(LANES) {
            let n = LANES.min(len - i);
            let x = load_part::<S>(row.add(i), n);
            let y = match bias {
                None => x.mul(factor),
                Some((bias, 1)) => x.fma(factor, S::splat(*bias)),
                Some((bias, _)) => x.fma(factor, load_part(bias.add(i), n)),
            };
            store_part(y, row.add(i), n);
        }
    }
}

/// `row = exp(row * factor - top)`; gives the sum.
#[inline(always)]
unsafe fn exponentials<S: Simd>(len: usize, row: *mut f32, factor: f32, top: f32) -> f32 {
    // SAFETY: the caller's row.
    unsafe {
        let (factor, top) = (S::splat(factor), S::splat(-top));
        let whole = len / LANES * LANES;
        let mut sum = S::splat(0.0);
        for i in (0..whole).step_by(LANES) {
            let y = exp(S::load(row.add(i)).fma(factor, top));
            y.store(row.add(i));
            sum = sum.add(y);
        }
        let mut total = sum.sum();
        if whole < len {
            let y = exp(load_part::<S>(row.add(whole), len - whole).fma(factor, top));
            store_part(y, row.add(whole), len - whole);
            for i in whole..len {
                total += *row.add(i);
            }
        }
        total
    }
}

dispatch! {
    /// See [`softmax_body`].
    ///
    /// # Safety
    /// `len` numbers of `row`, and of the bias or one.
    fn softmax(
        len: usize, row: *mut f32, scale: f32, bias: Option<(*const f32, usize)>,
    ) -> (f32, f32) = softmax_body
}

#[inline(always)]
unsafe fn scale_row_body<S: Simd>(len: usize, row: *mut f32, factor: f32) {
    for i in (0..len).step_by(LANES) {
        let n = LANES.min(len - i);
        // SAFETY: the caller's row.
        unsafe { store_part(load_part::<S>(row.add(i), n).mul(S::splat(factor)), row.add(i), n) };
    }
}

dispatch! {
    /// Multiplies a row.
    ///
    /// # Safety
    /// `len` numbers.
    fn scale_row(len: usize, row: *mut f32, factor: f32) = scale_row_body
}

/// The row's map again from scores, maximum and sum (into `p`), then the scores' gradient from
/// the map's (`g`, in place).
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
unsafe fn backward_row_body<S: Simd>(
    len: usize,
    p: *mut f32,
    scale: f32,
    bias: Option<(*const f32, usize)>,
    top: f32,
    sum: f32,
    g: *mut f32,
) {
    // SAFETY: the caller's rows.
    unsafe {
        let factor = scaled::<S>(len, p, scale, bias);
        exponentials::<S>(len, p, factor, top);
        let rate = S::splat(1.0 / sum);
        let mut dot = S::splat(0.0);
        for i in (0..len).step_by(LANES) {
            let n = LANES.min(len - i);
            let y = load_part::<S>(p.add(i), n).mul(rate);
            store_part(y, p.add(i), n);
            dot = y.fma(load_part(g.add(i), n), dot);
        }
        let dot = S::splat(dot.sum());
        for i in (0..len).step_by(LANES) {
            let n = LANES.min(len - i);
            let y = load_part::<S>(p.add(i), n);
            store_part(y.mul(load_part::<S>(g.add(i), n).sub(dot)), g.add(i), n);
        }
    }
}

dispatch! {
    /// See [`backward_row_body`].
    ///
    /// # Safety
    /// `len` numbers of each row, and of the bias or one.
    fn backward_row(
        len: usize, p: *mut f32, scale: f32, bias: Option<(*const f32, usize)>, top: f32, sum: f32,
        g: *mut f32,
    ) = backward_row_body
}

/// The bias of one query, if there is one.
fn bias_row(
    bias: Option<&Bias>,
    heads: usize,
    head: usize,
    t: usize,
) -> Option<(*const f32, usize)> {
    bias.map(|b| (b.numbers[b.row(heads, head, t)..].as_ptr(), b.dims[3]))
}

/// Multiplications of a head from which on tiles are worth it where they are preferred.
#[cfg(target_arch = "x86_64")]
const LARGE: usize = 1 << 20;

/// Whether an attention of these shapes goes through the tiles of AMX, a chunk of keys at a time. One whose
/// gradient will be asked for (with `stats`) does only where all products go through them.
fn in_chunks(s: &Shape, stats: bool) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let large = if stats { usize::MAX } else { LARGE };
        crate::InstructionSet::tiles_for(s.t * s.s * s.d, large) && amx::takes(s)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (s, stats);
        false
    }
}

/// The output `[b, h, t, e]`, and maximum and sum of each query's row where `stats` asks for them.
pub(crate) fn forward(
    s: &Shape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    bias: Option<&Bias>,
    stats: bool,
) -> (Vec<f32>, Vec<f32>) {
    if bias.is_none() && thin::takes(s) {
        return thin::forward(s, q, k, v);
    }
    let heads = s.batch * s.heads;
    let mut y = Output::new(heads * s.t * s.e);
    let out = y.ptr();
    let mut rows = vec![0.0; if stats { 2 * heads * s.t } else { 0 }];
    let to = Ptr::new(rows.as_mut_ptr());
    // Few heads are split into ranges of queries, which changes no bit.
    let wanted = (2 * rayon::current_num_threads()).div_ceil(heads.max(1)).max(1);
    let range = s.t.div_ceil(wanted).next_multiple_of(BLOCK);
    let ranges = s.t.div_ceil(range.max(1));
    let (q, k, v) = (Ptr::of(q), Ptr::of(k), Ptr::of(v));
    let in_chunks = bias.is_none() && in_chunks(s, stats);
    parallel(heads * ranges, range * s.s * (s.d + s.e), |unit| {
        let (head, first) = (unit / ranges, unit % ranges * range);
        let mut keys = Scratch::new(packed_len(s.d, s.s));
        let mut values = Scratch::new(packed_len(s.s, s.e));
        let mut scores = Scratch::new(if in_chunks { 0 } else { BLOCK * s.s });
        // SAFETY: each unit has its own queries of its own head.
        unsafe {
            let k = Transposed { b: k.at(head * s.s * s.d), stride: s.d };
            let v = RowMajor { b: v.at(head * s.s * s.e), stride: s.e };
            let end = (first + range).min(s.t);
            #[cfg(target_arch = "x86_64")]
            if in_chunks {
                blocks::prepack(s.d, s.s, (0, s.s), &k, keys.ptr());
                blocks::prepack(s.s, s.e, (0, s.e), &v, values.ptr());
                for t in (first..end).step_by(amx::QUERIES) {
                    let row = head * s.t + t;
                    let stats = stats.then(|| to.at(2 * row));
                    let (m, q, y) = (amx::QUERIES.min(end - t), q.at(row * s.d), out.at(row * s.e));
                    amx::attend(s, m, q, keys.ptr(), values.ptr(), y, stats);
                }
                return;
            }
            prepack(s.d, s.s, &k, keys.ptr());
            prepack(s.s, s.e, &v, values.ptr());
            for t in (first..end).step_by(BLOCK) {
                let m = BLOCK.min(end - t);
                let a = Rows::new(q.at((head * s.t + t) * s.d), s.d, 1);
                let c = scores.ptr();
                gemm(m, s.s, s.d, a, &Packed { panels: keys.ptr(), n: s.s }, c, s.s, false);
                let mut sums = [0.0; BLOCK];
                for (r, total) in sums.iter_mut().enumerate().take(m) {
                    let bias = bias_row(bias, s.heads, head, t + r);
                    let (top, sum) = softmax(s.s, c.add(r * s.s), s.scale, bias);
                    *total = sum;
                    if stats {
                        *to.at(2 * (head * s.t + t + r)) = top;
                        *to.at(2 * (head * s.t + t + r) + 1) = sum;
                    }
                }
                let y = out.at((head * s.t + t) * s.e);
                let a = Rows::new(c, s.s, 1);
                gemm(m, s.e, s.s, a, &Packed { panels: values.ptr(), n: s.e }, y, s.e, false);
                for (r, sum) in sums.iter().enumerate().take(m) {
                    scale_row(s.e, y.add(r * s.e), 1.0 / sum);
                }
            }
        }
    });
    // SAFETY: every query's row was written.
    (unsafe { y.finish() }, rows)
}

/// The gradients of [`backward`].
pub(crate) struct Gradients {
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    /// By the bias, in its own shape.
    pub(crate) bias: Option<Vec<f32>>,
}

/// The gradients of the output's gradient `g` `[b, h, t, e]`, with the rows' maxima and sums of
/// [`forward`].
#[allow(clippy::too_many_arguments, reason = "what attention has")]
pub(crate) fn backward(
    s: &Shape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    bias: Option<&Bias>,
    bias_gradient: bool,
    stats: &[f32],
    g: &[f32],
) -> Gradients {
    if bias.is_none() && thin::takes(s) {
        return thin::backward(s, q, k, v, stats, g);
    }
    let heads = s.batch * s.heads;
    let mut dq = Output::new(heads * s.t * s.d);
    let mut dk = Output::new(heads * s.s * s.d);
    let mut dv = Output::new(heads * s.s * s.e);
    let (to_q, to_k, to_v) = (dq.ptr(), dk.ptr(), dv.ptr());
    // The scores' gradient as a whole only where the bias asks for it.
    let mut all = vec![0.0; if bias_gradient { heads * s.t * s.s } else { 0 }];
    let to_all = Ptr::new(all.as_mut_ptr());
    let (q, k, v, g) = (Ptr::of(q), Ptr::of(k), Ptr::of(v), Ptr::of(g));
    parallel(heads, s.t * s.s * 3 * (s.d + s.e), |head| {
        let mut keys = Scratch::new(packed_len(s.d, s.s));
        let mut rows = Scratch::new(packed_len(s.s, s.d));
        let mut values = Scratch::new(packed_len(s.e, s.s));
        let mut map = Scratch::new(BLOCK * s.s);
        let mut slope = Scratch::new(BLOCK * s.s);
        // SAFETY: each unit has its own head.
        unsafe {
            let k = k.at(head * s.s * s.d).cast_const();
            prepack(s.d, s.s, &Transposed { b: k, stride: s.d }, keys.ptr());
            prepack(s.s, s.d, &RowMajor { b: k, stride: s.d }, rows.ptr());
            let v = Transposed { b: v.at(head * s.s * s.e), stride: s.e };
            prepack(s.e, s.s, &v, values.ptr());
            let (dk, dv) = (to_k.at(head * s.s * s.d), to_v.at(head * s.s * s.e));
            if s.t == 0 {
                dk.write_bytes(0, s.s * s.d);
                dv.write_bytes(0, s.s * s.e);
            }
            for t in (0..s.t).step_by(BLOCK) {
                let m = BLOCK.min(s.t - t);
                let q = q.at((head * s.t + t) * s.d).cast_const();
                let g = g.at((head * s.t + t) * s.e).cast_const();
                let (p, ds) = (map.ptr(), slope.ptr());
                let a = Rows::new(q, s.d, 1);
                gemm(m, s.s, s.d, a, &Packed { panels: keys.ptr(), n: s.s }, p, s.s, false);
                let a = Rows::new(g, s.e, 1);
                gemm(m, s.s, s.e, a, &Packed { panels: values.ptr(), n: s.s }, ds, s.s, false);
                for r in 0..m {
                    let row = head * s.t + t + r;
                    let bias = bias_row(bias, s.heads, head, t + r);
                    let (top, sum) = (stats[2 * row], stats[2 * row + 1]);
                    let ds = ds.add(r * s.s);
                    backward_row(s.s, p.add(r * s.s), s.scale, bias, top, sum, ds);
                    if bias_gradient {
                        std::ptr::copy_nonoverlapping(ds, to_all.at(row * s.s), s.s);
                    }
                    scale_row(s.s, ds, s.scale);
                }
                let dq = to_q.at((head * s.t + t) * s.d);
                let a = Rows::new(ds, s.s, 1);
                gemm(m, s.d, s.s, a, &Packed { panels: rows.ptr(), n: s.d }, dq, s.d, false);
                let a = Rows::new(p, 1, s.s);
                gemm(s.s, s.e, m, a, &RowMajor { b: g, stride: s.e }, dv, s.e, t > 0);
                let a = Rows::new(ds, 1, s.s);
                gemm(s.s, s.d, m, a, &RowMajor { b: q, stride: s.d }, dk, s.d, t > 0);
            }
        }
    });
    let bias = bias.filter(|_| bias_gradient).map(|bias| {
        let mut sums = vec![0.0; bias.numbers.len()];
        for head in 0..heads {
            for t in 0..s.t {
                let to = &mut sums[bias.row(s.heads, head, t)..][..bias.dims[3]];
                let from = &all[(head * s.t + t) * s.s..][..s.s];
                if bias.dims[3] == 1 {
                    to[0] += from.iter().sum::<f32>();
                } else {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to += from;
                    }
                }
            }
        }
        sums
    });
    // SAFETY: every head wrote its rows.
    unsafe { Gradients { q: dq.finish(), k: dk.finish(), v: dv.finish(), bias } }
}

//! Two-dimensional convolution, its gradient by the image and by the weights.
//!
//! The image is copied once, with its zeros around it, into planes: one for each channel and each
//! residue of the coordinates by the stride. In these every window position of a kernel element is
//! the same plane, shifted. So the forward product packs its panels straight from the planes
//! (there is no im2col matrix), and the gradient of the weights multiplies shifted planes with the
//! output's gradient along memory. The gradient of the image is again a convolution, one for each
//! residue of the stride. Without zeros and with stride 1 the image itself is the planes. Windows of
//! 3x3 with stride 1 go through [`crate::winograd`] where that is less work.
//!
//! An image may be enlarged on the way in: what is read at a pixel is then the stored pixel that it
//! repeats, and the enlarged image is nowhere.

use crate::dot::{LEFT, Stack, dots, sum};
use crate::gemm::{
    Columns, MAX_STRIP, Packed, Rows, Transposed, block_depth, gemm, packed_len, prepack,
    strip_width, tiled,
};
use crate::memory::{Output, Ptr, Scratch, parallel, sum_groups};
use crate::simd::{LANES, Simd};
use crate::winograd;

mod planes;

pub(crate) use planes::Planes;

/// Numbers of one row of an operand that a block of the weights' gradient sums over.
const BLOCK: usize = 2048;

/// Fewest output channels of one unit: each packs its strip anew.
const LEAST_SHARE: usize = 64;

/// Partial gradients of the weights, which are summed in order at the end.
const GROUPS: usize = 8;

/// Shapes of one convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    /// Channels of the image.
    pub(crate) c: usize,
    /// Height and width of the image, enlarged.
    pub(crate) h: usize,
    pub(crate) w: usize,
    /// How many times each stored pixel is repeated in both directions.
    pub(crate) up: usize,
    /// Channels of the output.
    pub(crate) o: usize,
    pub(crate) kh: usize,
    pub(crate) kw: usize,
    pub(crate) stride: [usize; 2],
    /// Rows of zeros above the image, columns of zeros on its left; negative ones cut.
    pub(crate) before: [isize; 2],
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

impl Shape {
    /// Elements of the kernel times channels: what an output element sums over.
    fn k(&self) -> usize {
        self.c * self.kh * self.kw
    }

    /// Multiplications by the definition.
    pub(crate) fn products(&self) -> usize {
        self.batch * self.o * self.pixels() * self.k()
    }

    fn pixels(&self) -> usize {
        self.oh * self.ow
    }

    /// Numbers of a stored channel of the image.
    pub(crate) fn stored(&self) -> usize {
        self.h / self.up * (self.w / self.up)
    }

    /// Where row `y` of a stored channel begins.
    pub(crate) fn stored_row(&self, y: usize) -> usize {
        y / self.up * (self.w / self.up)
    }
}

/// The planes of a batch: the image itself, or a copy.
struct Filled {
    planes: Planes,
    sample: usize,
    /// Keeps the copy, if `image` points to one.
    _copy: Option<Scratch>,
    image: Ptr,
}

impl Filled {
    /// `whole`: also what lies behind the last sample may be read.
    fn new(s: &Shape, x: &[f32], whole: bool) -> Self {
        let planes = Planes::new(s);
        let sample = planes.sample(s);
        if planes.direct && !whole {
            return Self { planes, sample, _copy: None, image: Ptr::of(x) };
        }
        let len = s.batch * sample;
        let mut copy = Scratch::new(len + planes.slack());
        let to = Ptr::new(copy.ptr());
        // SAFETY: the scratch is that long.
        unsafe { to.at(len).write_bytes(0, planes.slack()) };
        let channel = sample / s.c;
        let from = Ptr::of(x);
        parallel(s.batch * s.c, channel * 2, |i| {
            // SAFETY: channel i of the batch, and its own planes.
            unsafe { planes.fill(s, from.at(i * s.stored()), to.at(i * channel)) };
        });
        Self { planes, sample, _copy: Some(copy), image: to }
    }
}

/// Output positions of a batch as columns of the product: column `i` is a pixel of a sample.
struct Windows<'a> {
    base: Ptr,
    /// Offset of each step of `k`.
    steps: &'a [usize],
    /// Offset of each of the columns of the strip in hand.
    columns: [usize; MAX_STRIP],
}

// SAFETY: columns beyond the last have a valid offset; every vector is written whole.
unsafe impl Columns for Windows<'_> {
    #[inline(always)]
    unsafe fn panel<S: Simd>(
        &self,
        column: usize,
        columns: usize,
        k0: usize,
        depth: usize,
        width: usize,
        scratch: *mut f32,
    ) -> *const f32 {
        let steps = &self.steps[k0..k0 + depth];
        let at = &self.columns[column..];
        let run = |from: usize, to: usize| at[from..to].windows(2).all(|w| w[1] == w[0] + 1);
        let vectors = columns.div_ceil(LANES);
        // SAFETY: the offsets of real windows, inside the planes.
        unsafe {
            if (0..vectors).all(|j| run(j * LANES, (j + 1) * LANES)) {
                match vectors {
                    1 => self.runs::<S, 1>(steps, column, width, scratch),
                    2 => self.runs::<S, 2>(steps, column, width, scratch),
                    _ => self.runs::<S, 3>(steps, column, width, scratch),
                }
            } else if (0..2 * vectors).all(|j| run(j * 8, (j + 1) * 8)) {
                match vectors {
                    1 => self.halves::<S, 1>(steps, column, width, scratch),
                    2 => self.halves::<S, 2>(steps, column, width, scratch),
                    _ => self.halves::<S, 3>(steps, column, width, scratch),
                }
            } else {
                for (i, step) in steps.iter().enumerate() {
                    let from = self.base.at(*step).cast_const();
                    let to = scratch.add(i * width);
                    for (l, at) in at[..vectors * LANES].iter().enumerate() {
                        *to.add(l) = *from.add(*at);
                    }
                }
            }
        }
        scratch
    }
}

impl Windows<'_> {
    /// A panel whose `W` vectors are each sixteen neighbours.
    #[inline(always)]
    unsafe fn runs<S: Simd, const W: usize>(
        &self,
        steps: &[usize],
        column: usize,
        width: usize,
        to: *mut f32,
    ) {
        let from: [*const f32; W] =
            std::array::from_fn(|j| self.base.at(self.columns[column + j * LANES]).cast_const());
        for (i, step) in steps.iter().enumerate() {
            for (j, from) in from.iter().enumerate() {
                // SAFETY: windows of the caller's columns, and its panel.
                unsafe {
                    S::load(from.add(*step)).store(to.add(i * width + j * LANES));
                }
            }
        }
    }

    /// A panel whose `W` vectors are each twice eight neighbours.
    #[inline(always)]
    unsafe fn halves<S: Simd, const W: usize>(
        &self,
        steps: &[usize],
        column: usize,
        width: usize,
        to: *mut f32,
    ) {
        let from: [[*const f32; 2]; W] = std::array::from_fn(|j| {
            [0, 8].map(|l| self.base.at(self.columns[column + j * LANES + l]).cast_const())
        });
        for (i, step) in steps.iter().enumerate() {
            for (j, [low, high]) in from.iter().enumerate() {
                // SAFETY: windows of the caller's columns, and its panel.
                unsafe {
                    S::load_halves(low.add(*step), high.add(*step))
                        .store(to.add(i * width + j * LANES));
                }
            }
        }
    }
}

/// `y[b, o, pixel] = bias[o] + sum w[o, k] x[window(pixel), k]`, for contiguous `x` and `w`.
pub(crate) fn forward(s: &Shape, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (k, pixels) = (s.k(), s.pixels());
    // The tiles of AMX are as fast without a transform (after which they would round too much) once
    // there are enough channels.
    if winograd::pays(s) && !(tiled(k) && s.o.min(s.c) >= 112) {
        return winograd::forward(s, x, w, bias);
    }
    let total = s.batch * pixels;
    let mut y = Output::new(total * s.o);
    let out = y.ptr();
    if total * s.o == 0 || k == 0 {
        for i in 0..total * s.o {
            let bias = bias.map_or(0.0, |b| b[i / pixels % s.o]);
            // SAFETY: inside the output.
            unsafe { *out.at(i) = bias };
        }
        // SAFETY: written above.
        return unsafe { y.finish() };
    }
    let filled = Filled::new(s, x, false);
    let steps = filled.planes.offsets(s);
    let row = filled.planes.row;
    let width = strip_width(k);
    let mut packed = None;
    // SAFETY: `o` rows of `k` steps.
    let rows = unsafe { Rows::new(w.as_ptr(), k, 1).far().prepack(s.o, k, &mut packed) };
    let weights = Ptr::new(rows.a.cast_mut());
    let strips = total.div_ceil(width);
    // Few strips are shared out by output channels too, and those of the same channels one after
    // the other, which changes no bit. (Tiles cannot be cut there.)
    let share = match rows.packed {
        true => s.o,
        false => {
            let shares = (4 * rayon::current_num_threads()).div_ceil(strips);
            s.o.div_ceil(shares).next_multiple_of(LEAST_SHARE).min(s.o)
        }
    };
    parallel(strips * s.o.div_ceil(share), share * width * k, |unit| {
        let (o0, first) = (unit / strips * share, unit % strips * width);
        let channels = share.min(s.o - o0);
        let columns = width.min(total - first);
        let mut at = [0; MAX_STRIP];
        let (mut sample, mut pixel) = (first / pixels, first % pixels);
        let (mut oy, mut ox) = (pixel / s.ow, pixel % s.ow);
        for at in &mut at[..columns] {
            *at = sample * filled.sample + oy * row + ox;
            ox += 1;
            if ox == s.ow {
                (ox, oy) = (0, oy + 1);
            }
            if oy == s.oh {
                (oy, sample) = (0, sample + 1);
            }
        }
        let last = at[columns - 1];
        at[columns..].fill(last);
        let windows = Windows { base: filled.image, steps: &steps, columns: at };
        let rows = Rows { a: weights.at(o0 * k), ..rows };
        let bias = bias.map(|b| &b[o0..o0 + channels]);
        sample = first / pixels;
        // SAFETY: each unit writes its own columns of its own channels.
        unsafe {
            // Rows of images of a power of two lie in few sets of the cache: several blocks of `k`
            // are summed aside.
            let whole = pixel + columns <= pixels && k <= block_depth(k);
            let mut aside = Scratch::new(if whole { 0 } else { channels * MAX_STRIP });
            let (c, c_row) = if whole {
                (out.at((sample * s.o + o0) * pixels + pixel), pixels)
            } else {
                (aside.ptr(), MAX_STRIP)
            };
            if let Some(bias) = bias {
                for (o, bias) in bias.iter().enumerate() {
                    std::slice::from_raw_parts_mut(
                        c.add(o * c_row).cast::<std::mem::MaybeUninit<f32>>(),
                        columns,
                    )
                    .fill(std::mem::MaybeUninit::new(*bias));
                }
            }
            gemm(channels, columns, k, rows, &windows, c, c_row, bias.is_some());
            if !whole {
                let mut done = 0;
                while done < columns {
                    let part = (columns - done).min(pixels - pixel);
                    for o in 0..channels {
                        std::ptr::copy_nonoverlapping(
                            c.add(o * c_row + done),
                            out.at((sample * s.o + o0 + o) * pixels + pixel),
                            part,
                        );
                    }
                    done += part;
                    (pixel, sample) = (0, sample + 1);
                }
            }
        }
    });
    drop(filled);
    // SAFETY: every column of every channel was written.
    unsafe { y.finish() }
}

/// The gradient by the image (not enlarged), `[b, c, h, w]`, of the output's gradient `g` `[b, o, oh, ow]`.
pub(crate) fn grad_image(s: &Shape, w: &[f32], g: &[f32]) -> Vec<f32> {
    let one = s.stride == [1, 1];
    let mut dx = if one { Vec::new() } else { vec![0.0; s.batch * s.c * s.h * s.w] };
    for a in 0..s.stride[0].min(s.kh) {
        for b in 0..s.stride[1].min(s.kw) {
            // Kernel elements of this residue, turned round; channels in and out change places.
            let kh = (s.kh - a).div_ceil(s.stride[0]);
            let kw = (s.kw - b).div_ceil(s.stride[1]);
            let mut turned = vec![0.0; s.c * s.o * kh * kw];
            for c in 0..s.c {
                for o in 0..s.o {
                    for i in 0..kh {
                        for j in 0..kw {
                            let (y, x) =
                                (a + s.stride[0] * (kh - 1 - i), b + s.stride[1] * (kw - 1 - j));
                            turned[((c * s.o + o) * kh + i) * kw + j] =
                                w[((o * s.c + c) * s.kh + y) * s.kw + x];
                        }
                    }
                }
            }
            // Rows y of the image with y + before = a (mod stride): first one, its plane row, count.
            let axis = |axis: usize, residue: usize, size: usize| {
                let stride = s.stride[axis] as isize;
                let first = (residue as isize - s.before[axis]).rem_euclid(stride);
                let count = (size as isize - first + stride - 1).max(0) / stride;
                (
                    (first as usize),
                    (first + s.before[axis] - residue as isize) / stride,
                    count as usize,
                )
            };
            let (y0, row, rows) = axis(0, a, s.h);
            let (x0, column, columns) = axis(1, b, s.w);
            if rows == 0 || columns == 0 {
                continue;
            }
            let part = Shape {
                batch: s.batch,
                c: s.o,
                h: s.oh,
                w: s.ow,
                up: 1,
                o: s.c,
                kh,
                kw,
                stride: [1, 1],
                before: [kh as isize - 1 - row, kw as isize - 1 - column],
                oh: rows,
                ow: columns,
            };
            let part_dx = forward(&part, g, &turned, None);
            if one {
                dx = part_dx;
                continue;
            }
            for (image, part) in
                dx.chunks_exact_mut(s.h * s.w).zip(part_dx.chunks_exact(rows * columns))
            {
                for r in 0..rows {
                    let to = &mut image[(y0 + r * s.stride[0]) * s.w + x0..];
                    for (to, from) in to
                        .iter_mut()
                        .step_by(s.stride[1])
                        .zip(&part[r * columns..(r + 1) * columns])
                    {
                        *to = *from;
                    }
                }
            }
        }
    }
    dx
}

/// The gradient by the weights, `[o, c, kh, kw]`.
pub(crate) fn grad_weights(s: &Shape, x: &[f32], g: &[f32]) -> Vec<f32> {
    let (k, pixels) = (s.k(), s.pixels());
    if s.batch * pixels * s.o * k == 0 {
        return vec![0.0; s.o * k];
    }
    if winograd::weights::pays(s) && !tiled(usize::MAX) {
        return winograd::weights::gradient(s, x, g);
    }
    let filled = Filled::new(s, x, true);
    let row = filled.planes.row;
    let length = (s.oh - 1) * row + s.ow;
    let padded = length.next_multiple_of(LANES);
    // The output's gradient with the rows of the planes: zeros where a plane has its margin.
    let mut copy = Scratch::new(if padded == pixels { 0 } else { s.batch * s.o * padded });
    let left = if padded == pixels {
        Ptr::of(g)
    } else {
        let to = Ptr::new(copy.ptr());
        let from = Ptr::of(g);
        parallel(s.batch * s.o, 2 * padded, |i| {
            // SAFETY: channel i of the gradient, and its own copy.
            unsafe {
                let (from, to) = (from.at(i * pixels), to.at(i * padded));
                for r in 0..s.oh {
                    std::ptr::copy_nonoverlapping(from.add(r * s.ow), to.add(r * row), s.ow);
                    let end = (r + 1) * row;
                    let end = end.min(padded);
                    to.add(r * row + s.ow).write_bytes(0, end - r * row - s.ow);
                }
                let done = (s.oh * row).min(padded);
                to.add(done).write_bytes(0, padded - done);
            }
        });
        to
    };
    let offsets = filled.planes.offsets(s);
    if tiled(padded) && s.o.min(s.c) >= 16 {
        return grad_weights_by_products(s, &filled, left, padded, &offsets);
    }
    let per_block = (BLOCK / padded).max(1);
    let per_group = s.batch.div_ceil(per_block).div_ceil(GROUPS) * per_block;
    let groups = s.batch.div_ceil(per_group);
    let mut partial = Scratch::new(groups * s.o * k);
    let partials = Ptr::new(partial.ptr());
    let strips = s.o.div_ceil(LEFT);
    parallel(groups * strips, per_group.min(s.batch) * LEFT * k * padded, |unit| {
        let (group, strip) = (unit / strips, unit % strips);
        let first = strip * LEFT;
        let rows = LEFT.min(s.o - first);
        // SAFETY: each unit writes its rows of its group's gradient.
        unsafe {
            let out = partials.at((group * s.o + first) * k);
            out.write_bytes(0, rows * k);
            let end = ((group + 1) * per_group).min(s.batch);
            for sample in (group * per_group..end).step_by(per_block) {
                dots(
                    per_block.min(end - sample),
                    padded / LANES,
                    Stack { base: left.at((sample * s.o + first) * padded), sample: s.o * padded },
                    padded,
                    rows,
                    Stack { base: filled.image.at(sample * filled.sample), sample: filled.sample },
                    &offsets,
                    out,
                    k,
                );
            }
        }
    });
    // SAFETY: all partial gradients were written above.
    let partial = unsafe { std::slice::from_raw_parts(partial.ptr(), groups * s.o * k) };
    sum_groups(partial, s.o * k)
}

/// [`grad_weights`] as matrix products, one for each element of the kernel and each sample: shifted
/// planes times the output's gradient `g`, whose channels have `padded` numbers. Where products are
/// so fast that packing both pays.
fn grad_weights_by_products(
    s: &Shape,
    filled: &Filled,
    g: Ptr,
    padded: usize,
    offsets: &[usize],
) -> Vec<f32> {
    let (taps, channel) = (s.kh * s.kw, filled.sample / s.c);
    let len = packed_len(padded, s.o);
    let mut packed = Scratch::new(s.batch * len);
    let columns = Ptr::new(packed.ptr());
    parallel(s.batch, padded * s.o, |sample| {
        let b = Transposed { b: g.at(sample * s.o * padded), stride: padded };
        // SAFETY: the sample's gradient, and its own panels.
        unsafe { prepack(padded, s.o, &b, columns.at(sample * len)) };
    });
    let per_group = s.batch.div_ceil(GROUPS);
    let groups = s.batch.div_ceil(per_group);
    // Each group's gradient, as [tap, c, o].
    let mut partial = Scratch::new(groups * taps * s.c * s.o);
    let partials = Ptr::new(partial.ptr());
    parallel(groups * taps, per_group * padded * s.c * s.o, |unit| {
        let (group, tap) = (unit / taps, unit % taps);
        let to = partials.at(unit * s.c * s.o);
        for (i, sample) in (group * per_group..((group + 1) * per_group).min(s.batch)).enumerate() {
            let planes = filled.image.at(sample * filled.sample + offsets[tap]);
            let b = Packed { panels: columns.at(sample * len), n: s.o };
            // SAFETY: planes with room behind them; each unit writes its own partial gradient.
            unsafe {
                gemm(s.c, s.o, padded, Rows::new(planes, channel, 1), &b, to, s.o, i > 0);
            }
        }
    });
    // SAFETY: all partial gradients were written above.
    let partial = unsafe { std::slice::from_raw_parts(partial.ptr(), groups * taps * s.c * s.o) };
    let sums = sum_groups(partial, taps * s.c * s.o);
    let mut gradient = vec![0.0; s.o * s.k()];
    for (i, to) in gradient.iter_mut().enumerate() {
        let (o, c, tap) = (i / s.k(), i % s.k() / taps, i % taps);
        *to = sums[(tap * s.c + c) * s.o + o];
    }
    gradient
}

/// The gradient by the bias: the sum of each channel's gradients, sample by sample.
pub(crate) fn grad_bias(batch: usize, channels: usize, pixels: usize, g: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0; batch * channels];
    let out = Ptr::new(sums.as_mut_ptr());
    parallel(batch * channels, pixels, |i| {
        // SAFETY: each unit writes its own sum.
        unsafe { *out.at(i) = sum(&g[i * pixels..(i + 1) * pixels]) };
    });
    sum_groups(&sums, channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, rounding, with_each_set, with_one_set};

    fn shape(
        batch: usize,
        c: usize,
        o: usize,
        [h, w]: [usize; 2],
        k: usize,
        stride: usize,
        padding: [usize; 4],
    ) -> Option<Shape> {
        let [top, bottom, left, right] = padding;
        if h + top + bottom < k || w + left + right < k {
            return None;
        }
        let (oh, ow) = ((h + top + bottom - k) / stride + 1, (w + left + right - k) / stride + 1);
        Some(Shape {
            batch,
            c,
            h,
            w,
            up: 1,
            o,
            kh: k,
            kw: k,
            stride: [stride, stride],
            before: [top as isize, left as isize],
            oh,
            ow,
        })
    }

    /// Visits every product of the convolution: (output, weight, image) indices.
    fn visit(s: &Shape, mut f: impl FnMut(usize, usize, usize)) {
        for b in 0..s.batch {
            for o in 0..s.o {
                for oy in 0..s.oh {
                    for ox in 0..s.ow {
                        for c in 0..s.c {
                            for i in 0..s.kh {
                                for j in 0..s.kw {
                                    let y = (oy * s.stride[0] + i) as isize - s.before[0];
                                    let x = (ox * s.stride[1] + j) as isize - s.before[1];
                                    if (0..s.h as isize).contains(&y)
                                        && (0..s.w as isize).contains(&x)
                                    {
                                        f(
                                            ((b * s.o + o) * s.oh + oy) * s.ow + ox,
                                            ((o * s.c + c) * s.kh + i) * s.kw + j,
                                            ((b * s.c + c) * s.h + y as usize) * s.w + x as usize,
                                        );
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn close(got: &[f32], wanted: &[f64], what: &str) {
        close_to(1.0, got, wanted, what);
    }

    fn close_to(wide: f64, got: &[f32], wanted: &[f64], what: &str) {
        assert_eq!(got.len(), wanted.len(), "{what}");
        for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
            let error = (f64::from(*got) - wanted).abs();
            let bound = wide * rounding() * (2e-5 + 2e-6 * wanted.abs());
            assert!(error < bound, "{what} at {i}: {got} {wanted}");
        }
    }

    /// Against the definition in f64, at odd sizes, within 2e-5 (1e-4 on AMX, 2e-4 after
    /// Winograd's transforms).
    #[test]
    fn forward_and_gradients_are_right() {
        let mut shapes = Vec::new();
        for size in [[1, 1], [5, 5], [7, 7], [7, 5], [8, 8], [16, 16]] {
            for (c, o) in [(3, 13), (13, 3), (1, 8), (17, 20)] {
                for (k, stride, padding) in [
                    (1, 1, [0; 4]),
                    (1, 2, [0; 4]),
                    (3, 1, [1; 4]),
                    (3, 1, [0; 4]),
                    (3, 1, [3, 2, 4, 0]),
                    (3, 2, [1; 4]),
                    (3, 2, [0, 1, 0, 1]),
                    (4, 1, [1; 4]),
                    (4, 2, [1; 4]),
                    (2, 3, [0; 4]),
                ] {
                    shapes.extend(shape(2, c, o, size, k, stride, padding));
                }
            }
        }
        with_each_set(|set| {
            for s in &shapes {
                let (x, w) = (numbers(s.batch * s.c * s.h * s.w, 1), numbers(s.o * s.k(), 2));
                let (bias, g) = (numbers(s.o, 3), numbers(s.batch * s.o * s.pixels(), 4));
                let mut y: Vec<f64> =
                    (0..g.len()).map(|i| f64::from(bias[i / s.pixels() % s.o])).collect();
                let mut dx = vec![0.0; x.len()];
                let mut dw = vec![0.0; w.len()];
                visit(s, |yi, wi, xi| {
                    y[yi] += f64::from(w[wi]) * f64::from(x[xi]);
                    dw[wi] += f64::from(g[yi]) * f64::from(x[xi]);
                    dx[xi] += f64::from(g[yi]) * f64::from(w[wi]);
                });
                let name = format!("{set:?} {s:?}");
                // Winograd's transforms add roundings of their own.
                let wide = |s: &Shape| if winograd::pays(s) { 8.0 } else { 1.0 };
                let back = Shape { c: s.o, o: s.c, h: s.oh, w: s.ow, oh: s.h, ow: s.w, ..*s };
                close_to(wide(s), &forward(s, &x, &w, Some(&bias)), &y, &name);
                let of_weights = if winograd::weights::pays(s) { 8.0 } else { 1.0 };
                close_to(of_weights, &grad_weights(s, &x, &g), &dw, &format!("weights {name}"));
                close_to(wide(&back), &grad_image(s, &w, &g), &dx, &format!("image {name}"));
            }
        });
    }

    /// One sample's bits are the same alone and in a batch, and on one thread and two; gradients of
    /// weights are the same on one thread and two.
    #[test]
    fn bits_do_not_depend_on_batch_or_threads() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (one, two) = (pool(1), pool(2));
        with_one_set(|| {
            for (size, k, stride, padding) in [
                ([7, 7], 3, 1, [1; 4]),
                ([16, 16], 3, 1, [1; 4]),
                ([16, 16], 3, 2, [0, 1, 0, 1]),
                ([32, 32], 1, 1, [0; 4]),
            ] {
                let s = shape(8, 40, 24, size, k, stride, padding).unwrap();
                let (x, w) = (numbers(8 * s.c * s.h * s.w, 1), numbers(s.o * s.k(), 2));
                let g = numbers(8 * s.o * s.pixels(), 4);
                let run = |batch: usize| {
                    let s = Shape { batch, ..s };
                    let (x, g) = (&x[..batch * s.c * s.h * s.w], &g[..batch * s.o * s.pixels()]);
                    (forward(&s, x, &w, None), grad_image(&s, &w, g), grad_weights(&s, x, g))
                };
                let whole = one.install(|| run(8));
                assert_eq!(whole, two.install(|| run(8)));
                for batch in [1, 3] {
                    let part = one.install(|| run(batch));
                    assert_eq!(part, two.install(|| run(batch)));
                    assert_eq!(part.0[..], whole.0[..part.0.len()]);
                    assert_eq!(part.1[..], whole.1[..part.1.len()]);
                }
            }
        });
    }

    /// An image that is enlarged on the way in gives the bits of one that was enlarged before, on
    /// every path: direct, by Winograd's transforms, with strides.
    #[test]
    fn enlarged_on_the_way_in_as_before() {
        with_each_set(|set| {
            for (c, o, size, k, stride, padding) in [
                (3, 5, [7, 5], 3, 1, [1; 4]),
                (17, 20, [8, 16], 3, 1, [1; 4]),
                (40, 48, [16, 12], 3, 1, [1, 1, 1, 1]),
                (4, 6, [9, 6], 2, 2, [0, 1, 0, 1]),
                (16, 16, [8, 8], 1, 1, [0; 4]),
            ] {
                for up in [2, 3] {
                    let [h, w] = size.map(|n| n * up);
                    let s = shape(2, c, o, [h, w], k, stride, padding).unwrap();
                    let x = numbers(2 * c * size[0] * size[1], 1);
                    let weights = numbers(o * s.k(), 2);
                    let large = crate::resample::forward(2 * c * size[0], size[1], up, &x);
                    let wanted = forward(&s, &large, &weights, None);
                    let found = forward(&Shape { up, ..s }, &x, &weights, None);
                    assert_eq!(found, wanted, "{set:?} {s:?} {up}");
                }
            }
        });
    }

    #[test]
    fn the_bias_gradient_is_the_sum() {
        let g = numbers(3 * 5 * 7, 1);
        let mut wanted = vec![0.0; 5];
        for (i, g) in g.iter().enumerate() {
            wanted[i / 7 % 5] += f64::from(*g);
        }
        close(&with_one_set(|| grad_bias(3, 5, 7, &g)), &wanted, "bias");
    }
}

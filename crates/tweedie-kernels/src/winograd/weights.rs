//! The gradient of the weights of a 3x3 convolution by the same transforms, transposed: with the
//! windows' tiles `B^T d B` and the output gradient's `A g A^T`, for each position a matrix product
//! over all tiles of the batch, which `G^T . G` turns into nine numbers a kernel. 36 products where
//! the definition has 144.
//!
//! The order of sums depends on the shape alone.

use super::{CHUNK, GROUP, POSITIONS, Place, ROW, STRIP, copy_clipped, fourths, runs, tiles};
use crate::conv::Shape;
use crate::gemm::{Rows, Transposed, gemm_panels};
use crate::memory::{Output, Ptr, Scratch, parallel};
use crate::simd::{LANES, Simd, dispatch, load_part, store_part};

/// Columns of one unit's product: a whole number of panels of every width.
const COLUMNS: usize = 96;

/// Whether the transforms cost less than the products that they save, in cycles of one core as
/// measured with AVX-512: 16 products of the definition a cycle, 20 of ours; 12 cycles for a tile of
/// a channel of the image, 10 for one of the gradient, 8 for a kernel.
pub(crate) fn pays(s: &Shape) -> bool {
    if [s.kh, s.kw] != [3, 3] || s.stride != [1, 1] || s.o < 16 || s.c < 16 {
        return false;
    }
    let (tiles, products) = (s.batch * tiles(s), s.o * s.c);
    let direct = 9 * products * s.batch * s.oh * s.ow / 16;
    let filled = tiles.next_multiple_of(LANES);
    let ours = POSITIONS * products * filled / 20 + 8 * products + (12 * s.c + 10 * s.o) * filled;
    ours < direct * 9 / 10
}

/// `A` on four vectors.
#[inline(always)]
unsafe fn into_gradient<S: Simd>(g: [S; 4]) -> [S; 6] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let [g0, g1, g2, g3] = g;
        let (even, odd) = (g0.add(g2), g1.add(g3));
        let far_even = g2.fma(S::splat(4.0), g0);
        let far_odd = g3.fma(S::splat(4.0), g1).mul(S::splat(2.0));
        [g0, even.add(odd), even.sub(odd), far_even.add(far_odd), far_even.sub(far_odd), g3]
    }
}

/// `G^T` on six vectors.
#[inline(always)]
unsafe fn out_of_kernel<S: Simd>(m: [S; 6]) -> [S; 3] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let [m0, m1, m2, m3, m4, m5] = m;
        let sixth = S::splat(1.0 / 6.0);
        let (near, far) = (m1.add(m2).mul(sixth), m3.add(m4).mul(sixth));
        [
            far.sub(near.mul(S::splat(4.0))).add(m0).mul(S::splat(0.25)),
            m3.sub(m4).mul(S::splat(0.5)).sub(m1.sub(m2)).mul(sixth),
            far.sub(near).add(m5),
        ]
    }
}

/// Transforms a strip's tiles of the output gradient's channels `channels` to `v`.
#[inline(always)]
unsafe fn gradients_body<S: Simd>(
    s: &Shape,
    g: *const f32,
    first: usize,
    count: usize,
    channels: (usize, usize),
    place: Place,
    v: *mut f32,
) {
    let mut rows = Scratch::new(6 * ROW);
    let rows = rows.ptr();
    let padded = count.next_multiple_of(LANES);
    for c in channels.0..channels.1 {
        // SAFETY: inside the gradient, the scratch and the strip.
        unsafe {
            for run in runs(s, first, count) {
                let plane = g.add((run.sample * s.o + c) * s.oh * s.ow);
                for r in 0..4 {
                    let to = rows.add(r * ROW + 4 * run.at);
                    if run.y + r >= s.oh {
                        to.write_bytes(0, 4 * run.tiles);
                    } else {
                        let row = plane.add((run.y + r) * s.ow);
                        copy_clipped::<S>(row, s.ow, 1, run.x as isize, 4 * run.tiles, to);
                    }
                }
            }
            for row in 0..4 {
                rows.add(row * ROW + 4 * count).write_bytes(0, 4 * (padded - count));
            }
            for i in (0..4 * padded).step_by(LANES) {
                let at = rows.add(i);
                let mut g = [S::splat(0.0); 4];
                for (r, g) in g.iter_mut().enumerate() {
                    *g = S::load(at.add(r * ROW));
                }
                for (r, t) in into_gradient(g).iter().enumerate() {
                    t.store(at.add(r * ROW));
                }
            }
            for p in 0..6 {
                for tile in (0..padded).step_by(LANES) {
                    let g = fourths::<S>(rows.add(p * ROW + 4 * tile));
                    let to = v.add(place.at(c, tile));
                    for (q, t) in into_gradient(g).iter().enumerate() {
                        t.store(to.add((6 * p + q) * place.position));
                    }
                }
            }
        }
    }
}

dispatch! {
    /// See [`gradients_body`].
    ///
    /// # Safety
    /// The output's gradient; whole vectors of `v` at the places.
    fn transform_gradients(
        s: &Shape, g: *const f32, first: usize, count: usize, channels: (usize, usize),
        place: Place, v: *mut f32,
    ) = gradients_body
}

/// Transforms the products of one output channel back to its kernels' gradients.
#[inline(always)]
unsafe fn kernels_body<S: Simd>(channels: usize, m: *const f32, position: usize, w: *mut f32) {
    for c in (0..channels).step_by(LANES) {
        let lanes = LANES.min(channels - c);
        // SAFETY: the caller's channels of every position, and their kernels.
        unsafe {
            let mut half = [[S::splat(0.0); 3]; 6];
            for (q, half) in half.iter_mut().enumerate() {
                let mut column = [S::splat(0.0); 6];
                for (p, v) in column.iter_mut().enumerate() {
                    *v = load_part(m.add((6 * p + q) * position + c), lanes);
                }
                *half = out_of_kernel(column);
            }
            let mut vectors = [S::splat(0.0); 16];
            for i in 0..3 {
                let mut row = [S::splat(0.0); 6];
                for (q, v) in row.iter_mut().enumerate() {
                    *v = half[q][i];
                }
                vectors[3 * i..3 * i + 3].copy_from_slice(&out_of_kernel(row));
            }
            for (l, v) in S::transpose(&vectors).iter().enumerate().take(lanes) {
                store_part(*v, w.add((c + l) * 9), 9);
            }
        }
    }
}

dispatch! {
    /// See [`kernels_body`].
    ///
    /// # Safety
    /// `channels` numbers of each of the positions, which are `position` apart, and nine times as
    /// many of `w`.
    fn transform_kernels(channels: usize, m: *const f32, position: usize, w: *mut f32) = kernels_body
}

/// The gradient of [`crate::conv::grad_weights`], for shapes for which this one [`pays`].
pub(crate) fn gradient(s: &Shape, x: &[f32], g: &[f32]) -> Vec<f32> {
    let total = s.batch * tiles(s);
    let (image, gradient) = (Ptr::of(x), Ptr::of(g));
    // Chunks of one size, of whole vectors.
    let most = (CHUNK / (POSITIONS * (s.c + s.o))).max(STRIP) / STRIP * STRIP;
    let chunk = total.div_ceil(total.div_ceil(most)).next_multiple_of(LANES);
    // An odd number of vectors, so that rows do not meet in few sets of the cache.
    let row = ((chunk / LANES) | 1) * LANES;
    let mut windows = Scratch::new(POSITIONS * s.c * row);
    let mut outputs = Scratch::new(POSITIONS * s.o * row);
    let mut products = Scratch::new(POSITIONS * s.o * s.c);
    let (v, d) = (Ptr::new(windows.ptr()), Ptr::new(outputs.ptr()));
    let m = Ptr::new(products.ptr());
    let place =
        |channels| Place { position: channels * row, channel: row, panel: LANES, width: LANES };
    let groups = [s.c.div_ceil(GROUP), s.o.div_ceil(GROUP)];
    for start in (0..total).step_by(chunk) {
        let count = chunk.min(total - start);
        let strips = count.div_ceil(STRIP);
        parallel(strips * (groups[0] + groups[1]), GROUP * STRIP * 300, |unit| {
            let (strip, group) = (unit / (groups[0] + groups[1]), unit % (groups[0] + groups[1]));
            let (first, tiles) = (strip * STRIP, STRIP.min(count - strip * STRIP));
            // SAFETY: each unit writes its own channels of its own tiles.
            unsafe {
                if let Some(group) = group.checked_sub(groups[0]) {
                    let channels = (group * GROUP, ((group + 1) * GROUP).min(s.o));
                    let (from, to) = (gradient.at(0), d.at(first));
                    transform_gradients(s, from, start + first, tiles, channels, place(s.o), to);
                } else {
                    let channels = (group * GROUP, ((group + 1) * GROUP).min(s.c));
                    let (from, to) = (image.at(0), v.at(first));
                    super::transform_tiles(s, from, start + first, tiles, channels, place(s.c), to);
                }
            }
        });
        let depth = count.next_multiple_of(LANES);
        let parts = s.c.div_ceil(COLUMNS);
        parallel(POSITIONS * parts, depth * s.o * COLUMNS, |unit| {
            let (p, column) = (unit / parts, unit % parts * COLUMNS);
            let columns = COLUMNS.min(s.c - column);
            let a = Rows::new(d.at(p * s.o * row), row, 1);
            let b = Transposed { b: v.at((p * s.c + column) * row), stride: row };
            let to = m.at(p * s.o * s.c + column);
            // SAFETY: each unit writes its own columns of its own position.
            unsafe { gemm_panels(s.o, columns, depth, a, &b, to, s.c, start > 0) };
        });
    }
    let mut w = Output::new(s.o * s.c * 9);
    let out = w.ptr();
    parallel(s.o, s.c * POSITIONS * 4, |o| {
        // SAFETY: each unit writes its own kernels.
        unsafe { transform_kernels(s.c, m.at(o * s.c), s.o * s.c, out.at(o * s.c * 9)) };
    });
    // SAFETY: every kernel was written.
    unsafe { w.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, rounding, with_each_set};

    fn shape(batch: usize, c: usize, o: usize, [h, w]: [usize; 2], before: [isize; 2]) -> Shape {
        let side = |n: usize, b: isize| (n as isize + 2 * b - 2) as usize;
        let [oh, ow] = [side(h, before[0]), side(w, before[1])];
        Shape { batch, c, h, w, up: 1, o, kh: 3, kw: 3, stride: [1, 1], before, oh, ow }
    }

    /// Against the definition in f64, within 1e-5 of the sum of the products' sizes: odd sizes, with
    /// more and less than one strip and one chunk, any number of channels, on one thread and two.
    #[test]
    fn gradients_are_right() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (one, two) = (pool(1), pool(2));
        with_each_set(|set| {
            for s in [
                shape(1, 16, 16, [4, 4], [1, 1]),
                shape(2, 17, 33, [7, 5], [1, 1]),
                shape(3, 20, 40, [9, 50], [0, 1]),
                shape(1, 3, 70, [30, 31], [1, 0]),
                shape(2, 100, 5, [33, 18], [2, 2]),
                shape(40, 128, 16, [32, 32], [1, 1]),
            ] {
                let x = numbers(s.batch * s.c * s.h * s.w, 1);
                let g = numbers(s.batch * s.o * s.oh * s.ow, 2);
                let got = one.install(|| gradient(&s, &x, &g));
                assert_eq!(got, two.install(|| gradient(&s, &x, &g)), "{set:?} {s:?}");
                // Some of the kernels of the largest.
                let step = if s.batch > 3 { 997 } else { 1 };
                for (i, got) in got.iter().enumerate().step_by(step) {
                    let (tap, c, o) = (i % 9, i / 9 % s.c, i / 9 / s.c);
                    let (mut sum, mut size) = (0.0, 0.0);
                    for at in 0..s.batch * s.oh * s.ow {
                        let (b, oy, ox) = (at / s.ow / s.oh, at / s.ow % s.oh, at % s.ow);
                        let y = (oy + tap / 3) as isize - s.before[0];
                        let column = (ox + tap % 3) as isize - s.before[1];
                        if (0..s.h as isize).contains(&y) && (0..s.w as isize).contains(&column) {
                            let row = ((b * s.c + c) * s.h + y as usize) * s.w;
                            let from = ((b * s.o + o) * s.oh + oy) * s.ow + ox;
                            let p = f64::from(x[row + column as usize]) * f64::from(g[from]);
                            sum += p;
                            size += p.abs();
                        }
                    }
                    let error = (f64::from(*got) - sum).abs();
                    let bound = rounding() * 1e-5 * size.max(1.0);
                    assert!(error < bound, "{set:?} {s:?} at {i}: {got} {sum}");
                }
            }
        });
    }
}

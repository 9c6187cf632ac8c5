//! Convolution of 3x3 windows with stride 1 by Winograd's F(4x4, 3x3) (Lavin and Gray 2016): an
//! output of 4x4 pixels takes 36 products a channel instead of 144.
//!
//! A tile is a window of 6x6 pixels that overlaps its neighbours by two. Tiles and kernels are
//! transformed into 36 numbers each; for every one of these *positions* the outputs' numbers are a
//! matrix product over the channels, and are transformed back. The tiles of a chunk are transformed
//! first; then each block of output channels transforms its kernels into the cache and meets all
//! tiles of the chunk, so the transformed kernels, four times as large, never go to memory.
//!
//! The order of sums of an output element depends on the number of channels alone.

use crate::conv::Shape;
use crate::gemm::{Columns, Rows, gemm_panels, panel_width};
use crate::memory::{Output, Ptr, Scratch, parallel};
use crate::simd::{LANES, Simd, dispatch, load_part, store_part};

pub(crate) mod weights;

/// Positions of a transformed tile.
const POSITIONS: usize = 36;

/// Tiles that are multiplied together: a multiple of every panel's width.
const STRIP: usize = 48;

/// Output channels whose kernels are transformed at once.
const BLOCK: usize = 64;

/// Channels of one unit of the tiles' transform.
const GROUP: usize = 16;

/// Kernels of a large layer.
const LARGE: usize = 1 << 18;

/// Most numbers of a chunk's transformed tiles.
const CHUNK: usize = 1 << 23;

/// What kernels are multiplied by and outputs divided by: as much as their transform makes them smaller,
/// so that the smallest numbers keep their bits. A power of two, which changes no others.
const UP: f32 = 1024.0;

/// Whether the transforms cost less than the products that they save, in cycles of one core as
/// measured with AVX-512: 24 products a cycle; 12 cycles for a tile of a channel, 6 for a kernel, 20
/// for an output.
///
/// Tiles fill whole vectors. Those of a small image do not; where many images come at once the next
/// one's fill the rest, but large layers meet few images at a time.
pub(crate) fn pays(s: &Shape) -> bool {
    if [s.kh, s.kw] != [3, 3] || s.stride != [1, 1] || s.o < 16 || s.c < 16 {
        return false;
    }
    let (tiles, products) = (tiles(s), s.o * s.c);
    let filled = if products < LARGE { tiles } else { tiles.next_multiple_of(LANES) };
    let direct = 9 * products * s.oh * s.ow / 24;
    let ours = POSITIONS * products * filled / 24 + 6 * products + (12 * s.c + 20 * s.o) * tiles;
    ours < direct * 9 / 10
}

/// Tiles of one sample.
fn tiles(s: &Shape) -> usize {
    s.oh.div_ceil(4) * s.ow.div_ceil(4)
}

/// Tiles that follow each other in one row of tiles.
struct Run {
    sample: usize,
    /// The first output row and column.
    y: usize,
    x: usize,
    tiles: usize,
    /// The first tile's place in the strip.
    at: usize,
}

/// The runs of the `count` tiles from `first` on.
fn runs(s: &Shape, first: usize, count: usize) -> impl Iterator<Item = Run> {
    let (wide, each) = (s.ow.div_ceil(4), tiles(s));
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == count {
            return None;
        }
        let tile = first + done;
        let (sample, inside) = (tile / each, tile % each);
        let column = inside % wide;
        let tiles = (wide - column).min(count - done);
        let run = Run { sample, y: inside / wide * 4, x: column * 4, tiles, at: done };
        done += tiles;
        Some(run)
    })
}

/// One position of a strip's tiles.
struct Position {
    v: *const f32,
    channels: usize,
}

// SAFETY: only read.
unsafe impl Sync for Position {}

// SAFETY: panels of `width` tiles follow each other, each with all its channels.
unsafe impl Columns for Position {
    #[inline(always)]
    unsafe fn panel<S: Simd>(
        &self,
        column: usize,
        _columns: usize,
        k0: usize,
        _depth: usize,
        width: usize,
        _scratch: *mut f32,
    ) -> *const f32 {
        // SAFETY: inside the position.
        unsafe { self.v.add(column * self.channels + k0 * width) }
    }
}

/// `B^T` on six vectors.
#[inline(always)]
unsafe fn into_tile<S: Simd>(d: [S; 6]) -> [S; 6] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let [two, four, five] = [S::splat(2.0), S::splat(4.0), S::splat(5.0)];
        let [d0, d1, d2, d3, d4, d5] = d;
        // 4 d0 - 5 d2 + d4 and the same one further.
        let first = d0.fma(four, d4.sub(d2.mul(five)));
        let last = d1.fma(four, d5.sub(d3.mul(five)));
        // (d4 - 4 d2) with (d3 - 4 d1); (d4 - d2) with 2 (d3 - d1).
        let (even, odd) = (d4.sub(d2.mul(four)), d3.sub(d1.mul(four)));
        let (near, far) = (d4.sub(d2), d3.sub(d1).mul(two));
        [first, even.add(odd), even.sub(odd), near.add(far), near.sub(far), last]
    }
}

/// `G` on three vectors.
#[inline(always)]
unsafe fn into_kernel<S: Simd>(g: [S; 3]) -> [S; 6] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let [g0, g1, g2] = g;
        let (sixth, outer) = (S::splat(-1.0 / 6.0), g0.add(g2));
        let (a, b) = (g0.mul(S::splat(1.0 / 24.0)), g1.mul(S::splat(1.0 / 12.0)));
        let c = g2.fma(S::splat(1.0 / 6.0), a);
        [
            g0.mul(S::splat(0.25)),
            outer.add(g1).mul(sixth),
            outer.sub(g1).mul(sixth),
            c.add(b),
            c.sub(b),
            g2,
        ]
    }
}

/// `A^T` on six vectors.
#[inline(always)]
unsafe fn out_of_tile<S: Simd>(m: [S; 6]) -> [S; 4] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let [m0, m1, m2, m3, m4, m5] = m;
        let (a, b) = (m1.add(m2), m1.sub(m2));
        let (c, d) = (m3.add(m4), m3.sub(m4));
        [
            m0.add(a).add(c),
            d.fma(S::splat(2.0), b),
            c.fma(S::splat(4.0), a),
            d.fma(S::splat(8.0), b).add(m5),
        ]
    }
}

/// Copies `count` numbers of a row of `w` from column `x` on, each stored number `up` times; what lies
/// outside is zero. (Rows are so short that a call for each would take longer than they do.)
#[inline(always)]
unsafe fn copy_clipped<S: Simd>(
    row: *const f32,
    w: usize,
    up: usize,
    x: isize,
    count: usize,
    to: *mut f32,
) {
    let first = (-x).clamp(0, count as isize) as usize;
    let end = (w as isize - x).clamp(first as isize, count as isize) as usize;
    // SAFETY: the caller's numbers; the row is read only where it is.
    unsafe {
        if up > 1 {
            to.write_bytes(0, count);
            for i in first..end {
                *to.add(i) = *row.add((x + i as isize) as usize / up);
            }
            return;
        }
        for i in (0..count).step_by(LANES) {
            let (from, until) = (first.max(i) - i, end.max(i) - i);
            let from = from.min(LANES);
            let v = S::load_lanes(row.wrapping_offset(x + i as isize), from, until.min(LANES));
            store_part(v, to.add(i), LANES.min(count - i));
        }
    }
}

/// Copies `count` numbers.
#[inline(always)]
unsafe fn copy<S: Simd>(from: *const f32, count: usize, to: *mut f32) {
    for i in (0..count).step_by(LANES) {
        let n = LANES.min(count - i);
        // SAFETY: the caller's numbers.
        unsafe { store_part(load_part::<S>(from.add(i), n), to.add(i), n) };
    }
}

/// Every fourth number of 64, from each of the first four on.
#[inline(always)]
unsafe fn fourths<S: Simd>(row: *const f32) -> [S; 4] {
    // SAFETY: the caller's 64 numbers.
    unsafe {
        S::deinterleave([
            S::load(row),
            S::load(row.add(LANES)),
            S::load(row.add(2 * LANES)),
            S::load(row.add(3 * LANES)),
        ])
    }
}

/// Where the numbers of a strip's transformed tiles go: number `t` of channel `c` of a position lies
/// at `position * p + channel * c + panel * (t / width) + t % width`.
#[derive(Clone, Copy)]
struct Place {
    position: usize,
    channel: usize,
    panel: usize,
    width: usize,
}

impl Place {
    /// As [`Position`] reads them.
    fn panels(channels: usize) -> Self {
        // SAFETY: no condition.
        let width = unsafe { panel_width() };
        Self { position: channels * STRIP, channel: width, panel: width * channels, width }
    }

    fn at(self, channel: usize, tile: usize) -> usize {
        channel * self.channel + tile / self.width * self.panel + tile % self.width
    }
}

/// Numbers of a row of a strip's windows.
const ROW: usize = 4 * STRIP;

/// Transforms a strip's tiles of the channels `channels` to `v`.
#[inline(always)]
unsafe fn tiles_body<S: Simd>(
    s: &Shape,
    x: *const f32,
    first: usize,
    count: usize,
    channels: (usize, usize),
    place: Place,
    v: *mut f32,
) {
    // Rows of the windows: from each tile's first column on, and from its fifth.
    let mut rows = Scratch::new(2 * 6 * ROW);
    let rows = rows.ptr();
    let padded = count.next_multiple_of(LANES);
    for c in channels.0..channels.1 {
        // SAFETY: inside the image, the scratch and the strip.
        unsafe {
            for run in runs(s, first, count) {
                let plane = x.add((run.sample * s.c + c) * s.stored());
                for r in 0..6 {
                    let y = (run.y + r) as isize - s.before[0];
                    for shift in 0..2 {
                        let to = rows.add((6 * shift + r) * ROW + 4 * run.at);
                        if y < 0 || y >= s.h as isize {
                            to.write_bytes(0, 4 * run.tiles);
                            continue;
                        }
                        let column = (run.x + 4 * shift) as isize - s.before[1];
                        let row = plane.add(s.stored_row(y as usize));
                        copy_clipped::<S>(row, s.w, s.up, column, 4 * run.tiles, to);
                    }
                }
            }
            for row in 0..12 {
                rows.add(row * ROW + 4 * count).write_bytes(0, 4 * (padded - count));
            }
            for shift in 0..2 {
                for i in (0..4 * padded).step_by(LANES) {
                    let at = rows.add(6 * shift * ROW + i);
                    let mut d = [S::splat(0.0); 6];
                    for (r, d) in d.iter_mut().enumerate() {
                        *d = S::load(at.add(r * ROW));
                    }
                    for (r, t) in into_tile(d).iter().enumerate() {
                        t.store(at.add(r * ROW));
                    }
                }
            }
            for p in 0..6 {
                for tile in (0..padded).step_by(LANES) {
                    let [d0, d1, d2, d3] = fourths::<S>(rows.add(p * ROW + 4 * tile));
                    let [d4, d5, _, _] = fourths::<S>(rows.add((6 + p) * ROW + 4 * tile));
                    let to = v.add(place.at(c, tile));
                    for (q, t) in into_tile([d0, d1, d2, d3, d4, d5]).iter().enumerate() {
                        t.store(to.add((6 * p + q) * place.position));
                    }
                }
            }
        }
    }
}

dispatch! {
    /// See [`tiles_body`].
    ///
    /// # Safety
    /// The image of the shape; whole vectors of `v` at the places.
    fn transform_tiles(
        s: &Shape, x: *const f32, first: usize, count: usize, channels: (usize, usize),
        place: Place, v: *mut f32,
    ) = tiles_body
}

/// Transforms the kernels of `rows` output channels to `u`: positions one behind the other, each
/// with [`BLOCK`] rows of `channels`.
#[inline(always)]
unsafe fn kernels_body<S: Simd>(rows: usize, channels: usize, w: *const f32, u: *mut f32) {
    for row in 0..rows {
        for c in (0..channels).step_by(LANES) {
            let lanes = LANES.min(channels - c);
            let first = row * channels + c;
            // SAFETY: inside the kernels and the block.
            unsafe {
                let from = w.add(first * 9);
                let mut kernels = [S::splat(0.0); LANES];
                if (rows * channels - first) * 9 >= 9 * (LANES - 1) + LANES {
                    // A vector from each kernel on, which goes on into the next ones.
                    for (l, v) in kernels.iter_mut().enumerate() {
                        *v = S::load(from.add(9 * l));
                    }
                } else {
                    for (l, v) in kernels.iter_mut().enumerate().take(lanes) {
                        *v = load_part(from.add(9 * l), 9);
                    }
                }
                for v in &mut kernels {
                    *v = v.mul(S::splat(UP));
                }
                let vectors = S::transpose(&kernels);
                let mut columns = [[S::splat(0.0); 6]; 3];
                for (j, column) in columns.iter_mut().enumerate() {
                    *column = into_kernel([vectors[j], vectors[3 + j], vectors[6 + j]]);
                }
                for p in 0..6 {
                    let along = into_kernel([columns[0][p], columns[1][p], columns[2][p]]);
                    for (q, v) in along.iter().enumerate() {
                        let to = u.add(((6 * p + q) * BLOCK + row) * channels + c);
                        store_part(*v, to, lanes);
                    }
                }
            }
        }
    }
}

dispatch! {
    /// See [`kernels_body`].
    ///
    /// # Safety
    /// The kernels, and `POSITIONS * BLOCK` numbers a channel of `u`.
    fn transform_kernels(rows: usize, channels: usize, w: *const f32, u: *mut f32) = kernels_body
}

/// Transforms one output channel's products of a strip back, into four rows of `out`.
#[inline(always)]
unsafe fn outputs_body<S: Simd>(count: usize, m: *const f32, bias: f32, out: *mut f32) {
    for tile in (0..count).step_by(LANES) {
        // SAFETY: the caller's positions, `BLOCK` rows apart, and its four rows.
        unsafe {
            let (bias, down) = (S::splat(bias), S::splat(1.0 / UP));
            let mut half = [[S::splat(0.0); 4]; 6];
            for (q, half) in half.iter_mut().enumerate() {
                let mut column = [S::splat(0.0); 6];
                for (p, v) in column.iter_mut().enumerate() {
                    *v = S::load(m.add((6 * p + q) * BLOCK * STRIP + tile));
                }
                *half = out_of_tile(column);
            }
            for a in 0..4 {
                let mut row = [S::splat(0.0); 6];
                for (q, v) in row.iter_mut().enumerate() {
                    *v = half[q][a];
                }
                let mut y = out_of_tile(row);
                for v in &mut y {
                    *v = v.fma(down, bias);
                }
                for (i, v) in S::interleave(y).iter().enumerate() {
                    v.store(out.add(4 * (a * STRIP + tile) + i * LANES));
                }
            }
        }
    }
}

dispatch! {
    /// See [`outputs_body`].
    ///
    /// # Safety
    /// The strip's products, and four rows of `4 * STRIP` numbers of `out`.
    fn transform_outputs(count: usize, m: *const f32, bias: f32, out: *mut f32) = outputs_body
}

/// Writes one channel's rows of a strip to where they belong.
#[inline(always)]
unsafe fn write_body<S: Simd>(
    s: &Shape,
    first: usize,
    count: usize,
    channel: usize,
    pixels: *const f32,
    out: *mut f32,
) {
    for run in runs(s, first, count) {
        let columns = (4 * run.tiles).min(s.ow - run.x);
        for a in 0..4.min(s.oh - run.y) {
            let plane = (run.sample * s.o + channel) * s.oh + run.y + a;
            // SAFETY: inside the strip's rows and the output.
            unsafe {
                let from = pixels.add(4 * (a * STRIP + run.at));
                copy::<S>(from, columns, out.add(plane * s.ow + run.x));
            }
        }
    }
}

dispatch! {
    /// See [`write_body`].
    ///
    /// # Safety
    /// Four rows of `pixels`, and the whole output.
    fn write_outputs(
        s: &Shape, first: usize, count: usize, channel: usize, pixels: *const f32, out: *mut f32,
    ) = write_body
}

/// The convolution of [`crate::conv::forward`], for shapes for which this one [`pays`].
pub(crate) fn forward(s: &Shape, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let total = s.batch * tiles(s);
    let mut y = Output::new(s.batch * s.o * s.oh * s.ow);
    let (out, image, kernels) = (y.ptr(), Ptr::of(x), Ptr::of(w));
    // SAFETY: no condition.
    debug_assert_eq!(STRIP % unsafe { panel_width() }, 0);
    let strip = POSITIONS * s.c * STRIP;
    let most = (CHUNK / strip).max(1) * STRIP;
    let blocks = s.o.div_ceil(BLOCK);
    for start in (0..total).step_by(most) {
        let chunk = most.min(total - start);
        // Strips of one size, so that the last is not a rest.
        let wide = chunk.div_ceil(chunk.div_ceil(STRIP)).next_multiple_of(LANES);
        let strips = chunk.div_ceil(wide);
        let place = |i: usize| (start + i * wide, wide.min(chunk - i * wide));
        let mut transformed = Scratch::new(strips * strip);
        let v = Ptr::new(transformed.ptr());
        let groups = s.c.div_ceil(GROUP);
        parallel(strips * groups, GROUP * wide * 400, |unit| {
            let ((first, count), group) = (place(unit / groups), unit % groups);
            let channels = (group * GROUP, ((group + 1) * GROUP).min(s.c));
            // SAFETY: each unit writes its own channels of its own strip.
            unsafe {
                let to = v.at(unit / groups * strip);
                let place = Place::panels(s.c);
                transform_tiles(s, image.at(0), first, count, channels, place, to);
            }
        });
        // Few blocks are split by strips, which changes no bit.
        let wanted = (2 * rayon::current_num_threads()).div_ceil(blocks).min(strips).max(1);
        let range = strips.div_ceil(wanted);
        let ranges = strips.div_ceil(range);
        parallel(blocks * ranges, BLOCK * s.c * POSITIONS * range * wide, |unit| {
            let (o, from) = (unit / ranges * BLOCK, unit % ranges * range);
            let rows = BLOCK.min(s.o - o);
            let mut u = Scratch::new(POSITIONS * BLOCK * s.c);
            let mut products = Scratch::new(POSITIONS * BLOCK * STRIP);
            let mut pixels = Scratch::new(4 * 4 * STRIP);
            let (m, pixels) = (products.ptr(), pixels.ptr());
            // SAFETY: each unit writes its own channels of its own tiles.
            unsafe {
                transform_kernels(rows, s.c, kernels.at(o * s.c * 9), u.ptr());
                for i in from..(from + range).min(strips) {
                    let (first, count) = place(i);
                    for p in 0..POSITIONS {
                        let a = Rows::new(u.ptr().add(p * BLOCK * s.c), s.c, 1);
                        let v = v.at(i * strip + p * s.c * STRIP);
                        let b = Position { v, channels: s.c };
                        let to = m.add(p * BLOCK * STRIP);
                        let columns = count.next_multiple_of(LANES);
                        gemm_panels(rows, columns, s.c, a, &b, to, STRIP, false);
                    }
                    for row in 0..rows {
                        let bias = bias.map_or(0.0, |b| b[o + row]);
                        transform_outputs(count, m.add(row * STRIP), bias, pixels);
                        write_outputs(s, first, count, o + row, pixels, out.at(0));
                    }
                }
            }
        });
    }
    // SAFETY: every tile of every channel was written.
    unsafe { y.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::InstructionSet;
    use crate::testing::{numbers, with_each_set};

    fn shape(batch: usize, c: usize, o: usize, [h, w]: [usize; 2], before: [isize; 2]) -> Shape {
        // As much behind the image as before it.
        let side = |n: usize, b: isize| (n as isize + 2 * b - 2) as usize;
        let [oh, ow] = [side(h, before[0]), side(w, before[1])];
        Shape { batch, c, h, w, up: 1, o, kh: 3, kw: 3, stride: [1, 1], before, oh, ow }
    }

    /// Against the definition in f64, within 1e-5 of the sum of the products' sizes: odd sizes, with
    /// more and less than one strip, and any number of channels.
    #[test]
    fn outputs_are_right() {
        with_each_set(|set| {
            for s in [
                shape(1, 16, 16, [4, 4], [1, 1]),
                shape(2, 17, 33, [7, 5], [1, 1]),
                shape(1, 20, 40, [9, 50], [0, 1]),
                shape(1, 3, 70, [30, 31], [1, 0]),
                shape(2, 40, 5, [33, 18], [2, 2]),
                shape(1, 200, 4, [6, 6], [1, 1]),
            ] {
                let (x, w) = (numbers(s.batch * s.c * s.h * s.w, 1), numbers(s.o * s.c * 9, 2));
                let bias = numbers(s.o, 3);
                let got = forward(&s, &x, &w, Some(&bias));
                for (i, got) in got.iter().enumerate() {
                    let (ox, oy) = (i % s.ow, i / s.ow % s.oh);
                    let (o, b) = (i / s.ow / s.oh % s.o, i / s.ow / s.oh / s.o);
                    let (mut sum, mut size) = (f64::from(bias[o]), 0.0);
                    for c in 0..s.c {
                        for t in 0..9 {
                            let y = (oy + t / 3) as isize - s.before[0];
                            let column = (ox + t % 3) as isize - s.before[1];
                            if (0..s.h as isize).contains(&y) && (0..s.w as isize).contains(&column)
                            {
                                let at = (b * s.c + c) * s.h + y as usize;
                                let p = f64::from(x[at * s.w + column as usize])
                                    * f64::from(w[(o * s.c + c) * 9 + t]);
                                sum += p;
                                size += p.abs();
                            }
                        }
                    }
                    let bound = 1e-5 * size.max(1.0);
                    let error = (f64::from(*got) - sum).abs();
                    assert!(error < bound, "{set:?} {s:?} at {i}: {got} {sum}");
                }
            }
        });
    }

    /// One sample's bits are the same alone and in a batch, on one thread and two, and on both wide
    /// sets.
    #[test]
    fn bits_do_not_depend_on_batch_or_threads() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (one, two) = (pool(1), pool(2));
        let mut wide: Option<Vec<f32>> = None;
        with_each_set(|set| {
            let s = shape(5, 24, 40, [19, 22], [1, 1]);
            let (x, w) = (numbers(s.batch * s.c * s.h * s.w, 1), numbers(s.o * s.c * 9, 2));
            let whole = one.install(|| forward(&s, &x, &w, None));
            assert_eq!(whole, two.install(|| forward(&s, &x, &w, None)));
            let alone = Shape { batch: 1, ..s };
            let first = forward(&alone, &x[..s.c * s.h * s.w], &w, None);
            assert_eq!(first[..], whole[..first.len()]);
            if matches!(set, InstructionSet::Avx2 | InstructionSet::Avx512) {
                assert_eq!(*wide.get_or_insert_with(|| whole.clone()), whole);
            }
        });
    }
}

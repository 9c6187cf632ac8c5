//! The windows of an image under a convolution.

use std::arch::x86_64::{
    __m512, _CMP_GT_OQ, _CMP_LT_OQ, _mm512_add_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_cmp_ps_mask, _mm512_mask_i32gather_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_si512,
    _mm512_storeu_si512,
};
use std::sync::atomic::{AtomicBool, Ordering};

use super::layer::{Layer, SIDE};
use super::sums::{LINE, Lines, Shares, sums};
use super::{HUGE, STEPS, TILE, Tiles, first, larger, split};
use crate::conv::{Planes, Shape};
use crate::memory::{Output, Ptr, Scratch, parallel};
use crate::simd::{Avx512, LANES, Simd};

/// Lines whose largest number is smaller may lose too much, if all of a window are so.
const LEAST: f32 = 8.673_617e-19; // 2^-60

/// Sixteen positions from `first` on that lie in one row of outputs, as far as `lanes` says.
struct Run {
    lanes: u16,
    /// Where the first of the sixteen would be written.
    to: isize,
}

/// The convolution of [`crate::conv::forward`]; none where a sample holds numbers so small or large
/// that too much would be lost of them.
pub(crate) fn image(layer: &Layer, s: &Shape, x: &[f32], bias: Option<&[f32]>) -> Option<Vec<f32>> {
    debug_assert_eq!(layer.sizes(), [s.o, s.c, s.kh * s.kw]);
    let mut planes = Planes::new(s);
    // Each position is one output at most.
    planes.row = planes.row.max(s.ow);
    let places = planes.sample(s) / s.c;
    let groups = layer.groups();
    let sample = 2 * groups * places * LINE;
    let mut lines = Scratch::new(s.batch * sample + (SIDE + planes.row) * LINE);
    let (to, from) = (Ptr::new(lines.ptr()), Ptr::of(x));
    // What lies right of the last row: in all others the next one's left.
    // SAFETY: behind the last sample.
    unsafe { to.at(s.batch * sample).write_bytes(0, planes.row * LINE) };
    let lost = AtomicBool::new(false);
    // Rows of a plane that are split at once.
    let rows = (4096 / planes.row).clamp(1, planes.rows);
    let parts = planes.rows.div_ceil(rows);
    parallel(s.batch * groups * parts, STEPS * rows * planes.row, |unit| {
        let (image, group, part) = (unit / parts / groups, unit / parts % groups, unit % parts);
        let channels = STEPS.min(s.c - group * STEPS);
        // SAFETY: each unit has its own rows of its own lines.
        unsafe {
            let from = from.at((image * s.c + group * STEPS) * s.stored());
            let to = to.at(image * sample + 2 * group * places * LINE);
            let rows = (part * rows, ((part + 1) * rows).min(planes.rows));
            if !split_image(s, &planes, rows, channels, from, places, to) {
                lost.store(true, Ordering::Relaxed);
            }
        }
    });
    if lost.into_inner() {
        return None;
    }
    let (row, pixels) = (planes.row, s.oh * s.ow);
    // Offsets of the taps of one channel, whose planes are `places` numbers.
    let one = Shape { c: 1, ..*s };
    let taps = planes.offsets(&one);
    let offset = |group: usize, tap: &usize| (2 * group * places + tap) * 4 * LINE;
    let offsets: Vec<usize> =
        (0..groups).flat_map(|group| taps.iter().map(move |tap| offset(group, tap))).collect();
    let positions = (s.oh - 1) * row + s.ow;
    let mut y = Output::new(s.batch * s.o * pixels);
    let out = y.ptr();
    let shares = Shares::new(s.c, s.o.div_ceil(SIDE), s.batch, positions);
    let work = shares.strip * shares.range * SIDE * layer.channels * layer.taps;
    parallel(s.batch * shares.strips * shares.ranges, work, |unit| {
        let (range, place) = (unit / (s.batch * shares.strips), unit % (s.batch * shares.strips));
        let (image, first) = (place / shares.strips, place % shares.strips * shares.strip);
        let count = shares.strip.min(positions - first);
        let runs = runs(s, row, first, count);
        let mut scratch = Scratch::new(shares.strip * SIDE);
        let lines = Lines {
            first: to.at(image * sample),
            low: places * 4 * LINE,
            offsets: &offsets,
            stride: SIDE * LINE,
        };
        // SAFETY: the tiles are there, or there would be no layer; each unit writes its own part.
        unsafe {
            let _tiles = Tiles::new();
            let last = ((range + 1) * shares.range).min(s.o.div_ceil(SIDE));
            for block in range * shares.range..last {
                sums(layer, block, &lines, first, count, scratch.ptr());
                let outputs = SIDE.min(s.o - block * SIDE);
                let bias = bias.map(|b| b.as_ptr().wrapping_add(block * SIDE));
                let factors = layer.block(block).wrapping_add(layer.factors());
                let to = out.at((image * s.o + block * SIDE) * pixels);
                write_image(&runs, outputs, scratch.ptr(), factors, bias, to, pixels);
            }
        }
    });
    drop(lines);
    // SAFETY: every pixel of every output was written.
    Some(unsafe { y.finish() })
}

/// For each sixteen of the `count` positions from `first` on, the runs of outputs among them.
fn runs(s: &Shape, row: usize, first: usize, count: usize) -> Vec<Vec<Run>> {
    let block = |p: usize| {
        let mut runs = Vec::new();
        let (mut at, end) = (p, (p + LANES).min(first + count));
        while at < end {
            let (y, x) = (at / row, at % row);
            let wide = s.ow.saturating_sub(x).min(end - at);
            if wide > 0 {
                let lane = at - p;
                let lanes = (((1_u32 << wide) - 1) << lane) as u16;
                runs.push(Run { lanes, to: (y * s.ow + x) as isize - lane as isize });
            }
            at += row - x;
        }
        runs
    };
    (first..first + count).step_by(LANES).map(block).collect()
}

/// Splits the rows `rows` of every plane of up to 32 channels into lines; gives whether none of them
/// holds numbers of which too much may be lost.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn split_image(
    s: &Shape,
    planes: &Planes,
    rows: (usize, usize),
    channels: usize,
    from: *const f32,
    places: usize,
    to: *mut f32,
) -> bool {
    let mut kept = true;
    let step = s.stride[1];
    for residue in 0..planes.residues[0] * planes.residues[1] {
        let (a, b) = (residue / planes.residues[1], residue % planes.residues[1]);
        // Columns of the plane that are columns of the image.
        let left = b as isize - s.before[1];
        let begin = (-left).max(0) as usize;
        let begin = begin.div_ceil(step);
        let end = (s.w as isize - left).max(0) as usize;
        let end = end.div_ceil(step);
        for r in rows.0..rows.1 {
            let y = (r * s.stride[0] + a) as isize - s.before[0];
            let outside = y < 0 || y >= s.h as isize;
            // SAFETY: the caller's image and lines; lanes outside the image are not read.
            unsafe {
                let to = to.add((residue * planes.plane() + r * planes.row) * LINE);
                for j in (0..planes.row).step_by(LANES) {
                    let count = LANES.min(planes.row - j);
                    let to = to.add(j * LINE);
                    let lanes = if outside {
                        0
                    } else {
                        first(end.saturating_sub(j).min(count)) & !first(begin.saturating_sub(j))
                    };
                    if lanes == 0 {
                        for l in 0..count {
                            _mm512_storeu_si512(to.add(l * LINE).cast(), _mm512_setzero_si512());
                            let low = to.add((places + l) * LINE);
                            _mm512_storeu_si512(low.cast(), _mm512_setzero_si512());
                        }
                        continue;
                    }
                    // Where sixteen neighbours of the plane lie in the stored row.
                    let column = left + (j * step) as isize;
                    let mut places_of: [i32; LANES] = [0; LANES];
                    for (l, place) in places_of.iter_mut().enumerate() {
                        *place = (column + (l * step) as isize).div_euclid(s.up as isize) as i32;
                    }
                    let row = s.stored_row(y as usize) as isize;
                    let mut pixels = [[Avx512::splat(0.0); LANES]; 2];
                    let mut most = _mm512_set1_ps(0.0);
                    for c in 0..channels {
                        let from = from.wrapping_add(c * s.stored()).wrapping_offset(row);
                        let x = if step == 1 && s.up == 1 {
                            _mm512_maskz_loadu_ps(lanes, from.wrapping_offset(column))
                        } else {
                            let index = _mm512_loadu_si512(places_of.as_ptr().cast());
                            let zero = _mm512_set1_ps(0.0);
                            _mm512_mask_i32gather_ps::<4>(zero, lanes, index, from.cast())
                        };
                        most = larger(most, x);
                        pixels[c / LANES][c % LANES] = Avx512::from_register(x);
                    }
                    kept &= safe(most, lanes);
                    let [x, y] = [Avx512::transpose(&pixels[0]), Avx512::transpose(&pixels[1])];
                    for l in 0..count {
                        let (high, low) = split(x[l].register(), y[l].register());
                        _mm512_storeu_si512(to.add(l * LINE).cast(), high);
                        _mm512_storeu_si512(to.add((places + l) * LINE).cast(), low);
                    }
                }
            }
        }
    }
    kept
}

/// Whether the largest numbers of sixteen lines are zero or far from both ends of what a number of
/// 32 bits can be.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
fn safe(most: __m512, lanes: u16) -> bool {
    let some = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(lanes, most, _mm512_set1_ps(0.0));
    let low = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(some, most, _mm512_set1_ps(LEAST));
    let high = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(lanes, most, _mm512_set1_ps(HUGE));
    low | high == 0
}

/// Writes the sums of a block of outputs, plus the bias, into planes of `pixels` numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn write_image(
    runs: &[Vec<Run>],
    outputs: usize,
    sums: *const f32,
    factors: *const f32,
    bias: Option<*const f32>,
    to: *mut f32,
    pixels: usize,
) {
    for (i, runs) in runs.iter().enumerate() {
        for half in 0..outputs.div_ceil(LANES) {
            // SAFETY: the caller's sums, outputs and planes.
            unsafe {
                let tile = i / 2 * 4 + i % 2 * 2 + half;
                let factor = _mm512_loadu_ps(factors.add(half * LANES));
                let mut rows = [Avx512::splat(0.0); LANES];
                for (r, row) in rows.iter_mut().enumerate() {
                    let sum = _mm512_loadu_ps(sums.add(tile * TILE + r * LANES));
                    *row = Avx512::from_register(_mm512_mul_ps(sum, factor));
                }
                let columns = Avx512::transpose(&rows);
                for (o, y) in columns.iter().enumerate().take(outputs - half * LANES) {
                    let o = half * LANES + o;
                    let bias = _mm512_set1_ps(bias.map_or(0.0, |bias| *bias.add(o)));
                    let y = _mm512_add_ps(y.register(), bias);
                    for run in runs {
                        let to = to.wrapping_add(o * pixels).wrapping_offset(run.to);
                        _mm512_mask_storeu_ps(to, run.lanes, y);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::available;
    use super::*;
    use crate::narrow::Half;
    use crate::testing::numbers;

    /// The definition in f64: the sum and the sum of the products' sizes.
    fn exact(s: &Shape, x: &[f32], w: &[f32], i: usize) -> (f64, f64) {
        let (ox, oy) = (i % s.ow, i / s.ow % s.oh);
        let (o, b) = (i / s.ow / s.oh % s.o, i / s.ow / s.oh / s.o);
        let (mut sum, mut size) = (0.0, 0.0);
        for c in 0..s.c {
            for t in 0..s.kh * s.kw {
                let y = (oy * s.stride[0] + t / s.kw) as isize - s.before[0];
                let column = (ox * s.stride[1] + t % s.kw) as isize - s.before[1];
                if (0..s.h as isize).contains(&y) && (0..s.w as isize).contains(&column) {
                    let at = (b * s.c + c) * s.h + y as usize;
                    let p = f64::from(x[at * s.w + column as usize])
                        * f64::from(w[(o * s.c + c) * s.kh * s.kw + t]);
                    sum += p;
                    size += p.abs();
                }
            }
        }
        (sum, size)
    }

    fn shape(
        sizes: [usize; 5],
        kernel: [usize; 2],
        stride: [usize; 2],
        before: [isize; 2],
    ) -> Shape {
        let [batch, c, o, h, w] = sizes;
        let side = |n: usize, k: usize, b: isize, step: usize| {
            ((n as isize + 2 * b - k as isize) as usize) / step + 1
        };
        let oh = side(h, kernel[0], before[0], stride[0]);
        let ow = side(w, kernel[1], before[1], stride[1]);
        Shape { batch, c, h, w, up: 1, o, kh: kernel[0], kw: kernel[1], stride, before, oh, ow }
    }

    fn shapes() -> Vec<Shape> {
        vec![
            shape([1, 16, 16, 4, 4], [3, 3], [1, 1], [1, 1]),
            shape([2, 17, 33, 7, 5], [3, 3], [1, 1], [1, 1]),
            shape([1, 40, 70, 9, 50], [3, 3], [1, 1], [0, 1]),
            shape([1, 3, 70, 30, 31], [3, 3], [1, 1], [1, 0]),
            shape([2, 40, 5, 33, 18], [3, 3], [1, 1], [2, 2]),
            shape([1, 100, 20, 13, 17], [3, 3], [2, 2], [1, 1]),
            shape([2, 33, 48, 8, 9], [1, 1], [1, 1], [0, 0]),
            shape([1, 20, 18, 12, 11], [5, 2], [2, 1], [2, 0]),
            shape([1, 64, 31, 40, 40], [4, 4], [3, 2], [1, 1]),
            shape([2, 18, 11, 8, 3], [2, 1], [1, 1], [0, 2]),
            shape([1, 300, 64, 3, 2], [2, 2], [1, 1], [1, 1]),
        ]
    }

    /// Within 2^-15 of the sum of the products' sizes, of any kernel, stride and zeros around.
    #[test]
    fn windows_of_images_are_right() {
        if !available() {
            return;
        }
        for s in shapes() {
            let taps = s.kh * s.kw;
            let (x, w) = (numbers(s.batch * s.c * s.h * s.w, 1), numbers(s.o * s.c * taps, 2));
            let bias = numbers(s.o, 3);
            let layer = Layer::new([s.o, s.c, taps], &w).unwrap();
            let got = image(&layer, &s, &x, Some(&bias)).unwrap();
            assert_eq!(got.len(), s.batch * s.o * s.oh * s.ow);
            for (i, got) in got.iter().enumerate() {
                let (sum, size) = exact(&s, &x, &w, i);
                let wanted = sum + f64::from(bias[i / s.ow / s.oh % s.o]);
                let error = (f64::from(*got) - wanted).abs();
                assert!(error <= (size + 1.0) * 2.0_f64.powi(-15), "{s:?} at {i}: {got} {wanted}");
            }
        }
    }

    /// 16-bit weights are kept exactly, and multiply as the same numbers in 32 bits do.
    #[test]
    fn narrow_weights_give_the_same_bits() {
        if !available() {
            return;
        }
        for half in [Half::F16, Half::Bf16] {
            for s in shapes() {
                let sizes = [s.o, s.c, s.kh * s.kw];
                let narrow: Vec<u16> = numbers(sizes.iter().product(), 5)
                    .iter()
                    .map(|&x| match half {
                        Half::F16 => half::f16::from_f32(x).to_bits(),
                        Half::Bf16 => half::bf16::from_f32(x).to_bits(),
                    })
                    .collect();
                let bytes: Vec<u8> = narrow.iter().flat_map(|x| x.to_le_bytes()).collect();
                let wide: Vec<f32> = narrow.iter().map(|&x| half.number(x)).collect();
                let kept = Layer::narrow(sizes, &bytes, half).unwrap();
                assert_eq!(kept.unpack(), wide);
                let split = Layer::new(sizes, &wide).unwrap();
                assert!(kept.bytes() * 10 < split.bytes() * 6);
                let x = numbers(s.batch * s.c * s.h * s.w, 1);
                assert_eq!(image(&kept, &s, &x, None), image(&split, &s, &x, None));
            }
        }
    }

    /// Images of numbers so small that parts of them would be lost are refused; what is not finite is
    /// refused or stays so.
    #[test]
    fn images_at_the_ends_of_the_numbers_are_refused() {
        if !available() {
            return;
        }
        let s = shape([1, 40, 16, 6, 6], [3, 3], [1, 1], [1, 1]);
        let w = numbers(s.o * s.c * 9, 2);
        let layer = Layer::new([s.o, s.c, 9], &w).unwrap();
        let mut x = numbers(s.c * 36, 1);
        assert!(image(&layer, &s, &x, None).is_some());
        for of in [1e-30, 1e30] {
            let all: Vec<f32> = x.iter().map(|x| x * of).collect();
            assert!(image(&layer, &s, &all, None).is_none());
        }
        // One pixel of all channels.
        let mut pixel = x.clone();
        pixel.iter_mut().skip(7).step_by(36).for_each(|x| *x *= 1e-30);
        assert!(image(&layer, &s, &pixel, None).is_none());
        pixel.iter_mut().skip(7).step_by(36).for_each(|x| *x = 0.0);
        assert!(image(&layer, &s, &pixel, None).is_some());
        x[5 * 36 + 8] = f32::NAN;
        let got = image(&layer, &s, &x, None).unwrap();
        assert!(got.iter().take(36).enumerate().all(|(i, y)| {
            let near = (i / 6).abs_diff(1) < 2 && (i % 6).abs_diff(2) < 2;
            y.is_nan() == near
        }));
    }

    /// The bits of a sample do not hang on the others or on the threads.
    #[test]
    fn bits_do_not_depend_on_batch_or_threads() {
        if !available() {
            return;
        }
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let s = shape([3, 40, 70, 19, 22], [3, 3], [1, 1], [1, 1]);
        let (x, w) = (numbers(s.batch * s.c * s.h * s.w, 1), numbers(s.o * s.c * 9, 2));
        let layer = Layer::new([s.o, s.c, 9], &w).unwrap();
        let whole = pool(1).install(|| image(&layer, &s, &x, None)).unwrap();
        assert_eq!(whole, pool(2).install(|| image(&layer, &s, &x, None)).unwrap());
        let alone = image(&layer, &Shape { batch: 1, ..s }, &x[..s.c * s.h * s.w], None).unwrap();
        assert_eq!(alone[..], whole[..alone.len()]);
    }
}

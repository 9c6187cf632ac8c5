//! Linear layers in 8 bits: a scale for each output of the weights, and one for each row of activations,
//! taken from the row itself (dynamic).
//!
//! ```text
//! w[o, c] ~ s[o] W[o, c]     s[o] = max |w[o, .]| / 127,  W whole numbers from -127 to 127
//! x[r, c] ~ t[r] X[r, c]     t[r] likewise
//! y[r, o] = t[r] s[o] sum over c of X[r, c] W[o, c]  +  bias[o]
//! ```
//!
//! The sums are whole numbers and exact on every instruction set, so the outputs are the same bits on all.
//! Weights are kept as `W + 128`, since the instructions multiply signed bytes with unsigned ones; what that
//! adds, `128 sum X`, is taken off again.

use crate::epilogue::Epilogue;
use crate::instruction_set::InstructionSet;
use crate::memory::{Aligned, Output, Ptr, Scratch, parallel};
use crate::simd::{LANES, Simd, dispatch};
use crate::write::{Part, SIDE, TILE, write_rows};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Channels that are multiplied at once: the depth of a tile of bytes.
pub(crate) const STEP: usize = 64;

/// Channels whose products are summed in one lane.
pub(crate) const QUAD: usize = 4;

/// Bytes of a step of a block: for every sixteen outputs, quads of channels, a quad of each output.
pub(crate) const STEP_BYTES: usize = STEP * SIDE;

/// Most channels: beyond them a sum could leave 32 bits.
const MOST: usize = 1 << 15;

/// Bytes of rows that stay in the second-level cache.
const NEAR: usize = 1 << 19;

/// The weights of a linear layer in 8 bits.
#[derive(Debug)]
pub(crate) struct Layer8 {
    outputs: usize,
    channels: usize,
    /// For every [`SIDE`] outputs its steps.
    weights: Aligned,
    scales: Vec<f32>,
}

impl Layer8 {
    /// Quantises `w` `[outputs, channels]`; none where it has too many channels.
    pub(crate) fn new([outputs, channels]: [usize; 2], w: &[f32]) -> Option<Self> {
        assert_eq!(w.len(), outputs * channels, "the numbers of a layer");
        if channels == 0 || channels > MOST {
            return None;
        }
        let (blocks, steps) = (outputs.div_ceil(SIDE), channels.div_ceil(STEP));
        let mut scales = vec![0.0; blocks * SIDE];
        let by_output = Ptr::new(scales.as_mut_ptr());
        let pack = |to: *mut f32| {
            let to = Ptr::new(to);
            parallel(blocks, SIDE * channels, |block| {
                let bytes = to.at(0).cast::<u8>().wrapping_add(block * steps * STEP_BYTES);
                let mut row = vec![0_i8; steps * STEP];
                for i in 0..SIDE {
                    let o = block * SIDE + i;
                    row.fill(0);
                    if o < outputs {
                        let from = &w[o * channels..][..channels];
                        // SAFETY: the row has as many; each unit has its own scales.
                        unsafe { *by_output.at(o) = quantise(from, row.as_mut_ptr()).0 };
                    }
                    for (c, x) in row.iter().enumerate() {
                        // SAFETY: inside the block.
                        unsafe { *bytes.add(place(c, i)) = (*x as u8) ^ 0x80 };
                    }
                }
            });
        };
        // SAFETY: every byte of every block is written.
        let weights = unsafe { Aligned::written(blocks * steps * STEP_BYTES / 4, pack) };
        Some(Self { outputs, channels, weights, scales })
    }

    /// The numbers that it stands for.
    pub(crate) fn unpack(&self) -> Vec<f32> {
        let block_bytes = self.steps() * STEP_BYTES;
        let one = |i: usize| {
            let (o, c) = (i / self.channels, i % self.channels);
            // SAFETY: inside the block.
            let byte = unsafe { *self.block(o / SIDE).add(place(c, o % SIDE)) };
            debug_assert!(place(c, o % SIDE) < block_bytes);
            (f32::from(byte) - 128.0) * self.scales[o]
        };
        (0..self.outputs * self.channels).map(one).collect()
    }

    /// Outputs and channels.
    pub(crate) fn sizes(&self) -> [usize; 2] {
        [self.outputs, self.channels]
    }

    /// Bytes of memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes() + 4 * self.scales.len()
    }

    /// Whether its outputs can be gated as they are written.
    pub(crate) fn gates(&self) -> bool {
        self.outputs.is_multiple_of(2 * SIDE)
    }

    fn steps(&self) -> usize {
        self.channels.div_ceil(STEP)
    }

    fn block(&self, i: usize) -> *const u8 {
        self.weights.at(0).cast::<u8>().wrapping_add(i * self.steps() * STEP_BYTES)
    }
}

/// Where channel `c` of output `i` of a block lies in it.
fn place(c: usize, i: usize) -> usize {
    c / STEP * STEP_BYTES
        + i / LANES * STEP_BYTES / 2
        + c % STEP / QUAD * QUAD * LANES
        + i % LANES * QUAD
        + c % QUAD
}

#[inline(always)]
unsafe fn quantise_body<S: Simd>(x: &[f32], to: *mut i8) -> (f32, i32) {
    // Adding this rounds to a whole number, whose lowest byte then is the number's.
    const ROUND: f32 = 12_582_912.0;
    // What is not finite is larger than all that is, as bits.
    let most = x.iter().fold(0, |most, x| (x.to_bits() & 0x7fff_ffff).max(most));
    let most = f32::from_bits(most);
    let up = if most.is_finite() && most > 0.0 { (127.0 / most).min(f32::MAX) } else { 0.0 };
    let mut sum = 0;
    for (i, x) in x.iter().enumerate() {
        let n = (x * up + ROUND).to_bits() as u8 as i8;
        // SAFETY: the caller's room.
        unsafe { *to.add(i) = n };
        sum += i32::from(n);
    }
    let scale = match (most.is_finite(), up > 0.0) {
        (false, _) => f32::NAN,
        (true, true) => 1.0 / up,
        (true, false) => 0.0,
    };
    (scale, sum)
}

dispatch! {
    /// Writes `x` over its scale in whole numbers from -127 to 127; gives the scale, which is not a number
    /// where one of `x` is not finite, and the sum of what was written.
    ///
    /// # Safety
    /// Room for as many numbers.
    fn quantise(x: &[f32], to: *mut i8) -> (f32, i32) = quantise_body
}

/// `y[rows, outputs] = x[rows, channels] w^T + bias`, and what follows; a gate needs [`Layer8::gates`].
pub(crate) fn rows(
    layer: &Layer8,
    rows: usize,
    x: &[f32],
    bias: Option<&[f32]>,
    epilogue: Epilogue,
) -> Vec<f32> {
    let (n, k, wide) = (epilogue.outputs(layer.outputs), layer.channels, layer.steps() * STEP);
    debug_assert_eq!(x.len(), rows * k);
    let mut y = Output::new(rows * n);
    let out = y.ptr();
    let whole = rows.next_multiple_of(SIDE);
    let mut bytes = Scratch::new(whole * wide / 4);
    let (mut scales, mut sums) = (vec![0.0_f32; whole], vec![0.0_f32; whole]);
    let to = Ptr::new(bytes.ptr());
    let (by_row, over) = (Ptr::new(scales.as_mut_ptr()), Ptr::new(sums.as_mut_ptr()));
    parallel(whole, 2 * k, |r| {
        // SAFETY: each unit has its own row.
        unsafe {
            let to = to.at(0).cast::<i8>().add(r * wide);
            let used = if r < rows { k } else { 0 };
            to.add(used).write_bytes(0, wide - used);
            if r < rows {
                let (scale, sum) = quantise(&x[r * k..][..k], to);
                *by_row.at(r) = scale;
                // As bits.
                *over.at(r) = f32::from_bits((128 * sum).cast_unsigned());
            }
        }
    });
    let blocks = n.div_ceil(SIDE);
    let most = (NEAR / wide).clamp(2 * SIDE, 1024) / SIDE * SIDE;
    let strip = rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(SIDE);
    let strips = rows.div_ceil(strip.max(1));
    let wanted = 4 * rayon::current_num_threads();
    let range = blocks.div_ceil(wanted.div_ceil(strips.max(1)).clamp(1, blocks.max(1)));
    let ranges = blocks.div_ceil(range.max(1));
    let multiply = kernel();
    let gated = matches!(epilogue, Epilogue::Gated(_));
    parallel(strips * ranges, strip * range * SIDE * k / 4, |unit| {
        let (first, range_of) = (unit % strips * strip, unit / strips * range);
        let last = (first + strip).min(rows);
        let mut scratch = Scratch::new(8 * TILE);
        let sums = scratch.ptr();
        // SAFETY: the rows, padded to whole blocks; each unit writes its own part.
        unsafe {
            let _tiles = multiply.begin();
            for block in range_of..(range_of + range).min(blocks) {
                for row in (first..last).step_by(SIDE) {
                    let q = to.at(0).cast::<i8>().add(row * wide).cast_const();
                    let part = |block: usize, at: *mut f32| {
                        multiply.run(layer.steps(), q, wide, layer.block(block), at.cast());
                        take_off(over.at(row), at);
                        Part {
                            sums: at,
                            factors: layer.scales.as_ptr().wrapping_add(block * SIDE),
                            bias: bias.map(|b| b.as_ptr().wrapping_add(block * SIDE)),
                        }
                    };
                    let value = part(block, sums);
                    let gate = gated.then(|| part(blocks + block, sums.wrapping_add(4 * TILE)));
                    let (count, columns) = (SIDE.min(last - row), SIDE.min(n - block * SIDE));
                    let (by_row, to) = (by_row.at(row), out.at(row * n + block * SIDE));
                    write_rows(count, columns, &value, gate.as_ref(), epilogue, by_row, to, n);
                }
            }
        }
    });
    drop(bytes);
    // SAFETY: every row was written.
    unsafe { y.finish() }
}

#[inline(always)]
unsafe fn take_off_body<S: Simd>(over: *const f32, sums: *mut f32) {
    for tile in 0..4 {
        for r in 0..LANES {
            // SAFETY: the caller's sums, and what to take off each row.
            unsafe {
                let over = (*over.add(tile / 2 * LANES + r)).to_bits().cast_signed();
                for l in 0..LANES {
                    let at = sums.add(tile * TILE + r * LANES + l);
                    *at = ((*at).to_bits().cast_signed() - over) as f32;
                }
            }
        }
    }
}

dispatch! {
    /// Takes a whole number off the whole numbers of each row of a block, and makes them f32.
    ///
    /// # Safety
    /// [`SIDE`] numbers of `over`, as bits; four tiles of whole numbers.
    fn take_off(over: *const f32, sums: *mut f32) = take_off_body
}

/// How blocks are multiplied on this machine.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Tiles,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

fn kernel() -> Kernel {
    #[cfg(target_arch = "x86_64")]
    {
        use InstructionSet as I;
        let set = I::current();
        if (set == I::Amx || I::prefers_tiles()) && crate::amx::multiplies_bytes() {
            return Kernel::Tiles;
        }
        if matches!(set, I::Amx | I::Avx512) && is_x86_feature_detected!("avx512vnni") {
            return Kernel::Avx512Vnni;
        }
        if set != I::Baseline {
            // Who names AVX2 means a machine that has no more.
            return if is_x86_feature_detected!("avxvnni") && !I::is_asked_for() {
                Kernel::AvxVnni
            } else {
                Kernel::Avx2
            };
        }
    }
    let _ = InstructionSet::current;
    Kernel::Baseline
}

impl Kernel {
    /// What a thread needs before it multiplies, until it is dropped.
    unsafe fn begin(self) -> impl Sized {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: chosen only where the tiles are there.
        return matches!(self, Self::Tiles).then(|| unsafe { crate::amx::Tiles::new() });
        #[cfg(not(target_arch = "x86_64"))]
        return self;
    }

    /// The sums of [`SIDE`] rows, `stride` bytes apart, by a block of weights, as four tiles of whole
    /// numbers.
    ///
    /// # Safety
    /// The set is there, and has begun; the rows and weights of these steps; four tiles.
    unsafe fn run(self, steps: usize, q: *const i8, stride: usize, w: *const u8, to: *mut i32) {
        // SAFETY: the caller's.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Tiles => x86::tiles(steps, q, stride, w, to),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Vnni => x86::avx512_vnni(steps, q, stride, w, to),
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni => x86::avx_vnni(steps, q, stride, w, to),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => x86::avx2(steps, q, stride, w, to),
                Self::Baseline => baseline(steps, q, stride, w, to),
            }
        }
    }
}

/// Each sum by itself.
unsafe fn baseline(steps: usize, q: *const i8, stride: usize, w: *const u8, to: *mut i32) {
    for r in 0..SIDE {
        for i in 0..SIDE {
            let mut sum = 0;
            for c in 0..steps * STEP {
                // SAFETY: the caller's rows and weights.
                unsafe {
                    sum += i32::from(*q.add(r * stride + c)) * i32::from(*w.add(place(c, i)));
                }
            }
            let tile = r / LANES * 2 + i / LANES;
            // SAFETY: four tiles.
            unsafe { *to.add(tile * TILE + r % LANES * LANES + i % LANES) = sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{numbers, with_each_set};

    /// By the definition, with rounding and sums of the same numbers.
    fn by_definition(m: usize, [n, k]: [usize; 2], x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
        let bytes = |row: &[f32]| {
            let most = row.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            let up = if most > 0.0 { (127.0 / most).min(f32::MAX) } else { 0.0 };
            let whole: Vec<i64> =
                row.iter().map(|x| f64::from(x * up).round_ties_even() as i64).collect();
            (if up > 0.0 { 1.0 / up } else { 0.0 }, whole)
        };
        let x: Vec<_> = x.chunks(k).map(bytes).collect();
        let w: Vec<_> = w.chunks(k).map(bytes).collect();
        let mut y = Vec::with_capacity(m * n);
        for (t, x) in &x {
            for ((s, w), bias) in w.iter().zip(bias) {
                let sum: i64 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                y.push(sum as f32 * (t * s) + bias);
            }
        }
        y
    }

    /// The same bits on every set, in any company, on any number of threads.
    #[test]
    fn sums_of_bytes_are_exact_on_every_set() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for (m, n, k) in
            [(1, 1, 1), (1, 64, 320), (33, 47, 70), (5, 100, 64), (77, 96, 515), (300, 33, 130)]
        {
            let (x, w, bias) = (numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3));
            let wanted = by_definition(m, [n, k], &x, &w, &bias);
            with_each_set(|set| {
                let layer = Layer8::new([n, k], &w).unwrap();
                let run = |m: usize, threads: usize| {
                    let x = &x[..m * k];
                    pool(threads).install(|| rows(&layer, m, x, Some(&bias), Epilogue::Plain))
                };
                assert_eq!(run(m, 1), wanted, "{set:?} {m} {n} {k}");
                assert_eq!(run(m, 2), wanted);
                assert_eq!(run(1, 2)[..], wanted[..n]);
            });
            // Those that the sets above may pass over.
            #[cfg(target_arch = "x86_64")]
            check_each_kernel();
        }
    }

    /// Any shape, from the smallest numbers to the largest.
    #[test]
    fn any_shape_and_magnitude_is_exact() {
        let mut at = 9_u64;
        let mut below = |n: usize| {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (at >> 33) as usize % n
        };
        for case in 0..300 {
            let (m, n, k) = (1 + below(70), 1 + below(90), 1 + below(300));
            let of = [1.0, 1e30, 1e-30, 1e-41, 3e-7][below(5)];
            let scaled =
                |len, seed, of| -> Vec<f32> { numbers(len, seed).iter().map(|x| x * of).collect() };
            let (x, w) = (scaled(m * k, case, of), scaled(n * k, case + 1, 1.0 / of.max(1e-30)));
            let bias = numbers(n, 3);
            let wanted = by_definition(m, [n, k], &x, &w, &bias);
            let layer = Layer8::new([n, k], &w).unwrap();
            let found = rows(&layer, m, &x, Some(&bias), Epilogue::Plain);
            assert_eq!(found, wanted, "{m} {n} {k} {of}");
        }
    }

    /// Every kernel that this machine has gives the sums of the plain one, at the largest numbers too.
    #[cfg(target_arch = "x86_64")]
    fn check_each_kernel() {
        for steps in [1, 3] {
            let count = steps * STEP;
            let q: Vec<i8> =
                (0..SIDE * count).map(|i| [127, -127, (i * 37 % 255) as i8][i % 3]).collect();
            let w = vec![255_u8; steps * STEP_BYTES];
            let w: Vec<u8> = w
                .iter()
                .enumerate()
                .map(|(i, w)| if i % 5 == 0 { *w } else { (i * 91 % 256) as u8 })
                .collect();
            let run = |kernel: Kernel| {
                let mut to = vec![0_i32; 4 * TILE];
                // SAFETY: rows, weights and tiles of these sizes; the set was detected.
                unsafe {
                    let _tiles = kernel.begin();
                    kernel.run(steps, q.as_ptr(), count, w.as_ptr(), to.as_mut_ptr());
                }
                to
            };
            let wanted = run(Kernel::Baseline);
            let there = [
                (Kernel::Tiles, crate::amx::multiplies_bytes()),
                (Kernel::Avx512Vnni, is_x86_feature_detected!("avx512vnni")),
                (Kernel::AvxVnni, is_x86_feature_detected!("avxvnni")),
                (Kernel::Avx2, is_x86_feature_detected!("avx2")),
            ];
            for (kernel, _) in there.into_iter().filter(|(_, there)| *there) {
                assert_eq!(run(kernel), wanted, "{kernel:?}");
            }
        }
    }

    /// Within what rounding to 8 bits may cost, and what is not finite stays so.
    #[test]
    fn eight_bits_are_near_and_what_is_not_finite_stays_so() {
        let (m, n, k) = (9, 40, 200);
        let (mut x, w) = (numbers(m * k, 1), numbers(n * k, 2));
        let layer = Layer8::new([n, k], &w).unwrap();
        for (kept, w) in layer.unpack().iter().zip(&w) {
            assert!((kept - w).abs() <= 1.01 / 254.0, "{kept} {w}");
        }
        let found = rows(&layer, m, &x, None, Epilogue::Plain);
        for (i, y) in found.iter().enumerate() {
            let (mut sum, mut size) = (0.0, 0.0);
            for c in 0..k {
                let p = x[i / n * k + c] * w[i % n * k + c];
                (sum, size) = (sum + p, size + x[i / n * k + c].abs() + w[i % n * k + c].abs());
            }
            assert!((y - sum).abs() <= size / 254.0 + 1e-4, "{y} {sum}");
        }
        x[3 * k + 5] = f32::NAN;
        x[7 * k] = f32::INFINITY;
        let found = rows(&layer, m, &x, None, Epilogue::Plain);
        for (r, row) in found.chunks(n).enumerate() {
            assert!(row.iter().all(|y| y.is_finite() != [3, 7].contains(&r)));
        }
        assert!(bytes_are_a_quarter(&layer));
    }

    fn bytes_are_a_quarter(layer: &Layer8) -> bool {
        let [n, k] = layer.sizes();
        layer.bytes() <= n.next_multiple_of(SIDE) * (k.next_multiple_of(STEP) + 4)
    }
}

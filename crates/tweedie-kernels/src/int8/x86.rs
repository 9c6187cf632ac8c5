//! Sums of bytes on the vectors and tiles of x86-64.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_set1_epi32, _mm256_add_epi32, _mm256_cvtepi8_epi16,
    _mm256_cvtepu8_epi16, _mm256_dpbusd_avx_epi32, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_storeu_si256, _mm512_dpbusd_epi32,
    _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
};

use super::{QUAD, STEP, STEP_BYTES};
use crate::simd::LANES;
use crate::write::{SIDE, TILE};

/// Quads of a step.
const QUADS: usize = STEP / QUAD;

/// Bytes of a quad of sixteen outputs.
const LINE: usize = QUAD * LANES;

/// AMX-INT8: signed bytes of rows times unsigned ones of weights.
///
/// # Safety
/// The tiles are configured, with that set; see [`super::Kernel::run`].
pub(super) unsafe fn tiles(steps: usize, q: *const i8, stride: usize, w: *const u8, to: *mut i32) {
    // SAFETY: the caller's rows, weights and tiles; the registers named are all that is changed.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{w} + {s}]",
            "tileloadd tmm4, [{a} + {r}]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {s} + 1024]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{b} + {r}]",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            "add {a}, 64", "add {b}, 64", "add {w}, 2048", "dec {n}", "jnz 2b",
            "tilestored [{to} + {s}], tmm0",
            "tilestored [{to} + {s} + 1024], tmm1",
            "tilestored [{to} + {s} + 2048], tmm2",
            "tilestored [{to} + {s} + 3072], tmm3",
            a = inout(reg) q => _, b = inout(reg) q.wrapping_add(LANES * stride) => _,
            w = inout(reg) w => _, n = inout(reg) steps => _,
            r = in(reg) stride, to = in(reg) to, s = in(reg) 64_usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        );
    }
}

/// A quad of a row.
#[inline(always)]
unsafe fn quad(q: *const i8) -> i32 {
    // SAFETY: the caller's row.
    unsafe { q.cast::<i32>().read_unaligned() }
}

/// AVX-512 VNNI: eight rows by 32 outputs in registers.
///
/// # Safety
/// The set is there; see [`super::Kernel::run`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn avx512_vnni(
    steps: usize,
    q: *const i8,
    stride: usize,
    w: *const u8,
    to: *mut i32,
) {
    const ROWS: usize = 8;
    for first in (0..SIDE).step_by(ROWS) {
        let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
        for i in 0..steps * QUADS {
            // SAFETY: the caller's rows and weights.
            unsafe {
                let at = w.add(i / QUADS * STEP_BYTES + i % QUADS * LINE);
                let low = _mm512_loadu_si512(at.cast());
                let high = _mm512_loadu_si512(at.add(STEP_BYTES / 2).cast());
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(quad(q.add((first + r) * stride + i * QUAD)));
                    sums[0] = _mm512_dpbusd_epi32(sums[0], low, x);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], high, x);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                // SAFETY: four tiles.
                unsafe { _mm512_storeu_si512(to.add(spot(first + r, half)).cast(), *sum) };
            }
        }
    }
}

/// Where half a row of a block of sums begins.
fn spot(row: usize, half: usize) -> usize {
    (row / LANES * 2 + half) * TILE + row % LANES * LANES
}

/// AVX-VNNI: four rows by sixteen outputs in registers.
///
/// # Safety
/// The set is there; see [`super::Kernel::run`].
#[target_feature(enable = "avx2,avxvnni")]
pub(super) unsafe fn avx_vnni(
    steps: usize,
    q: *const i8,
    stride: usize,
    w: *const u8,
    to: *mut i32,
) {
    const ROWS: usize = 4;
    for half in 0..2 {
        for first in (0..SIDE).step_by(ROWS) {
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            for i in 0..steps * QUADS {
                // SAFETY: the caller's rows and weights.
                unsafe {
                    let at =
                        w.add(i / QUADS * STEP_BYTES + half * STEP_BYTES / 2 + i % QUADS * LINE);
                    let low = _mm256_loadu_si256(at.cast());
                    let high = _mm256_loadu_si256(at.add(LINE / 2).cast());
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_epi32(quad(q.add((first + r) * stride + i * QUAD)));
                        sums[0] = _mm256_dpbusd_avx_epi32(sums[0], low, x);
                        sums[1] = _mm256_dpbusd_avx_epi32(sums[1], high, x);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (i, sum) in sums.iter().enumerate() {
                    // SAFETY: four tiles.
                    unsafe {
                        let to = to.add(spot(first + r, half) + i * LANES / 2);
                        _mm256_storeu_si256(to.cast(), *sum);
                    }
                }
            }
        }
    }
}

/// AVX2: bytes are widened to 16 bits, whose products are summed in pairs in 32, so that nothing
/// saturates; two rows by sixteen outputs in registers.
///
/// # Safety
/// The set is there; see [`super::Kernel::run`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2(steps: usize, q: *const i8, stride: usize, w: *const u8, to: *mut i32) {
    const ROWS: usize = 2;
    for half in 0..2 {
        for first in (0..SIDE).step_by(ROWS) {
            // Of four outputs, two sums each.
            let mut sums = [[_mm256_setzero_si256(); QUAD]; ROWS];
            for i in 0..steps * QUADS {
                // SAFETY: the caller's rows and weights.
                unsafe {
                    let at =
                        w.add(i / QUADS * STEP_BYTES + half * STEP_BYTES / 2 + i % QUADS * LINE);
                    let x: [__m256i; ROWS] = std::array::from_fn(|r| {
                        let x: __m128i =
                            _mm_set1_epi32(quad(q.add((first + r) * stride + i * QUAD)));
                        _mm256_cvtepi8_epi16(x)
                    });
                    for group in 0..QUAD {
                        let w = _mm_loadu_si128(at.add(group * LINE / QUAD).cast());
                        let w = _mm256_cvtepu8_epi16(w);
                        for (sums, x) in sums.iter_mut().zip(&x) {
                            sums[group] = _mm256_add_epi32(sums[group], _mm256_madd_epi16(w, *x));
                        }
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (group, sum) in sums.iter().enumerate() {
                    let mut pairs = [0_i32; 8];
                    // SAFETY: an array of the vector's size; four tiles.
                    unsafe {
                        _mm256_storeu_si256(pairs.as_mut_ptr().cast(), *sum);
                        for o in 0..QUAD {
                            *to.add(spot(first + r, half) + group * QUAD + o) =
                                pairs[2 * o] + pairs[2 * o + 1];
                        }
                    }
                }
            }
        }
    }
}

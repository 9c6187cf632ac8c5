//! Matrix products on Intel's tile registers (AMX), which multiply bf16 and sum in f32.
//!
//! A number is split into two of bf16, `x = high + low` with a remainder below `2^-17 |x|`, and a
//! product is taken as `low high + high high + high low`. So an output differs from the exact sum
//! by about `2^-16` of `sum |a| |b|` at most, and by far less on average; in return a core makes
//! up to five times as many products a second as its vectors do.
//!
//! The tiles lose what lies below the smallest normal number. So each row of `a` and each column of
//! `b` whose numbers are all tiny, or one huge, is multiplied by a power of two first, and its outputs
//! divided by it. Infinities and what is not a number stay not finite.
//!
//! [`blocks`] multiplies any two matrices, packed for the one product; [`layer`] the weights of a
//! layer, packed once, with rows or the windows of an image; [`attention`] is a whole one.

use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512, __m512bh, __m512i, _CMP_GT_OQ, _CMP_LT_OQ, _mm512_abs_ps,
    _mm512_and_si512, _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_cvtepu16_epi32,
    _mm512_cvtne2ps_pbh, _mm512_extracti64x4_epi64, _mm512_mask_cmp_ps_mask, _mm512_max_ps,
    _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32, _mm512_sub_ps,
    _xgetbv,
};
use std::sync::OnceLock;

use crate::simd::LANES;

pub(crate) mod attention;
pub(crate) mod blocks;
mod image;
pub(crate) mod layer;
mod rows;
pub(crate) mod sums;

/// Steps of `k` in a tile.
const STEPS: usize = 32;

/// Numbers of a tile, in f32.
const TILE: usize = 256;

/// What is smaller than this in a whole row is scaled up by [`UP`].
const TINY: f32 = 9.094_947e-13; // 2^-40
const UP: f32 = 1.152_921_5e18; // 2^60: two of them still are a number
const DOWN: f32 = 1.0 / UP;

/// What is larger is scaled down: sums of scaled products must not overflow where the exact ones
/// do not, and the largest numbers would round to infinity.
const HUGE: f32 = 1.152_921_5e18; // 2^60

/// Whether the machine has the tiles and the system lets this process use them.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        // Leaf 7: bit 22 of edx is AMX-BF16, bit 24 AMX-TILE. Leaf 1: bit 27 of ecx says that the
        // register which `_xgetbv` reads is there.
        let (tiles, saved) =
            (__cpuid_count(7, 0).edx >> 22 & 0b101, __cpuid_count(1, 0).ecx >> 27 & 1);
        if tiles != 0b101 || saved == 0 || !is_x86_feature_detected!("avx512bf16") {
            return false;
        }
        // SAFETY: the bit above says that the instruction is there.
        let state = unsafe { enabled_state() };
        state >> 17 & 0b11 == 0b11 && permitted()
    })
}

/// Whether the tiles multiply bytes too.
pub(crate) fn multiplies_bytes() -> bool {
    // Bit 25 of edx is AMX-INT8.
    available() && __cpuid_count(7, 0).edx >> 25 & 1 == 1
}

/// The states of registers that the system saves.
#[target_feature(enable = "xsave")]
fn enabled_state() -> u64 {
    // SAFETY: the set is enabled; register 0 exists where the set does.
    unsafe { _xgetbv(0) }
}

/// Asks the system for the tiles' state, once for the process.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: a system call with two numbers, which changes nothing but this permission.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The tiles' shapes: eight of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes([u8; 64]);

static SHAPES: Shapes = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut t = 0;
    while t < 8 {
        bytes[16 + 2 * t] = 64;
        bytes[48 + t] = 16;
        t += 1;
    }
    Shapes(bytes)
};

/// The tiles of this thread, configured; given back at the end, so that switching threads need
/// not save them.
pub(crate) struct Tiles;

impl Tiles {
    /// # Safety
    /// [`available`].
    pub(crate) unsafe fn new() -> Self {
        // SAFETY: the set is there; the shapes are 64 readable bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: made only where the set is there.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Every second number of two vectors in turn: the steps of each column side by side.
static INTERLEAVED: [u16; 32] = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = (i / 2 + i % 2 * 16) as u16;
        i += 1;
    }
    order
};

/// What rows whose largest size is `most` are multiplied by before they are split; its inverse
/// undoes it.
fn scale(most: f32) -> f32 {
    if most > 0.0 && most < TINY {
        UP
    } else if most > HUGE && most < f32::INFINITY {
        DOWN
    } else {
        1.0
    }
}

/// The largest sizes of the lanes of `most` and of `x`; what is not a number is passed over.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn larger(most: __m512, x: __m512) -> __m512 {
    _mm512_max_ps(_mm512_abs_ps(x), most)
}

/// Whether no lane below `columns` asks for a factor other than one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn plain(most: __m512, columns: u16) -> bool {
    let some = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(columns, most, _mm512_set1_ps(0.0));
    let low = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(some, most, _mm512_set1_ps(TINY));
    let high = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(columns, most, _mm512_set1_ps(HUGE));
    low | high == 0
}

/// The first `n` lanes.
fn first(n: usize) -> u16 {
    (1_u32 << n.min(LANES)).wrapping_sub(1) as u16
}

/// Splits two vectors: the high parts of `x` and of `y` one behind the other, and the low ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn split(x: __m512, y: __m512) -> (__m512i, __m512i) {
    // SAFETY: both are 512 bits without a meaning of their own.
    let high: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(y, x)) };
    let back = |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
    let x = _mm512_sub_ps(x, back(_mm512_castsi512_si256(high)));
    let y = _mm512_sub_ps(y, back(_mm512_extracti64x4_epi64::<1>(high)));
    // SAFETY: as above.
    (high, unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(y, x)) })
}

/// Splits two steps of sixteen columns and lays the steps of a column side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
fn split_pair(x: __m512, y: __m512, order: __m512i) -> (__m512i, __m512i) {
    let pair = |x, y| {
        // SAFETY: 512 bits without a meaning of their own.
        let both: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(y, x)) };
        _mm512_permutexvar_epi16(order, both)
    };
    let high = pair(x, y);
    let upper = _mm512_and_si512(high, _mm512_set1_epi32(0xffff_0000_u32 as i32));
    let x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high)));
    let y = _mm512_sub_ps(y, _mm512_castsi512_ps(upper));
    (high, pair(x, y))
}

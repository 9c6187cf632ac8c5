//! Sixteen lanes of f32 on every machine: the one vector that all kernels are written in.
//!
//! A kernel is a generic function over [`Simd`], always inlined into one function per instruction
//! set ([`dispatch`]). Lane counts and the order of operations are the same everywhere, so AVX-512
//! and AVX2 (both with fused multiply-add) give the same bits.

pub(crate) use crate::instruction_set::InstructionSet;

/// Lanes of the vector.
pub(crate) const LANES: usize = 16;

/// A vector of sixteen f32.
///
/// # Safety
/// Every method needs the instruction set that the type stands for; `load` and `store` need
/// sixteen readable or writable numbers. All are inlined into the functions of [`dispatch`].
pub(crate) unsafe trait Simd: Copy + 'static {
    /// Rows of a tile of the matrix product.
    const ROWS: usize;
    /// Vectors in a row of such a tile.
    const WIDTH: usize;
    /// Whether a multiplication and an addition are rounded once.
    const FUSED: bool;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// Lanes `from` to `to` (at most [`LANES`]) of the vector at `p`, zeros in the others, which are
    /// not read.
    #[inline(always)]
    unsafe fn load_lanes(p: *const f32, from: usize, to: usize) -> Self {
        let mut x = [0.0; LANES];
        for (i, x) in x.iter_mut().enumerate().take(to).skip(from) {
            // SAFETY: the caller's lanes.
            *x = unsafe { *p.wrapping_add(i) };
        }
        // SAFETY: a whole vector.
        unsafe { Self::load(x.as_ptr()) }
    }
    /// Writes the first `n` lanes (at most [`LANES`]).
    #[inline(always)]
    unsafe fn store_lanes(self, p: *mut f32, n: usize) {
        let mut x = [0.0; LANES];
        // SAFETY: a whole vector, and the caller's numbers.
        unsafe {
            self.store(x.as_mut_ptr());
            for (i, x) in x.iter().enumerate().take(n) {
                *p.add(i) = *x;
            }
        }
    }
    /// `self * b + c`, rounded once where the machine can.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
    /// The smaller one; `b` where either is not a number.
    unsafe fn min(self, b: Self) -> Self;
    /// The larger one; `b` where either is not a number.
    unsafe fn max(self, b: Self) -> Self;
    /// `yes` where `self < b`, else `no`.
    unsafe fn if_less(self, b: Self, yes: Self, no: Self) -> Self;
    /// The power of two whose exponent is in the low bits of the number's own bits.
    unsafe fn power_of_low_bits(self) -> Self;
    /// The vector whose eight lanes from 0 are at `p` and whose others are at `q`.
    unsafe fn load_halves(p: *const f32, q: *const f32) -> Self;
    /// Sum of the lanes: halves are added until one number is left.
    unsafe fn sum(self) -> f32;
    /// Every fourth number of the 64 of four vectors: lane `l` of `out[j]` is number `4 l + j`.
    unsafe fn deinterleave(x: [Self; 4]) -> [Self; 4];
    /// The other way round: number `4 l + j` of the 64 is lane `l` of `x[j]`.
    unsafe fn interleave(x: [Self; 4]) -> [Self; 4];
    /// Writes rows into columns: lane `l` of `rows[r]` becomes lane `r` of `out[l]`.
    unsafe fn transpose(rows: &[Self; 16]) -> [Self; 16];
}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Baseline([f32; 16]);

impl Baseline {
    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (o, b) in out.iter_mut().zip(&b.0) {
            *o = f(*o, *b);
        }
        Self(out)
    }
}

/// `a * b + c`: fused where the target has the instruction, in two roundings where a fused one
/// would be a library call.
#[inline(always)]
pub(crate) fn mul_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FUSED { a.mul_add(b, c) } else { a * b + c }
}

// SAFETY: plain arrays, no instruction set needed.
unsafe impl Simd for Baseline {
    const ROWS: usize = 6;
    const WIDTH: usize = 1;
    const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 16])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's sixteen numbers.
        Self(unsafe { p.cast::<[f32; 16]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's sixteen numbers.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        let mut out = c.0;
        for (o, (a, b)) in out.iter_mut().zip(self.0.iter().zip(&b.0)) {
            *o = mul_add::<Self>(*a, *b, *o);
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        let mut out = self.0;
        for (o, b) in out.iter_mut().zip(&b.0) {
            *o += b;
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        self.zip(b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        self.zip(b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        self.zip(b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn if_less(self, b: Self, yes: Self, no: Self) -> Self {
        let mut out = no.0;
        for (i, out) in out.iter_mut().enumerate() {
            if self.0[i] < b.0[i] {
                *out = yes.0[i];
            }
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn power_of_low_bits(self) -> Self {
        Self(self.0.map(|x| f32::from_bits((x.to_bits() << 23).wrapping_add(0x3f80_0000))))
    }
    #[inline(always)]
    unsafe fn load_halves(p: *const f32, q: *const f32) -> Self {
        let mut out = [0.0; 16];
        // SAFETY: the caller's eight numbers at each.
        unsafe {
            out[..8].copy_from_slice(&p.cast::<[f32; 8]>().read_unaligned());
            out[8..].copy_from_slice(&q.cast::<[f32; 8]>().read_unaligned());
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut x = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] += x[i + half];
            }
        }
        x[0]
    }
    #[inline(always)]
    unsafe fn deinterleave(x: [Self; 4]) -> [Self; 4] {
        let mut out = [Self([0.0; 16]); 4];
        for (j, out) in out.iter_mut().enumerate() {
            for (l, o) in out.0.iter_mut().enumerate() {
                *o = x[l / 4].0[l % 4 * 4 + j];
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn interleave(x: [Self; 4]) -> [Self; 4] {
        let mut out = [Self([0.0; 16]); 4];
        for (i, out) in out.iter_mut().enumerate() {
            for (l, o) in out.0.iter_mut().enumerate() {
                *o = x[l % 4].0[4 * i + l / 4];
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn transpose(rows: &[Self; 16]) -> [Self; 16] {
        let mut out = [Self([0.0; 16]); 16];
        for (r, row) in rows.iter().enumerate() {
            for (l, x) in row.0.iter().enumerate() {
                out[l].0[r] = *x;
            }
        }
        out
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    #[allow(clippy::wildcard_imports, reason = "some sixty intrinsics")]
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub(crate) struct Avx512(__m512);

    impl Avx512 {
        /// The vector of this register.
        #[inline(always)]
        pub(crate) fn from_register(x: __m512) -> Self {
            Self(x)
        }

        /// Its register.
        #[inline(always)]
        pub(crate) fn register(self) -> __m512 {
            self.0
        }
    }

    /// The mask of the first `n` lanes.
    #[inline(always)]
    fn lanes(n: usize) -> u16 {
        ((1_u32 << n) - 1) as u16
    }

    /// The masks of the lanes `from` to `to` in both halves.
    #[inline(always)]
    unsafe fn between(from: usize, to: usize) -> [__m256i; 2] {
        // SAFETY: the instruction set is the caller's.
        unsafe {
            let (from, to) = (_mm256_set1_epi32(from as i32), _mm256_set1_epi32(to as i32));
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
            [low, high].map(|lane| {
                let before = _mm256_cmpgt_epi32(from, lane);
                _mm256_andnot_si256(before, _mm256_cmpgt_epi32(to, lane))
            })
        }
    }

    // SAFETY: AVX-512 F, DQ, the set that `dispatch` checks before it calls.
    unsafe impl Simd for Avx512 {
        const ROWS: usize = 8;
        const WIDTH: usize = 3;
        const FUSED: bool = true;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Self(_mm512_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { Self(_mm512_loadu_ps(p)) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe { _mm512_storeu_ps(p, self.0) }
        }
        #[inline(always)]
        unsafe fn load_lanes(p: *const f32, from: usize, to: usize) -> Self {
            unsafe { Self(_mm512_maskz_loadu_ps(lanes(to) & !lanes(from), p)) }
        }
        #[inline(always)]
        unsafe fn store_lanes(self, p: *mut f32, n: usize) {
            unsafe { _mm512_mask_storeu_ps(p, lanes(n), self.0) }
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(self.0, b.0, c.0)) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            unsafe { Self(_mm512_add_ps(self.0, b.0)) }
        }
        #[inline(always)]
        unsafe fn sub(self, b: Self) -> Self {
            unsafe { Self(_mm512_sub_ps(self.0, b.0)) }
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            unsafe { Self(_mm512_mul_ps(self.0, b.0)) }
        }
        #[inline(always)]
        unsafe fn div(self, b: Self) -> Self {
            unsafe { Self(_mm512_div_ps(self.0, b.0)) }
        }
        #[inline(always)]
        unsafe fn min(self, b: Self) -> Self {
            unsafe { Self(_mm512_min_ps(self.0, b.0)) }
        }
        #[inline(always)]
        unsafe fn max(self, b: Self) -> Self {
            unsafe { Self(_mm512_max_ps(self.0, b.0)) }
        }
        #[inline(always)]
        unsafe fn sqrt(self) -> Self {
            unsafe { Self(_mm512_sqrt_ps(self.0)) }
        }
        #[inline(always)]
        unsafe fn if_less(self, b: Self, yes: Self, no: Self) -> Self {
            unsafe {
                let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, b.0);
                Self(_mm512_mask_blend_ps(less, no.0, yes.0))
            }
        }
        #[inline(always)]
        unsafe fn power_of_low_bits(self) -> Self {
            unsafe {
                let shifted = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
                let one = _mm512_set1_epi32(0x3f80_0000);
                Self(_mm512_castsi512_ps(_mm512_add_epi32(shifted, one)))
            }
        }
        #[inline(always)]
        unsafe fn load_halves(p: *const f32, q: *const f32) -> Self {
            unsafe {
                let low = _mm512_castps256_ps512(_mm256_loadu_ps(p));
                Self(_mm512_insertf32x8::<1>(low, _mm256_loadu_ps(q)))
            }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe {
                let low = _mm512_castps512_ps256(self.0);
                sum256(_mm256_add_ps(low, _mm512_extractf32x8_ps::<1>(self.0)))
            }
        }
        #[inline(always)]
        unsafe fn deinterleave(x: [Self; 4]) -> [Self; 4] {
            unsafe {
                // Numbers 0, 4, ... and 1, 5, ... of two vectors; then 2, 6, ... and 3, 7, ...
                let order = |j: i32| {
                    let [p, q] = [j, j + 1];
                    _mm512_setr_epi32(
                        p,
                        p + 4,
                        p + 8,
                        p + 12,
                        p + 16,
                        p + 20,
                        p + 24,
                        p + 28,
                        q,
                        q + 4,
                        q + 8,
                        q + 12,
                        q + 16,
                        q + 20,
                        q + 24,
                        q + 28,
                    )
                };
                let (even, odd) = (order(0), order(2));
                let [a, b, c, d] = x;
                let ab = _mm512_permutex2var_ps(a.0, even, b.0);
                let cd = _mm512_permutex2var_ps(c.0, even, d.0);
                let ab_odd = _mm512_permutex2var_ps(a.0, odd, b.0);
                let cd_odd = _mm512_permutex2var_ps(c.0, odd, d.0);
                [
                    Self(_mm512_shuffle_f32x4::<0x44>(ab, cd)),
                    Self(_mm512_shuffle_f32x4::<0xee>(ab, cd)),
                    Self(_mm512_shuffle_f32x4::<0x44>(ab_odd, cd_odd)),
                    Self(_mm512_shuffle_f32x4::<0xee>(ab_odd, cd_odd)),
                ]
            }
        }
        #[inline(always)]
        unsafe fn interleave(x: [Self; 4]) -> [Self; 4] {
            unsafe {
                // Pairs of lanes from the lower and the upper halves, then pairs of pairs.
                let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
                let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
                let first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
                let second = _mm512_add_epi64(first, _mm512_set1_epi64(4));
                let [a, b, c, d] = x;
                let ab_low = _mm512_castps_pd(_mm512_permutex2var_ps(a.0, low, b.0));
                let cd_low = _mm512_castps_pd(_mm512_permutex2var_ps(c.0, low, d.0));
                let ab_high = _mm512_castps_pd(_mm512_permutex2var_ps(a.0, high, b.0));
                let cd_high = _mm512_castps_pd(_mm512_permutex2var_ps(c.0, high, d.0));
                [
                    Self(_mm512_castpd_ps(_mm512_permutex2var_pd(ab_low, first, cd_low))),
                    Self(_mm512_castpd_ps(_mm512_permutex2var_pd(ab_low, second, cd_low))),
                    Self(_mm512_castpd_ps(_mm512_permutex2var_pd(ab_high, first, cd_high))),
                    Self(_mm512_castpd_ps(_mm512_permutex2var_pd(ab_high, second, cd_high))),
                ]
            }
        }
        #[inline(always)]
        unsafe fn transpose(rows: &[Self; 16]) -> [Self; 16] {
            unsafe {
                // Pairs of rows, then of pairs, inside 128-bit lanes; then the lanes change places.
                let mut t = [_mm512_setzero_ps(); 16];
                for i in 0..8 {
                    t[2 * i] = _mm512_unpacklo_ps(rows[2 * i].0, rows[2 * i + 1].0);
                    t[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i].0, rows[2 * i + 1].0);
                }
                let mut u = [_mm512_setzero_ps(); 16];
                for i in 0..4 {
                    let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
                    u[4 * i] = _mm512_shuffle_ps::<0x44>(a, c);
                    u[4 * i + 1] = _mm512_shuffle_ps::<0xee>(a, c);
                    u[4 * i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
                    u[4 * i + 3] = _mm512_shuffle_ps::<0xee>(b, d);
                }
                // u[4 i + j], lane group g, holds column 4 g + j of rows 4 i .. 4 i + 4.
                let mut out = [Self(_mm512_setzero_ps()); 16];
                for j in 0..4 {
                    let [a, b, c, d] = [u[j], u[4 + j], u[8 + j], u[12 + j]];
                    let ab_even = _mm512_shuffle_f32x4::<0x88>(a, b);
                    let ab_odd = _mm512_shuffle_f32x4::<0xdd>(a, b);
                    let cd_even = _mm512_shuffle_f32x4::<0x88>(c, d);
                    let cd_odd = _mm512_shuffle_f32x4::<0xdd>(c, d);
                    out[j].0 = _mm512_shuffle_f32x4::<0x88>(ab_even, cd_even);
                    out[8 + j].0 = _mm512_shuffle_f32x4::<0xdd>(ab_even, cd_even);
                    out[4 + j].0 = _mm512_shuffle_f32x4::<0x88>(ab_odd, cd_odd);
                    out[12 + j].0 = _mm512_shuffle_f32x4::<0xdd>(ab_odd, cd_odd);
                }
                out
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    // SAFETY: AVX2 and FMA, the set that `dispatch` checks before it calls.
    unsafe impl Simd for Avx2 {
        const ROWS: usize = 6;
        const WIDTH: usize = 1;
        const FUSED: bool = true;
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Self(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            unsafe {
                _mm256_storeu_ps(p, self.0);
                _mm256_storeu_ps(p.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn load_lanes(p: *const f32, from: usize, to: usize) -> Self {
            unsafe {
                let [low, high] = between(from, to);
                let q = p.wrapping_add(8);
                Self(_mm256_maskload_ps(p, low), _mm256_maskload_ps(q, high))
            }
        }
        #[inline(always)]
        unsafe fn store_lanes(self, p: *mut f32, n: usize) {
            unsafe {
                let [low, high] = between(0, n);
                _mm256_maskstore_ps(p, low, self.0);
                _mm256_maskstore_ps(p.wrapping_add(8), high, self.1);
            }
        }
        #[inline(always)]
        unsafe fn fma(self, b: Self, c: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
        }
        #[inline(always)]
        unsafe fn add(self, b: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn sub(self, b: Self) -> Self {
            unsafe { Self(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn mul(self, b: Self) -> Self {
            unsafe { Self(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn div(self, b: Self) -> Self {
            unsafe { Self(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn min(self, b: Self) -> Self {
            unsafe { Self(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn max(self, b: Self) -> Self {
            unsafe { Self(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn sqrt(self) -> Self {
            unsafe { Self(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1)) }
        }
        #[inline(always)]
        unsafe fn if_less(self, b: Self, yes: Self, no: Self) -> Self {
            unsafe {
                let less = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, b.0);
                let more = _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, b.1);
                Self(_mm256_blendv_ps(no.0, yes.0, less), _mm256_blendv_ps(no.1, yes.1, more))
            }
        }
        #[inline(always)]
        unsafe fn power_of_low_bits(self) -> Self {
            unsafe {
                let one = _mm256_set1_epi32(0x3f80_0000);
                let low = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0));
                let high = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.1));
                Self(
                    _mm256_castsi256_ps(_mm256_add_epi32(low, one)),
                    _mm256_castsi256_ps(_mm256_add_epi32(high, one)),
                )
            }
        }
        #[inline(always)]
        unsafe fn load_halves(p: *const f32, q: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(q)) }
        }
        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            unsafe { sum256(_mm256_add_ps(self.0, self.1)) }
        }
        #[inline(always)]
        unsafe fn deinterleave(x: [Self; 4]) -> [Self; 4] {
            unsafe {
                let [a, b, c, d] = x;
                let low = fourths256([a.0, a.1, b.0, b.1]);
                let high = fourths256([c.0, c.1, d.0, d.1]);
                [
                    Self(low[0], high[0]),
                    Self(low[1], high[1]),
                    Self(low[2], high[2]),
                    Self(low[3], high[3]),
                ]
            }
        }
        #[inline(always)]
        unsafe fn interleave(x: [Self; 4]) -> [Self; 4] {
            unsafe {
                let [a, b, c, d] = x;
                let low = mixed256([a.0, b.0, c.0, d.0]);
                let high = mixed256([a.1, b.1, c.1, d.1]);
                [
                    Self(low[0], low[1]),
                    Self(low[2], low[3]),
                    Self(high[0], high[1]),
                    Self(high[2], high[3]),
                ]
            }
        }
        #[inline(always)]
        unsafe fn transpose(rows: &[Self; 16]) -> [Self; 16] {
            unsafe {
                let zero = _mm256_setzero_ps();
                let mut out = [Self(zero, zero); 16];
                for half in 0..2 {
                    let mut low = [zero; 8];
                    let mut high = [zero; 8];
                    for r in 0..8 {
                        low[r] = rows[8 * half + r].0;
                        high[r] = rows[8 * half + r].1;
                    }
                    let (low, high) = (transpose8(&low), transpose8(&high));
                    for l in 0..8 {
                        if half == 0 {
                            out[l].0 = low[l];
                            out[8 + l].0 = high[l];
                        } else {
                            out[l].1 = low[l];
                            out[8 + l].1 = high[l];
                        }
                    }
                }
                out
            }
        }
    }

    /// Sum of eight lanes, by halves.
    #[inline(always)]
    unsafe fn sum256(x: __m256) -> f32 {
        // SAFETY: registers only; the caller has the instruction set.
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            let x = _mm_add_ss(x, _mm_shuffle_ps::<1>(x, x));
            _mm_cvtss_f32(x)
        }
    }

    /// Every fourth number of the 32 of four vectors, from each of the first four on.
    #[inline(always)]
    unsafe fn fourths256(r: [__m256; 4]) -> [__m256; 4] {
        // SAFETY: AVX2, the set that `dispatch` checks before it calls.
        unsafe {
            let p0 = _mm256_permute2f128_ps::<0x20>(r[0], r[2]);
            let p1 = _mm256_permute2f128_ps::<0x31>(r[0], r[2]);
            let p2 = _mm256_permute2f128_ps::<0x20>(r[1], r[3]);
            let p3 = _mm256_permute2f128_ps::<0x31>(r[1], r[3]);
            let [t0, t1] = [_mm256_unpacklo_ps(p0, p1), _mm256_unpackhi_ps(p0, p1)];
            let [t2, t3] = [_mm256_unpacklo_ps(p2, p3), _mm256_unpackhi_ps(p2, p3)];
            [
                _mm256_shuffle_ps::<0x44>(t0, t2),
                _mm256_shuffle_ps::<0xee>(t0, t2),
                _mm256_shuffle_ps::<0x44>(t1, t3),
                _mm256_shuffle_ps::<0xee>(t1, t3),
            ]
        }
    }

    /// The other way round.
    #[inline(always)]
    unsafe fn mixed256(v: [__m256; 4]) -> [__m256; 4] {
        // SAFETY: AVX2, the set that `dispatch` checks before it calls.
        unsafe {
            let [t0, t1] = [_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1])];
            let [t2, t3] = [_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3])];
            let q0 = _mm256_shuffle_ps::<0x44>(t0, t2);
            let q1 = _mm256_shuffle_ps::<0xee>(t0, t2);
            let q2 = _mm256_shuffle_ps::<0x44>(t1, t3);
            let q3 = _mm256_shuffle_ps::<0xee>(t1, t3);
            [
                _mm256_permute2f128_ps::<0x20>(q0, q1),
                _mm256_permute2f128_ps::<0x20>(q2, q3),
                _mm256_permute2f128_ps::<0x31>(q0, q1),
                _mm256_permute2f128_ps::<0x31>(q2, q3),
            ]
        }
    }

    #[inline(always)]
    unsafe fn transpose8(r: &[__m256; 8]) -> [__m256; 8] {
        // SAFETY: registers only; the caller has the instruction set.
        unsafe {
            let mut t = *r;
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut u = t;
            for i in 0..2 {
                let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
                u[4 * i] = _mm256_shuffle_ps::<0x44>(a, c);
                u[4 * i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
                u[4 * i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
                u[4 * i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
            }
            for j in 0..4 {
                t[j] = _mm256_permute2f128_ps::<0x20>(u[j], u[4 + j]);
                t[4 + j] = _mm256_permute2f128_ps::<0x31>(u[j], u[4 + j]);
            }
            t
        }
    }
}

/// The `n` numbers at `p` and zeros behind them.
///
/// # Safety
/// `n` at most [`LANES`] numbers can be read, and the set of `S` is there.
#[inline(always)]
pub(crate) unsafe fn load_part<S: Simd>(p: *const f32, n: usize) -> S {
    // SAFETY: the caller's numbers, and an array of a whole vector.
    unsafe {
        if n == LANES {
            return S::load(p);
        }
        S::load_lanes(p, 0, n)
    }
}

/// Writes the first `n` lanes to `p`.
///
/// # Safety
/// `n` at most [`LANES`] numbers can be written, and the set of `S` is there.
#[inline(always)]
pub(crate) unsafe fn store_part<S: Simd>(v: S, p: *mut f32, n: usize) {
    // SAFETY: the caller's numbers, and an array of a whole vector.
    unsafe {
        if n == LANES {
            return v.store(p);
        }
        v.store_lanes(p, n);
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Defines `unsafe fn name(args) -> out`, which calls the always-inlined `body::<S>(args)` compiled
/// for the instruction set in use. Everything that a body calls must be `#[inline(always)]`; a
/// closure called in two places is not inlined, and then each vector operation is a call.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($g:ident : $bound:path),*>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $out:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
        $vis unsafe fn $name $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
            unsafe fn avx512 $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promise, and the instruction set is there.
                #[allow(unused_unsafe, reason = "some bodies are safe")]
                unsafe { $body::<$crate::simd::Avx512 $($(, $g)*)?>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "kernels take pointers and sizes")]
            unsafe fn avx2 $(<$($g: $bound),*>)? ($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller's promise, and the instruction set is there.
                #[allow(unused_unsafe, reason = "some bodies are safe")]
                unsafe { $body::<$crate::simd::Avx2 $($(, $g)*)?>($($arg),*) }
            }
            // SAFETY: the caller's promise; each set was detected before it is named.
            unsafe {
                match $crate::simd::InstructionSet::current() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::InstructionSet::Amx | $crate::simd::InstructionSet::Avx512 => {
                        avx512($($arg),*)
                    }
                    #[cfg(target_arch = "x86_64")]
                    $crate::simd::InstructionSet::Avx2 => avx2($($arg),*),
                    _ => $body::<$crate::simd::Baseline $($(, $g)*)?>($($arg),*),
                }
            }
        }
    };
}
pub(crate) use dispatch;

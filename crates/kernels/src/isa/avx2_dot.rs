//! Byte products on 256 bits: with AVX-VNNI one instruction, without it three.

use super::dot::{Dot, DotKernel};
use super::{Avx2, LANES};
use std::arch::x86_64::*;

/// Proof of AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Pairs(Avx2);

/// Proof of AVX2, FMA and AVX-VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Vnni(Avx2);

impl Pairs {
    pub(super) fn new(set: Avx2) -> Self {
        Self(set)
    }
}

impl Vnni {
    /// The token, if the processor has the feature.
    pub(super) fn new(set: Avx2) -> Option<Self> {
        is_x86_feature_detected!("avxvnni").then_some(Self(set))
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn with_pairs<K: DotKernel>(unit: Pairs, kernel: K) -> K::Output {
    kernel.run(unit)
}

#[target_feature(enable = "avxvnni,avx2,fma")]
#[inline(never)]
fn with_vnni<K: DotKernel>(unit: Vnni, kernel: K) -> K::Output {
    kernel.run(unit)
}

/// sum + x, in this place and no other: LLVM would move the additions of several steps together and run out of
/// registers for the sums (measured: half the speed).
#[target_feature(enable = "avx2")]
#[inline]
fn add_in_place(mut sum: __m256i, x: __m256i) -> __m256i {
    // SAFETY: one instruction on registers, which the features of this function include.
    unsafe {
        std::arch::asm!("vpaddd {0}, {0}, {1}", inout(ymm_reg) sum, in(ymm_reg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// What both units have in common.
macro_rules! shared {
    ($with:ident) => {
        type S = Avx2;
        type I = (__m256i, __m256i);
        const TILE_ROWS: usize = 6;

        #[inline(always)]
        fn simd(self) -> Avx2 {
            self.0
        }
        #[inline(always)]
        fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output {
            // SAFETY: the token `self` exists only where the features were detected.
            unsafe { $with(self, kernel) }
        }
        #[inline(always)]
        fn splat(self, x: i32) -> Self::I {
            // SAFETY: the token `self` exists only where AVX2 was detected.
            let v = unsafe { _mm256_set1_epi32(x) };
            (v, v)
        }
        #[inline(always)]
        fn spread(self, four: u32) -> Self::I {
            self.splat(four.cast_signed())
        }
        #[inline(always)]
        fn mul(self, a: Self::I, b: Self::I) -> Self::I {
            // SAFETY: the token `self` exists only where AVX2 was detected.
            unsafe { (_mm256_mullo_epi32(a.0, b.0), _mm256_mullo_epi32(a.1, b.1)) }
        }
        #[inline(always)]
        fn to_float(self, a: Self::I) -> (__m256, __m256) {
            // SAFETY: the token `self` exists only where AVX2 was detected.
            unsafe { (_mm256_cvtepi32_ps(a.0), _mm256_cvtepi32_ps(a.1)) }
        }
        #[inline(always)]
        fn to_bytes(self, x: (__m256, __m256)) -> [u8; LANES] {
            // SAFETY: the token `self` exists only where AVX2 was detected; both types are sixteen plain bytes.
            unsafe {
                // Packing works on 128-bit halves, so its result has the quarters 0 2 1 3.
                let words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.0), _mm256_cvtps_epi32(x.1));
                let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
                let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
                std::mem::transmute(_mm_packus_epi16(low, high))
            }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const i8) -> Self::I {
            // SAFETY: the caller vouches for 64 readable bytes; the token proves AVX2.
            unsafe { (_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(32).cast())) }
        }
        #[inline(always)]
        unsafe fn load_sums(self, p: *const i32) -> Self::I {
            // SAFETY: the caller vouches for sixteen readable integers; the token proves AVX2.
            unsafe { (_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast())) }
        }
        #[inline(always)]
        unsafe fn store_sums(self, p: *mut i32, a: Self::I) {
            // SAFETY: the caller vouches for sixteen writable integers; the token proves AVX2.
            unsafe {
                _mm256_storeu_si256(p.cast(), a.0);
                _mm256_storeu_si256(p.add(8).cast(), a.1);
            }
        }
    };
}

impl Dot for Pairs {
    shared!(with_pairs);
    #[inline(always)]
    fn dot(self, sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token `self` exists only where AVX2 was detected.
        unsafe {
            let one = _mm256_set1_epi16(1);
            let low = _mm256_madd_epi16(_mm256_maddubs_epi16(a.0, b.0), one);
            let high = _mm256_madd_epi16(_mm256_maddubs_epi16(a.1, b.1), one);
            (add_in_place(sum.0, low), add_in_place(sum.1, high))
        }
    }
}

impl Dot for Vnni {
    shared!(with_vnni);
    #[inline(always)]
    fn dot(self, sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token `self` exists only where AVX-VNNI was detected.
        unsafe { (_mm256_dpbusd_avx_epi32(sum.0, a.0, b.0), _mm256_dpbusd_avx_epi32(sum.1, a.1, b.1)) }
    }
}

//! Byte products on 512 bits: with VNNI one instruction, without it three.

use super::dot::{Dot, DotKernel};
use super::{Avx512, LANES};
use std::arch::x86_64::*;

/// Proof of AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy, Debug)]
pub struct Pairs(Avx512);

/// Proof of AVX-512 with VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Vnni(Avx512);

impl Pairs {
    pub(super) fn new(set: Avx512) -> Self {
        Self(set)
    }
}

impl Vnni {
    /// The token, if the processor has the feature.
    pub(super) fn new(set: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512vnni").then_some(Self(set))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline(never)]
fn with_pairs<K: DotKernel>(unit: Pairs, kernel: K) -> K::Output {
    kernel.run(unit)
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline(never)]
fn with_vnni<K: DotKernel>(unit: Vnni, kernel: K) -> K::Output {
    kernel.run(unit)
}

/// sum + x, in this place and no other: LLVM would move the additions of several steps together and run out of
/// registers for the sums (measured: half the speed).
#[target_feature(enable = "avx512f")]
#[inline]
fn add_in_place(mut sum: __m512i, x: __m512i) -> __m512i {
    // SAFETY: one instruction on registers, which the features of this function include.
    unsafe {
        std::arch::asm!("vpaddd {0}, {0}, {1}", inout(zmm_reg) sum, in(zmm_reg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// What both units have in common.
macro_rules! shared {
    ($with:ident) => {
        type S = Avx512;
        type I = __m512i;
        const TILE_ROWS: usize = 12;

        #[inline(always)]
        fn simd(self) -> Avx512 {
            self.0
        }
        #[inline(always)]
        fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output {
            // SAFETY: the token `self` exists only where the features were detected.
            unsafe { $with(self, kernel) }
        }
        #[inline(always)]
        fn splat(self, x: i32) -> __m512i {
            // SAFETY: the token `self` exists only where AVX-512 was detected.
            unsafe { _mm512_set1_epi32(x) }
        }
        #[inline(always)]
        fn spread(self, four: u32) -> __m512i {
            self.splat(four.cast_signed())
        }
        #[inline(always)]
        fn mul(self, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the token `self` exists only where AVX-512 was detected.
            unsafe { _mm512_mullo_epi32(a, b) }
        }
        #[inline(always)]
        fn to_float(self, a: __m512i) -> __m512 {
            // SAFETY: the token `self` exists only where AVX-512 was detected.
            unsafe { _mm512_cvtepi32_ps(a) }
        }
        #[inline(always)]
        fn to_bytes(self, x: __m512) -> [u8; LANES] {
            // SAFETY: the token `self` exists only where AVX-512 was detected; both types are sixteen plain bytes.
            unsafe { std::mem::transmute(_mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x))) }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const i8) -> __m512i {
            // SAFETY: the caller vouches for 64 readable bytes; the token proves AVX-512.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }
        #[inline(always)]
        unsafe fn load_sums(self, p: *const i32) -> __m512i {
            // SAFETY: the caller vouches for sixteen readable integers; the token proves AVX-512.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }
        #[inline(always)]
        unsafe fn store_sums(self, p: *mut i32, a: __m512i) {
            // SAFETY: the caller vouches for sixteen writable integers; the token proves AVX-512.
            unsafe { _mm512_storeu_si512(p.cast(), a) }
        }
    };
}

impl Dot for Pairs {
    shared!(with_pairs);
    #[inline(always)]
    fn dot(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token `self` exists only where AVX-512 BW was detected.
        unsafe { add_in_place(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1))) }
    }
}

impl Dot for Vnni {
    shared!(with_vnni);
    #[inline(always)]
    fn dot(self, sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token `self` exists only where AVX-512 VNNI was detected.
        unsafe { _mm512_dpbusd_epi32(sum, a, b) }
    }
}

//! Dot products of bfloat16 pairs on 512 bits (AVX512_BF16).

use super::Avx512;
use std::arch::x86_64::*;

/// Proof of AVX-512 with BF16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Brain(Avx512);

/// A computation compiled for this unit. `run` must be `#[inline(always)]`.
pub(crate) trait BrainKernel {
    fn run(self, unit: Avx512Brain);
}

#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
#[inline(never)]
fn with_features<K: BrainKernel>(unit: Avx512Brain, kernel: K) {
    kernel.run(unit);
}

impl Avx512Brain {
    /// The token, if the processor has the feature.
    pub(crate) fn new(set: Avx512) -> Option<Self> {
        is_x86_feature_detected!("avx512bf16").then_some(Self(set))
    }

    #[inline(always)]
    pub(crate) fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn vectorize<K: BrainKernel>(self, kernel: K) {
        // SAFETY: the token `self` exists only where the features were detected.
        unsafe { with_features(self, kernel) }
    }

    /// One pair in every lane.
    #[inline(always)]
    pub(crate) fn spread(self, pair: u32) -> __m512i {
        // SAFETY: the token `self` exists only where AVX-512 was detected.
        unsafe { _mm512_set1_epi32(pair.cast_signed()) }
    }

    /// Sixteen pairs.
    ///
    /// # Safety
    /// `p` is valid for reading 64 bytes.
    #[inline(always)]
    pub(crate) unsafe fn load(self, p: *const i8) -> __m512i {
        // SAFETY: the caller vouches for 64 readable bytes; the token proves AVX-512.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    /// sum + the dot product of two pairs, lane by lane.
    #[inline(always)]
    pub(crate) fn dot(self, sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: the token `self` exists only where AVX512_BF16 was detected; both types are 512 plain bits.
        unsafe {
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            )
        }
    }
}

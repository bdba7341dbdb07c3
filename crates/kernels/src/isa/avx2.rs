//! AVX2 with FMA: sixteen lanes are two 256-bit registers.

use super::simd::{Kernel, LANES, Simd};
use std::arch::x86_64::*;

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, if the processor has both features.
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn with_features<K: Kernel>(set: Avx2, kernel: K) -> K::Output {
    kernel.run(set)
}

/// Applies a two-operand intrinsic to both halves.
macro_rules! halves {
    ($f:ident, $($v:expr),+) => {
        // SAFETY: the token `self` exists only where AVX2 and FMA were detected.
        unsafe { ($f($($v.0),+), $f($($v.1),+)) }
    };
}

impl Simd for Avx2 {
    type F = (__m256, __m256);
    const TILE_ROWS: usize = 6;
    const PANEL_VECTORS: usize = 1;
    const SPARE_REGISTERS: bool = false;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token `self` exists only where AVX2 and FMA were detected.
        unsafe { with_features(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token `self` exists only where AVX2 was detected.
        let v = unsafe { _mm256_set1_ps(x) };
        (v, v)
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: the token `self` exists only where AVX2 was detected.
        unsafe {
            const MODE: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            (_mm256_round_ps::<MODE>(a.0), _mm256_round_ps::<MODE>(a.1))
        }
    }
    #[inline(always)]
    fn pow2(self, n: Self::F) -> Self::F {
        // SAFETY: the token `self` exists only where AVX2 was detected.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let half = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(v), bias)));
            (half(n.0), half(n.1))
        }
    }
    #[inline(always)]
    fn to_array(self, a: Self::F) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has sixteen floats.
        unsafe { self.store(lanes.as_mut_ptr(), a) };
        lanes
    }
    #[inline(always)]
    fn with_lanes(self, a: [f32; LANES]) -> Self::F {
        // SAFETY: the array has sixteen floats.
        unsafe { self.load(a.as_ptr()) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F {
        // SAFETY: the caller vouches for sixteen readable floats; the token proves AVX2.
        unsafe { (_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: Self::F) {
        // SAFETY: the caller vouches for sixteen writable floats; the token proves AVX2.
        unsafe {
            _mm256_storeu_ps(p, a.0);
            _mm256_storeu_ps(p.add(8), a.1);
        }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}

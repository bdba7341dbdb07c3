//! Advanced SIMD of 64-bit ARM: sixteen lanes are four 128-bit registers.

use super::simd::{Kernel, LANES, Simd};
use std::arch::aarch64::*;

/// Proof that the processor has Advanced SIMD.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The token, if the processor has the feature.
    pub fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

#[target_feature(enable = "neon")]
#[inline(never)]
fn with_features<K: Kernel>(set: Neon, kernel: K) -> K::Output {
    kernel.run(set)
}

/// Applies an intrinsic to the four quarters.
macro_rules! quarters {
    ($f:ident, $($v:expr),+) => {
        // SAFETY: the token `self` exists only where Advanced SIMD was detected.
        unsafe { [$f($($v[0]),+), $f($($v[1]),+), $f($($v[2]),+), $f($($v[3]),+)] }
    };
}

impl Simd for Neon {
    type F = [float32x4_t; 4];
    const TILE_ROWS: usize = 6;
    const PANEL_VECTORS: usize = 1;
    const SPARE_REGISTERS: bool = false;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: the token `self` exists only where Advanced SIMD was detected.
        unsafe { with_features(self, kernel) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token `self` exists only where Advanced SIMD was detected.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(vaddq_f32, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(vsubq_f32, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(vmulq_f32, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(vdivq_f32, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        quarters!(vfmaq_f32, c, a, b)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // Not vmaxq_f32, whose zeros and numbers that are none differ from the other sets'.
        let greater = quarters!(vcgtq_f32, a, b);
        quarters!(vbslq_f32, greater, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        let less = quarters!(vcltq_f32, a, b);
        quarters!(vbslq_f32, less, a, b)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        quarters!(vrndnq_f32, a)
    }
    #[inline(always)]
    fn pow2(self, n: Self::F) -> Self::F {
        // SAFETY: the token `self` exists only where Advanced SIMD was detected.
        unsafe { n.map(|v| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(v), vdupq_n_s32(127))))) }
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
        // SAFETY: the caller vouches for sixteen readable floats; the token proves Advanced SIMD.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: Self::F) {
        // SAFETY: the caller vouches for sixteen writable floats; the token proves Advanced SIMD.
        unsafe {
            vst1q_f32(p, a[0]);
            vst1q_f32(p.add(4), a[1]);
            vst1q_f32(p.add(8), a[2]);
            vst1q_f32(p.add(12), a[3]);
        }
    }
    #[inline(always)]
    fn prefetch(self, _: *const f32) {
        // Stable Rust has no prefetch intrinsic for ARM; the hardware prefetchers follow the linear panels.
    }
}

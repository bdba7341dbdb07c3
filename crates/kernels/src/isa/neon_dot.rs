//! Byte products on 64-bit ARM: `sdot` where there is one, widening products else. Both multiply signed bytes, so
//! activations are taken less 128.

use super::dot::{Dot, DotKernel};
use super::{LANES, Neon};
use std::arch::aarch64::*;

/// Proof of Advanced SIMD.
#[derive(Clone, Copy, Debug)]
pub struct Widening(Neon);

/// Proof of Advanced SIMD with dot products.
#[derive(Clone, Copy, Debug)]
pub struct DotProduct(Neon);

impl Widening {
    pub(super) fn new(set: Neon) -> Self {
        Self(set)
    }
}

impl DotProduct {
    /// The token, if the processor has the feature.
    pub(super) fn new(set: Neon) -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(set))
    }
}

#[target_feature(enable = "neon")]
#[inline(never)]
fn with_widening<K: DotKernel>(unit: Widening, kernel: K) -> K::Output {
    kernel.run(unit)
}

#[target_feature(enable = "neon,dotprod")]
#[inline(never)]
fn with_dot_product<K: DotKernel>(unit: DotProduct, kernel: K) -> K::Output {
    kernel.run(unit)
}

/// What both units have in common.
macro_rules! shared {
    ($with:ident) => {
        type S = Neon;
        type I = [int32x4_t; 4];
        const TILE_ROWS: usize = 6;
        const OFFSET: i32 = 128;

        #[inline(always)]
        fn simd(self) -> Neon {
            self.0
        }
        #[inline(always)]
        fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output {
            // SAFETY: the token `self` exists only where the features were detected.
            unsafe { $with(self, kernel) }
        }
        #[inline(always)]
        fn splat(self, x: i32) -> Self::I {
            // SAFETY: the token `self` exists only where Advanced SIMD was detected.
            [unsafe { vdupq_n_s32(x) }; 4]
        }
        #[inline(always)]
        fn spread(self, four: u32) -> Self::I {
            // Flipping the highest bit subtracts 128.
            self.splat((four ^ 0x8080_8080).cast_signed())
        }
        #[inline(always)]
        fn mul(self, a: Self::I, b: Self::I) -> Self::I {
            // SAFETY: the token `self` exists only where Advanced SIMD was detected.
            std::array::from_fn(
                #[inline(always)]
                |i| unsafe { vmulq_s32(a[i], b[i]) },
            )
        }
        #[inline(always)]
        fn to_float(self, a: Self::I) -> [float32x4_t; 4] {
            // SAFETY: the token `self` exists only where Advanced SIMD was detected.
            a.map(
                #[inline(always)]
                |v| unsafe { vcvtq_f32_s32(v) },
            )
        }
        #[inline(always)]
        fn to_bytes(self, x: [float32x4_t; 4]) -> [u8; LANES] {
            // SAFETY: the token `self` exists only where Advanced SIMD was detected; the array has sixteen bytes.
            unsafe {
                let half = |a, b| vcombine_u16(vmovn_u32(vcvtnq_u32_f32(a)), vmovn_u32(vcvtnq_u32_f32(b)));
                let all = vcombine_u8(vmovn_u16(half(x[0], x[1])), vmovn_u16(half(x[2], x[3])));
                let mut bytes = [0; LANES];
                vst1q_u8(bytes.as_mut_ptr(), all);
                bytes
            }
        }
        #[inline(always)]
        unsafe fn load(self, p: *const i8) -> Self::I {
            // SAFETY: the caller vouches for 64 readable bytes; the token proves Advanced SIMD.
            unsafe {
                [
                    vreinterpretq_s32_s8(vld1q_s8(p)),
                    vreinterpretq_s32_s8(vld1q_s8(p.add(16))),
                    vreinterpretq_s32_s8(vld1q_s8(p.add(32))),
                    vreinterpretq_s32_s8(vld1q_s8(p.add(48))),
                ]
            }
        }
        #[inline(always)]
        unsafe fn load_sums(self, p: *const i32) -> Self::I {
            // SAFETY: the caller vouches for sixteen readable integers; the token proves Advanced SIMD.
            unsafe { [vld1q_s32(p), vld1q_s32(p.add(4)), vld1q_s32(p.add(8)), vld1q_s32(p.add(12))] }
        }
        #[inline(always)]
        unsafe fn store_sums(self, p: *mut i32, a: Self::I) {
            // SAFETY: the caller vouches for sixteen writable integers; the token proves Advanced SIMD.
            unsafe {
                vst1q_s32(p, a[0]);
                vst1q_s32(p.add(4), a[1]);
                vst1q_s32(p.add(8), a[2]);
                vst1q_s32(p.add(12), a[3]);
            }
        }
    };
}

impl Dot for Widening {
    shared!(with_widening);
    #[inline(always)]
    fn dot(self, sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token `self` exists only where Advanced SIMD was detected. A product is at most 128 × 127, so
        // sixteen bits hold it.
        std::array::from_fn(
            #[inline(always)]
            |i| unsafe {
                let (a, b) = (vreinterpretq_s8_s32(a[i]), vreinterpretq_s8_s32(b[i]));
                let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
                let high = vpaddlq_s16(vmull_high_s8(a, b));
                vaddq_s32(sum[i], vpaddq_s32(low, high))
            },
        )
    }
}

/// sum + Σ a·b over the four bytes of each lane.
#[inline(always)]
fn sdot(mut sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // The intrinsic is not stable yet.
    // SAFETY: one instruction on registers; only called by a unit whose token proves the feature.
    unsafe {
        std::arch::asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum,
            in(vreg) a, in(vreg) b, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

impl Dot for DotProduct {
    shared!(with_dot_product);
    #[inline(always)]
    fn dot(self, sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        [sdot(sum[0], a[0], b[0]), sdot(sum[1], a[1], b[1]), sdot(sum[2], a[2], b[2]), sdot(sum[3], a[3], b[3])]
    }
}

//! Small squares transposed in registers, for laying out matrices as panels. Nothing is computed, so one version with
//! the instructions that every processor of a kind has serves all sets.

/// Side of the squares that [`transpose_square`] takes.
pub(crate) const SQUARE: usize = 4;

/// Transposes a 4 × 4 square: `(start, row stride)` of where it is and of where it goes.
///
/// # Safety
/// Four floats are readable at each of four rows of `from` and writable at each of four rows of `to`; nothing else
/// accesses the latter meanwhile.
#[inline(always)]
pub(crate) unsafe fn transpose_square((from, from_stride): (*const f32, usize), (to, to_stride): (*mut f32, usize)) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as the caller vouches; SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::*;
        let row = |i: usize| _mm_loadu_ps(from.add(i * from_stride));
        let (mut a, mut b, mut c, mut d) = (row(0), row(1), row(2), row(3));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (i, column) in [a, b, c, d].into_iter().enumerate() {
            _mm_storeu_ps(to.add(i * to_stride), column);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as the caller vouches.
    unsafe {
        for i in 0..SQUARE {
            for j in 0..SQUARE {
                *to.add(j * to_stride + i) = *from.add(i * from_stride + j);
            }
        }
    }
}

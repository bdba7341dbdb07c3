//! Products of bytes, summed in 32 bits: what integer kernels are written against, beside [`Simd`].
//!
//! Activations are 0..=255, weights -127..=127. Sums are exact, so every unit gives the same numbers.
//!
//! A unit without four-byte dot products adds neighbors in 16 bits first (`vpmaddubsw`). That cannot saturate, because
//! weights are quantised so that two neighbors, where both have one sign, are at most 128 together: 255 × 128 < 2¹⁵
//! (`gemm::quantized::quantize_rows`).

use super::simd::Simd;
use super::{Isa, LANES, Portable};

/// A computation over bytes that is compiled for each unit. `run` must be `#[inline(always)]`.
pub(crate) trait DotKernel {
    type Output;
    fn run<D: Dot>(self, dot: D) -> Self::Output;
}

/// Sixteen sums of byte products. Implementors are tokens that only detection can make, which is why the methods are
/// safe to call. Every method must be `#[inline(always)]`: it takes on the features of the `vectorize` around it.
pub(crate) trait Dot: Copy + Send + Sync + 'static {
    /// The set of the floating-point part.
    type S: Simd;
    /// Sixteen 32-bit integers, or sixteen times four bytes.
    type I: Copy;
    /// Rows of the tallest matrix tile whose sums stay in registers.
    const TILE_ROWS: usize;
    /// What a unit that multiplies signed bytes subtracts from activations; the others subtract 0.
    const OFFSET: i32 = 0;

    fn simd(self) -> Self::S;
    /// Runs a kernel with the instructions of this unit enabled, as a function of its own.
    fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output;

    fn splat(self, x: i32) -> Self::I;
    /// Four activations, as they lie in memory, in every lane, less the offset.
    fn spread(self, four: u32) -> Self::I;
    /// sum + Σ a·b over the four bytes of each lane; `a` from `spread`, `b` weights.
    fn dot(self, sum: Self::I, a: Self::I, b: Self::I) -> Self::I;
    fn mul(self, a: Self::I, b: Self::I) -> Self::I;
    fn to_float(self, a: Self::I) -> <Self::S as Simd>::F;
    /// Lanes in 0..=255 as sixteen bytes, rounded to the nearest, ties to even.
    fn to_bytes(self, x: <Self::S as Simd>::F) -> [u8; LANES];

    /// # Safety
    /// `p` is valid for reading 64 bytes; no alignment is asked.
    unsafe fn load(self, p: *const i8) -> Self::I;
    /// # Safety
    /// `p` is valid for reading sixteen integers; no alignment is asked.
    unsafe fn load_sums(self, p: *const i32) -> Self::I;
    /// # Safety
    /// `p` is valid for writing sixteen integers; no alignment is asked.
    unsafe fn store_sums(self, p: *mut i32, a: Self::I);
}

/// A unit of byte products of an instruction set.
#[derive(Clone, Copy, Debug)]
pub enum DotUnit {
    /// Plain Rust; the oracle of the others.
    Portable(Portable),
    /// `vpmaddubsw` on 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2(super::avx2_dot::Pairs),
    /// `vpdpbusd` on 256 bits (AVX-VNNI).
    #[cfg(target_arch = "x86_64")]
    AvxVnni(super::avx2_dot::Vnni),
    /// `vpmaddubsw` on 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512(super::avx512_dot::Pairs),
    /// `vpdpbusd` on 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(super::avx512_dot::Vnni),
    /// Widening products.
    #[cfg(target_arch = "aarch64")]
    Neon(super::neon_dot::Widening),
    /// `sdot`.
    #[cfg(target_arch = "aarch64")]
    NeonDot(super::neon_dot::DotProduct),
}

impl Isa {
    /// The units of byte products that this processor has within the set, the slowest first.
    pub fn dot_units(self) -> Vec<DotUnit> {
        match self {
            Isa::Portable(set) => vec![DotUnit::Portable(set)],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(set) => {
                let vnni = super::avx2_dot::Vnni::new(set).map(DotUnit::AvxVnni);
                [DotUnit::Avx2(super::avx2_dot::Pairs::new(set))].into_iter().chain(vnni).collect()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(set) => {
                let vnni = super::avx512_dot::Vnni::new(set).map(DotUnit::Avx512Vnni);
                [DotUnit::Avx512(super::avx512_dot::Pairs::new(set))].into_iter().chain(vnni).collect()
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(set) => {
                let dot = super::neon_dot::DotProduct::new(set).map(DotUnit::NeonDot);
                [DotUnit::Neon(super::neon_dot::Widening::new(set))].into_iter().chain(dot).collect()
            }
        }
    }

    /// The fastest of them.
    pub fn dot_unit(self) -> DotUnit {
        *self.dot_units().last().expect("every set has a unit")
    }
}

impl DotUnit {
    /// A name for tables.
    pub fn name(self) -> &'static str {
        match self {
            DotUnit::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            DotUnit::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            DotUnit::AvxVnni(_) => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            DotUnit::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            DotUnit::Avx512Vnni(_) => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            DotUnit::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            DotUnit::NeonDot(_) => "neon-dotprod",
        }
    }

    /// Runs a kernel compiled for this unit.
    #[inline]
    pub(crate) fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        match self {
            DotUnit::Portable(unit) => Dot::vectorize(unit, kernel),
            #[cfg(target_arch = "x86_64")]
            DotUnit::Avx2(unit) => unit.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            DotUnit::AvxVnni(unit) => unit.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            DotUnit::Avx512(unit) => unit.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            DotUnit::Avx512Vnni(unit) => unit.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            DotUnit::Neon(unit) => unit.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            DotUnit::NeonDot(unit) => unit.vectorize(kernel),
        }
    }
}

impl Dot for Portable {
    type S = Portable;
    type I = [i32; LANES];
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn simd(self) -> Portable {
        self
    }
    #[inline(never)]
    fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    #[inline(always)]
    fn splat(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn spread(self, four: u32) -> Self::I {
        [four as i32; LANES]
    }
    #[inline(always)]
    fn dot(self, sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| {
            let (a, b) = (a[i].to_le_bytes(), b[i].to_le_bytes());
            (0..4).fold(sum[i], |sum, j| sum + i32::from(a[j]) * i32::from(b[j].cast_signed()))
        })
    }
    #[inline(always)]
    fn mul(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> [f32; LANES] {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    fn to_bytes(self, x: [f32; LANES]) -> [u8; LANES] {
        x.map(|x| x.round_ties_even() as u8)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const i8) -> Self::I {
        // SAFETY: the caller vouches for 64 readable bytes.
        unsafe { p.cast::<[[u8; 4]; LANES]>().read() }.map(i32::from_le_bytes)
    }
    #[inline(always)]
    unsafe fn load_sums(self, p: *const i32) -> Self::I {
        // SAFETY: the caller vouches for sixteen readable integers.
        unsafe { p.cast::<[i32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_sums(self, p: *mut i32, a: Self::I) {
        // SAFETY: the caller vouches for sixteen writable integers.
        unsafe { p.cast::<[i32; LANES]>().write_unaligned(a) }
    }
}

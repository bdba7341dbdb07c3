//! The vector interface that kernels are written against: sixteen `f32` lanes, whatever the registers are.

/// Lanes of [`Simd::F`]. Fixed for every instruction set, so that sums have one order everywhere.
pub(crate) const LANES: usize = 16;

/// A computation that is compiled for each instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Arithmetic on sixteen lanes. Implementors are tokens that only detection can make, which is why the methods are
/// safe to call. Every method must be `#[inline(always)]`: it takes on the features of the `vectorize` around it.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen lanes.
    type F: Copy;
    /// Rows of the tallest matrix tile whose accumulators stay in registers.
    const TILE_ROWS: usize;
    /// Vectors across a packed weight panel.
    const PANEL_VECTORS: usize;
    /// Whether a tile leaves registers for sums beside it (`gemm::strassen`).
    const SPARE_REGISTERS: bool;

    /// Runs a kernel with the instructions of this set enabled, as a function of its own.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    fn splat(self, x: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c with one rounding.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a` where a > b, else `b`: `b` too where one of them is no number, or both are zeros.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a` where a < b, else `b`: `b` too where one of them is no number, or both are zeros.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// 2^n for integral lanes in -127..=127; -127 gives 0.
    fn pow2(self, n: Self::F) -> Self::F;
    fn to_array(self, a: Self::F) -> [f32; LANES];
    fn with_lanes(self, a: [f32; LANES]) -> Self::F;

    /// # Safety
    /// `p` is valid for reading sixteen floats; no alignment is asked.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// `p` is valid for writing sixteen floats; no alignment is asked.
    unsafe fn store(self, p: *mut f32, a: Self::F);
    /// Asks the cache for the line at `p`. Any address is allowed.
    fn prefetch(self, p: *const f32);

    /// The first sixteen values of a slice.
    #[inline(always)]
    fn load_slice(self, x: &[f32]) -> Self::F {
        assert!(x.len() >= LANES);
        // SAFETY: the length was just checked.
        unsafe { self.load(x.as_ptr()) }
    }

    /// Writes the first sixteen values of a slice.
    #[inline(always)]
    fn store_slice(self, x: &mut [f32], a: Self::F) {
        assert!(x.len() >= LANES);
        // SAFETY: the length was just checked.
        unsafe { self.store(x.as_mut_ptr(), a) }
    }

    /// Up to sixteen values; missing lanes take `fill`.
    #[inline(always)]
    fn load_partial(self, x: &[f32], fill: f32) -> Self::F {
        let mut lanes = [fill; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.with_lanes(lanes)
    }

    /// Sum of the lanes as a fixed tree: halves, quarters, eighths, pairs.
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        let mut lanes = self.to_array(a);
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// Largest lane.
    #[inline(always)]
    fn largest(self, a: Self::F) -> f32 {
        self.to_array(a).into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

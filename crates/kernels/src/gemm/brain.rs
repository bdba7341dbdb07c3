//! Products of bfloat16: weights and activations rounded to 16 bits, sums of pairs in 32 bits by one instruction. Only on
//! processors that have it (AVX512_BF16): elsewhere the same numbers would take longer than exact ones.
// On other processors no matrix can be made, and the compiler sees that nothing is reached.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unreachable_code, unused_variables))]

use super::{Output, row_groups};
use crate::Buffer;
use crate::act::Activation;
use crate::bytes::Bytes;
use crate::isa::Isa;
use crate::norm::LayerNorm;
use crate::pool::{Pool, SharedMut};
use crate::vector::{Rows, RowsMut};
use std::ops::Range;

/// The nearest bfloat16, ties to even; what is no number stays none.
#[inline(always)]
fn rounded(x: f32) -> u16 {
    let bits = x.to_bits();
    let nearest = (bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16) as u16;
    if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { nearest }
}

/// Two neighbors of k, as they lie in memory.
#[inline(always)]
fn pair(a: f32, b: f32) -> [i8; 4] {
    (u32::from(rounded(a)) | u32::from(rounded(b)) << 16).to_le_bytes().map(u8::cast_signed)
}

/// Columns of a panel.
const WIDTH: usize = 32;

/// A K × N matrix of bfloat16, packed as `[N / 32][K / 2][32][2]`, zero-padded to whole panels and pairs.
#[derive(Debug)]
pub struct BrainMatrix {
    unit: Unit,
    k: usize,
    n: usize,
    data: Bytes,
}

impl BrainMatrix {
    /// A matrix of zeros, to be filled by rows of outputs. None where the processor, or the instruction set in use, has no
    /// dot products of bfloat16.
    ///
    /// # Panics
    /// Where it is empty.
    pub fn reserve(isa: Isa, k: usize, n: usize) -> Option<Self> {
        assert!(k > 0 && n > 0, "a weight matrix is not empty");
        let unit = unit(isa)?;
        Some(Self { unit, k, n, data: Bytes::zeroed(k.div_ceil(2) * 4 * n.next_multiple_of(WIDTH)) })
    }

    /// Whether an instruction set has what products of bfloat16 need.
    pub fn is_possible(isa: Isa) -> bool {
        unit(isa).is_some()
    }

    /// Rounds and packs outputs from `column` on; `rows`: [outputs, K].
    ///
    /// # Panics
    /// Where the lengths do not fit together.
    pub fn fill(&mut self, column: usize, rows: &[f32]) {
        assert!(rows.len().is_multiple_of(self.k) && column + rows.len() / self.k <= self.n, "columns of the matrix");
        let panel_bytes = self.panel_bytes();
        for (row, values) in rows.chunks_exact(self.k).enumerate() {
            let column = column + row;
            let panel = &mut self.data[column / WIDTH * panel_bytes..][..panel_bytes];
            let lane = column % WIDTH * 4;
            for (group, values) in panel.chunks_exact_mut(WIDTH * 4).zip(values.chunks(2)) {
                group[lane..lane + 4].copy_from_slice(&pair(values[0], values.get(1).copied().unwrap_or(0.0)));
            }
        }
    }

    /// Number of outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    fn panel_bytes(&self) -> usize {
        self.k.div_ceil(2) * 4 * WIDTH
    }

    fn panels(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }
}

/// A matrix of bfloat16 with its bias.
#[derive(Debug)]
pub struct BrainLinear {
    /// The weights, K × N.
    pub weights: BrainMatrix,
    /// The bias, [N] padded to whole panels with zeros.
    bias: Buffer,
}

impl BrainLinear {
    /// Joins weights and an optional bias of length N.
    ///
    /// # Panics
    /// Where the bias has another length.
    pub fn new(weights: BrainMatrix, bias: Option<&[f32]>) -> Self {
        let bias = bias.unwrap_or(&[]);
        assert!(bias.is_empty() || bias.len() == weights.n, "a bias has one value a column");
        let bias = Buffer::padded(bias, weights.n.next_multiple_of(WIDTH));
        Self { weights, bias }
    }
}

/// A product with weights of bfloat16.
#[derive(Clone, Copy)]
pub struct BrainProduct<'a> {
    /// The activations, [M, K].
    pub a: Rows<'a>,
    /// A layer norm that they go through first.
    pub norm: Option<LayerNorm<'a>>,
    /// The weights.
    pub linear: &'a BrainLinear,
    /// What happens to the product.
    pub output: Output,
}

/// Rounded rows: working memory that is used again and again.
#[derive(Debug, Default)]
pub struct BrainRows {
    data: Bytes,
    /// A row after the layer norm.
    normed: Vec<f32>,
    /// Distance of two rows in bytes.
    stride: usize,
    count: usize,
}

impl BrainRows {
    fn fill(&mut self, unit: Unit, x: Rows, norm: Option<&LayerNorm>) {
        if let Some(norm) = norm {
            let width = norm.gamma.len();
            assert!(norm.beta.len() == width && x.width == width, "layer norm of rows of {}, width {width}", x.width);
            self.normed.resize(width.max(self.normed.len()), 0.0);
        }
        // Whole lines, and not a multiple of 1 KiB: all rows of a tile would fall into the same few cache sets.
        self.stride = (4 * x.width.div_ceil(2)).next_multiple_of(64);
        if self.stride.is_multiple_of(512) {
            self.stride += 64;
        }
        self.count = x.count;
        self.data.ensure(x.count * self.stride);
        round_rows(unit, x, norm, self);
    }
}

/// C = act(A B + bias) or C += A B + bias with A rounded to bfloat16, C: [M, N].
///
/// # Panics
/// Where the widths of A and C are not K and N, or their row counts differ.
pub fn brain_gemm(product: &BrainProduct, mut c: RowsMut, scratch: &mut BrainRows) {
    let BrainProduct { a, norm, linear, output } = product;
    check(product, &c);
    let groups = row_groups(a.count, linear.weights.k.div_ceil(2));
    let mut start = 0;
    for left in (1..=groups).rev() {
        let count = (a.count - start).div_ceil(left);
        scratch.fill(linear.weights.unit, a.rows(start, count), norm.as_ref());
        let part = c.rows_mut(start, count);
        let (c, c_stride) = (part.data.as_mut_ptr(), part.stride);
        multiply(Driver { a: scratch, linear, c, c_stride, panels: 0..linear.weights.panels(), output: *output });
        start += count;
    }
}

/// [`brain_gemm`] on all threads of a pool, each with some of the columns.
///
/// # Panics
/// As [`brain_gemm`].
pub fn brain_gemm_on(pool: &Pool, product: &BrainProduct, c: RowsMut, scratch: &mut BrainRows) {
    let BrainProduct { a, norm, linear, output } = product;
    check(product, &c);
    scratch.fill(linear.weights.unit, *a, norm.as_ref());
    let (all, threads) = (linear.weights.panels(), pool.threads());
    let (shared, c_stride, a) = (SharedMut::new(c.data), c.stride, &*scratch);
    pool.run(&|rank| {
        let panels = all * rank / threads..all * (rank + 1) / threads;
        multiply(Driver { a, linear, c: shared.start(), c_stride, panels, output: *output });
    });
}

/// What both products ask of their operands.
fn check(product: &BrainProduct, c: &RowsMut) {
    let (a, k, n) = (product.a, product.linear.weights.k, product.linear.weights.n);
    assert!(a.width == k && c.width == n, "product [{}] x [{k}, {n}] -> [{}]", a.width, c.width);
    assert_eq!(a.count, c.count, "a product has as many rows out as in");
    a.check();
    c.check();
}

/// The columns of some panels of a product.
struct Driver<'a> {
    a: &'a BrainRows,
    linear: &'a BrainLinear,
    c: *mut f32,
    c_stride: usize,
    panels: Range<usize>,
    output: Output,
}

impl Driver<'_> {
    fn activation(&self) -> Activation {
        match self.output {
            Output::Store(activation) => activation,
            Output::Add => Activation::None,
        }
    }
}

#[cfg(target_arch = "x86_64")]
use on_x86::{Unit, multiply, round_rows, unit};

#[cfg(target_arch = "x86_64")]
mod on_x86 {
    use super::super::tile::{Epilogue, Tile, store_tile};
    use super::*;
    use crate::isa::{Avx512Brain, BrainKernel, Kernel, Simd};
    use crate::norm::normalize_row;

    pub(super) type Unit = Avx512Brain;

    pub(super) fn unit(isa: Isa) -> Option<Unit> {
        match isa {
            Isa::Avx512(set) => Avx512Brain::new(set),
            _ => None,
        }
    }

    struct Round<'a, 'b> {
        x: Rows<'a>,
        norm: Option<&'a LayerNorm<'a>>,
        rows: &'b mut BrainRows,
    }

    impl Kernel for Round<'_, '_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            let BrainRows { data, normed, stride, .. } = self.rows;
            for i in 0..self.x.count {
                let row = match self.norm {
                    Some(norm) => {
                        normalize_row(s, norm, self.x.row(i), normed);
                        &normed[..self.x.width]
                    }
                    None => self.x.row(i),
                };
                let out = &mut data[i * *stride..][..*stride];
                let (pairs, odd) = row.as_chunks::<2>();
                for (out, [a, b]) in out.as_chunks_mut::<4>().0.iter_mut().zip(pairs) {
                    *out = pair(*a, *b);
                }
                if let [a] = odd {
                    out[4 * pairs.len()..][..4].copy_from_slice(&pair(*a, 0.0));
                }
            }
        }
    }

    pub(super) fn round_rows(unit: Unit, x: Rows, norm: Option<&LayerNorm>, rows: &mut BrainRows) {
        unit.simd().vectorize(Round { x, norm, rows });
    }

    /// Rows of the tallest tile.
    const TILE_ROWS: usize = 12;

    pub(super) fn multiply(driver: Driver) {
        let BrainLinear { weights, bias } = driver.linear;
        let (count, panel_bytes) = (driver.a.count, weights.panel_bytes());
        let tiles = count.div_ceil(TILE_ROWS);
        for panel in driver.panels.clone() {
            let column = panel * WIDTH;
            let b = &weights.data[panel * panel_bytes..][..panel_bytes];
            let mut row = 0;
            for i in 0..tiles {
                let rows = (count - row).div_ceil(tiles - i);
                let epilogue = Epilogue {
                    bias: bias[column..].as_ptr(),
                    accumulate: driver.output == Output::Add,
                    activation: driver.activation(),
                    row_scale: std::ptr::null(),
                };
                let share = (panel_bytes / 64).div_ceil(tiles);
                let tile = BrainTile {
                    a: driver.a.data[row * driver.a.stride..].as_ptr(),
                    a_stride: driver.a.stride,
                    b: b.as_ptr(),
                    pairs: weights.k.div_ceil(2),
                    ahead: b.as_ptr().wrapping_add(panel_bytes + i * share * 64).cast(),
                    lines: share.div_ceil((weights.k / 8).max(1)).min(8),
                    target: Tile::target(
                        driver.c.wrapping_add(row * driver.c_stride + column),
                        driver.c_stride,
                        (weights.n - column).min(WIDTH),
                        epilogue,
                    ),
                };
                // SAFETY: `check` asserted that C has as many rows of N values as A; `row + rows` stays within them. A's
                // rows and the panel hold whole pairs, the bias is padded to whole panels, and nobody else touches
                // these panels' columns of C meanwhile.
                unsafe { run_tile(weights.unit, rows, tile) };
                row += rows;
            }
        }
    }

    /// One tile: C[rows, columns] = epilogue(A[rows, k] · B[k, panel]).
    #[derive(Clone, Copy)]
    struct BrainTile {
        a: *const i8,
        a_stride: usize,
        /// A packed panel, [pairs][32][2].
        b: *const i8,
        pairs: usize,
        /// What to ask the cache for, and how many lines each four pairs.
        ahead: *const f32,
        lines: usize,
        target: Tile,
    }

    /// A tile of `R` rows. Made only by [`run_tile`], whose contract covers the raw reads and writes.
    struct BrainTileKernel<const R: usize>(BrainTile);

    impl<const R: usize> BrainKernel for BrainTileKernel<R> {
        #[inline(always)]
        fn run(self, unit: Avx512Brain) {
            let (t, s) = (self.0, unit.simd());
            let mut sums = [[s.splat(0.0); 2]; R];
            let (mut a, mut b, mut ahead) = (t.a, t.b, t.ahead);
            for step in 0..t.pairs {
                if step % 4 == 0 {
                    for _ in 0..t.lines {
                        s.prefetch(ahead);
                        ahead = ahead.wrapping_add(16);
                    }
                }
                // SAFETY: the contract of `run_tile`: R rows of pairs at `a`, pairs × 128 bytes at `b`.
                unsafe {
                    let (left, right) = (unit.load(b), unit.load(b.add(64)));
                    for r in 0..R {
                        let x = unit.spread(a.add(r * t.a_stride).cast::<u32>().read_unaligned());
                        sums[r][0] = unit.dot(sums[r][0], x, left);
                        sums[r][1] = unit.dot(sums[r][1], x, right);
                    }
                    a = a.add(4);
                    b = b.add(128);
                }
            }
            // SAFETY: the contract of `run_tile` covers the target.
            unsafe { store_tile(s, &t.target, &sums) };
        }
    }

    /// # Safety
    /// `a` has `rows` readable rows of pairs × 4 bytes, `b` pairs × 128 bytes; the target has as many writable rows of its
    /// columns that nothing else accesses meanwhile, and its bias 32 values.
    unsafe fn run_tile(unit: Avx512Brain, rows: usize, tile: BrainTile) {
        macro_rules! select {
            ($($r:literal)+) => {
                match rows {
                    $($r => unit.vectorize(BrainTileKernel::<$r>(tile)),)+
                    _ => unreachable!("a tile of {rows} rows"),
                }
            };
        }
        select!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

#[cfg(not(target_arch = "x86_64"))]
use elsewhere::{Unit, multiply, round_rows, unit};

/// No such products: nothing here can be reached, since no matrix can be made.
#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    pub(super) enum Unit {}

    pub(super) fn unit(_: Isa) -> Option<Unit> {
        None
    }

    pub(super) fn round_rows(unit: Unit, _: Rows, _: Option<&LayerNorm>, _: &mut BrainRows) {
        match unit {}
    }

    pub(super) fn multiply(driver: Driver) {
        match driver.linear.weights.unit {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::testing::uniform;

    fn widened(x: f32) -> f64 {
        f64::from(f32::from_bits(u32::from(rounded(x)) << 16))
    }

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        for (x, want) in [
            (1.0, 0x3F80),
            (f32::from_bits(0x3F80_8000), 0x3F80),
            (f32::from_bits(0x3F81_8000), 0x3F82),
            (f32::from_bits(0x3F80_8001), 0x3F81),
            (-0.0, 0x8000),
            (f32::INFINITY, 0x7F80),
            (f32::MAX, 0x7F80),
        ] {
            assert_eq!(rounded(x), want, "{x}");
        }
        assert!(f32::from_bits(u32::from(rounded(f32::NAN)) << 16).is_nan());
    }

    #[test]
    fn matches_the_product_of_rounded_values_alone_and_on_threads() {
        for isa in Isa::present() {
            for (m, k, n) in [(1, 1, 1), (13, 37, 45), (40, 768, 96), (101, 192, 200)] {
                let (a, w, bias) = (uniform(1, m * k), uniform(2, n * k), uniform(3, n));
                let Some(mut matrix) = BrainMatrix::reserve(isa, k, n) else {
                    assert!(!BrainMatrix::is_possible(isa));
                    continue;
                };
                matrix.fill(0, &w[..n / 2 * k]);
                matrix.fill(n / 2, &w[n / 2 * k..]);
                let linear = BrainLinear::new(matrix, Some(&bias));
                let product = BrainProduct { a: Rows::new(&a, m, k), norm: None, linear: &linear, output: Output::Add };
                let (mut alone, mut shared) = (vec![0.5; m * n], vec![0.5; m * n]);
                brain_gemm(&product, RowsMut::new(&mut alone, m, n), &mut BrainRows::default());
                for i in 0..m {
                    for j in 0..n {
                        let dot: f64 = (0..k).map(|t| widened(a[i * k + t]) * widened(w[j * k + t])).sum();
                        let (got, want) = (f64::from(alone[i * n + j]), dot + f64::from(bias[j]) + 0.5);
                        assert!((got - want).abs() < 4e-6 * (k as f64).sqrt().max(1.0), "{m}x{k}x{n} {got} {want}");
                    }
                }
                let pool = Pool::new(3);
                brain_gemm_on(&pool, &product, RowsMut::new(&mut shared, m, n), &mut BrainRows::default());
                assert_eq!(alone, shared, "{m}x{k}x{n}");
                let one = BrainProduct { a: Rows::new(&a[..k], 1, k), ..product };
                let mut row = vec![0.5; n];
                brain_gemm(&one, RowsMut::new(&mut row, 1, n), &mut BrainRows::default());
                assert_eq!(row[..], alone[..n], "{m}x{k}x{n}");
            }
        }
    }
}

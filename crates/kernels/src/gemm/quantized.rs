//! Products of bytes: weights of one scale an output, activations of one scale a row, exact sums in 32 bits.
//!
//! y = s t Σ (q - zero) w + bias for a row of scale s and a column of scale t. The sums are exact and what follows is
//! the same few operations everywhere, so results are the same bits on every instruction set and for any number of
//! rows and threads. The scheme, with what else was measured, is in `bench/NOTES.md`.

use super::quantized_rows::QuantizedRows;
use super::tile::{Epilogue, Tile, store_tile};
use super::{Output, row_groups};
use crate::Buffer;
use crate::act::{self, Activation, CoarseGelu};
use crate::bytes::Bytes;
use crate::isa::{Dot, DotKernel, DotUnit, Isa, Kernel, LANES, Simd};
use crate::norm::LayerNorm;
use crate::pool::{Pool, SharedMut};
use crate::vector::{Rows, RowsMut};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most inputs of a quantised matrix: 255 × 127 × this is below 2³¹.
pub const LONGEST_QUANTIZED: usize = 66_000;

/// Most fours of K whose panel stays in the first-level cache beside a tile's rows; the rest comes in further chunks.
const LONGEST_CHUNK: usize = 192;

/// Vectors of sums that are kept between chunks.
const PARTIAL_VECTORS: usize = 96;

/// Largest weight.
const LARGEST: f32 = 127.0;

/// Quantises rows of weights [rows, k] (one row an output): w ≈ scale q, q in -127..=127.
///
/// The scale is the largest of |a|, |b| and |a + b| over all neighbors (a, b), divided by 127. So two neighbors of one
/// sign are together at most 128, and 16 bits hold their products with two activations of up to 255 (`isa::dot`). On
/// normally distributed weights this makes the scale a third larger than |w| alone would, which is less than the half
/// of the activations' precision that 7 bits would cost.
///
/// # Panics
/// Where the lengths do not fit together.
pub fn quantize_weights(isa: Isa, weights: &[f32], k: usize, out: &mut [i8], scales: &mut [f32]) {
    assert!(weights.len() == out.len() && weights.len() == scales.len() * k, "rows of {k}");
    isa.run(QuantizeWeights { weights, k, out, scales });
}

struct QuantizeWeights<'a> {
    weights: &'a [f32],
    k: usize,
    out: &'a mut [i8],
    scales: &'a mut [f32],
}

impl Kernel for QuantizeWeights<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        /// 1.5 × 2²³: a small number plus this is rounded to a whole one, ties to even, in its lowest bits.
        const MAGIC: f32 = 12_582_912.0;
        for ((row, out), scale) in
            self.weights.chunks_exact(self.k).zip(self.out.chunks_exact_mut(self.k)).zip(self.scales)
        {
            // Positive floats are in the order of their bits, and integers vectorise.
            let bits = |x: f32| x.to_bits() & 0x7FFF_FFFF;
            let (pairs, odd) = row.as_chunks::<2>();
            let largest = pairs.iter().fold(0, |most: u32, [a, b]| most.max(bits(*a)).max(bits(*b)).max(bits(a + b)));
            let largest = f32::from_bits(odd.iter().fold(largest, |most, a| most.max(bits(*a))));
            *scale = largest / LARGEST;
            let inverse = if *scale > f32::MIN_POSITIVE { LARGEST / largest } else { 0.0 };
            for (q, w) in out.iter_mut().zip(row) {
                *q = (w * inverse + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i8;
            }
        }
    }
}

/// A K × N matrix of bytes, packed as `[N / panel][K / 4][panel][4]`, zero-padded to whole panels and fours.
#[derive(Debug)]
pub struct QuantizedMatrix {
    unit: DotUnit,
    k: usize,
    n: usize,
    vectors: usize,
    data: Bytes,
    /// By column, padded to whole panels: scale, and scale × sum of the weights.
    scales: Buffer,
    scaled_sums: Buffer,
    sums: Vec<i32>,
}

impl QuantizedMatrix {
    /// A matrix of zeros, to be filled by rows of outputs.
    ///
    /// # Panics
    /// Where it is empty, or K is over [`LONGEST_QUANTIZED`].
    pub fn reserve(isa: Isa, k: usize, n: usize) -> Self {
        Self::reserve_for(isa.dot_unit(), isa.panel_vectors(), k, n)
    }

    fn reserve_for(unit: DotUnit, vectors: usize, k: usize, n: usize) -> Self {
        assert!(k > 0 && n > 0 && k <= LONGEST_QUANTIZED, "a [{k}, {n}] matrix cannot be quantised");
        let padded = n.next_multiple_of(vectors * LANES);
        let data = Bytes::zeroed(k.next_multiple_of(4) * padded);
        let (scales, scaled_sums, sums) = (Buffer::zeroed(padded), Buffer::zeroed(padded), vec![0; padded]);
        Self { unit, k, n, vectors, data, scales, scaled_sums, sums }
    }

    /// Packs outputs `column..column + scales.len()`: `q`: [outputs, K].
    ///
    /// # Panics
    /// Where the lengths do not fit together.
    pub fn fill(&mut self, column: usize, q: &[i8], scales: &[f32]) {
        let fits = q.len() == scales.len() * self.k && column + scales.len() <= self.n;
        assert!(fits, "columns of a [{}, {}] matrix", self.k, self.n);
        let (width, panel_bytes) = (self.panel_width(), self.panel_bytes());
        for (row, (q, scale)) in q.chunks_exact(self.k).zip(scales).enumerate() {
            let column = column + row;
            let sum: i32 = q.iter().map(|q| i32::from(*q)).sum();
            self.sums[column] = sum;
            self.scales[column] = *scale;
            self.scaled_sums[column] = scale * sum as f32;
            let panel = &mut self.data[column / width * panel_bytes..][..panel_bytes];
            let lane = column % width * 4;
            let (fours, rest) = q.as_chunks::<4>();
            for (group, four) in panel.chunks_exact_mut(width * 4).zip(fours) {
                group[lane..lane + 4].copy_from_slice(four);
            }
            let at = fours.len() * width * 4 + lane;
            panel[at.min(panel_bytes)..][..rest.len()].copy_from_slice(rest);
        }
    }

    /// The weights as [N, K] and their scales, `[N]`: exact, for conversions and tests.
    pub fn unpack(&self) -> (Vec<i8>, Vec<f32>) {
        let (width, panel_bytes) = (self.panel_width(), self.panel_bytes());
        let at =
            |column: usize, t: usize| column / width * panel_bytes + t / 4 * width * 4 + column % width * 4 + t % 4;
        let q = (0..self.n * self.k).map(|i| self.data[at(i / self.k, i % self.k)]).collect();
        (q, self.scales[..self.n].to_vec())
    }

    /// Number of inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Bytes that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.scales.len() * (2 * size_of::<f32>() + size_of::<i32>())
    }

    fn panel_width(&self) -> usize {
        self.vectors * LANES
    }

    fn panels(&self) -> usize {
        self.n.div_ceil(self.panel_width())
    }

    /// Fours of inputs.
    fn groups(&self) -> usize {
        self.k.div_ceil(4)
    }

    fn panel_bytes(&self) -> usize {
        self.groups() * 4 * self.panel_width()
    }
}

/// A quantised weight matrix with its bias.
#[derive(Debug)]
pub struct QuantizedLinear {
    /// The weights, K × N.
    pub weights: QuantizedMatrix,
    /// The bias, [N] padded to whole panels with zeros; all zeros where there is none.
    bias: Buffer,
}

impl QuantizedLinear {
    /// Joins weights and an optional bias of length N.
    ///
    /// # Panics
    /// Where the bias has another length.
    pub fn new(weights: QuantizedMatrix, bias: Option<&[f32]>) -> Self {
        let bias = bias.unwrap_or(&[]);
        assert!(bias.is_empty() || bias.len() == weights.n, "a bias has one value a column");
        let bias = Buffer::padded(bias, weights.scales.len());
        Self { weights, bias }
    }
}

/// A product with quantised weights.
#[derive(Clone, Copy)]
pub struct QuantizedProduct<'a> {
    /// The activations, [M, K].
    pub a: Rows<'a>,
    /// A layer norm that they go through first.
    pub norm: Option<LayerNorm<'a>>,
    /// The weights.
    pub linear: &'a QuantizedLinear,
    /// What happens to the product.
    pub output: Output,
}

/// C = act(A B + bias) or C += A B + bias with A quantised row by row, C: [M, N].
///
/// A GELU is that of `act::coarse` (error 1e-4): its values become bytes next.
///
/// # Panics
/// Where the widths of A and C are not K and N, or their row counts differ.
pub fn quantized_gemm(product: &QuantizedProduct, mut c: RowsMut, scratch: &mut QuantizedRows) {
    let QuantizedProduct { a, norm, linear, output } = product;
    check(product, &c);
    let groups = row_groups(a.count, linear.weights.k.div_ceil(size_of::<f32>()));
    let mut start = 0;
    for left in (1..=groups).rev() {
        let count = (a.count - start).div_ceil(left);
        scratch.fill(linear.weights.unit, a.rows(start, count), norm.as_ref());
        let part = c.rows_mut(start, count);
        let panels = 0..linear.weights.panels();
        let driver =
            Driver { a: scratch, linear, c: part.data.as_mut_ptr(), c_stride: part.stride, panels, output: *output };
        linear.weights.unit.run(driver);
        start += count;
    }
}

/// [`quantized_gemm`] on all threads of a pool, each with some of the columns.
///
/// # Panics
/// As [`quantized_gemm`].
pub fn quantized_gemm_on(pool: &Pool, product: &QuantizedProduct, c: RowsMut, scratch: &mut QuantizedRows) {
    let QuantizedProduct { a, norm, linear, output } = product;
    check(product, &c);
    scratch.fill(linear.weights.unit, *a, norm.as_ref());
    let (all, threads) = (linear.weights.panels(), pool.threads());
    let (shared, c_stride, a) = (SharedMut::new(c.data), c.stride, &*scratch);
    pool.run(&|rank| {
        let panels = all * rank / threads..all * (rank + 1) / threads;
        linear.weights.unit.run(Driver { a, linear, c: shared.start(), c_stride, panels, output: *output });
    });
}

/// What both products ask of their operands.
fn check(product: &QuantizedProduct, c: &RowsMut) {
    let (a, k, n) = (product.a, product.linear.weights.k, product.linear.weights.n);
    assert!(a.width == k && c.width == n, "product [{}] x [{k}, {n}] -> [{}]", a.width, c.width);
    assert_eq!(a.count, c.count, "a product has as many rows out as in");
    a.check();
    c.check();
}

/// The columns of some panels of a product. C is given by its first element and the distance of its rows, so that
/// several drivers can write disjoint panels of one matrix.
struct Driver<'a> {
    a: &'a QuantizedRows,
    linear: &'a QuantizedLinear,
    c: *mut f32,
    c_stride: usize,
    panels: Range<usize>,
    output: Output,
}

impl DotKernel for Driver<'_> {
    type Output = ();
    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let QuantizedLinear { weights, bias } = self.linear;
        let (count, panel_bytes) = (self.a.count(), weights.panel_bytes());
        assert!(self.a.width() == weights.k && D::S::PANEL_VECTORS == weights.vectors);
        let epilogue = Epilogue {
            bias: std::ptr::null(),
            accumulate: self.output == Output::Add,
            activation: match self.output {
                Output::Store(activation) => activation,
                Output::Add => Activation::None,
            },
            row_scale: std::ptr::null(),
        };
        let chunks = weights.groups().div_ceil(LONGEST_CHUNK);
        let chunk = weights.groups().div_ceil(chunks);
        // Sums of the chunks before, where a panel is not worked on in one piece.
        let mut partial = [const { MaybeUninit::<[i32; LANES]>::uninit() }; PARTIAL_VECTORS];
        let most_rows =
            if chunks > 1 { PARTIAL_VECTORS / weights.vectors / D::TILE_ROWS * D::TILE_ROWS } else { count };
        for panel in self.panels.clone() {
            let column = panel * weights.panel_width();
            let b = &weights.data[panel * panel_bytes..][..panel_bytes];
            let mut start = 0;
            while start < count {
                let rows_of_block = most_rows.min(count - start);
                for index in 0..chunks {
                    let (from, to) = (index * chunk, ((index + 1) * chunk).min(weights.groups()));
                    let b = &b[from * weights.panel_width() * 4..to * weights.panel_width() * 4];
                    let tiles = rows_of_block.div_ceil(D::TILE_ROWS);
                    let mut row = start;
                    for i in 0..tiles {
                        let rows = (start + rows_of_block - row).div_ceil(tiles - i);
                        let tile = DotTile {
                            a: self.a.bytes_from(row)[4 * from..].as_ptr(),
                            a_stride: self.a.stride(),
                            row_scales: self.a.scales_from(row).as_ptr(),
                            b: b.as_ptr(),
                            groups: to - from,
                            partial: partial[if chunks > 1 { (row - start) * weights.vectors } else { 0 }..]
                                .as_mut_ptr()
                                .cast(),
                            first: index == 0,
                            last: index + 1 == chunks,
                            scales: weights.scales[column..].as_ptr(),
                            scaled_sums: weights.scaled_sums[column..].as_ptr(),
                            sums: weights.sums[column..].as_ptr(),
                            bias: bias[column..].as_ptr(),
                            ahead: Ahead::share(b, to - from, i, tiles),
                            target: Tile::target(
                                self.c.wrapping_add(row * self.c_stride + column),
                                self.c_stride,
                                (weights.n - column).min(weights.panel_width()),
                                epilogue,
                            ),
                        };
                        // SAFETY: `check` asserted that C has as many rows of N values as A; `row + rows` stays within
                        // them. A's rows are padded to whole fours, a chunk holds groups × panel width × 4 weights,
                        // everything by column is padded to whole panels, a block's rows have their partial sums, and
                        // nobody else touches these panels' columns of C meanwhile.
                        unsafe { run_tile(d, rows, weights.vectors, tile) };
                        row += rows;
                    }
                }
                start += rows_of_block;
            }
        }
    }
}

/// The part of the next panel that a tile asks the cache for while it computes.
#[derive(Clone, Copy)]
struct Ahead {
    start: *const f32,
    /// Cache lines for each four groups.
    lines: usize,
}

impl Ahead {
    /// Panels follow one another in memory: tile `i` of `tiles` asks for slice `i` of what comes after `panel`. The last
    /// panel of a matrix runs past its end, which a prefetch may.
    #[inline(always)]
    fn share(panel: &[i8], groups: usize, i: usize, tiles: usize) -> Ahead {
        let share = (panel.len() / 64).div_ceil(tiles);
        Ahead {
            start: panel.as_ptr().wrapping_add(panel.len() + i * share * 64).cast(),
            lines: share.div_ceil((groups / 4).max(1)).min(8),
        }
    }
}

/// One tile: C[rows, columns] = epilogue(A[rows, k] · B[k, panel]).
#[derive(Clone, Copy)]
struct DotTile {
    a: *const i8,
    a_stride: usize,
    row_scales: *const [f32; 2],
    /// A packed panel, [groups][vectors × 16][4].
    b: *const i8,
    groups: usize,
    /// Sums so far, [R][V][16], where this is not the first chunk of K; where it is not the last, they go there.
    partial: *mut i32,
    first: bool,
    last: bool,
    scales: *const f32,
    scaled_sums: *const f32,
    sums: *const i32,
    bias: *const f32,
    ahead: Ahead,
    target: Tile,
}

/// A tile of `R` rows and `V` vectors. Made only by [`run_tile`], whose contract covers the raw reads and writes.
struct DotTileKernel<const R: usize, const V: usize>(DotTile);

impl<const R: usize, const V: usize> DotTileKernel<R, V> {
    /// # Safety
    /// `a` has R readable rows of groups × 4 bytes, `b` groups × V × 64 bytes; `row_scales` has R elements, all that is by
    /// column V × 16; `partial` R × V × 16 that are set unless this is the first chunk; the target has R writable rows of its columns that nothing else accesses meanwhile.
    #[inline(always)]
    unsafe fn new(tile: DotTile) -> Self {
        Self(tile)
    }
}

impl<const R: usize, const V: usize> DotKernel for DotTileKernel<R, V> {
    type Output = ();
    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let (t, s) = (self.0, d.simd());
        let mut sums = [[d.splat(0); V]; R];
        if !t.first {
            for r in 0..R {
                for v in 0..V {
                    // SAFETY: the contract of `new`.
                    sums[r][v] = unsafe { d.load_sums(t.partial.add((r * V + v) * LANES)) };
                }
            }
        } else if D::OFFSET != 0 {
            // Σ (q - 128) w + 128 Σ w = Σ q w
            for v in 0..V {
                // SAFETY: the contract of `new`: V × 16 sums.
                let start = unsafe { d.mul(d.load_sums(t.sums.add(v * LANES)), d.splat(D::OFFSET)) };
                for r in 0..R {
                    sums[r][v] = start;
                }
            }
        }
        let (mut a, mut b, mut ahead) = (t.a, t.b, t.ahead.start);
        // SAFETY: the contract of `new`: R rows of groups × 4 bytes at `a`, groups × V × 64 at `b`; prefetches are
        // unbounded.
        unsafe {
            for _ in 0..t.groups / 4 {
                for _ in 0..t.ahead.lines {
                    s.prefetch(ahead);
                    ahead = ahead.wrapping_add(LANES);
                }
                for step in 0..4 {
                    accumulate::<D, R, V>(d, a.add(4 * step), t.a_stride, b.add(step * V * 64), &mut sums);
                }
                a = a.add(16);
                b = b.add(4 * V * 64);
            }
            for step in 0..t.groups % 4 {
                accumulate::<D, R, V>(d, a.add(4 * step), t.a_stride, b.add(step * V * 64), &mut sums);
            }
        }
        if !t.last {
            for r in 0..R {
                for v in 0..V {
                    // SAFETY: the contract of `new`.
                    unsafe { d.store_sums(t.partial.add((r * V + v) * LANES), sums[r][v]) };
                }
            }
            return;
        }
        let mut values = [[s.splat(0.0); V]; R];
        for v in 0..V {
            // SAFETY: the contract of `new`: everything by column has V × 16 elements, `row_scales` R.
            unsafe {
                let scale = s.load(t.scales.add(v * LANES));
                let scaled_sum = s.load(t.scaled_sums.add(v * LANES));
                let bias = s.load(t.bias.add(v * LANES));
                for r in 0..R {
                    let [row_scale, row_shift] = *t.row_scales.add(r);
                    let shift = s.fma(s.splat(-row_shift), scaled_sum, bias);
                    values[r][v] = s.fma(d.to_float(sums[r][v]), s.mul(s.splat(row_scale), scale), shift);
                }
            }
        }
        // SAFETY: the contract of `new` covers the target; it has neither bias nor row scale.
        unsafe {
            match act::coarse(t.target.epilogue.activation) {
                Some(form) => store_coarse(s, form, &t.target, &values),
                None => store_tile(s, &t.target, &values),
            }
        }
    }
}

/// Stores the GELU of a tile. The values go through memory, so that the loop stays one.
///
/// # Safety
/// The contract of [`DotTileKernel::new`] for the target.
#[inline(always)]
unsafe fn store_coarse<S: Simd, const R: usize, const V: usize>(
    s: S,
    form: &CoarseGelu,
    t: &Tile,
    values: &[[S::F; V]; R],
) {
    let mut spilled = [[const { MaybeUninit::<[f32; LANES]>::uninit() }; V]; R];
    for r in 0..R {
        for v in 0..V {
            // SAFETY: an element of the array has room for sixteen floats.
            unsafe { s.store(spilled[r][v].as_mut_ptr().cast(), values[r][v]) };
        }
    }
    for (r, row) in spilled.iter().enumerate() {
        for (v, vector) in row.iter().enumerate() {
            let column = v * LANES;
            if column >= t.columns {
                continue;
            }
            // SAFETY: this vector was stored above, and row r has `columns` values from the target's start on.
            unsafe {
                let c = t.c.add(r * t.c_stride + column);
                let y = form.apply(s, s.load(vector.as_ptr().cast()));
                if column + LANES <= t.columns {
                    s.store(c, y);
                } else {
                    std::ptr::copy_nonoverlapping(s.to_array(y).as_ptr(), c, t.columns - column);
                }
            }
        }
    }
}

/// Four steps of k: every row's four bytes times the panel's vectors.
///
/// # Safety
/// `a` is readable at r × stride for each r < R, four bytes; `b` at V × 64 bytes.
#[inline(always)]
unsafe fn accumulate<D: Dot, const R: usize, const V: usize>(
    d: D,
    a: *const i8,
    stride: usize,
    b: *const i8,
    sums: &mut [[D::I; V]; R],
) {
    // SAFETY: as the caller vouches.
    unsafe {
        let b: [D::I; V] = std::array::from_fn(|v| d.load(b.add(v * 64)));
        for r in 0..R {
            let x = d.spread(a.add(r * stride).cast::<u32>().read_unaligned());
            for v in 0..V {
                sums[r][v] = d.dot(sums[r][v], x, b[v]);
            }
        }
    }
}

/// The inner loop of the tallest tile over operands that stay in the first-level cache: what the unit can do at best.
pub(crate) struct DotBurst<'a> {
    /// At least [`DotBurst::BYTES`] bytes.
    pub(crate) data: &'a [i8],
}

impl DotBurst<'_> {
    /// Fours of inputs of one pass.
    const GROUPS: usize = 64;
    /// A panel, and before it all rows.
    pub(crate) const BYTES: usize = 12 * 4 * Self::GROUPS + 2 * 64 * Self::GROUPS;

    #[inline(always)]
    fn tile<D: Dot, const R: usize, const V: usize>(&self, d: D) -> u64 {
        assert!(self.data.len() >= Self::BYTES && R <= 12 && V <= 2);
        let mut sums = [[d.splat(0); V]; R];
        const PASSES: usize = 16;
        for _ in 0..PASSES {
            for group in 0..Self::GROUPS {
                // SAFETY: R rows of GROUPS × 4 bytes and after them GROUPS × V × 64 bytes lie within the data.
                unsafe {
                    let start = self.data.as_ptr();
                    let b = start.add(12 * 4 * Self::GROUPS + group * V * 64);
                    accumulate::<D, R, V>(d, start.add(4 * group), 4 * Self::GROUPS, b, &mut sums);
                }
            }
        }
        for sums in sums {
            std::hint::black_box(sums.map(|sum| d.simd().to_array(d.to_float(sum))));
        }
        (2 * 4 * R * V * LANES * Self::GROUPS * PASSES) as u64
    }
}

impl DotKernel for DotBurst<'_> {
    type Output = u64;
    #[inline(always)]
    fn run<D: Dot>(self, d: D) -> u64 {
        match (D::TILE_ROWS, D::S::PANEL_VECTORS) {
            (4, 1) => self.tile::<D, 4, 1>(d),
            (12, 2) => self.tile::<D, 12, 2>(d),
            _ => self.tile::<D, 6, 1>(d),
        }
    }
}

/// Calls the kernel of the right height and width.
macro_rules! select {
    ($d:ident, $tile:ident, $rows:ident, $vectors:ident; $($r:literal)+) => {
        match ($rows, $vectors) {
            $(
                ($r, 1) if $r <= D::TILE_ROWS => $d.vectorize(unsafe_tile::<$r, 1>($tile)),
                ($r, 2) if $r <= D::TILE_ROWS && D::S::PANEL_VECTORS >= 2 => $d.vectorize(unsafe_tile::<$r, 2>($tile)),
            )+
            _ => unreachable!("a tile of {} rows and {} vectors", $rows, $vectors),
        }
    };
}

/// # Safety
/// The contract of [`DotTileKernel::new`] for `rows` rows and `vectors` vectors.
#[inline(always)]
unsafe fn run_tile<D: Dot>(d: D, rows: usize, vectors: usize, tile: DotTile) {
    /// Only called by `run_tile`, whose caller keeps the contract.
    #[inline(always)]
    fn unsafe_tile<const R: usize, const V: usize>(tile: DotTile) -> DotTileKernel<R, V> {
        // SAFETY: `run_tile` has the same contract.
        unsafe { DotTileKernel::new(tile) }
    }
    select!(d, tile, rows, vectors; 1 2 3 4 5 6 7 8 9 10 11 12);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norm::layer_norm;
    use crate::vector::testing::uniform;

    /// Every unit of byte products with the width of its panels.
    fn units() -> Vec<(DotUnit, usize)> {
        Isa::present()
            .into_iter()
            .flat_map(|isa| isa.dot_units().into_iter().map(move |u| (u, isa.panel_vectors())))
            .collect()
    }

    fn quantised(unit: (DotUnit, usize), w: &[f32], bias: Option<&[f32]>, k: usize) -> QuantizedLinear {
        let n = w.len() / k;
        let (mut q, mut scales) = (vec![0; n * k], vec![0.0; n]);
        quantize_weights(Isa::best(), w, k, &mut q, &mut scales);
        let mut matrix = QuantizedMatrix::reserve_for(unit.0, unit.1, k, n);
        // By parts, as loading does.
        let cut = n / 3;
        matrix.fill(0, &q[..cut * k], &scales[..cut]);
        matrix.fill(cut, &q[cut * k..], &scales[cut..]);
        assert_eq!(matrix.unpack(), (q, scales));
        QuantizedLinear::new(matrix, bias)
    }

    fn run(linear: &QuantizedLinear, a: Rows, output: Output, c: &mut [f32]) {
        let (m, n) = (a.count, linear.weights.n());
        let product = QuantizedProduct { a, norm: None, linear, output };
        quantized_gemm(&product, RowsMut::new(c, m, n), &mut QuantizedRows::default());
    }

    /// The scheme in plain terms and f64: quantised operands, exact sums.
    fn oracle(a: &[f32], w: &[f32], bias: &[f32], (m, k, n): (usize, usize, usize)) -> Vec<f64> {
        let (mut q, mut scales) = (vec![0; n * k], vec![0.0; n]);
        quantize_weights(Isa::present()[0], w, k, &mut q, &mut scales);
        let mut c = Vec::new();
        for row in a.chunks_exact(k) {
            let (low, high) = row.iter().fold((0f32, 0f32), |(low, high), x| (low.min(*x), high.max(*x)));
            let inverse = 255.0 / (high - low);
            let zero = (-low * inverse).round_ties_even();
            let bytes: Vec<f32> =
                row.iter().map(|x| x.mul_add(inverse, zero).clamp(0.0, 255.0).round_ties_even()).collect();
            for j in 0..n {
                let sum: f64 = (0..k).map(|t| f64::from(bytes[t] - zero) * f64::from(q[j * k + t])).sum();
                c.push(sum * f64::from((high - low) / 255.0) * f64::from(scales[j]) + f64::from(bias[j]));
            }
        }
        assert_eq!(c.len(), m * n);
        c
    }

    fn shapes() -> Vec<(usize, usize, usize)> {
        let mut shapes = vec![(1, 1, 1), (5, 3, 2), (0, 8, 8), (101, 192, 576), (40, 1600, 33), (13, 1030, 40)];
        for m in 1..=26 {
            shapes.push((m, 17 + m, 15 + 2 * m));
        }
        if cfg!(miri) {
            shapes.retain(|(m, k, n)| m * k * n <= 3_000);
        }
        shapes
    }

    #[test]
    fn every_unit_gives_the_same_bits_and_they_are_the_oracle() {
        for (m, k, n) in shapes() {
            let (a, w, bias) = (uniform(1, m * k), uniform(2, n * k), uniform(3, n));
            let want = oracle(&a, &w, &bias, (m, k, n));
            let mut first: Option<Vec<f32>> = None;
            for unit in units() {
                let linear = quantised(unit, &w, Some(&bias), k);
                let mut c = vec![f32::NAN; m * n];
                run(&linear, Rows::new(&a, m, k), Output::Store(Activation::None), &mut c);
                for (got, want) in c.iter().zip(&want) {
                    let bound = 2e-6 * (k as f64).sqrt();
                    assert!((f64::from(*got) - want).abs() <= bound, "{} {m}x{k}x{n} {got} {want}", unit.0.name());
                }
                assert_eq!(first.get_or_insert_with(|| c.clone()), &c, "{} {m}x{k}x{n}", unit.0.name());
            }
        }
    }

    /// Weights and activations at their limits: what 16 bits hold, and 32 for the longest matrix.
    #[test]
    fn nothing_saturates() {
        let lengths: &[usize] = if cfg!(miri) { &[8] } else { &[8, 4096, LONGEST_QUANTIZED] };
        for &k in lengths {
            let a: Vec<f32> = (0..k).map(|i| if i % 4 == 3 { -0.0 } else { 3.0 }).collect();
            // Each as large as its neighbors allow, all of one sign; then each alone at the limit.
            let w: Vec<f32> = (0..2 * k).map(|i| if i < k { 1.0 } else { [1.0, 0.0, 1.0, 0.0][i % 4] }).collect();
            let mut first: Option<Vec<f32>> = None;
            for unit in units() {
                let linear = quantised(unit, &w, None, k);
                let mut c = vec![0.0; 2];
                run(&linear, Rows::new(&a, 1, k), Output::Store(Activation::None), &mut c);
                let want = [k as f32 / 4.0 * 3.0 * 3.0, k as f32 / 4.0 * 2.0 * 3.0];
                for (got, want) in c.iter().zip(want) {
                    assert!((got / want - 1.0).abs() < 0.01, "{} {k}: {got} {want}", unit.0.name());
                }
                assert_eq!(first.get_or_insert_with(|| c.clone()), &c, "{} {k}", unit.0.name());
            }
        }
    }

    #[test]
    fn neighbors_of_one_sign_are_at_most_128_together() {
        for seed in 0..50 {
            let (n, k) = (4, 37);
            let w: Vec<f32> = uniform(seed, n * k).iter().map(|x| x * x * x).collect();
            let (mut q, mut scales) = (vec![0; n * k], vec![0.0; n]);
            quantize_weights(Isa::best(), &w, k, &mut q, &mut scales);
            for (i, row) in q.chunks_exact(k).enumerate() {
                for pair in row.chunks(2) {
                    let sum: i32 = pair.iter().map(|q| i32::from(*q)).sum();
                    assert!(sum.abs() <= 128 && pair.iter().all(|q| *q > -128), "{pair:?}");
                }
                for (q, w) in row.iter().zip(&w[i * k..]) {
                    assert!((f32::from(*q) * scales[i] - w).abs() <= scales[i] * 0.500_1);
                }
            }
        }
    }

    #[test]
    fn residuals_activations_and_columns_on_several_threads() {
        let (m, k, n) = if cfg!(miri) { (5, 30, 3) } else { (23, 1700, 75) };
        let (a, w, bias) = (uniform(1, m * k), uniform(2, n * k), uniform(3, n));
        for unit in units() {
            let linear = quantised(unit, &w, Some(&bias), k);
            let mut plain = vec![0.0; m * n];
            run(&linear, Rows::new(&a, m, k), Output::Store(Activation::None), &mut plain);
            for output in [Output::Store(Activation::GeluErf), Output::Add] {
                let mut alone = vec![1.5; m * n];
                run(&linear, Rows::new(&a, m, k), output, &mut alone);
                let mut want = plain.clone();
                match output {
                    Output::Store(activation) => crate::act::activate(Isa::best(), activation, &mut want),
                    Output::Add => want.iter_mut().for_each(|x| *x += 1.5),
                }
                let tolerance = if output == Output::Add { 0.0 } else { 1e-4 };
                for (y, want) in alone.iter().zip(&want) {
                    assert!((y - want).abs() <= tolerance, "{} {output:?} {y} {want}", unit.0.name());
                }
                let mut shared = vec![1.5; m * n];
                let product = QuantizedProduct { a: Rows::new(&a, m, k), norm: None, linear: &linear, output };
                let out = RowsMut::new(&mut shared, m, n);
                quantized_gemm_on(&Pool::new(3), &product, out, &mut QuantizedRows::default());
                assert_eq!(alone, shared, "{} {output:?}", unit.0.name());
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbors_nor_on_what_was_there_before() {
        let (m, k, n) = if cfg!(miri) { (9, 13, 18) } else { (64, 900, 70) };
        let (a, w) = (uniform(1, m * k), uniform(2, n * k));
        for unit in units() {
            let linear = quantised(unit, &w, None, k);
            let mut all = vec![0.0; m * n];
            let output = Output::Store(Activation::GeluTanh);
            run(&linear, Rows::new(&a, m, k), output, &mut all);
            let mut scratch = QuantizedRows::default();
            for i in 0..m {
                let mut one = vec![0.0; n];
                let a = Rows::new(&a[i * k..][..k], 1, k);
                let product = QuantizedProduct { a, norm: None, linear: &linear, output };
                quantized_gemm(&product, RowsMut::new(&mut one, 1, n), &mut scratch);
                assert_eq!(&all[i * n..][..n], &one[..], "{} row {i}", unit.0.name());
            }
        }
    }

    #[test]
    fn the_norm_on_the_way_in_is_the_layer_norm() {
        let (m, k, n) = if cfg!(miri) { (2, 21, 5) } else { (31, 403, 50) };
        let (a, w, gamma, beta) = (uniform(1, m * k), uniform(2, n * k), uniform(3, k), uniform(4, k));
        let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-6 };
        for isa in Isa::present() {
            let mut normed = vec![0.0; m * k];
            layer_norm(isa, &norm, Rows::new(&a, m, k), RowsMut::new(&mut normed, m, k));
            for unit in isa.dot_units() {
                let linear = quantised((unit, isa.panel_vectors()), &w, None, k);
                let (mut want, mut got) = (vec![0.0; m * n], vec![0.0; m * n]);
                let output = Output::Store(Activation::None);
                run(&linear, Rows::new(&normed, m, k), output, &mut want);
                let product = QuantizedProduct { a: Rows::new(&a, m, k), norm: Some(norm), linear: &linear, output };
                quantized_gemm(&product, RowsMut::new(&mut got, m, n), &mut QuantizedRows::default());
                assert_eq!(got, want, "{}", unit.name());
            }
        }
    }

    /// An input channel of fifty times the others' size, as trained transformers have them, costs precision, not sense;
    /// rows without it keep theirs. A value that is no number makes its own row none.
    #[test]
    fn outliers_stay_in_their_rows() {
        let (m, k, n) = if cfg!(miri) { (3, 40, 4) } else { (8, 768, 64) };
        let (mut a, w) = (uniform(1, m * k), uniform(2, n * k));
        let error = |a: &[f32], i: usize| {
            let linear = quantised(*units().last().unwrap(), &w, None, k);
            let mut c = vec![0.0; m * n];
            run(&linear, Rows::new(a, m, k), Output::Store(Activation::None), &mut c);
            let exact = |j: usize| (0..k).map(|t| f64::from(a[i * k + t]) * f64::from(w[j * k + t])).sum::<f64>();
            let (off, all) = (0..n).fold((0.0, 0.0), |(off, all), j| {
                (off + (f64::from(c[i * n + j]) - exact(j)).powi(2), all + exact(j).powi(2))
            });
            (off / all).sqrt()
        };
        let clean = error(&a, 1);
        assert!(clean < 0.015, "{clean}");
        a[7] = 50.0;
        assert_eq!(error(&a, 1), clean);
        assert!(error(&a, 0) < 0.25, "{}", error(&a, 0));
        a[7] = f32::NAN;
        assert!(error(&a, 0).is_nan());
        assert_eq!(error(&a, 1), clean);
        a[7] = f32::INFINITY;
        assert!(error(&a, 0).is_nan());
        a[..k].fill(0.0);
        let linear = quantised(units()[0], &w, None, k);
        let mut c = vec![1.0; m * n];
        run(&linear, Rows::new(&a, m, k), Output::Store(Activation::None), &mut c);
        assert!(c[..n].iter().all(|x| *x == 0.0));
    }
}

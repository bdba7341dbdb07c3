//! Matrix products with packed weights: C = act(A B + bias), or C += A B + bias.
//!
//! The design is that of `bench/NOTES.md`: weights are packed once into column panels in the order of use, the
//! activations are read in place, a micro-kernel keeps a tile of C in registers, and bias, activation and residual
//! are applied before the tile is stored. Each element is one chain of fused multiply-adds over k (cut only at the
//! fixed `PackedMatrix::chunk` boundaries), so no number depends on the tile shape, the row count or the threads.

mod backward;
mod brain;
mod pack;
mod quantized;
mod quantized_rows;
mod strassen;
mod tile;

pub(crate) use backward::Operand;
pub use backward::{GemmScratch, LinearGradient, WeightGradient, linear_backward};
pub use brain::{BrainLinear, BrainMatrix, BrainProduct, BrainRows, brain_gemm, brain_gemm_on};
pub use pack::{MatrixSource, PackedMatrix};
pub(crate) use quantized::DotBurst;
pub use quantized::{
    LONGEST_QUANTIZED, QuantizedLinear, QuantizedMatrix, QuantizedProduct, quantize_weights, quantized_gemm,
    quantized_gemm_on,
};
pub use quantized_rows::QuantizedRows;
pub use strassen::{Sequences, gemm_tokens};
pub(crate) use tile::{Epilogue, PanelSums, Prefetch, Tile, run_tile};

use crate::act::Activation;
use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::pool::{Pool, SharedMut};
use crate::vector::{Rows, RowsMut};
use std::ops::Range;

/// Bytes of A that one pass over the weights works on: it has to stay in the second-level cache beside the panels.
const A_BLOCK_BYTES: usize = 288 << 10;

/// What happens to a product before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// C = act(A B + bias).
    Store(Activation),
    /// C = C + A B + bias: the residual connection.
    Add,
}

/// A packed weight matrix with its bias.
#[derive(Debug)]
pub struct Linear {
    /// The weights, K × N.
    pub weights: PackedMatrix,
    /// The bias, [N] padded to whole panels; empty where there is none.
    bias: crate::Buffer,
}

impl Linear {
    /// Joins packed weights and an optional bias of length N.
    pub fn new(weights: PackedMatrix, bias: Option<&[f32]>) -> Self {
        let bias = match bias {
            Some(values) => {
                assert_eq!(values.len(), weights.n(), "a bias has one value a column");
                crate::Buffer::padded(values, weights.n().next_multiple_of(weights.panel_width()))
            }
            None => crate::Buffer::zeroed(0),
        };
        Self { weights, bias }
    }

    /// The bias, `[N]`, if there is one.
    pub fn bias(&self) -> Option<&[f32]> {
        (!self.bias.is_empty()).then(|| &self.bias[..self.weights.n()])
    }
}

/// A product, or the columns of some panels of it. C is given by its first element and the distance of its rows, so
/// that several drivers can write disjoint panels of one matrix.
struct Driver<'a> {
    a: Rows<'a>,
    linear: &'a Linear,
    c: *mut f32,
    c_stride: usize,
    panels: Range<usize>,
    output: Output,
}

impl Kernel for Driver<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let chunk = self.linear.weights.chunk();
        let groups = row_groups(self.a.count, chunk);
        let mut start = 0;
        for left in (1..=groups).rev() {
            let count = (self.a.count - start).div_ceil(left);
            for index in 0..self.linear.weights.chunks() {
                self.chunk_of_rows(s, start, count, index);
            }
            start += count;
        }
    }
}

/// Number of passes over the weights for `rows` rows.
fn row_groups(rows: usize, chunk: usize) -> usize {
    let group = (A_BLOCK_BYTES / (chunk * size_of::<f32>())).clamp(48, 512);
    rows.div_ceil(group)
}

impl Driver<'_> {
    /// One K chunk for rows `start..start + count`: column panels outside, row tiles inside.
    #[inline(always)]
    fn chunk_of_rows<S: Simd>(&self, s: S, start: usize, count: usize, index: usize) {
        let weights = &self.linear.weights;
        let (first, last) = (index == 0, index + 1 == weights.chunks());
        let add = self.output == Output::Add;
        let tiles = count.div_ceil(S::TILE_ROWS);
        for panel in self.panels.clone() {
            let column = panel * weights.panel_width();
            let b = weights.panel(index, panel);
            let mut row = start;
            for i in 0..tiles {
                let rows = (start + count - row).div_ceil(tiles - i);
                let tile = Tile {
                    a: self.a.data[row * self.a.stride + index * weights.chunk()..].as_ptr(),
                    a_stride: self.a.stride,
                    b: b.as_ptr(),
                    k: weights.chunk_length(index),
                    start: std::ptr::null(),
                    c: self.c.wrapping_add(row * self.c_stride + column),
                    c_stride: self.c_stride,
                    columns: (weights.n() - column).min(weights.panel_width()),
                    epilogue: Epilogue {
                        bias: if first && !self.linear.bias.is_empty() {
                            self.linear.bias[column..].as_ptr()
                        } else {
                            std::ptr::null()
                        },
                        accumulate: add || !first,
                        activation: match self.output {
                            Output::Store(activation) if last => activation,
                            _ => Activation::None,
                        },
                        row_scale: std::ptr::null(),
                    },
                    prefetch: Prefetch::share(b, weights.chunk_length(index), i, tiles),
                    sums: PanelSums::NONE,
                };
                // SAFETY: `gemm` checked that A has `count` rows of K and C as many of N values; `row + rows` stays
                // within them, the chunk within K, the panel holds k × panel_width weights, the bias is padded to
                // whole panels, and nobody else touches these panels' columns of C meanwhile.
                unsafe { run_tile(s, rows, weights.panel_vectors(), tile) };
                row += rows;
            }
        }
    }
}

/// C = act(A B + bias) or C += A B + bias for rows A: [M, K], C: [M, N].
///
/// # Panics
/// Where the widths of A and C are not K and N, or their row counts differ.
pub fn gemm(isa: Isa, a: Rows, linear: &Linear, c: RowsMut, output: Output) {
    check(isa, a, linear, &c);
    let panels = 0..linear.weights.panels();
    isa.run(Driver { a, linear, c: c.data.as_mut_ptr(), c_stride: c.stride, panels, output });
}

/// [`gemm`] on all threads of a pool, each with some of the columns: for products of so few rows that reading the
/// weights is the cost.
///
/// # Panics
/// As [`gemm`].
pub fn gemm_on(pool: &Pool, isa: Isa, a: Rows, linear: &Linear, c: RowsMut, output: Output) {
    check(isa, a, linear, &c);
    let (all, threads) = (linear.weights.panels(), pool.threads());
    let shared = SharedMut::new(c.data);
    pool.run(&|rank| {
        let panels = all * rank / threads..all * (rank + 1) / threads;
        isa.run(Driver { a, linear, c: shared.start(), c_stride: c.stride, panels, output });
    });
}

/// What both products ask of their operands.
fn check(isa: Isa, a: Rows, linear: &Linear, c: &RowsMut) {
    let (k, n) = (linear.weights.k(), linear.weights.n());
    assert!(a.width == k && c.width == n, "product [{}] x [{k}, {n}] -> [{}]", a.width, c.width);
    assert_eq!(a.count, c.count, "a product has as many rows out as in");
    a.check();
    c.check();
    let whole_panels = n.next_multiple_of(linear.weights.panel_width());
    assert!(linear.bias.is_empty() || linear.bias.len() >= whole_panels, "a bias is padded to whole panels");
    assert_eq!(linear.weights.panel_vectors(), isa.panel_vectors(), "weights are packed for another instruction set");
    debug_assert!(LANES * linear.weights.panel_vectors() == linear.weights.panel_width());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::testing::uniform;

    /// C = A W^T + bias in f64, for weights stored [N, K].
    fn oracle(a: &[f32], w: &[f32], bias: Option<&[f32]>, (m, k, n): (usize, usize, usize)) -> Vec<f64> {
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                let dot: f64 = (0..k).map(|t| f64::from(a[i * k + t]) * f64::from(w[j * k + t])).sum();
                c[i * n + j] = dot + bias.map_or(0.0, |b| f64::from(b[j]));
            }
        }
        c
    }

    fn shapes() -> Vec<(usize, usize, usize)> {
        let mut shapes = vec![(1, 1, 1), (5, 3, 2), (0, 8, 8), (101, 192, 576), (40, 1600, 33), (13, 1024, 40)];
        for m in 1..=26 {
            shapes.push((m, 17 + m, 15 + 2 * m));
        }
        if cfg!(miri) {
            // Miri takes a millisecond for a thousand multiply-adds.
            shapes.retain(|(m, k, n)| m * k * n <= 10_000);
            shapes.push((3, 1025, 2));
        }
        shapes
    }

    #[test]
    fn every_set_matches_the_oracle_on_odd_shapes() {
        for (m, k, n) in shapes() {
            let (a, w, bias) = (uniform(1, m * k), uniform(2, n * k), uniform(3, n));
            let want = oracle(&a, &w, Some(&bias), (m, k, n));
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::present() {
                let linear = Linear::new(PackedMatrix::pack(isa, MatrixSource::out_in(&w, n, k)), Some(&bias));
                let mut c = vec![f32::NAN; m * n];
                gemm(isa, Rows::new(&a, m, k), &linear, RowsMut::new(&mut c, m, n), Output::Store(Activation::None));
                for (got, want) in c.iter().zip(&want) {
                    let bound = 1e-6 * (k as f64).sqrt() * 4.0;
                    assert!((f64::from(*got) - want).abs() <= bound, "{} {m}x{k}x{n} {got} {want}", isa.name());
                }
                assert_eq!(first.get_or_insert_with(|| c.clone()), &c, "{} {m}x{k}x{n}", isa.name());
            }
        }
    }

    #[test]
    fn residual_activation_and_both_layouts() {
        let (m, k, n) = if cfg!(miri) { (5, 800, 3) } else { (23, 1700, 37) };
        let (a, w, bias) = (uniform(1, m * k), uniform(2, n * k), uniform(3, n));
        let transposed: Vec<f32> = (0..k * n).map(|i| w[(i % n) * k + i / n]).collect();
        let plain = oracle(&a, &w, Some(&bias), (m, k, n));
        for isa in Isa::present() {
            let linear = Linear::new(PackedMatrix::pack(isa, MatrixSource::in_out(&transposed, k, n)), Some(&bias));
            let mut c = vec![1.5; m * n];
            gemm(isa, Rows::new(&a, m, k), &linear, RowsMut::new(&mut c, m, n), Output::Add);
            for (got, want) in c.iter().zip(&plain) {
                assert!((f64::from(*got) - want - 1.5).abs() < 1e-4, "{} {got} {want}", isa.name());
            }
            let mut c = vec![0.0; m * n];
            let output = Output::Store(Activation::QuickGelu);
            gemm(isa, Rows::new(&a, m, k), &linear, RowsMut::new(&mut c, m, n), output);
            for (got, x) in c.iter().zip(&plain) {
                let want = x / (1.0 + (-1.702 * x).exp());
                assert!((f64::from(*got) - want).abs() < 1e-4, "{} {got} {want}", isa.name());
            }
        }
    }

    #[test]
    fn columns_on_several_threads_give_the_same_bits() {
        let (m, k, n) = if cfg!(miri) { (2, 20, 70) } else { (5, 900, 213) };
        let (a, w, bias) = (uniform(1, m * k), uniform(2, n * k), uniform(3, n));
        for isa in Isa::present() {
            let linear = Linear::new(PackedMatrix::pack(isa, MatrixSource::out_in(&w, n, k)), Some(&bias));
            for output in [Output::Store(Activation::GeluTanh), Output::Add] {
                let (mut alone, mut shared) = (vec![0.5; m * n], vec![0.5; m * n]);
                gemm(isa, Rows::new(&a, m, k), &linear, RowsMut::new(&mut alone, m, n), output);
                let pool = Pool::new(3);
                gemm_on(&pool, isa, Rows::new(&a, m, k), &linear, RowsMut::new(&mut shared, m, n), output);
                assert_eq!(alone, shared, "{} {output:?}", isa.name());
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let (m, k, n) = if cfg!(miri) { (9, 13, 18) } else { (64, 900, 70) };
        let (a, w) = (uniform(1, m * k), uniform(2, n * k));
        for isa in Isa::present() {
            let linear = Linear::new(PackedMatrix::pack(isa, MatrixSource::out_in(&w, n, k)), None);
            let mut all = vec![0.0; m * n];
            let output = Output::Store(Activation::GeluErf);
            gemm(isa, Rows::new(&a, m, k), &linear, RowsMut::new(&mut all, m, n), output);
            for i in 0..m {
                let mut one = vec![0.0; n];
                gemm(isa, Rows::new(&a[i * k..][..k], 1, k), &linear, RowsMut::new(&mut one, 1, n), output);
                assert_eq!(&all[i * n..][..n], &one[..], "{} row {i}", isa.name());
            }
        }
    }
}

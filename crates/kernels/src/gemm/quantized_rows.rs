//! Activations as bytes: each row by its own scale, so that no row depends on its neighbors.
//!
//! x ≈ scale (q - zero) with q in 0..=255. The range always includes 0, which is exact.

use crate::bytes::Bytes;
use crate::isa::{Dot, DotKernel, DotUnit, LANES, Simd};
use crate::norm::{LayerNorm, normalize_row};
use crate::vector::Rows;

/// Largest byte of an activation.
const LARGEST: f32 = 255.0;

/// Rows whose range is less than this are zeros: its reciprocal must be a number.
const SMALLEST_RANGE: f32 = 1e-30;

/// Quantised rows: working memory that is used again and again.
#[derive(Debug, Default)]
pub struct QuantizedRows {
    bytes: Bytes,
    /// Of each row: its scale, and scale × zero.
    scales: Vec<[f32; 2]>,
    /// A row after the layer norm.
    normed: Vec<f32>,
    stride: usize,
    count: usize,
    width: usize,
}

impl QuantizedRows {
    /// Quantises rows; with a norm, the layer norm of them.
    pub(crate) fn fill(&mut self, unit: DotUnit, x: Rows, norm: Option<&LayerNorm>) {
        if let Some(norm) = norm {
            let width = norm.gamma.len();
            assert!(norm.beta.len() == width && x.width == width, "layer norm of rows of {}, width {width}", x.width);
            self.normed.resize(width.max(self.normed.len()), 0.0);
        }
        (self.count, self.width) = (x.count, x.width);
        // Whole lines, and not a multiple of 1 KiB: all rows of a tile would fall into the same few cache sets.
        self.stride = x.width.next_multiple_of(64);
        if self.stride.is_multiple_of(512) {
            self.stride += 64;
        }
        self.bytes.ensure(x.count * self.stride);
        self.scales.resize(x.count.max(self.scales.len()), [0.0; 2]);
        unit.run(Fill { x, norm, rows: self });
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Distance of two rows in bytes.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Bytes of the rows from `row` on.
    pub(crate) fn bytes_from(&self, row: usize) -> &[i8] {
        &self.bytes[row * self.stride..self.count * self.stride]
    }

    /// Scale and scale × zero of the rows from `row` on.
    pub(crate) fn scales_from(&self, row: usize) -> &[[f32; 2]] {
        &self.scales[row..self.count]
    }
}

struct Fill<'a, 'b> {
    x: Rows<'a>,
    norm: Option<&'a LayerNorm<'a>>,
    rows: &'b mut QuantizedRows,
}

impl DotKernel for Fill<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let QuantizedRows { bytes, scales, normed, stride, width, .. } = self.rows;
        for i in 0..self.x.count {
            let bytes = &mut bytes[i * *stride..][..*stride];
            match self.norm {
                Some(norm) => {
                    normalize_row(d.simd(), norm, self.x.row(i), normed);
                    scales[i] = quantize_row(d, &normed[..*width], bytes);
                }
                None => scales[i] = quantize_row(d, self.x.row(i), bytes),
            }
        }
    }
}

/// Quantises one row; gives its scale and scale × zero. A value that is no finite number makes the scale none, hence
/// every product with the row.
#[inline(always)]
fn quantize_row<D: Dot>(d: D, x: &[f32], bytes: &mut [i8]) -> [f32; 2] {
    let s = d.simd();
    let (whole, tail) = x.split_at(x.len() / LANES * LANES);
    let tail = s.load_partial(tail, 0.0);
    let nothing = s.splat(0.0);
    let (mut low, mut high, mut poison) = (s.min(nothing, tail), s.max(nothing, tail), s.fma(tail, nothing, nothing));
    for part in whole.chunks_exact(LANES) {
        let x = s.load_slice(part);
        low = s.min(low, x);
        high = s.max(high, x);
        poison = s.fma(x, nothing, poison);
    }
    let (low, high) = extremes(s.to_array(low), s.to_array(high));
    let range = high - low;
    let inverse = if range > SMALLEST_RANGE { LARGEST / range } else { 0.0 };
    let zero = (-low * inverse).round_ties_even().min(LARGEST);
    let (factor, shift, largest) = (s.splat(inverse), s.splat(zero), s.splat(LARGEST));
    let mut at = 0;
    while at < whole.len() {
        let q = s.fma(s.load_slice(&whole[at..]), factor, shift);
        put(d, s.min(s.max(q, nothing), largest), &mut bytes[at..]);
        at += LANES;
    }
    if at < x.len() {
        let q = s.fma(tail, factor, shift);
        put(d, s.min(s.max(q, nothing), largest), &mut bytes[at..]);
    }
    let scale = range / LARGEST + s.sum(poison);
    [scale, scale * zero]
}

/// Least of one's and greatest of the other's lanes, as a tree of vectors.
#[inline(always)]
fn extremes(mut low: [f32; LANES], mut high: [f32; LANES]) -> (f32, f32) {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            low[i] = if low[i] < low[i + width] { low[i] } else { low[i + width] };
            high[i] = if high[i] > high[i + width] { high[i] } else { high[i + width] };
        }
        width /= 2;
    }
    (low[0], high[0])
}

/// Writes sixteen bytes.
#[inline(always)]
fn put<D: Dot>(d: D, x: <D::S as Simd>::F, bytes: &mut [i8]) {
    let (target, _) = bytes.split_first_chunk_mut::<LANES>().expect("rows are padded to whole lines");
    *target = d.to_bytes(x).map(u8::cast_signed);
}

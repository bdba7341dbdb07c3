//! Views of row-major matrices, and what is done to whole rows: dot product, length, mean.

use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::norm::row_sum;

/// A row-major matrix: `count` rows of `width` values, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    pub(crate) data: &'a [f32],
    /// Number of rows.
    pub count: usize,
    /// Values in a row.
    pub width: usize,
    /// Distance between the starts of two rows.
    pub stride: usize,
}

/// A writable row-major matrix: `count` rows of `width` values, `stride` apart.
#[derive(Debug)]
pub struct RowsMut<'a> {
    pub(crate) data: &'a mut [f32],
    /// Number of rows.
    pub count: usize,
    /// Values in a row.
    pub width: usize,
    /// Distance between the starts of two rows.
    pub stride: usize,
}

/// Panics unless `count` rows lie inside `length` values.
fn check(length: usize, count: usize, width: usize, stride: usize) {
    assert!(width <= stride || count <= 1, "rows of {width} do not fit a stride of {stride}");
    let last = count.saturating_sub(1).saturating_mul(stride);
    let needed = if count == 0 { 0 } else { last.saturating_add(width) };
    assert!(needed <= length, "{count} rows of {width}, {stride} apart, need {needed} values; there are {length}");
}

impl<'a> Rows<'a> {
    /// Rows without a gap between them.
    pub fn new(data: &'a [f32], count: usize, width: usize) -> Self {
        Self::strided(data, count, width, width)
    }

    /// Rows `stride` values apart.
    pub fn strided(data: &'a [f32], count: usize, width: usize, stride: usize) -> Self {
        check(data.len(), count, width, stride);
        Self { data, count, width, stride }
    }

    /// Panics unless the rows lie inside the data. The counts are public, so whoever reads by pointer asks again.
    pub(crate) fn check(&self) {
        check(self.data.len(), self.count, self.width, self.stride);
    }

    /// Row `i`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..][..self.width]
    }

    /// Rows `start..start + count`.
    pub fn rows(&self, start: usize, count: usize) -> Rows<'a> {
        assert!(start + count <= self.count);
        Rows::strided(&self.data[(start * self.stride).min(self.data.len())..], count, self.width, self.stride)
    }

    /// Columns `start..start + width` of every row.
    pub fn columns(&self, start: usize, width: usize) -> Rows<'a> {
        assert!(start + width <= self.width);
        Rows::strided(&self.data[start.min(self.data.len())..], self.count, width, self.stride)
    }
}

impl<'a> RowsMut<'a> {
    /// Rows without a gap between them.
    pub fn new(data: &'a mut [f32], count: usize, width: usize) -> Self {
        Self::strided(data, count, width, width)
    }

    /// Rows `stride` values apart.
    pub fn strided(data: &'a mut [f32], count: usize, width: usize, stride: usize) -> Self {
        check(data.len(), count, width, stride);
        Self { data, count, width, stride }
    }

    /// Panics unless the rows lie inside the data. The counts are public, so whoever writes by pointer asks again.
    pub(crate) fn check(&self) {
        check(self.data.len(), self.count, self.width, self.stride);
    }

    /// Row `i`.
    #[inline(always)]
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.stride..][..self.width]
    }
}

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 4];
        let (mut a, mut b) = (self.a.chunks_exact(4 * LANES), self.b.chunks_exact(4 * LANES));
        for (a, b) in (&mut a).zip(&mut b) {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = s.fma(s.load_slice(&a[i * LANES..]), s.load_slice(&b[i * LANES..]), *sum);
            }
        }
        for (a, b) in a.remainder().chunks(LANES).zip(b.remainder().chunks(LANES)) {
            sums[0] = s.fma(s.load_partial(a, 0.0), s.load_partial(b, 0.0), sums[0]);
        }
        s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
    }
}

/// Dot product of two vectors of one length.
pub fn dot(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot product of vectors of one length");
    isa.run(Dot { a, b })
}

struct SquaredLength<'a>(&'a [f32]);

impl Kernel for SquaredLength<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        row_sum(s, self.0, |sum, x| s.fma(x, x, sum))
    }
}

/// Scales a vector to unit length: x / max(‖x‖₂, 1e-12), as `torch.nn.functional.normalize` does. Returns ‖x‖₂.
pub fn normalize(isa: Isa, x: &mut [f32]) -> f32 {
    let length = isa.run(SquaredLength(x)).sqrt();
    let divisor = length.max(1e-12);
    for v in x {
        *v /= divisor;
    }
    length
}

/// Mean over rows: y = Σ rows / count. `x`: [rows, D], `y`: `[D]`. Rows are added one by one, in order.
pub fn mean(x: Rows, y: &mut [f32]) {
    assert!(x.count > 0 && y.len() == x.width, "mean of {} rows of {} into {}", x.count, x.width, y.len());
    y.copy_from_slice(x.row(0));
    for i in 1..x.count {
        for (sum, v) in y.iter_mut().zip(x.row(i)) {
            *sum += v;
        }
    }
    let scale = 1.0 / x.count as f32;
    for v in y {
        *v *= scale;
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Deterministic values for the kernels' tests.

    /// `count` values uniform in (-1, 1) from splitmix64.
    pub(crate) fn uniform(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (0..count)
            .map(|_| {
                state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut z = state;
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                z ^= z >> 31;
                (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::uniform;
    use super::*;

    #[test]
    fn dot_matches_f64_and_is_the_same_on_every_set() {
        for length in [0, 1, 15, 16, 63, 64, 65, 192, 1000] {
            let (a, b) = (uniform(1, length), uniform(2, length));
            let want: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            let got: Vec<f32> = Isa::present().iter().map(|&isa| dot(isa, &a, &b)).collect();
            assert!(got.iter().all(|&v| v == got[0]), "{length} {got:?}");
            assert!((f64::from(got[0]) - want).abs() < 1e-5, "{length} {got:?} {want}");
        }
    }

    #[test]
    fn normalize_gives_unit_length_and_survives_zero() {
        for isa in Isa::present() {
            let mut x = vec![3.0, 4.0];
            assert_eq!(normalize(isa, &mut x), 5.0);
            assert_eq!(x, [0.6, 0.8]);
            let mut zero = vec![0.0; 5];
            normalize(isa, &mut zero);
            assert_eq!(zero, [0.0; 5]);
        }
    }

    #[test]
    #[should_panic(expected = "need 80 values")]
    fn rows_whose_count_was_changed_are_refused() {
        let mut rows = Rows::new(&[0.0; 8], 2, 4);
        rows.count = 20;
        rows.check();
    }

    #[test]
    #[should_panic(expected = "need 8 values")]
    fn short_rows_are_refused() {
        Rows::new(&[0.0; 7], 2, 4);
    }
}

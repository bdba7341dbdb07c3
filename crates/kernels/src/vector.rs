//! Views of row-major matrices, and what is done to whole rows: dot product, length, mean, sums of columns. Backward
//! functions add to the gradients that they are given.

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

    /// Rows `start..start + count`.
    pub fn rows_mut(&mut self, start: usize, count: usize) -> RowsMut<'_> {
        assert!(start + count <= self.count);
        let start = (start * self.stride).min(self.data.len());
        RowsMut::strided(&mut self.data[start..], count, self.width, self.stride)
    }

    /// Columns `start..start + width` of every row.
    pub fn columns_mut(&mut self, start: usize, width: usize) -> RowsMut<'_> {
        assert!(start + width <= self.width);
        let start = start.min(self.data.len());
        RowsMut::strided(&mut self.data[start..], self.count, width, self.stride)
    }
}

/// Dot product, also inside other kernels.
pub(crate) struct Dot<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
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

/// Backward of [`normalize`]: adds dL/dx to `dx`, given the vector before scaling and the gradient of the unit vector.
///
/// With u = x/‖x‖: dx = (dy - u (u·dy)) / ‖x‖; below the bound of 1e-12 the divisor is a constant. Sums in f64.
pub fn normalize_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dy.len() && x.len() == dx.len(), "a vector and its gradients have one length");
    let length = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    let scale = 1.0 / length.max(1e-12);
    let along = if length < 1e-12 {
        0.0
    } else {
        x.iter().zip(dy).map(|(&x, &dy)| f64::from(x) * f64::from(dy)).sum::<f64>() * scale * scale
    };
    for ((d, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        *d += ((f64::from(dy) - f64::from(x) * along) * scale) as f32;
    }
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

/// Backward of [`mean`]: adds dy / count to every row of `dx`. `dy`: `[D]`, `dx`: `[rows, D]`.
pub fn mean_backward(dy: &[f32], mut dx: RowsMut) {
    assert_eq!(dy.len(), dx.width, "the gradient of a mean is as wide as its rows");
    let scale = 1.0 / dx.count as f32;
    for i in 0..dx.count {
        for (d, dy) in dx.row_mut(i).iter_mut().zip(dy) {
            *d += dy * scale;
        }
    }
}

/// Adds the sum of all rows to `sum`, `[D]`: the backward of adding one vector to every row. Taken in f64, row by row.
pub fn add_row_sum(x: Rows, sum: &mut [f32]) {
    /// Columns whose sums stay in registers or nearly so.
    const BLOCK: usize = 64;
    assert_eq!(x.width, sum.len(), "a sum of rows is as wide as they are");
    for (block, sum) in sum.chunks_mut(BLOCK).enumerate() {
        let mut total = [0.0f64; BLOCK];
        for i in 0..x.count {
            for (total, v) in total.iter_mut().zip(&x.row(i)[block * BLOCK..][..sum.len()]) {
                *total += f64::from(*v);
            }
        }
        for (sum, total) in sum.iter_mut().zip(total) {
            *sum += total as f32;
        }
    }
}

/// y = xᵀ. `x`: [rows, columns], `y`: [columns, rows]. In squares, so that both sides stay in the first-level cache.
pub fn transpose(x: Rows, y: RowsMut) {
    assert!(x.count == y.width && x.width == y.count, "[{}, {}] is turned", x.count, x.width);
    for i0 in (0..x.count).step_by(LANES) {
        for j0 in (0..x.width).step_by(LANES) {
            for i in i0..(i0 + LANES).min(x.count) {
                let row = x.row(i);
                for j in j0..(j0 + LANES).min(x.width) {
                    y.data[j * y.stride + i] = row[j];
                }
            }
        }
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
    fn backward_of_normalize_matches_central_differences() {
        let (x, dy) = (uniform(1, 37), uniform(2, 37));
        let loss = |x: &[f64]| {
            let length = x.iter().map(|v| v * v).sum::<f64>().sqrt();
            x.iter().zip(&dy).map(|(x, dy)| x / length * f64::from(*dy)).sum::<f64>()
        };
        let mut dx = vec![1.0; 37];
        normalize_backward(&x, &dy, &mut dx);
        let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        for j in 0..x.len() {
            let (mut up, mut down) = (wide.clone(), wide.clone());
            up[j] += 1e-5;
            down[j] -= 1e-5;
            let want = (loss(&up) - loss(&down)) / 2e-5;
            assert!((f64::from(dx[j]) - 1.0 - want).abs() < 5e-7, "{j} {} {want}", dx[j]);
        }
        let mut dx = vec![0.0; 2];
        normalize_backward(&[0.0, 0.0], &[1e-13, 0.0], &mut dx);
        assert_eq!(dx, [0.1, 0.0]);
    }

    #[test]
    fn row_sums_means_and_transposes() {
        let (rows, width) = (19, 83);
        let x = uniform(3, rows * (width + 5));
        let view = Rows::strided(&x, rows, width, width + 5);
        let mut sum = vec![2.0; width];
        add_row_sum(view, &mut sum);
        let mut turned = vec![0.0; width * rows];
        transpose(view, RowsMut::new(&mut turned, width, rows));
        for j in 0..width {
            let want: f64 = (0..rows).map(|i| f64::from(view.row(i)[j])).sum();
            assert!((f64::from(sum[j]) - 2.0 - want).abs() < 1e-6);
            assert!((0..rows).all(|i| turned[j * rows + i] == view.row(i)[j]));
        }
        let mut dx = vec![1.0; 4 * 3];
        mean_backward(&[4.0, 8.0, -4.0], RowsMut::new(&mut dx, 4, 3));
        assert_eq!(dx.chunks(3).collect::<Vec<_>>(), [[2.0, 3.0, 0.0]; 4]);
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

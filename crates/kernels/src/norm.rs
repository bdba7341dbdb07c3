//! Layer normalisation over the last axis, forward and backward. Mean first, then the centred variance: the one-pass
//! formula loses bits for wide rows.

use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::vector::{Rows, RowsMut};

/// Parameters of a layer norm over rows of width D.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Gain, `[D]`.
    pub gamma: &'a [f32],
    /// Shift, `[D]`.
    pub beta: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// Sum of `f` over a row in the order shared by all sets: blocks of four vectors into four sums, the rest into the
/// first, then the lane tree.
#[inline(always)]
pub(crate) fn row_sum<S: Simd>(s: S, row: &[f32], f: impl Fn(S::F, S::F) -> S::F) -> f32 {
    let zero = s.splat(0.0);
    let mut sums = [zero; 4];
    let mut blocks = row.chunks_exact(4 * LANES);
    for block in &mut blocks {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = f(*sum, s.load_slice(&block[i * LANES..]));
        }
    }
    let mut vectors = blocks.remainder().chunks_exact(LANES);
    for vector in &mut vectors {
        sums[0] = f(sums[0], s.load_slice(vector));
    }
    let mut total = s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])));
    let tail = vectors.remainder();
    if !tail.is_empty() {
        // Lanes beyond the row must add nothing, whatever `f` makes of a zero there.
        let lanes = s.to_array(f(zero, s.load_partial(tail, 0.0)));
        for lane in &lanes[..tail.len()] {
            total += lane;
        }
    }
    total
}

/// Mean and 1/√(variance + ε) of a row.
#[inline(always)]
fn statistics<S: Simd>(s: S, row: &[f32], epsilon: f32) -> (f32, f32) {
    let scale = 1.0 / row.len() as f32;
    let mean = row_sum(s, row, |sum, x| s.add(sum, x)) * scale;
    let center = s.splat(mean);
    let variance = row_sum(s, row, |sum, x| {
        let d = s.sub(x, center);
        s.fma(d, d, sum)
    }) * scale;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

struct Forward<'a, 'b> {
    norm: LayerNorm<'a>,
    x: Rows<'a>,
    y: RowsMut<'b>,
}

impl Kernel for Forward<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        for i in 0..self.x.count {
            normalize_row(s, &self.norm, self.x.row(i), self.y.row_mut(i));
        }
    }
}

/// The layer norm of one row, inside other kernels.
#[inline(always)]
pub(crate) fn normalize_row<S: Simd>(s: S, norm: &LayerNorm, x: &[f32], y: &mut [f32]) {
    let width = norm.gamma.len();
    let (x, y) = (&x[..width], &mut y[..width]);
    let (mean, scale) = statistics(s, x, norm.epsilon);
    let (center, scale) = (s.splat(mean), s.splat(scale));
    let mut j = 0;
    while j + LANES <= width {
        let unit = s.mul(s.sub(s.load_slice(&x[j..]), center), scale);
        let v = s.fma(unit, s.load_slice(&norm.gamma[j..]), s.load_slice(&norm.beta[j..]));
        s.store_slice(&mut y[j..], v);
        j += LANES;
    }
    if j < width {
        let unit = s.mul(s.sub(s.load_partial(&x[j..], 0.0), center), scale);
        let gamma = s.load_partial(&norm.gamma[j..], 0.0);
        let v = s.to_array(s.fma(unit, gamma, s.load_partial(&norm.beta[j..], 0.0)));
        y[j..].copy_from_slice(&v[..width - j]);
    }
}

/// y = (x - mean) / √(variance + ε) · γ + β for each row.
///
/// `x`, `y`: [rows, D]. Relative error against f64 about 1e-6.
pub fn layer_norm(isa: Isa, norm: &LayerNorm, x: Rows, y: RowsMut) {
    let width = norm.gamma.len();
    assert_eq!(norm.beta.len(), width, "layer norm: gamma and beta have one length");
    assert!(x.width == width && y.width == width, "layer norm: rows of {} and {}, width {width}", x.width, y.width);
    assert_eq!(x.count, y.count, "layer norm: as many rows out as in");
    isa.run(Forward { norm: *norm, x, y });
}

/// Gradients of a layer norm's parameters, both `[D]`, added to.
pub struct LayerNormGradient<'a> {
    /// Gradient of the gain.
    pub gamma: &'a mut [f32],
    /// Gradient of the shift.
    pub beta: &'a mut [f32],
}

/// Backward of [`layer_norm`]: adds dL/dx to `dx` and the parameters' gradients to `parameters`.
///
/// With u = (x - mean)/σ and g = dy γ: dx = (g - mean(g) - u mean(g u)) / σ. `x`, `dy`, `dx`: [rows, D]; the
/// statistics are recomputed, nothing has to be saved but `x`. Means are taken in f64.
pub fn layer_norm_backward(norm: &LayerNorm, x: Rows, dy: Rows, mut dx: RowsMut, parameters: LayerNormGradient) {
    let width = norm.gamma.len();
    for i in 0..x.count {
        let (x, dy) = (&x.row(i)[..width], &dy.row(i)[..width]);
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
        let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + f64::from(norm.epsilon)).sqrt();
        let unit = |j: usize| (f64::from(x[j]) - mean) * scale;
        let (mut mean_g, mut mean_gu) = (0.0, 0.0);
        for j in 0..width {
            let g = f64::from(dy[j] * norm.gamma[j]);
            mean_g += g;
            mean_gu += g * unit(j);
            parameters.gamma[j] += (f64::from(dy[j]) * unit(j)) as f32;
            parameters.beta[j] += dy[j];
        }
        mean_g /= width as f64;
        mean_gu /= width as f64;
        for (j, d) in dx.row_mut(i)[..width].iter_mut().enumerate() {
            *d += ((f64::from(dy[j] * norm.gamma[j]) - mean_g - unit(j) * mean_gu) * scale) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::testing::uniform;

    #[test]
    fn matches_f64_and_is_the_same_on_every_set() {
        for width in [1, 7, 16, 17, 48, 64, 100, 192, 239, 1024] {
            let rows = 3;
            let x: Vec<f32> = uniform(1, rows * width).iter().map(|v| v * 5.0 + 2.0).collect();
            let (gamma, beta) = (uniform(2, width), uniform(3, width));
            let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-6 };
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::present() {
                let mut y = vec![0.0; rows * width];
                layer_norm(isa, &norm, Rows::new(&x, rows, width), RowsMut::new(&mut y, rows, width));
                for (i, row) in x.chunks(width).enumerate() {
                    let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
                    let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
                    for j in 0..width {
                        let unit = (f64::from(row[j]) - mean) / (variance + 1e-6).sqrt();
                        let want = unit * f64::from(gamma[j]) + f64::from(beta[j]);
                        let got = f64::from(y[i * width + j]);
                        assert!((got - want).abs() <= 2e-6 * (1.0 + unit.abs()), "{} {width} {got} {want}", isa.name());
                    }
                }
                assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{} {width}", isa.name());
            }
        }
    }

    #[test]
    fn backward_matches_central_differences() {
        let (rows, width) = (2, 19);
        let (x, dy) = (uniform(1, rows * width), uniform(4, rows * width));
        let (gamma, beta) = (uniform(2, width), uniform(3, width));
        let loss = |x: &[f32], gamma: &[f32]| -> f64 {
            let mut sum = 0.0;
            for i in 0..rows {
                let row = &x[i * width..][..width];
                let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / width as f64;
                let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / width as f64;
                for j in 0..width {
                    let unit = (f64::from(row[j]) - mean) / (variance + 1e-6).sqrt();
                    sum += (unit * f64::from(gamma[j]) + f64::from(beta[j])) * f64::from(dy[i * width + j]);
                }
            }
            sum
        };
        let norm = LayerNorm { gamma: &gamma, beta: &beta, epsilon: 1e-6 };
        let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
        layer_norm_backward(
            &norm,
            Rows::new(&x, rows, width),
            Rows::new(&dy, rows, width),
            RowsMut::new(&mut dx, rows, width),
            LayerNormGradient { gamma: &mut dgamma, beta: &mut dbeta },
        );
        let h = 1e-3f32;
        for j in 0..x.len() {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[j] += h;
            down[j] -= h;
            let want = (loss(&up, &gamma) - loss(&down, &gamma)) / f64::from(up[j] - down[j]);
            assert!((f64::from(dx[j]) - want).abs() < 2e-3 * (1.0 + want.abs()), "dx {j} {} {want}", dx[j]);
        }
        for j in 0..width {
            let (mut up, mut down) = (gamma.clone(), gamma.clone());
            up[j] += h;
            down[j] -= h;
            let want = (loss(&x, &up) - loss(&x, &down)) / f64::from(up[j] - down[j]);
            assert!((f64::from(dgamma[j]) - want).abs() < 1e-3, "dgamma {j} {} {want}", dgamma[j]);
            let want: f64 = (0..rows).map(|i| f64::from(dy[i * width + j])).sum();
            assert!((f64::from(dbeta[j]) - want).abs() < 1e-6);
        }
    }
}

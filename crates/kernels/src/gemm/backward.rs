//! Backward of y = x W + b, through the same product as the forward.
//!
//! With respect to the input it is [`gemm`] with the transposed weights ([`MatrixSource::transposed`]): dx = dy Wᵀ. Here
//! are the parameters: dW = xᵀ dy and db = Σ dy, summed over the rows of a batch in one fixed order.

use super::{Linear, MatrixSource, Output, PackedMatrix, gemm};
use crate::vector::{Rows, RowsMut, add_row_sum, transpose};
use crate::{Buffer, Isa};

/// A right-hand operand that is packed for one product only, in memory that stays.
#[derive(Debug, Default)]
pub(crate) struct Operand(Option<Linear>);

impl Operand {
    /// Packs a matrix in place of the one before.
    pub(crate) fn pack(&mut self, isa: Isa, source: MatrixSource) -> &Linear {
        match &mut self.0 {
            Some(linear) if linear.weights.panel_vectors() == isa.panel_vectors() => linear.weights.repack(source),
            slot => *slot = Some(Linear::new(PackedMatrix::pack(isa, source), None)),
        }
        self.0.as_ref().expect("it was just set")
    }
}

/// Working memory of [`linear_backward`], reused from call to call.
#[derive(Debug, Default)]
pub struct GemmScratch {
    turned: Buffer,
    operand: Operand,
}

/// The gradient of a weight matrix, in the layout of the weight.
#[derive(Debug)]
pub enum WeightGradient<'a> {
    /// [N, K], as `torch.nn.Linear.weight`.
    OutIn(&'a mut [f32]),
    /// [K, N], as CLIP's projections.
    InOut(&'a mut [f32]),
}

/// What [`linear_backward`] reads and adds to.
#[derive(Debug)]
pub struct LinearGradient<'a> {
    /// Inputs of the forward, [rows, K].
    pub x: Rows<'a>,
    /// Gradient of the result, [rows, N].
    pub dy: Rows<'a>,
    /// Gradient of the weight.
    pub weight: WeightGradient<'a>,
    /// Gradient of the bias, `[N]`, where there is one.
    pub bias: Option<&'a mut [f32]>,
}

/// Adds the gradients of a linear map's parameters: dW += xᵀ dy, db += Σ dy.
///
/// Each element of dW is one chain of fused multiply-adds over the rows (cut at fixed boundaries), like any product.
///
/// # Panics
/// Where the rows and gradients do not fit together.
pub fn linear_backward(isa: Isa, job: LinearGradient, scratch: &mut GemmScratch) {
    let LinearGradient { x, dy, weight, bias } = job;
    assert_eq!(x.count, dy.count, "a product has as many rows out as in");
    if let Some(bias) = bias {
        add_row_sum(dy, bias);
    }
    // Whichever side the layout puts first is turned and read row by row; the other one is packed.
    let (left, right, gradient) = match weight {
        WeightGradient::OutIn(gradient) => (dy, x, gradient),
        WeightGradient::InOut(gradient) => (x, dy, gradient),
    };
    assert_eq!(gradient.len(), left.width * right.width, "gradient of a [{}, {}] matrix", left.width, right.width);
    if x.count == 0 {
        return;
    }
    let stride = x.count.next_multiple_of(16) + 16;
    scratch.turned.ensure(left.width * stride);
    transpose(left, RowsMut::strided(&mut scratch.turned, left.width, x.count, stride));
    let operand = scratch.operand.pack(isa, MatrixSource::rows(right));
    let turned = Rows::strided(&scratch.turned, left.width, x.count, stride);
    gemm(isa, turned, operand, RowsMut::new(gradient, left.width, right.width), Output::Add);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::act::Activation;
    use crate::vector::testing::uniform;

    #[test]
    fn weight_bias_and_input_gradients_match_f64_on_every_set() {
        let mut scratch = GemmScratch::default();
        for (m, k, n) in [(1, 1, 1), (5, 3, 2), (37, 48, 144), (101, 33, 70), (1700, 20, 17), (800, 64, 40)] {
            let (x, dy, w) = (uniform(1, m * k), uniform(2, m * n), uniform(3, n * k));
            let at = |i: usize, j: usize| -> f64 {
                (0..m).map(|r| f64::from(x[r * k + i]) * f64::from(dy[r * n + j])).sum()
            };
            let bound = 4e-6 * (m.max(n) as f64).sqrt();
            let mut first: Option<[Vec<f32>; 4]> = None;
            for isa in Isa::present() {
                let (rows, slopes) = (Rows::new(&x, m, k), Rows::new(&dy, m, n));
                let (mut out_in, mut in_out, mut bias) = (vec![1.0; n * k], vec![1.0; n * k], vec![1.0; n]);
                let weight = WeightGradient::OutIn(&mut out_in);
                let job = LinearGradient { x: rows, dy: slopes, weight, bias: Some(&mut bias) };
                linear_backward(isa, job, &mut scratch);
                let weight = WeightGradient::InOut(&mut in_out);
                linear_backward(isa, LinearGradient { x: rows, dy: slopes, weight, bias: None }, &mut scratch);
                let packed = PackedMatrix::pack(isa, MatrixSource::out_in(&w, n, k).transposed());
                let mut dx = vec![f32::NAN; m * k];
                let output = Output::Store(Activation::None);
                gemm(isa, slopes, &Linear::new(packed, None), RowsMut::new(&mut dx, m, k), output);
                for j in 0..n {
                    for i in 0..k {
                        let want = at(i, j) + 1.0;
                        assert!((f64::from(out_in[j * k + i]) - want).abs() < bound, "{} {m} {k} {n}", isa.name());
                        assert!((f64::from(in_out[i * n + j]) - want).abs() < bound, "{} {m} {k} {n}", isa.name());
                    }
                    let want: f64 = 1.0 + (0..m).map(|r| f64::from(dy[r * n + j])).sum::<f64>();
                    assert!((f64::from(bias[j]) - want).abs() < bound, "{} {m} {k} {n} bias", isa.name());
                }
                for r in 0..m {
                    for i in 0..k {
                        let want: f64 = (0..n).map(|j| f64::from(dy[r * n + j]) * f64::from(w[j * k + i])).sum();
                        assert!((f64::from(dx[r * k + i]) - want).abs() < bound, "{} {m} {k} {n} dx", isa.name());
                    }
                }
                let all = [out_in, in_out, bias, dx];
                assert_eq!(first.get_or_insert_with(|| all.clone()), &all, "{} {m} {k} {n}", isa.name());
            }
        }
    }

    #[test]
    fn no_rows_give_no_gradient() {
        let (mut weight, mut bias) = (vec![1.0; 6], vec![2.0; 2]);
        let job = LinearGradient {
            x: Rows::new(&[], 0, 3),
            dy: Rows::new(&[], 0, 2),
            weight: WeightGradient::OutIn(&mut weight),
            bias: Some(&mut bias),
        };
        linear_backward(Isa::best(), job, &mut GemmScratch::default());
        assert_eq!((weight, bias), (vec![1.0; 6], vec![2.0; 2]));
    }
}

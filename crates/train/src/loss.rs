//! The contrastive loss of CLIP, forward and backward in one call (clip-peers.md 4).

use openvision_kernels::Isa;
use openvision_kernels::act::Activation;
use openvision_kernels::gemm::{
    GemmScratch, Linear, LinearGradient, MatrixSource, Output, PackedMatrix, WeightGradient,
};
use openvision_kernels::gemm::{gemm, linear_backward};
use openvision_kernels::vector::{Rows, RowsMut, normalize, normalize_backward};

/// A contrastive loss with its gradients.
#[derive(Clone, Debug)]
pub struct Contrastive {
    /// The loss, in nats.
    pub loss: f64,
    /// Gradient of the raw image embeddings, [n, D].
    pub image: Vec<f32>,
    /// Gradient of the raw text embeddings, [n, D].
    pub text: Vec<f32>,
    /// Gradient of the logarithm of the scale.
    pub log_scale: f64,
}

/// CLIP's loss of n pictures and their n texts, from raw embeddings [n, D] and the logarithm of the logit scale.
///
/// With unit rows I and T, s = e^log_scale and L = s I Tᵀ: loss = (CE(L, 0..n) + CE(Lᵀ, 0..n)) / 2, each the mean over
/// rows. dL = (softmax by rows + softmax by columns - 2 E) / 2n; d log_scale = Σ dL L. Cosines are f32 products, all
/// sums over a batch of logits f64.
///
/// # Panics
/// Where the two have not one shape, or no rows.
pub fn contrastive(isa: Isa, image: Rows, text: Rows, log_scale: f32) -> Contrastive {
    let (n, width) = (image.count, image.width);
    assert!(n > 0 && text.count == n && text.width == width, "one text for each picture, of one width");
    let (unit_image, unit_text) = (unit(isa, image), unit(isa, text));
    let images = Rows::new(&unit_image, n, width);
    let texts = Rows::new(&unit_text, n, width);
    let packed = |source| Linear::new(PackedMatrix::pack(isa, source), None);
    let mut cosines = vec![0.0; n * n];
    let store = Output::Store(Activation::None);
    let of_texts = packed(MatrixSource::rows(texts).transposed());
    gemm(isa, images, &of_texts, RowsMut::new(&mut cosines, n, n), store);

    let scale = f64::from(log_scale).exp();
    let logit = |i: usize, j: usize| f64::from(cosines[i * n + j]) * scale;
    let by_rows: Vec<f64> = (0..n).map(|i| log_sum_exp((0..n).map(|j| logit(i, j)))).collect();
    let by_columns: Vec<f64> = (0..n).map(|j| log_sum_exp((0..n).map(|i| logit(i, j)))).collect();
    let (mut loss, mut log_scale) = (0.0, 0.0);
    let mut slopes = vec![0.0; n * n];
    for i in 0..n {
        loss += (by_rows[i] + by_columns[i]) / 2.0 - logit(i, i);
        for j in 0..n {
            let l = logit(i, j);
            let same = if i == j { 2.0 } else { 0.0 };
            let slope = ((l - by_rows[i]).exp() + (l - by_columns[j]).exp() - same) / (2 * n) as f64;
            log_scale += slope * l;
            slopes[i * n + j] = (slope * scale) as f32;
        }
    }

    let slopes = Rows::new(&slopes, n, n);
    let (mut image_slopes, mut text_slopes) = (vec![0.0; n * width], vec![0.0; n * width]);
    gemm(isa, slopes, &packed(MatrixSource::rows(texts)), RowsMut::new(&mut image_slopes, n, width), store);
    // The texts are the weight of the product: cosines = I Tᵀ.
    let weight = WeightGradient::OutIn(&mut text_slopes);
    linear_backward(isa, LinearGradient { x: images, dy: slopes, weight, bias: None }, &mut GemmScratch::default());
    Contrastive {
        loss: loss / n as f64,
        image: raw_gradient(image, &image_slopes),
        text: raw_gradient(text, &text_slopes),
        log_scale,
    }
}

/// Rows of unit length.
fn unit(isa: Isa, raw: Rows) -> Vec<f32> {
    let mut unit: Vec<f32> = (0..raw.count).flat_map(|i| raw.row(i)).copied().collect();
    unit.chunks_exact_mut(raw.width).for_each(|row| {
        normalize(isa, row);
    });
    unit
}

/// Gradient of the raw rows from that of the unit rows.
fn raw_gradient(raw: Rows, slopes: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; slopes.len()];
    for (i, (slope, out)) in slopes.chunks_exact(raw.width).zip(out.chunks_exact_mut(raw.width)).enumerate() {
        normalize_backward(raw.row(i), slope, out);
    }
    out
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    largest + values.map(|v| (v - largest).exp()).sum::<f64>().ln()
}

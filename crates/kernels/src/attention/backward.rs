//! Backward of the attention: probabilities are computed again from the fused rows, one sequence and head at a time.

use super::{AttentionShape, Mask, softmax_row};
use crate::Buffer;
use crate::act::Activation;
use crate::gemm::{MatrixSource, Operand, Output, gemm};
use crate::isa::{Isa, Kernel, LANES, Simd};
use crate::vector::{Rows, RowsMut, transpose};

/// Working memory of [`attention_backward`], reused from call to call: three matrices [tokens, tokens].
#[derive(Debug, Default)]
pub struct AttentionScratch {
    probabilities: Buffer,
    slopes: Buffer,
    turned: Buffer,
    operand: Operand,
}

/// What [`attention_backward`] reads and adds to. Rows are those of whole sequences.
#[derive(Debug)]
pub struct AttentionBackward<'a> {
    /// The shape of the forward.
    pub shape: AttentionShape,
    /// Fused rows [q | k | v] of the forward, [sequences × tokens, 3 D].
    pub qkv: Rows<'a>,
    /// Gradient of the result, [same rows, D].
    pub dy: Rows<'a>,
    /// Gradient of the fused rows, [same rows, 3 D]; added to.
    pub dqkv: RowsMut<'a>,
}

/// Distance of the rows of the square matrices.
fn row_stride(tokens: usize) -> usize {
    let stride = tokens.next_multiple_of(LANES);
    if stride.is_multiple_of(256) { stride + LANES } else { stride }
}

/// Raw scores to probabilities, row by row: softmax(scale s) over the visible keys, zero elsewhere.
struct Softmax<'a> {
    shape: AttentionShape,
    scores: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = std::f32::consts::LOG2_E / (self.shape.head_dim as f32).sqrt();
        let stride = row_stride(self.shape.tokens);
        for (i, line) in self.scores.chunks_exact_mut(stride).enumerate().take(self.shape.tokens) {
            let visible = match self.shape.mask {
                Mask::None => self.shape.tokens,
                Mask::Causal => i + 1,
            };
            let normalizer = s.splat(softmax_row(s, line, visible, scale));
            for chunk in line.chunks_exact_mut(LANES) {
                let p = s.mul(s.load_slice(chunk), normalizer);
                s.store_slice(chunk, p);
            }
        }
    }
}

/// Gradient of the probabilities to that of the raw scores, in place: ds = scale p (dp - Σ p dp).
struct SoftmaxBackward<'a> {
    shape: AttentionShape,
    probabilities: &'a [f32],
    slopes: &'a mut [f32],
}

impl Kernel for SoftmaxBackward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let tokens = self.shape.tokens;
        let scale = s.splat(1.0 / (self.shape.head_dim as f32).sqrt());
        let stride = row_stride(tokens);
        let rows = self.probabilities.chunks_exact(stride).zip(self.slopes.chunks_exact_mut(stride));
        for (p, dp) in rows.take(tokens) {
            // Behind the last key there is no gradient, but there may be an earlier use of this memory.
            dp[tokens..].fill(0.0);
            let mut along = s.splat(0.0);
            for (p, dp) in p.chunks_exact(LANES).zip(dp.chunks_exact(LANES)) {
                along = s.fma(s.load_slice(p), s.load_slice(dp), along);
            }
            let along = s.splat(s.sum(along));
            for (p, dp) in p.chunks_exact(LANES).zip(dp.chunks_exact_mut(LANES)) {
                let ds = s.mul(s.mul(s.load_slice(p), scale), s.sub(s.load_slice(dp), along));
                s.store_slice(dp, ds);
            }
        }
    }
}

/// Backward of [`super::attention`] on whole sequences: adds the gradient of Q, K and V to `dqkv`.
///
/// With P = softmax(scale Q Kᵀ): dV = Pᵀ dO; dP = dO Vᵀ; dS = scale P (dP - Σ P dP); dQ = dS K; dK = dSᵀ Q. Nothing is
/// saved by the forward but its input. Five products of [tokens, tokens, head_dim] a head, masked ones included.
///
/// # Panics
/// Where the rows do not have the shape's widths and counts.
pub fn attention_backward(isa: Isa, job: AttentionBackward, scratch: &mut AttentionScratch) {
    let AttentionBackward { shape, qkv, dy, mut dqkv } = job;
    let width = shape.width();
    assert!(qkv.width == 3 * width && dqkv.width == 3 * width, "attention rows of {} and {}", qkv.width, dqkv.width);
    assert!(dy.width == width && dy.count == qkv.count && dqkv.count == qkv.count, "gradients have the rows' shape");
    assert_eq!(qkv.count % shape.tokens, 0, "attention over whole sequences of {} tokens", shape.tokens);
    let square = shape.tokens * row_stride(shape.tokens);
    for buffer in [&mut scratch.probabilities, &mut scratch.slopes, &mut scratch.turned] {
        buffer.ensure(square);
    }
    for first in (0..qkv.count).step_by(shape.tokens) {
        let (rows, dy) = (qkv.rows(first, shape.tokens), dy.rows(first, shape.tokens));
        let mut dqkv = dqkv.rows_mut(first, shape.tokens);
        for head in 0..shape.heads {
            one_head(isa, (shape, head), (rows, dy), &mut dqkv, scratch);
        }
    }
}

/// One head of one sequence.
fn one_head(
    isa: Isa,
    (shape, head): (AttentionShape, usize),
    (qkv, dy): (Rows, Rows),
    dqkv: &mut RowsMut,
    scratch: &mut AttentionScratch,
) {
    let (tokens, dim, width) = (shape.tokens, shape.head_dim, shape.width());
    let stride = row_stride(tokens);
    let column = |part: usize| part * width + head * dim;
    let (q, k, v) = (qkv.columns(column(0), dim), qkv.columns(column(1), dim), qkv.columns(column(2), dim));
    let dy = dy.columns(head * dim, dim);
    let AttentionScratch { probabilities, slopes, turned, operand } = scratch;
    let store = Output::Store(Activation::None);

    let keys = operand.pack(isa, MatrixSource::rows(k).transposed());
    gemm(isa, q, keys, RowsMut::strided(probabilities, tokens, tokens, stride), store);
    isa.run(Softmax { shape, scores: &mut probabilities[..tokens * stride] });
    transpose(Rows::strided(probabilities, tokens, tokens, stride), RowsMut::strided(turned, tokens, tokens, stride));
    let slopes_of_rows = operand.pack(isa, MatrixSource::rows(dy));
    let turned_rows = Rows::strided(turned, tokens, tokens, stride);
    gemm(isa, turned_rows, slopes_of_rows, dqkv.columns_mut(column(2), dim), Output::Add);

    let values = operand.pack(isa, MatrixSource::rows(v).transposed());
    gemm(isa, dy, values, RowsMut::strided(slopes, tokens, tokens, stride), store);
    let (probabilities, slopes) = (&probabilities[..tokens * stride], &mut slopes[..tokens * stride]);
    isa.run(SoftmaxBackward { shape, probabilities, slopes });
    let keys = operand.pack(isa, MatrixSource::rows(k));
    let slope_rows = Rows::strided(slopes, tokens, tokens, stride);
    gemm(isa, slope_rows, keys, dqkv.columns_mut(column(0), dim), Output::Add);
    transpose(slope_rows, RowsMut::strided(turned, tokens, tokens, stride));
    let queries = operand.pack(isa, MatrixSource::rows(q));
    gemm(isa, Rows::strided(turned, tokens, tokens, stride), queries, dqkv.columns_mut(column(1), dim), Output::Add);
}

/// What [`probe_attention_backward`] reads and adds to, for one sequence.
#[derive(Debug)]
pub struct ProbeAttentionBackward<'a> {
    /// The shape of the forward.
    pub shape: AttentionShape,
    /// The query of the forward, `[D]`.
    pub query: &'a [f32],
    /// Rows [k | v] of the forward, [tokens, 2 D].
    pub keys_values: Rows<'a>,
    /// Gradient of the result, `[D]`.
    pub dy: &'a [f32],
    /// Gradient of the query, `[D]`; added to.
    pub dquery: &'a mut [f32],
    /// Gradient of keys and values, [tokens, 2 D]; added to.
    pub dkeys_values: RowsMut<'a>,
}

/// Backward of [`super::probe_attention`]: with p the probabilities and g_t = dy · v_t, ds_t = p_t (g_t - Σ p g).
/// Probabilities are computed again, in f64; a pooling head is a thousandth of a tower's work.
pub fn probe_attention_backward(job: ProbeAttentionBackward) {
    let ProbeAttentionBackward { shape, query, keys_values, dy, dquery, mut dkeys_values } = job;
    let (width, head_dim) = (shape.width(), shape.head_dim);
    let scale = 1.0 / (head_dim as f64).sqrt();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    for head in 0..shape.heads {
        let of_head = head * head_dim..(head + 1) * head_dim;
        let (q, dy) = (&query[of_head.clone()], &dy[of_head.clone()]);
        let key = |token: usize| &keys_values.row(token)[of_head.clone()];
        let value = |token: usize| &keys_values.row(token)[width + head * head_dim..][..head_dim];
        let scores: Vec<f64> = (0..shape.tokens).map(|t| dot(q, key(t)) * scale).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
        let p: Vec<f64> = scores.iter().map(|s| (s - largest).exp() / sum).collect();
        let g: Vec<f64> = (0..shape.tokens).map(|t| dot(dy, value(t))).collect();
        let mean: f64 = p.iter().zip(&g).map(|(p, g)| p * g).sum();
        for token in 0..shape.tokens {
            let ds = p[token] * (g[token] - mean) * scale;
            let k = key(token);
            let row = dkeys_values.row_mut(token);
            for i in 0..head_dim {
                dquery[head * head_dim + i] += (ds * f64::from(k[i])) as f32;
                row[head * head_dim + i] += (ds * f64::from(q[i])) as f32;
                row[width + head * head_dim + i] += (p[token] * f64::from(dy[i])) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::shapes;
    use super::*;
    use crate::vector::testing::uniform;

    /// dQ, dK, dV of one sequence in f64, element by element.
    fn oracle(shape: AttentionShape, qkv: &[f32], dy: &[f32]) -> Vec<f64> {
        let (n, d, hd) = (shape.tokens, shape.width(), shape.head_dim);
        let scale = 1.0 / (hd as f64).sqrt();
        let mut out = vec![0.0; n * 3 * d];
        for h in 0..shape.heads {
            let at = |t: usize, part: usize, i: usize| f64::from(qkv[t * 3 * d + part * d + h * hd + i]);
            let slope = |t: usize, i: usize| f64::from(dy[t * d + h * hd + i]);
            let index = |t: usize, part: usize, i: usize| t * 3 * d + part * d + h * hd + i;
            for a in 0..n {
                let last = if shape.mask == Mask::Causal { a + 1 } else { n };
                let dot = |b: usize| (0..hd).map(|i| at(a, 0, i) * at(b, 1, i)).sum::<f64>() * scale;
                let scores: Vec<f64> = (0..last).map(dot).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let dp: Vec<f64> = (0..last).map(|b| (0..hd).map(|i| slope(a, i) * at(b, 2, i)).sum()).collect();
                let along: f64 = weights.iter().zip(&dp).map(|(p, dp)| p / sum * dp).sum();
                for b in 0..last {
                    let p = weights[b] / sum;
                    let ds = scale * p * (dp[b] - along);
                    for i in 0..hd {
                        out[index(b, 2, i)] += p * slope(a, i);
                        out[index(a, 0, i)] += ds * at(b, 1, i);
                        out[index(b, 1, i)] += ds * at(a, 0, i);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn matches_the_oracle_on_every_set() {
        let mut scratch = AttentionScratch::default();
        for shape in shapes() {
            let (n, d) = (shape.tokens, shape.width());
            let (qkv, dy) = (uniform(5, 2 * n * 3 * d), uniform(6, 2 * n * d));
            let want: Vec<f64> =
                (0..2).flat_map(|s| oracle(shape, &qkv[s * n * 3 * d..][..n * 3 * d], &dy[s * n * d..])).collect();
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::present() {
                let mut got = vec![0.5; 2 * n * 3 * d];
                let job = AttentionBackward {
                    shape,
                    qkv: Rows::new(&qkv, 2 * n, 3 * d),
                    dy: Rows::new(&dy, 2 * n, d),
                    dqkv: RowsMut::new(&mut got, 2 * n, 3 * d),
                };
                attention_backward(isa, job, &mut scratch);
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let got = f64::from(*got) - 0.5;
                    assert!(
                        (got - want).abs() < 3e-6 * (1.0 + want.abs()),
                        "{} {shape:?} {i} {got} {want}",
                        isa.name()
                    );
                }
                assert_eq!(first.get_or_insert_with(|| got.clone()), &got, "{} {shape:?}", isa.name());
            }
        }
    }

    /// The oracle above against central differences of the forward's oracle, so that it is not the same mistake twice.
    #[test]
    fn the_oracle_matches_central_differences() {
        for mask in [Mask::None, Mask::Causal] {
            let shape = AttentionShape { tokens: 5, heads: 2, head_dim: 3, mask };
            let (n, d) = (shape.tokens, shape.width());
            let (qkv, dy) = (uniform(7, n * 3 * d), uniform(8, n * d));
            let loss = |qkv: &[f32]| -> f64 {
                super::super::tests::oracle(shape, qkv).iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum()
            };
            for (i, want) in oracle(shape, &qkv, &dy).iter().enumerate() {
                let (mut up, mut down) = (qkv.clone(), qkv.clone());
                up[i] += 1e-3;
                down[i] -= 1e-3;
                let got = (loss(&up) - loss(&down)) / f64::from(up[i] - down[i]);
                assert!((got - want).abs() < 1e-6, "{mask:?} {i} {got} {want}");
            }
        }
    }

    #[test]
    fn a_probe_matches_central_differences() {
        use crate::attention::probe_attention;
        let shape = AttentionShape { tokens: 7, heads: 2, head_dim: 6, mask: Mask::None };
        let (n, d) = (shape.tokens, shape.width());
        let (query, rows, dy) = (uniform(1, d), uniform(2, n * 2 * d), uniform(3, d));
        let loss = |query: &[f32], rows: &[f32]| -> f64 {
            let mut out = vec![0.0; d];
            let rows = Rows::new(rows, n, 2 * d);
            probe_attention(Isa::best(), shape, query, rows, &mut out, &mut Buffer::default());
            out.iter().zip(&dy).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let (mut dquery, mut drows) = (vec![0.0; d], vec![0.0; rows.len()]);
        probe_attention_backward(ProbeAttentionBackward {
            shape,
            query: &query,
            keys_values: Rows::new(&rows, n, 2 * d),
            dy: &dy,
            dquery: &mut dquery,
            dkeys_values: RowsMut::new(&mut drows, n, 2 * d),
        });
        let h = 1e-2f32;
        for i in 0..d {
            let (mut up, mut down) = (query.clone(), query.clone());
            up[i] += h;
            down[i] -= h;
            let want = (loss(&up, &rows) - loss(&down, &rows)) / f64::from(up[i] - down[i]);
            assert!((f64::from(dquery[i]) - want).abs() < 2e-4, "query {i}: {} {want}", dquery[i]);
        }
        for i in 0..rows.len() {
            let (mut up, mut down) = (rows.clone(), rows.clone());
            up[i] += h;
            down[i] -= h;
            let want = (loss(&query, &up) - loss(&query, &down)) / f64::from(up[i] - down[i]);
            assert!((f64::from(drows[i]) - want).abs() < 2e-4, "row {i}: {} {want}", drows[i]);
        }
    }
}

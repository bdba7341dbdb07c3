//! Token merging (Bolya et al. 2023, arXiv:2210.09461, appendix D): the most similar tokens of a sequence become one.
//!
//! Bipartite soft matching: tokens at even positions each choose the most similar one at an odd position, by the cosine
//! of their keys averaged over the heads; the `remove` closest pairs are merged into means weighted by what each
//! token already stands for. What is left: even positions in order, then odd ones in order, as the authors' code has it
//! with a class token. Equal similarities are decided by position, so the result depends on nothing but the input.

use crate::isa::{Isa, Kernel, Simd};
use crate::vector::{Dot, Rows, RowsMut};

/// How tokens are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Tokens to remove; at most half of those that are not protected are.
    pub remove: usize,
    /// Whether the first token, a class token, is kept as it is.
    pub keep_first: bool,
}

impl Merge {
    /// Tokens that are left of `tokens`.
    pub fn left(self, tokens: usize) -> usize {
        tokens - self.remove.min((tokens - usize::from(self.keep_first).min(tokens)) / 2)
    }
}

/// Working memory of [`merge_tokens`], used again.
#[derive(Debug, Default)]
pub struct MergeScratch {
    /// Unit keys, [tokens, head width].
    keys: Vec<f32>,
    /// For each even position: the similarity of its choice, and the choice as an index among the odd ones.
    choices: Vec<(f32, u32)>,
    /// Even positions (halved), the most similar first.
    order: Vec<u32>,
    /// Rows and sizes that are left.
    rows: Vec<f32>,
    sizes: Vec<f32>,
}

/// Mean over heads of each token's key, scaled to unit length, and each even token's choice.
struct Choose<'a> {
    /// [tokens, heads × head width].
    keys: Rows<'a>,
    heads: usize,
    keep_first: bool,
    scratch: &'a mut MergeScratch,
}

impl Kernel for Choose<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.keys.width / self.heads;
        let MergeScratch { keys, choices, .. } = self.scratch;
        keys.clear();
        keys.resize(self.keys.count * width, 0.0);
        for (i, mean) in keys.chunks_exact_mut(width).enumerate() {
            // The sum points where the mean points.
            for head in self.keys.row(i).chunks_exact(width) {
                mean.iter_mut().zip(head).for_each(|(sum, key)| *sum += key);
            }
            let length = Dot { a: mean, b: mean }.run(s).sqrt().max(1e-12);
            mean.iter_mut().for_each(|value| *value /= length);
        }
        let key = |token: usize| &keys[token * width..][..width];
        choices.clear();
        for even in (0..self.keys.count).step_by(2) {
            if even == 0 && self.keep_first {
                choices.push((f32::NEG_INFINITY, 0));
                continue;
            }
            let mut best = (f32::MIN, 0);
            for odd in (1..self.keys.count).step_by(2) {
                let similarity = Dot { a: key(even), b: key(odd) }.run(s);
                if similarity > best.0 {
                    best = (similarity, (odd / 2) as u32);
                }
            }
            choices.push(best);
        }
    }
}

/// Merges the tokens of one sequence in place: the first [`Merge::left`] rows of `x` and of `sizes` are what is left.
///
/// `x`: [tokens, D]; `keys`: [tokens, heads × head width], the keys of the attention just made; `sizes`: for each
/// token, how many tokens it stands for.
///
/// # Panics
/// Where the counts differ, or the keys are no whole heads.
pub fn merge_tokens(
    isa: Isa,
    merge: Merge,
    (keys, heads): (Rows, usize),
    mut x: RowsMut,
    sizes: &mut [f32],
    scratch: &mut MergeScratch,
) {
    let tokens = x.count;
    assert!(keys.count == tokens && sizes.len() == tokens, "a key and a size for each token");
    assert!(heads > 0 && keys.width.is_multiple_of(heads), "keys of whole heads");
    let removed = tokens - merge.left(tokens);
    if removed == 0 {
        return;
    }
    isa.run(Choose { keys, heads, keep_first: merge.keep_first, scratch });
    let MergeScratch { choices, order, rows, sizes: left, .. } = scratch;
    order.clear();
    order.extend(0..choices.len() as u32);
    order.sort_unstable_by(|&a, &b| {
        let similarity = |i: u32| choices[i as usize].0;
        similarity(b).total_cmp(&similarity(a)).then(a.cmp(&b))
    });
    // Whole tokens of both kinds first: sums weighted by size, then the division.
    let kept = &mut order[removed..];
    kept.sort_unstable();
    rows.clear();
    left.clear();
    for &even in kept.iter() {
        rows.extend_from_slice(x.row_mut(2 * even as usize));
        left.push(sizes[2 * even as usize]);
    }
    let (first_odd, width) = (left.len(), x.width);
    for odd in (1..tokens).step_by(2) {
        rows.extend_from_slice(x.row_mut(odd));
        left.push(sizes[odd]);
    }
    let merged = &mut order[..removed];
    merged.sort_unstable_by_key(|&even| (choices[even as usize].1, even));
    for pair in merged.chunk_by(|&a, &b| choices[a as usize].1 == choices[b as usize].1) {
        let at = first_odd + choices[pair[0] as usize].1 as usize;
        let sum = &mut rows[at * width..][..width];
        sum.iter_mut().for_each(|v| *v *= left[at]);
        for &even in pair {
            let (from, size) = (2 * even as usize, sizes[2 * even as usize]);
            sum.iter_mut().zip(x.row_mut(from).iter()).for_each(|(sum, v)| *sum += v * size);
            left[at] += size;
        }
        sum.iter_mut().for_each(|v| *v /= left[at]);
    }
    for (i, row) in rows.chunks_exact(width).enumerate() {
        x.row_mut(i).copy_from_slice(row);
    }
    sizes[..left.len()].copy_from_slice(left);
}

/// Mean of rows weighted by their sizes: y = Σ size row / Σ size, rows added one by one, in order.
///
/// # Panics
/// Where there is not one size a row, or `y` has another width.
pub fn weighted_mean(x: Rows, sizes: &[f32], y: &mut [f32]) {
    assert!(x.count > 0 && x.count == sizes.len() && y.len() == x.width, "a size for each row");
    y.fill(0.0);
    for (i, size) in sizes.iter().enumerate() {
        y.iter_mut().zip(x.row(i)).for_each(|(sum, v)| *sum += v * size);
    }
    let scale = 1.0 / sizes.iter().sum::<f32>();
    y.iter_mut().for_each(|v| *v *= scale);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u32, length: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..length).map(|_| next()).collect()
    }

    /// The authors' `bipartite_soft_matching` and `merge_wavg`, step by step in f64. Gives rows and sizes.
    fn oracle(merge: Merge, keys: &[Vec<f64>], x: &[Vec<f64>], sizes: &[f64]) -> (Vec<Vec<f64>>, Vec<f64>) {
        let tokens = x.len();
        let protected = usize::from(merge.keep_first);
        let r = merge.remove.min((tokens - protected) / 2);
        if r == 0 {
            return (x.to_vec(), sizes.to_vec());
        }
        let cosine = |a: &[f64], b: &[f64]| {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let evens: Vec<usize> = (0..tokens).step_by(2).collect();
        let odds: Vec<usize> = (1..tokens).step_by(2).collect();
        let mut edges: Vec<(f64, usize, usize)> = evens
            .iter()
            .map(|&even| {
                let mut best = (f64::NEG_INFINITY, even, 0);
                for (j, &odd) in odds.iter().enumerate() {
                    let score =
                        if merge.keep_first && even == 0 { f64::NEG_INFINITY } else { cosine(&keys[even], &keys[odd]) };
                    if score > best.0 {
                        best = (score, even, j);
                    }
                }
                best
            })
            .collect();
        edges.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut kept: Vec<usize> = edges[r..].iter().map(|edge| edge.1).collect();
        kept.sort_unstable();
        let weighted = |i: usize| x[i].iter().map(|v| v * sizes[i]).collect::<Vec<f64>>();
        let mut sums: Vec<Vec<f64>> = kept.iter().chain(&odds).map(|&i| weighted(i)).collect();
        let mut counts: Vec<f64> = kept.iter().chain(&odds).map(|&i| sizes[i]).collect();
        for &(_, even, j) in &edges[..r] {
            let at = kept.len() + j;
            sums[at].iter_mut().zip(weighted(even)).for_each(|(sum, v)| *sum += v);
            counts[at] += sizes[even];
        }
        for (row, count) in sums.iter_mut().zip(&counts) {
            row.iter_mut().for_each(|v| *v /= count);
        }
        (sums, counts)
    }

    #[test]
    fn merges_as_the_paper_does_on_every_set() {
        for (tokens, heads, head, remove) in
            [(7, 2, 8, 2), (101, 3, 64, 8), (50, 1, 20, 40), (2, 1, 4, 1), (20, 2, 16, 0)]
        {
            for keep_first in [false, true] {
                let (merge, width) = (Merge { remove, keep_first }, 24);
                let keys = noise(3, tokens * heads * head);
                let x = noise(5, tokens * width);
                let sizes: Vec<f32> = (0..tokens).map(|i| (1 + i % 4) as f32).collect();
                let split = |v: &[f32], width: usize| -> Vec<Vec<f64>> {
                    v.chunks(width).map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect()
                };
                let mean = |row: &[f32]| -> Vec<f64> {
                    (0..head).map(|i| row.iter().skip(i).step_by(head).map(|&v| f64::from(v)).sum()).collect()
                };
                let means: Vec<Vec<f64>> = keys.chunks(heads * head).map(mean).collect();
                let wide: Vec<f64> = sizes.iter().map(|&v| v.into()).collect();
                let (want, counts) = oracle(merge, &means, &split(&x, width), &wide);
                assert_eq!(want.len(), merge.left(tokens));
                let mut first: Option<Vec<f32>> = None;
                for isa in Isa::present() {
                    let (mut got, mut left) = (x.clone(), sizes.clone());
                    let rows = Rows::new(&keys, tokens, heads * head);
                    let target = RowsMut::new(&mut got, tokens, width);
                    merge_tokens(isa, merge, (rows, heads), target, &mut left, &mut MergeScratch::default());
                    let context = format!("{} {tokens} {merge:?}", isa.name());
                    for (row, want) in got.chunks(width).zip(&want) {
                        for (got, want) in row.iter().zip(want) {
                            assert!((f64::from(*got) - want).abs() < 1e-6, "{context} {got} {want}");
                        }
                    }
                    assert!(left.iter().zip(&counts).all(|(got, want)| f64::from(*got) == *want), "{context}");
                    assert_eq!(left[..merge.left(tokens)].iter().sum::<f32>(), sizes.iter().sum::<f32>(), "{context}");
                    let got = got[..merge.left(tokens) * width].to_vec();
                    assert_eq!(first.get_or_insert_with(|| got.clone()), &got, "{context}");
                }
            }
        }
    }

    #[test]
    fn equal_tokens_merge_by_position_and_what_is_no_number_does_not_panic() {
        let keys = [1.0; 8 * 4];
        for isa in Isa::present() {
            let mut x: Vec<f32> = (0..8).map(|i| i as f32).collect();
            let mut sizes = [1.0; 8];
            let merge = Merge { remove: 2, keep_first: true };
            let (rows, target) = (Rows::new(&keys, 8, 4), RowsMut::new(&mut x, 8, 1));
            merge_tokens(isa, merge, (rows, 1), target, &mut sizes, &mut MergeScratch::default());
            assert_eq!(x[..6], [0.0, 6.0, 7.0 / 3.0, 3.0, 5.0, 7.0]);
            assert_eq!(sizes[..6], [1.0, 1.0, 3.0, 1.0, 1.0, 1.0]);
            let broken = [f32::NAN; 8 * 4];
            let (rows, target) = (Rows::new(&broken, 8, 4), RowsMut::new(&mut x, 8, 1));
            merge_tokens(isa, merge, (rows, 1), target, &mut sizes, &mut MergeScratch::default());
        }
    }

    #[test]
    fn a_mean_by_size_is_the_mean_of_all_copies() {
        let mut y = [0.0; 2];
        weighted_mean(Rows::new(&[1.0, 2.0, 5.0, -2.0], 2, 2), &[3.0, 1.0], &mut y);
        assert_eq!(y, [2.0, 1.0]);
    }
}

//! Exact nearest neighbours over embeddings. Knows vectors, not models.
#![forbid(unsafe_code)]

use openvision_kernels::Isa;
use openvision_kernels::vector::{Rows, dot};

/// A row and its similarity to a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Index of the row.
    pub row: usize,
    /// Dot product with the query: the cosine, for unit vectors.
    pub score: f32,
}

/// The `k` rows most similar to `query`, best first; equal scores keep the order of the rows.
///
/// `rows`: [N, D], `query`: `[D]`. Exact. Scores that are no number come last.
///
/// # Panics
/// Where the widths differ.
pub fn nearest(isa: Isa, rows: Rows, query: &[f32], k: usize) -> Vec<Hit> {
    assert_eq!(rows.width, query.len(), "a query is as wide as the rows");
    let mut hits: Vec<Hit> = (0..rows.count).map(|row| Hit { row, score: dot(isa, rows.row(row), query) }).collect();
    let order = |a: &Hit, b: &Hit| {
        let key = |hit: &Hit| if hit.score.is_nan() { f32::NEG_INFINITY } else { hit.score };
        key(b).total_cmp(&key(a)).then(a.row.cmp(&b.row))
    };
    if k < hits.len() {
        hits.select_nth_unstable_by(k, order);
        hits.truncate(k);
    }
    hits.sort_unstable_by(order);
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_first_and_ties_in_order() {
        let rows = [0.0, 1.0, 1.0, 0.0, f32::NAN, 0.0, 1.0, 0.0, 0.6, 0.8];
        for isa in Isa::present() {
            let hits = nearest(isa, Rows::new(&rows, 5, 2), &[1.0, 0.0], 4);
            assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [1, 3, 4, 0]);
            assert_eq!(hits[2].score, 0.6);
            assert_eq!(nearest(isa, Rows::new(&rows, 5, 2), &[1.0, 0.0], 99).len(), 5);
            assert!(nearest(isa, Rows::new(&[], 0, 2), &[1.0, 0.0], 3).is_empty());
        }
    }
}

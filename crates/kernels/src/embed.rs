//! Backward of embeddings: rows of a table that a forward added to token rows. The forwards are plain copies and live in
//! the executors. Gradients are added to, row after row, so that their order is that of the batch.

use crate::vector::{Rows, RowsMut};

fn add(row: &[f32], sum: &mut [f32]) {
    for (sum, v) in sum.iter_mut().zip(row) {
        *sum += v;
    }
}

/// Gradient of a table whose row t was added to token t of every sequence: positions, or a class token (one row).
///
/// `dy`: [sequences × tokens, D]; `table`: [at most tokens, D].
pub fn positions_backward(dy: Rows, tokens: usize, mut table: RowsMut) {
    assert!(tokens > 0 && dy.count.is_multiple_of(tokens), "whole sequences of {tokens} tokens, not {} rows", dy.count);
    assert!(dy.width == table.width && table.count <= tokens, "a table of [{}, {}]", table.count, table.width);
    for first in (0..dy.count).step_by(tokens) {
        for token in 0..table.count {
            add(dy.row(first + token), table.row_mut(token));
        }
    }
}

/// Gradient of a token table: row i of `dy` belongs to the word `ids[i]`.
///
/// `dy`: [sequences × tokens, D]; `table`: [vocabulary, D].
///
/// # Panics
/// Where an id is outside the vocabulary, as in the forward.
pub fn words_backward(dy: Rows, ids: &[u32], mut table: RowsMut) {
    assert!(dy.count == ids.len() && dy.width == table.width, "{} rows for {} ids", dy.count, ids.len());
    for (i, &id) in ids.iter().enumerate() {
        assert!((id as usize) < table.count, "token id {id} is outside the vocabulary of {}", table.count);
        add(dy.row(i), table.row_mut(id as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::testing::uniform;

    #[test]
    fn every_row_reaches_its_table_row() {
        let (sequences, tokens, width) = (3, 5, 7);
        let dy = uniform(1, sequences * tokens * width);
        let rows = Rows::new(&dy, sequences * tokens, width);
        let ids: Vec<u32> = (0..15).map(|i| i * i % 4).collect();
        let (mut positions, mut class, mut words) = (vec![1.0; tokens * width], vec![0.0; width], vec![0.0; 4 * width]);
        positions_backward(rows, tokens, RowsMut::new(&mut positions, tokens, width));
        positions_backward(rows, tokens, RowsMut::new(&mut class, 1, width));
        words_backward(rows, &ids, RowsMut::new(&mut words, 4, width));
        let sum = |keep: &dyn Fn(usize) -> bool, j: usize| -> f64 {
            (0..15).filter(|&i| keep(i)).map(|i| f64::from(dy[i * width + j])).sum()
        };
        for j in 0..width {
            for t in 0..tokens {
                let want = 1.0 + sum(&|i| i % tokens == t, j);
                assert!((f64::from(positions[t * width + j]) - want).abs() < 1e-6);
            }
            assert!((f64::from(class[j]) - sum(&|i| i % tokens == 0, j)).abs() < 1e-6);
            for word in 0..4 {
                let want = sum(&|i| ids[i] == word, j);
                assert!((f64::from(words[word as usize * width + j]) - want).abs() < 1e-6);
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside the vocabulary")]
    fn unknown_words_are_refused() {
        words_backward(Rows::new(&[0.0; 2], 1, 2), &[3], RowsMut::new(&mut [0.0; 6], 3, 2));
    }
}

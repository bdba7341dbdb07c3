//! The unigram model: of all ways to cut a text into known pieces the likeliest, by dynamic programming over its bytes.
use super::trie::Trie;

/// How scores are added: the two peers round differently, which decides between cuts that are nearly equal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// sentencepiece: 32 bits.
    Single,
    /// Hugging Face: 64 bits.
    Double,
}

/// Pieces with the logarithms of their probabilities.
pub(super) struct Unigram {
    pub(super) trie: Trie,
    /// By id.
    pub(super) scores: Vec<f64>,
    /// Score of a character that no piece covers.
    pub(super) unknown_score: f64,
    pub(super) precision: Precision,
}

/// What an unknown character costs beyond the least likely piece.
pub(super) const UNKNOWN_PENALTY: f64 = 10.0;

/// The best way to reach a place in the text.
#[derive(Clone, Copy)]
struct Step {
    score: f64,
    start: usize,
    piece: Option<u32>,
}

impl Unigram {
    /// The pieces of a text in order: the byte range of each, and its id or `None` for a character that no piece covers.
    pub(super) fn cut(&self, text: &str) -> Vec<(std::ops::Range<usize>, Option<u32>)> {
        let bytes = text.as_bytes();
        let mut best: Vec<Option<Step>> = vec![None; bytes.len() + 1];
        for (start, c) in text.char_indices() {
            let before = best[start].map_or(0.0, |step| step.score);
            let mut covered = false;
            for (length, id) in self.trie.prefixes(&bytes[start..]) {
                self.offer(&mut best[start + length], before, start, Some(id));
                covered |= length == c.len_utf8();
            }
            if !covered {
                self.offer(&mut best[start + c.len_utf8()], before, start, None);
            }
        }
        let mut pieces = Vec::new();
        let mut end = bytes.len();
        while let Some(step) = best[end].filter(|_| end > 0) {
            pieces.push((step.start..end, step.piece));
            end = step.start;
        }
        pieces.reverse();
        pieces
    }

    fn offer(&self, place: &mut Option<Step>, before: f64, start: usize, piece: Option<u32>) {
        let score = before + piece.map_or(self.unknown_score, |id| self.scores[id as usize]);
        let score = match self.precision {
            Precision::Single => f64::from(score as f32),
            Precision::Double => score,
        };
        if place.is_none_or(|best| score > best.score) {
            *place = Some(Step { score, start, piece });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likeliest_cut() {
        let mut trie = Trie::new();
        let pieces = [("a", -2.0), ("b", -2.0), ("ab", -3.0), ("abc", -9.0), ("é", -1.0)];
        for (id, (piece, _)) in (0..).zip(pieces) {
            trie.insert(piece.as_bytes(), id);
        }
        let scores = pieces.map(|(_, score)| score).to_vec();
        let unigram = Unigram { trie, scores, unknown_score: -19.0, precision: Precision::Double };
        assert_eq!(unigram.cut("abcé"), [(0..3, Some(3)), (3..5, Some(4))]);
        assert_eq!(unigram.cut("xab"), [(0..1, None), (1..3, Some(2))]);
        assert_eq!(unigram.cut(""), []);
    }
}

//! From text to words for WordPiece: Hugging Face's BERT rules and TensorFlow Text's, which differ on unusual characters.
use unicode_normalization::UnicodeNormalization;

use super::unicode::{contains, nfkc_casefold_nfd};
use super::unicode_tables as tables;
use super::wordpiece::{LONGEST_WORD, Vocabulary};

/// Strings that Hugging Face's classes read as special ids wherever they occur in a text.
const SPECIAL_STRINGS: [&str; 5] = ["[UNK]", "[SEP]", "[CLS]", "[PAD]", "[MASK]"];

/// Pieces by Hugging Face's rules (`BertWordPieceTokenizer` and `BertTokenizer`, lower case), special strings recognised.
pub(super) fn hugging_face_pieces_with_specials(text: &str, vocabulary: &Vocabulary) -> Vec<u32> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((at, special, id)) = next_special(rest, vocabulary) {
        push_hugging_face(&rest[..at], vocabulary, &mut out);
        out.push(id);
        rest = &rest[at + special.len()..];
    }
    push_hugging_face(rest, vocabulary, &mut out);
    out
}

/// Pieces by Hugging Face's rules; `[CLS]` in a text is three words.
pub(super) fn hugging_face_pieces(text: &str, vocabulary: &Vocabulary) -> Vec<u32> {
    let mut out = Vec::new();
    push_hugging_face(text, vocabulary, &mut out);
    out
}

fn next_special(text: &str, vocabulary: &Vocabulary) -> Option<(usize, &'static str, u32)> {
    let brackets = text.match_indices('[').map(|(at, _)| at);
    brackets.into_iter().find_map(|at| {
        let special = SPECIAL_STRINGS.into_iter().find(|special| text[at..].starts_with(special))?;
        Some((at, special, vocabulary.id(special)?))
    })
}

fn push_hugging_face(text: &str, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
    let words = hugging_face_normalize(text);
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut Vec<u32>| push_word(word, word.chars().count(), vocabulary, out);
    for c in words.chars() {
        if c.is_whitespace() {
            flush(&mut word, out);
        } else if contains(tables::BERT_PUNCTUATION, c) {
            flush(&mut word, out);
            word.push(c);
            flush(&mut word, out);
        } else {
            word.push(c);
        }
    }
    flush(&mut word, out);
}

/// Appends the pieces of the word, if it is not empty, and empties it.
fn push_word(word: &mut String, length: usize, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
    if length > LONGEST_WORD {
        out.push(vocabulary.unknown());
    } else {
        vocabulary.split_word(word, out);
    }
    word.clear();
}

/// `BertNormalizer()` with its defaults.
fn hugging_face_normalize(text: &str) -> String {
    BertRules { clean_text: true, space_ideographs: true, strip_accents: true, lowercase: true }.apply(text)
}

/// Hugging Face's `BertNormalizer`.
pub(super) struct BertRules {
    /// Controls dropped, white space to spaces.
    pub(super) clean_text: bool,
    /// Spaces around ideographs.
    pub(super) space_ideographs: bool,
    pub(super) strip_accents: bool,
    /// Character by character, so no final sigma.
    pub(super) lowercase: bool,
}

impl BertRules {
    pub(super) fn apply(&self, text: &str) -> String {
        let mut spaced = String::with_capacity(text.len());
        for c in text.chars() {
            let is_control = contains(tables::BERT_CONTROL, c);
            if self.clean_text && is_control {
                continue;
            }
            if self.clean_text && c.is_whitespace() {
                spaced.push(' ');
            } else if self.space_ideographs && contains(tables::BERT_IDEOGRAPH, c) {
                spaced.extend([' ', c, ' ']);
            } else {
                spaced.push(c);
            }
        }
        if spaced.is_ascii() {
            return if self.lowercase { spaced.to_ascii_lowercase() } else { spaced };
        }
        if self.strip_accents {
            spaced = spaced.nfd().filter(|&c| !contains(tables::BERT_MARK, c)).collect();
        }
        if self.lowercase {
            spaced = spaced.chars().flat_map(char::to_lowercase).collect();
        }
        spaced
    }
}

/// Pieces by `tensorflow_text.BertTokenizer(lower_case=True)`: NFKC case folding, NFD, marks dropped, controls to spaces,
/// split at ASCII white space, punctuation and ideographs; words over 100 bytes are unknown.
pub(super) fn tensorflow_pieces(text: &str, vocabulary: &Vocabulary) -> Vec<u32> {
    let mut out = Vec::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut Vec<u32>| push_word(word, word.len(), vocabulary, out);
    for c in nfkc_casefold_nfd(text).chars().filter(|&c| !contains(tables::NONSPACING_MARK, c)) {
        if c == ' ' || contains(tables::CONTROL_OR_FORMAT, c) {
            flush(&mut word, &mut out);
        } else if contains(tables::PUNCTUATION, c) || is_tensorflow_ideograph(c) {
            flush(&mut word, &mut out);
            word.push(c);
            flush(&mut word, &mut out);
        } else {
            word.push(c);
        }
    }
    flush(&mut word, &mut out);
    out
}

/// The ranges of `basic_tokenizer`'s pattern in tensorflow_text.
fn is_tensorflow_ideograph(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2a6df}' | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2b81f}' | '\u{2b820}'..='\u{2ceaf}' | '\u{f900}'..='\u{faff}' | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_rules_differ() {
        let vocabulary = Vocabulary::openvision().unwrap();
        let text = "[CLS] ½";
        assert_eq!(hugging_face_pieces_with_specials(text, &vocabulary), [101, 1092]);
        assert_eq!(hugging_face_pieces(text, &vocabulary), [1031, 18856, 2015, 1033, 1092]);
        assert_eq!(tensorflow_pieces(text, &vocabulary), [1031, 18856, 2015, 1033, 1015, 30070, 2475]);
    }

    #[test]
    fn long_words_are_unknown() {
        let vocabulary = Vocabulary::openvision().unwrap();
        assert_eq!(hugging_face_pieces(&"a".repeat(101), &vocabulary), [100]);
        assert_ne!(hugging_face_pieces(&"a".repeat(100), &vocabulary), [100]);
        assert_eq!(tensorflow_pieces(&"я".repeat(51), &vocabulary), [100]);
        assert_ne!(tensorflow_pieces(&"я".repeat(50), &vocabulary), [100]);
    }
}

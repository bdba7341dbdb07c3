//! WordPiece: a vocabulary and the greedy longest-match split of one word.
use std::collections::HashMap;
use std::path::Path;

use super::{Fnv, TokenError, assets, check_id};

/// Words longer than this are unknown: characters in Hugging Face's rules, bytes in TensorFlow's.
pub(super) const LONGEST_WORD: usize = 100;

/// A WordPiece vocabulary; pieces inside of a word begin with a prefix, `##` as a rule.
pub(super) struct Vocabulary {
    prefix: String,
    ids: HashMap<Box<str>, u32>,
    longest_piece: usize,
    size: usize,
    unknown: u32,
    digest: u64,
}

impl Vocabulary {
    /// The built-in vocabulary of bert-base-uncased.
    pub(super) fn bert() -> Result<Self, TokenError> {
        let text = String::from_utf8(assets::inflate_embedded(assets::BERT_VOCABULARY)).unwrap_or_default();
        Self::from_lines(text.lines().map(str::to_owned).collect(), Path::new("(built in)"))
    }

    /// The built-in vocabulary with OpenVision's names for ids 1 and 2.
    pub(super) fn openvision() -> Result<Self, TokenError> {
        let text = String::from_utf8(assets::inflate_embedded(assets::BERT_VOCABULARY)).unwrap_or_default();
        let renamed = |(id, line): (usize, &str)| match id {
            1 => "[bos]".to_owned(),
            2 => "[eos]".to_owned(),
            _ => line.to_owned(),
        };
        Self::from_lines(text.lines().enumerate().map(renamed).collect(), Path::new("(built in)"))
    }

    /// A `vocab.txt`: one piece a line, its id is the line's number from 0. Of repeated lines the last one counts and line
    /// ends may be CRLF, as in the peers.
    pub(super) fn from_file(path: &Path) -> Result<Self, TokenError> {
        let text = assets::read_text(path)?;
        Self::from_lines(text.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect(), path)
    }

    fn from_lines(lines: Vec<String>, path: &Path) -> Result<Self, TokenError> {
        let size = lines.len();
        let mut ids = HashMap::with_capacity(size);
        for (id, line) in lines.into_iter().enumerate() {
            let id = check_id(id as u64, path)?;
            if !line.is_empty() {
                ids.insert(line.into_boxed_str(), id);
            }
        }
        Self::from_ids(ids, "[UNK]", path)
    }

    /// A vocabulary from pieces and ids, such as of a `tokenizer.json`.
    pub(super) fn from_ids(ids: HashMap<Box<str>, u32>, unknown: &str, path: &Path) -> Result<Self, TokenError> {
        if ids.is_empty() {
            return Err(TokenError::Empty { path: path.to_owned() });
        }
        let Some(&unknown) = ids.get(unknown) else {
            return Err(TokenError::MissingPiece { path: path.to_owned(), piece: unknown.to_owned() });
        };
        let longest_piece = ids.keys().map(|piece| piece.len()).max().unwrap_or(0);
        let size = ids.values().max().map_or(0, |&id| id as usize + 1);
        // Order-independent: a sum over the pieces.
        let digest = ids.iter().fold(0u64, |sum, (piece, id)| {
            sum.wrapping_add(Fnv::new().bytes(piece.as_bytes()).number(u64::from(*id)).finish())
        });
        Ok(Self { prefix: "##".into(), ids, longest_piece, size, unknown, digest })
    }

    /// With another mark of pieces inside of a word.
    pub(super) fn with_prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// One more than the largest id.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// The id of unknown words.
    pub(super) fn unknown(&self) -> u32 {
        self.unknown
    }

    /// Appends the pieces of one word: the longest known beginning, then the longest known `##` continuation, and so on;
    /// the unknown id for the whole word if that gets stuck.
    pub(super) fn split_word(&self, word: &str, out: &mut Vec<u32>) {
        let before = out.len();
        let mut candidate = String::with_capacity(word.len() + 2);
        let mut start = 0;
        while start < word.len() {
            let prefix = if start == 0 { "" } else { self.prefix.as_str() };
            candidate.clear();
            candidate.push_str(prefix);
            let end = word.floor_char_boundary(start.saturating_add(self.longest_piece));
            candidate.push_str(&word[start..end]);
            let Some((length, id)) = self.longest_beginning(&candidate, prefix.len()) else {
                out.truncate(before);
                out.push(self.unknown);
                return;
            };
            out.push(id);
            start += length - prefix.len();
        }
    }

    /// The longest beginning of `text`, more than `least` bytes long, that is a piece: its length and id.
    fn longest_beginning(&self, text: &str, least: usize) -> Option<(usize, u32)> {
        let longest = text.len().min(self.longest_piece);
        let ends = (least + 1..=longest).rev().filter(|&end| text.is_char_boundary(end));
        ends.map(|end| (end, &text[..end])).find_map(|(end, piece)| Some((end, self.id(piece)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_vocabularies() {
        let bert = Vocabulary::bert().unwrap();
        let openvision = Vocabulary::openvision().unwrap();
        for vocabulary in [&bert, &openvision] {
            assert_eq!(vocabulary.size(), 30522);
            assert_eq!(vocabulary.id("[CLS]"), Some(101));
            assert_eq!(vocabulary.unknown(), 100);
        }
        assert_eq!((bert.id("[unused0]"), openvision.id("[bos]"), openvision.id("[eos]")), (Some(1), Some(1), Some(2)));
        assert_ne!(bert.digest(), openvision.digest());
    }

    #[test]
    fn greedy_split() {
        let vocabulary = Vocabulary::bert().unwrap();
        for (word, ids) in
            [("beignet", vec![21388, 10177, 2102]), ("cat", vec![4937]), ("\u{2603}\u{2603}", vec![100]), ("", vec![])]
        {
            let mut out = Vec::new();
            vocabulary.split_word(word, &mut out);
            assert_eq!(out, ids, "{word}");
        }
    }
}

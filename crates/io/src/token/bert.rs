//! BERT's layout, `[CLS] pieces [SEP] 0 … 0`, with open_clip's `strip_sep_token`: how the peers read CLIPA's configs, and how
//! they misread OpenVision's published ones.
use std::path::Path;

use super::bert_text::{hugging_face_pieces, hugging_face_pieces_with_specials};
use super::wordpiece::Vocabulary;
use super::{Clean, Encoded, Fnv, TokenError, Tokenizer, bounded};

const PAD: u32 = 0;

/// What to do with the `[SEP]` ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// Kept, as in BERT.
    Keep,
    /// Turned into padding wherever it stands: open_clip's `strip_sep_token`.
    Strip,
}

/// Tokenizer with BERT's layout.
pub struct BertTokenizer {
    vocabulary: Vocabulary,
    clean: Clean,
    separator: Separator,
    context_length: usize,
    class_id: u32,
    separator_id: u32,
    special_strings: bool,
}

impl BertTokenizer {
    /// `vocabulary` is a `vocab.txt` or `None` for bert-base-uncased's.
    ///
    /// # Errors
    /// If the file cannot be read as a vocabulary with `[CLS]` and `[SEP]`, or `context_length` is under 2.
    pub fn new(
        vocabulary: Option<&Path>,
        clean: Clean,
        separator: Separator,
        context_length: usize,
    ) -> Result<Self, TokenError> {
        let built = match vocabulary {
            Some(path) => Vocabulary::from_file(path)?,
            None => Vocabulary::bert()?,
        };
        let path = vocabulary.unwrap_or(Path::new("(built in)"));
        Self::with_vocabulary(built, path, (clean, separator), context_length)
    }

    pub(super) fn with_vocabulary(
        vocabulary: Vocabulary,
        path: &Path,
        (clean, separator): (Clean, Separator),
        context_length: usize,
    ) -> Result<Self, TokenError> {
        super::check_context(context_length, 2)?;
        let need = |piece: &str| {
            let missing = || TokenError::MissingPiece { path: path.to_owned(), piece: piece.to_owned() };
            vocabulary.id(piece).ok_or_else(missing)
        };
        let (class_id, separator_id) = (need("[CLS]")?, need("[SEP]")?);
        Ok(Self { vocabulary, clean, separator, context_length, class_id, separator_id, special_strings: true })
    }

    /// Reads `[CLS]`, `[SEP]` and the like in a text as plain words; by default they become ids, as in the peers.
    pub fn ignoring_special_strings(mut self) -> Self {
        self.special_strings = false;
        self
    }

    /// All pieces of a text, uncut and without the layout.
    pub fn pieces(&self, text: &str) -> Vec<u32> {
        let clean = self.clean.apply(text);
        if self.special_strings {
            hugging_face_pieces_with_specials(&clean, &self.vocabulary)
        } else {
            hugging_face_pieces(&clean, &self.vocabulary)
        }
    }

    fn separator_name(&self) -> &'static str {
        match self.separator {
            Separator::Keep => "sep",
            Separator::Strip => "nosep",
        }
    }
}

impl Tokenizer for BertTokenizer {
    fn encode(&self, text: &str) -> Encoded {
        let pieces = self.pieces(bounded(text));
        let kept = pieces.len().min(self.context_length - 2);
        let mut ids = Vec::with_capacity(self.context_length);
        ids.push(self.class_id);
        ids.extend_from_slice(&pieces[..kept]);
        ids.push(self.separator_id);
        let used = ids.len();
        ids.resize(self.context_length, PAD);
        if self.separator == Separator::Strip {
            ids.iter_mut().filter(|id| **id == self.separator_id).for_each(|id| *id = PAD);
        }
        Encoded { ids, used, dropped: pieces.len() - kept }
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn fingerprint(&self) -> String {
        let specials = if self.special_strings { "" } else { "-plain" };
        let rules = format!("{}-{}{specials}", self.separator_name(), self.clean.name());
        let hash = Fnv::new().number(self.vocabulary.digest()).bytes(rules.as_bytes());
        format!("bert-{rules}-{}-{:016x}", self.context_length, hash.finish())
    }

    fn vocabulary_size(&self) -> usize {
        self.vocabulary.size()
    }

    fn describe(&self) -> String {
        let end = match self.separator {
            Separator::Keep => "[SEP]",
            Separator::Strip => "0 in place of [SEP]",
        };
        format!(
            "BERT: {} ids, [CLS] pieces {end} padding; WordPiece of {}; cleaning: {}",
            self.context_length,
            self.vocabulary.size(),
            self.clean.name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        for (separator, end) in [(Separator::Keep, 102), (Separator::Strip, 0)] {
            let tokenizer = BertTokenizer::new(None, Clean::Whitespace, separator, 8).unwrap();
            let encoded = tokenizer.encode("a  cat");
            assert_eq!((encoded.ids, encoded.used), (vec![101, 1037, 4937, end, 0, 0, 0, 0], 4));
            let cut = tokenizer.encode("a a a a a a a a");
            assert_eq!((cut.ids, cut.dropped), (vec![101, 1037, 1037, 1037, 1037, 1037, 1037, end], 2));
        }
    }
}

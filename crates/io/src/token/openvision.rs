//! OpenVision's text layout: `[bos] pieces [eos] 0 … 0 [CLS]`, the class token last because the tower pools there.
use std::path::Path;

use super::bert_text::{hugging_face_pieces, hugging_face_pieces_with_specials, tensorflow_pieces};
use super::wordpiece::Vocabulary;
use super::{Clean, Encoded, Fnv, TokenError, Tokenizer, bounded};

const BOS: u32 = 1;
const EOS: u32 = 2;
const PAD: u32 = 0;
const CLASS: u32 = 101;

/// Which of the authors' two tokenizers to follow; they give different ids on about one in five unusual texts, and the
/// same on plain ASCII without HTML entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenVisionVariant {
    /// The authors' PyTorch class, with which the published weights are used: text repaired by ftfy, HTML unescaped, white
    /// space collapsed; `[CLS]` and its like in a text become special ids.
    Torch,
    /// TensorFlow Text as in training: no cleaning, NFKC case folding, no special strings.
    Jax,
}

/// Tokenizer of the OpenVision models.
pub struct OpenVisionTokenizer {
    vocabulary: Vocabulary,
    variant: OpenVisionVariant,
    context_length: usize,
    special_strings: bool,
}

impl OpenVisionTokenizer {
    /// `vocabulary` is a `vocab.txt` (bert-base-uncased's will do, it differs in two names only) or `None` for the built-in
    /// one. The models have 80 positions.
    ///
    /// # Errors
    /// If the file cannot be read as a vocabulary, or lacks ids that the layout needs, or `context_length` is under 4.
    pub fn new(
        vocabulary: Option<&Path>,
        variant: OpenVisionVariant,
        context_length: usize,
    ) -> Result<Self, TokenError> {
        let vocabulary = match vocabulary {
            Some(path) => Vocabulary::from_file(path)?,
            None => Vocabulary::openvision()?,
        };
        Self::with_vocabulary(vocabulary, variant, context_length)
    }

    pub(super) fn with_vocabulary(
        vocabulary: Vocabulary,
        variant: OpenVisionVariant,
        context_length: usize,
    ) -> Result<Self, TokenError> {
        super::check_context(context_length, 4)?;
        if vocabulary.id("[CLS]") != Some(CLASS) {
            return Err(TokenError::ClassIdElsewhere { found: vocabulary.id("[CLS]") });
        }
        Ok(Self { vocabulary, variant, context_length, special_strings: variant == OpenVisionVariant::Torch })
    }

    /// Reads `[CLS]`, `[SEP]`, `[PAD]`, `[MASK]` and `[UNK]` in a text as plain words, so that a user's text cannot place
    /// the token that the tower pools. The authors' class does turn them into ids, so this is off by default.
    pub fn ignoring_special_strings(mut self) -> Self {
        self.special_strings = false;
        self
    }

    /// The text after cleaning, as the pieces are cut from it.
    pub fn clean(&self, text: &str) -> String {
        match self.variant {
            OpenVisionVariant::Torch => Clean::Whitespace.apply(text),
            OpenVisionVariant::Jax => text.to_owned(),
        }
    }

    /// All pieces of a text, uncut and without the layout.
    pub fn pieces(&self, text: &str) -> Vec<u32> {
        let clean = self.clean(text);
        match (self.variant, self.special_strings) {
            (OpenVisionVariant::Torch, true) => hugging_face_pieces_with_specials(&clean, &self.vocabulary),
            (OpenVisionVariant::Torch, false) => hugging_face_pieces(&clean, &self.vocabulary),
            (OpenVisionVariant::Jax, _) => tensorflow_pieces(&clean, &self.vocabulary),
        }
    }

    fn variant_name(&self) -> &'static str {
        match (self.variant, self.special_strings) {
            (OpenVisionVariant::Torch, true) => "torch",
            (OpenVisionVariant::Torch, false) => "torch-plain",
            (OpenVisionVariant::Jax, _) => "jax",
        }
    }
}

impl Tokenizer for OpenVisionTokenizer {
    fn encode(&self, text: &str) -> Encoded {
        let pieces = self.pieces(bounded(text));
        let kept = pieces.len().min(self.context_length - 3);
        let mut ids = Vec::with_capacity(self.context_length);
        ids.push(BOS);
        ids.extend_from_slice(&pieces[..kept]);
        ids.push(EOS);
        let used = ids.len();
        ids.resize(self.context_length - 1, PAD);
        ids.push(CLASS);
        Encoded { ids, used, dropped: pieces.len() - kept }
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn fingerprint(&self) -> String {
        let hash = Fnv::new().number(self.vocabulary.digest()).bytes(self.variant_name().as_bytes());
        format!("openvision-{}-{}-{:016x}", self.variant_name(), self.context_length, hash.finish())
    }

    fn vocabulary_size(&self) -> usize {
        self.vocabulary.size()
    }

    fn describe(&self) -> String {
        let rules = match self.variant_name() {
            "torch" => "cleaned as the authors' PyTorch class does",
            "torch-plain" => "cleaned as the authors' PyTorch class does, special strings read as plain words",
            _ => "TensorFlow Text as in training, no cleaning",
        };
        format!(
            "OpenVision: {} ids, [bos] pieces [eos] padding [CLS] with the class token last; WordPiece of {}; {rules}",
            self.context_length,
            self.vocabulary.size()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test vectors of shared/reference/openvision.md 2.2, from the authors' class.
    #[test]
    fn authors_test_vectors() {
        let tokenizer = OpenVisionTokenizer::new(None, OpenVisionVariant::Torch, 80).unwrap();
        for (text, start) in [
            ("a diagram", vec![1, 1037, 16403, 2]),
            ("a beignet", vec![1, 1037, 21388, 10177, 2102, 2]),
            ("A photo of a Café, naïve résumé!", vec![1, 1037, 6302, 1997, 1037, 7668, 1010, 15743, 13746, 999, 2]),
            ("GPT-4o 中文 test", vec![1, 14246, 2102, 1011, 1018, 2080, 1746, 1861, 3231, 2]),
            ("", vec![1, 2]),
        ] {
            let encoded = tokenizer.encode(text);
            assert_eq!(encoded.used, start.len(), "{text}");
            let mut expected = start;
            expected.resize(79, 0);
            expected.push(101);
            assert_eq!((encoded.ids, encoded.dropped), (expected, 0), "{text}");
        }
        let long = tokenizer.encode(&"x ".repeat(100));
        assert_eq!((long.ids[77], long.ids[78], long.ids[79], long.used, long.dropped), (1060, 2, 101, 79, 23));
    }

    #[test]
    fn a_user_cannot_place_the_class_token_if_told_so() {
        let torch = OpenVisionTokenizer::new(None, OpenVisionVariant::Torch, 80).unwrap();
        assert_eq!(torch.encode("[CLS]").ids[1], 101);
        let plain = torch.ignoring_special_strings();
        assert_eq!(plain.encode("[CLS]").ids[1..5], [1031, 18856, 2015, 1033]);
    }

    #[test]
    fn other_lengths_are_cut_too() {
        let tokenizer = OpenVisionTokenizer::new(None, OpenVisionVariant::Torch, 8).unwrap();
        assert_eq!(tokenizer.encode("a a a a a a a").ids, [1, 1037, 1037, 1037, 1037, 1037, 2, 101]);
        assert!(OpenVisionTokenizer::new(None, OpenVisionVariant::Torch, 3).is_err());
    }
}

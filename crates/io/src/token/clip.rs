//! CLIP's tokenizer: cleaning, the word pattern, byte pairs, and `start pieces end padding`.
use std::path::Path;

use unicode_normalization::UnicodeNormalization;

use super::bpe::BytePairs;
use super::unicode::{is_letter, is_number, is_unknown_to_hugging_face};
use super::{Clean, Encoded, Fnv, TokenError, Tokenizer, bounded};

/// What fills the row after the end token. Under a causal mask the pooled vector does not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipPadding {
    /// Id 0, as open_clip and OpenAI do.
    Zero,
    /// The end token, as Hugging Face's CLIPTokenizer does.
    End,
    /// Another id, as some Hugging Face folders name in tokenizer_config.json.
    Id(u32),
}

/// The peer whose reading of special strings and case is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClipRules {
    OpenClip(Clean),
    OpenAi,
    HuggingFace,
}

/// Tokenizer of CLIP and OpenCLIP models.
pub struct ClipTokenizer {
    pairs: BytePairs,
    rules: ClipRules,
    context_length: usize,
    padding: ClipPadding,
    start: u32,
    end: u32,
}

impl ClipTokenizer {
    /// open_clip's `SimpleTokenizer`. `merges` is `bpe_simple_vocab_16e6.txt[.gz]`, or a folder or `vocab.json` beside which
    /// `merges.txt` lies, or `None` for the built-in list. CLIP models have 77 positions.
    ///
    /// # Errors
    /// If the file is not a list of merges whose parts are known, or `context_length` is under 2.
    pub fn new(
        merges: Option<&Path>,
        clean: Clean,
        context_length: usize,
        padding: ClipPadding,
    ) -> Result<Self, TokenError> {
        Self::build(read_pairs(merges)?, ClipRules::OpenClip(clean), context_length, padding)
    }

    /// OpenAI's `clip.tokenize`: as open_clip with [`Clean::Lower`], but `<|startoftext|>` and `<|endoftext|>` in a text are
    /// the special ids.
    ///
    /// # Errors
    /// As [`ClipTokenizer::new`].
    pub fn open_ai(merges: Option<&Path>, context_length: usize) -> Result<Self, TokenError> {
        Self::build(read_pairs(merges)?, ClipRules::OpenAi, context_length, ClipPadding::Zero)
    }

    /// Hugging Face's `CLIPTokenizer`: no repair of the text, only NFC, single spaces and lower case.
    ///
    /// # Errors
    /// As [`ClipTokenizer::new`].
    pub fn hugging_face(merges: Option<&Path>, context_length: usize) -> Result<Self, TokenError> {
        Self::build(read_pairs(merges)?, ClipRules::HuggingFace, context_length, ClipPadding::End)
    }

    pub(super) fn hugging_face_with(
        pairs: BytePairs,
        context_length: usize,
        padding: ClipPadding,
    ) -> Result<Self, TokenError> {
        Self::build(pairs, ClipRules::HuggingFace, context_length, padding)
    }

    pub(super) fn open_clip_with(pairs: BytePairs, clean: Clean, context_length: usize) -> Result<Self, TokenError> {
        Self::build(pairs, ClipRules::OpenClip(clean), context_length, ClipPadding::Zero)
    }

    fn build(
        pairs: BytePairs,
        rules: ClipRules,
        context_length: usize,
        padding: ClipPadding,
    ) -> Result<Self, TokenError> {
        super::check_context(context_length, 2)?;
        let special = |name: &str| {
            let missing = || TokenError::MissingPiece { path: "(vocabulary)".into(), piece: name.to_owned() };
            pairs.special(name).ok_or_else(missing)
        };
        let (start, end) = (special("<|startoftext|>")?, special("<|endoftext|>")?);
        if let ClipPadding::Id(id) = padding
            && id as usize >= pairs.size()
        {
            return Err(TokenError::PaddingOutside { id, size: pairs.size() });
        }
        Ok(Self { pairs, rules, context_length, padding, start, end })
    }

    /// The text after cleaning, as the pieces are cut from it.
    pub fn clean(&self, text: &str) -> String {
        match self.rules {
            ClipRules::OpenClip(clean) => clean.apply(text),
            ClipRules::OpenAi => Clean::Lower.apply(text),
            // Only white space runs of two or more could matter, and the pattern below skips white space anyway.
            ClipRules::HuggingFace => text.nfc().flat_map(char::to_lowercase).collect(),
        }
    }

    /// All pieces of a text, uncut and without start and end.
    pub fn pieces(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::new();
        match self.rules {
            ClipRules::OpenClip(_) => {
                self.push_words(&self.clean(text), &["<start_of_text>", "<end_of_text>"], &mut out);
            }
            ClipRules::OpenAi => self.push_words(&self.clean(text), &END_STRINGS, &mut out),
            ClipRules::HuggingFace => self.push_around_specials(text, &mut out),
        }
        out
    }

    /// Hugging Face looks for special strings in the text as given, before lower-casing.
    fn push_around_specials(&self, text: &str, out: &mut Vec<u32>) {
        let mut rest = text;
        while let Some((at, special, id)) = self.next_special(rest) {
            self.push_words(&self.clean(&rest[..at]), &[], out);
            out.push(id);
            rest = &rest[at + special.len()..];
        }
        self.push_words(&self.clean(rest), &[], out);
    }

    fn next_special(&self, text: &str) -> Option<(usize, &'static str, u32)> {
        text.match_indices("<|").find_map(|(at, _)| {
            let special = END_STRINGS.into_iter().find(|special| text[at..].starts_with(special))?;
            Some((at, special, self.pairs.special(special)?))
        })
    }

    /// The words of CLIP's pattern: `specials|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`, any case.
    fn push_words(&self, text: &str, specials: &[&str], out: &mut Vec<u32>) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let kind = self.kind(first);
            if kind == Kind::Space {
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let beginning = |words: &[&str]| words.iter().find_map(|word| self.length_of(word, rest));
            let length = beginning(specials).or_else(|| beginning(&CONTRACTIONS)).unwrap_or_else(|| match kind {
                Kind::Number => first.len_utf8(),
                kind => rest.find(|c| self.kind(c) != kind).unwrap_or(rest.len()),
            });
            let word = &rest[..length];
            // Only the exact spelling is the special id; another case is a word like any other.
            match self.pairs.special(word).filter(|_| specials.contains(&word)) {
                Some(id) => out.push(id),
                None => self.pairs.split_word(word.as_bytes(), out),
            }
            rest = &rest[length..];
        }
    }

    fn kind(&self, c: char) -> Kind {
        let is_new = self.rules == ClipRules::HuggingFace && is_unknown_to_hugging_face(c);
        match c {
            c if self.skips(c) => Kind::Space,
            c if is_letter(c) && !is_new => Kind::Letter,
            c if is_number(c) && !is_new => Kind::Number,
            _ => Kind::Other,
        }
    }

    /// Bytes of `word` (lower case ASCII) at the start of `text`, whatever its case but for Hugging Face's pattern. The long s
    /// is the one other character that Unicode folds to a letter of our words.
    fn length_of(&self, word: &str, text: &str) -> Option<usize> {
        if self.rules == ClipRules::HuggingFace {
            return text.starts_with(word).then_some(word.len());
        }
        let mut length = 0;
        let mut chars = text.chars();
        for expected in word.chars() {
            let c = chars.next()?;
            if c.to_ascii_lowercase() != expected && !(c == 'ſ' && expected == 's') {
                return None;
            }
            length += c.len_utf8();
        }
        Some(length)
    }

    /// White space, and under the case-insensitive patterns also the combining iota U+0345: it folds to a letter, so
    /// `[^\s\p{L}\p{N}]` leaves it out, and is none, so `[\p{L}]` does too.
    fn skips(&self, c: char) -> bool {
        c.is_whitespace() || (c == '\u{345}' && self.rules != ClipRules::HuggingFace)
    }

    fn rules_name(&self) -> String {
        match self.rules {
            ClipRules::OpenClip(clean) => format!("openclip-{}", clean.name()),
            ClipRules::OpenAi => "openai".into(),
            ClipRules::HuggingFace => "huggingface".into(),
        }
    }

    fn padding_id(&self) -> u32 {
        match self.padding {
            ClipPadding::Zero => 0,
            ClipPadding::End => self.end,
            ClipPadding::Id(id) => id,
        }
    }
}

const END_STRINGS: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// What a character is to CLIP's pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    Letter,
    Number,
    Other,
}

fn read_pairs(merges: Option<&Path>) -> Result<BytePairs, TokenError> {
    match merges {
        None => BytePairs::clip(),
        Some(path) if path.is_dir() => super::folder::read_vocab_and_merges(&path.join("vocab.json")),
        Some(path) if path.extension().is_some_and(|e| e == "json") => super::folder::read_vocab_and_merges(path),
        Some(path) => BytePairs::from_clip_file(path),
    }
}

impl Tokenizer for ClipTokenizer {
    fn encode(&self, text: &str) -> Encoded {
        let pieces = self.pieces(bounded(text));
        let kept = pieces.len().min(self.context_length - 2);
        let mut ids = Vec::with_capacity(self.context_length);
        ids.push(self.start);
        ids.extend_from_slice(&pieces[..kept]);
        ids.push(self.end);
        let used = ids.len();
        ids.resize(self.context_length, self.padding_id());
        Encoded { ids, used, dropped: pieces.len() - kept }
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn fingerprint(&self) -> String {
        let rules = self.rules_name();
        let hash = Fnv::new().number(self.pairs.digest()).bytes(rules.as_bytes()).number(u64::from(self.padding_id()));
        format!("clip-{rules}-{}-{:016x}", self.context_length, hash.finish())
    }

    fn vocabulary_size(&self) -> usize {
        self.pairs.size()
    }

    fn describe(&self) -> String {
        format!(
            "CLIP: {} ids, start {} pieces end {} padding {}; byte pairs of {}; rules: {}",
            self.context_length,
            self.start,
            self.end,
            self.padding_id(),
            self.pairs.size(),
            self.rules_name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let open_clip = ClipTokenizer::new(None, Clean::Lower, 8, ClipPadding::Zero).unwrap();
        assert_eq!(open_clip.encode("A photo of a cat").ids, [49406, 320, 1125, 539, 320, 2368, 49407, 0]);
        let cut = open_clip.encode("a a a a a a a a a");
        assert_eq!((cut.ids[7], cut.used, cut.dropped), (49407, 8, 3));
        let hugging_face = ClipTokenizer::hugging_face(None, 8).unwrap();
        assert_eq!(hugging_face.encode("a").ids, [49406, 320, 49407, 49407, 49407, 49407, 49407, 49407]);
    }

    #[test]
    fn special_strings_are_the_peers_own() {
        let open_clip = ClipTokenizer::new(None, Clean::Lower, 77, ClipPadding::Zero).unwrap();
        let open_ai = ClipTokenizer::open_ai(None, 77).unwrap();
        assert_eq!(open_clip.pieces("<end_of_text>"), [49407]);
        assert_eq!(open_ai.pieces("<|endoftext|>"), [49407]);
        assert!(open_clip.pieces("<|endoftext|>").len() > 1 && open_ai.pieces("<end_of_text>").len() > 1);
    }
}

//! The parts of a `tokenizer.json` as the file has them. What is unknown is refused by its name here.
use std::fmt;
use std::path::Path;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::token::{TokenError, assets};

/// A whole file.
#[derive(Deserialize)]
pub(in crate::token) struct TokenizerFile {
    #[serde(default)]
    pub(in crate::token) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(in crate::token) normalizer: Option<NormalizerFile>,
    #[serde(default)]
    pub(in crate::token) pre_tokenizer: Option<PreTokenizerFile>,
    #[serde(default)]
    pub(in crate::token) post_processor: Option<PostProcessorFile>,
    #[serde(default)]
    pub(in crate::token) decoder: Option<DecoderFile>,
    pub(in crate::token) model: ModelFile,
}

impl TokenizerFile {
    pub(in crate::token) fn read(path: &Path) -> Result<Self, TokenError> {
        Self::from_bytes(&assets::read_bounded(path)?, path)
    }

    /// serde_json stops at 128 levels, so nested files cannot exhaust the stack.
    pub(in crate::token) fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, TokenError> {
        serde_json::from_slice(bytes).map_err(|source| TokenError::Json { path: path.to_owned(), source })
    }
}

/// A string that is found in texts before the model runs.
#[derive(Deserialize)]
pub(in crate::token) struct AddedToken {
    pub(in crate::token) id: u64,
    pub(in crate::token) content: String,
    #[serde(default)]
    pub(in crate::token) single_word: bool,
    #[serde(default)]
    pub(in crate::token) lstrip: bool,
    #[serde(default)]
    pub(in crate::token) rstrip: bool,
    #[serde(default = "yes")]
    pub(in crate::token) normalized: bool,
    #[serde(default)]
    pub(in crate::token) special: bool,
}

fn yes() -> bool {
    true
}

/// A text to look for, as it is or as a regular expression.
#[derive(Deserialize)]
pub(in crate::token) enum PatternFile {
    String(String),
    Regex(String),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(in crate::token) enum NormalizerFile {
    Sequence {
        normalizers: Vec<NormalizerFile>,
    },
    BertNormalizer {
        #[serde(default = "yes")]
        clean_text: bool,
        #[serde(default = "yes")]
        handle_chinese_chars: bool,
        #[serde(default)]
        strip_accents: Option<bool>,
        #[serde(default = "yes")]
        lowercase: bool,
    },
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Nmt,
    Lowercase,
    Strip {
        strip_left: bool,
        strip_right: bool,
    },
    StripAccents,
    Replace {
        pattern: PatternFile,
        content: String,
    },
    Prepend {
        prepend: String,
    },
    Precompiled {
        /// Base64; some files have `null`, which replaces nothing.
        precompiled_charsmap: Option<String>,
    },
    ByteLevel,
}

/// What becomes of the matches of a pattern.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
pub(in crate::token) enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

fn isolated() -> Behavior {
    Behavior::Isolated
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(in crate::token) enum PrependScheme {
    First,
    Never,
    Always,
}

/// Metaspace as older files have it (`add_prefix_space`) and newer ones (`prepend_scheme`, `split`).
#[derive(Deserialize, Clone, Copy)]
pub(in crate::token) struct MetaspaceFile {
    #[serde(default = "space_mark")]
    pub(super) replacement: char,
    #[serde(default)]
    add_prefix_space: Option<bool>,
    #[serde(default)]
    prepend_scheme: Option<PrependScheme>,
    #[serde(default)]
    split: Option<bool>,
}

fn space_mark() -> char {
    '\u{2581}'
}

impl MetaspaceFile {
    pub(super) fn scheme(&self) -> PrependScheme {
        match self.add_prefix_space {
            Some(false) => PrependScheme::Never,
            _ => self.prepend_scheme.unwrap_or(PrependScheme::Always),
        }
    }

    pub(super) fn splits(&self) -> bool {
        self.split.unwrap_or(true)
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(in crate::token) enum PreTokenizerFile {
    Sequence {
        pretokenizers: Vec<PreTokenizerFile>,
    },
    BertPreTokenizer,
    ByteLevel {
        #[serde(default = "yes")]
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    CharDelimiterSplit {
        delimiter: char,
    },
    Digits {
        #[serde(default)]
        individual_digits: bool,
    },
    Metaspace(MetaspaceFile),
    Punctuation {
        #[serde(default = "isolated")]
        behavior: Behavior,
    },
    Split {
        pattern: PatternFile,
        behavior: Behavior,
        #[serde(default)]
        invert: bool,
    },
    Whitespace,
    WhitespaceSplit,
}

#[derive(Deserialize)]
pub(in crate::token) struct SpecialIds {
    pub(super) ids: Vec<u64>,
}

#[derive(Deserialize)]
pub(in crate::token) struct Named {
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(in crate::token) enum TemplatePiece {
    SpecialToken(Named),
    Sequence(Named),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(in crate::token) enum PostProcessorFile {
    Sequence {
        processors: Vec<PostProcessorFile>,
    },
    TemplateProcessing {
        single: Vec<TemplatePiece>,
        #[serde(default)]
        pair: Vec<TemplatePiece>,
        #[serde(default)]
        special_tokens: std::collections::HashMap<String, SpecialIds>,
    },
    BertProcessing {
        sep: (String, u64),
        cls: (String, u64),
    },
    RobertaProcessing {
        sep: (String, u64),
        cls: (String, u64),
    },
    ByteLevel,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
pub(in crate::token) enum DecoderFile {
    Sequence {
        decoders: Vec<DecoderFile>,
    },
    ByteLevel,
    Metaspace(MetaspaceFile),
    WordPiece {
        #[serde(default = "hashes")]
        prefix: String,
        #[serde(default = "yes")]
        cleanup: bool,
    },
    #[serde(rename = "BPEDecoder")]
    BytePairs {
        #[serde(default = "word_end")]
        suffix: String,
    },
    ByteFallback,
    Fuse,
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
    Replace {
        pattern: PatternFile,
        content: String,
    },
}

fn hashes() -> String {
    "##".into()
}

fn word_end() -> String {
    "</w>".into()
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
pub(in crate::token) enum ModelKind {
    #[serde(rename = "BPE")]
    BytePairs,
    Unigram,
    WordPiece,
    WordLevel,
}

impl ModelKind {
    /// For people.
    pub(in crate::token) fn name(self) -> &'static str {
        match self {
            ModelKind::BytePairs => "byte pairs",
            ModelKind::Unigram => "unigram",
            ModelKind::WordPiece => "WordPiece",
            ModelKind::WordLevel => "word list",
        }
    }
}

/// Fields of all models at once, so that large vocabularies are read as they come.
#[derive(Deserialize)]
pub(in crate::token) struct ModelFile {
    #[serde(rename = "type")]
    kind: Option<ModelKind>,
    pub(in crate::token) vocab: VocabularyFile,
    #[serde(default)]
    pub(in crate::token) merges: Option<Vec<Merge>>,
    #[serde(default)]
    pub(in crate::token) unk_token: Option<String>,
    #[serde(default)]
    pub(in crate::token) unk_id: Option<u64>,
    #[serde(default)]
    pub(in crate::token) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(in crate::token) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(in crate::token) max_input_chars_per_word: Option<usize>,
    #[serde(default)]
    pub(in crate::token) dropout: Option<f32>,
    #[serde(default)]
    pub(in crate::token) fuse_unk: bool,
    #[serde(default)]
    pub(in crate::token) byte_fallback: bool,
    #[serde(default)]
    pub(in crate::token) ignore_merges: bool,
}

impl ModelFile {
    /// Old files do not name the kind; it follows from the fields, as in the peer.
    pub(in crate::token) fn kind(&self) -> ModelKind {
        let guessed = match self.vocab {
            VocabularyFile::Scores(_) => ModelKind::Unigram,
            VocabularyFile::Ids(_) if self.merges.is_some() => ModelKind::BytePairs,
            VocabularyFile::Ids(_) if self.max_input_chars_per_word.is_some() => ModelKind::WordPiece,
            VocabularyFile::Ids(_) => ModelKind::WordLevel,
        };
        self.kind.unwrap_or(guessed)
    }
}

/// Pieces with ids, or with scores where the place is the id.
pub(in crate::token) enum VocabularyFile {
    Ids(Vec<(String, u64)>),
    Scores(Vec<(String, f64)>),
}

impl Default for VocabularyFile {
    fn default() -> Self {
        VocabularyFile::Ids(Vec::new())
    }
}

impl<'de> Deserialize<'de> for VocabularyFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = VocabularyFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of piece to id, or a list of pieces with scores")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VocabularyFile, A::Error> {
                let mut ids = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    ids.push(entry);
                }
                Ok(VocabularyFile::Ids(ids))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<VocabularyFile, A::Error> {
                let mut scores = Vec::new();
                while let Some(entry) = list.next_element()? {
                    scores.push(entry);
                }
                Ok(VocabularyFile::Scores(scores))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Two pieces, as `"a b"` in older files and `["a", "b"]` in newer ones.
pub(in crate::token) struct Merge(pub(in crate::token) String, pub(in crate::token) String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge of two pieces")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge, E> {
                match text.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => Ok(Merge(left.into(), right.into())),
                    _ => Err(E::custom(format_args!("{text:?} is not a merge of two pieces"))),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
                match (list.next_element()?, list.next_element()?, list.next_element::<de::IgnoredAny>()?) {
                    (Some(left), Some(right), None) => Ok(Merge(left, right)),
                    _ => Err(A::Error::custom("not a merge of two pieces")),
                }
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

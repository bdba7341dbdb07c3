//! From texts to the ids that a text tower takes: cleaning, WordPiece and byte pairs, and the layouts of the models.
//!
//! Every tokenizer here gives the ids of the program with which the model is used, character for character; which program
//! that is decides the model's description, by a [`TextRecipe`]. Vocabularies are built in, so a model folder without
//! tokenizer files still reads. Other models' tokenizers are read from their files, `tokenizer.json` and sentencepiece's
//! `.model`: those give [`Pieces`], to which a layout is put in [`FolderTokenizer`].
mod assets;
mod bert;
mod bert_text;
mod bpe;
mod charsmap;
mod clean;
mod clip;
mod folder;
mod folder_text;
mod ftfy;
mod ftfy_tables;
mod html;
mod merge;
mod mojibake;
mod openvision;
mod pattern;
pub mod prompts;
mod sentencepiece;
mod tokenizer_json;
mod trie;
mod unicode;
mod unicode_tables;
mod unigram;
mod wordpiece;
mod words;

use std::path::{Path, PathBuf};

pub use bert::{BertTokenizer, Separator};
pub use clean::{Clean, canonicalize};
pub use clip::{ClipPadding, ClipTokenizer};
pub use folder::{VocabularyInfo, from_folder, inspect_file, read_pieces};
pub use folder_text::FolderTokenizer;
pub use openvision::{OpenVisionTokenizer, OpenVisionVariant};
pub use sentencepiece::SentencePiece;
pub use tokenizer_json::{Affixes, JsonTokenizer};
pub use words::Words;

/// Every file of a folder that a tokenizer here may read.
pub const FILES: [&str; 11] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.model",
    "bert_base_vocab_bos_eos.txt",
];

/// Turns a text into the row of ids of one model.
pub trait Tokenizer: Send + Sync {
    /// The ids of a text. Any text is accepted; of texts over 32 KiB the rest is not read.
    fn encode(&self, text: &str) -> Encoded;
    /// Length of every row.
    fn context_length(&self) -> usize;
    /// A short stable name of vocabulary, layout and cleaning: equal names give equal ids.
    fn fingerprint(&self) -> String;
    /// Every id is below this.
    fn vocabulary_size(&self) -> usize;
    /// One line for people.
    fn describe(&self) -> String;
}

/// What to do with special tokens such as `<s>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Specials {
    /// They are no text: their strings in a text are their ids, and their ids give no text.
    Apart,
    /// Their strings are cut like any text, so a user cannot place them; their ids give their strings.
    AsText,
}

/// A tokenizer without a layout: texts to ids of any number, and back. Language models and [`FolderTokenizer`] build on it.
pub trait Pieces: Send + Sync {
    /// The ids of a text, with nothing added before or after.
    fn encode(&self, text: &str, specials: Specials) -> Vec<u32>;
    /// The text of ids; unknown ids give nothing, broken UTF-8 replacement characters.
    fn decode(&self, ids: &[u32], specials: Specials) -> String;
    /// The id of a piece or special token by its exact name.
    fn id(&self, piece: &str) -> Option<u32>;
    /// The piece of an id.
    fn piece(&self, id: u32) -> Option<&str>;
    /// What the file itself puts around a text.
    fn affixes(&self) -> Affixes {
        Affixes::default()
    }
    /// Every id is below this.
    fn size(&self) -> usize;
    /// For people: the algorithm.
    fn kind(&self) -> &'static str;
    /// Equal files have equal digests.
    fn digest(&self) -> u64;
}

/// A row of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Always as many as the context is long.
    pub ids: Vec<u32>,
    /// How many of them come before the padding (OpenVision's class token, after the padding, is not counted).
    pub used: usize,
    /// Pieces of the text that did not fit.
    pub dropped: usize,
}

/// Cleaning and layout of a model's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextLayout {
    /// OpenVision's: `[bos] pieces [eos] 0 … [CLS]`.
    OpenVision(OpenVisionVariant),
    /// BERT's, as open_clip reads Hugging Face tokenizers: `[CLS] pieces [SEP] 0 …`.
    Bert(Clean, Separator),
    /// open_clip's CLIP: `start pieces end 0 …`.
    OpenClip(Clean),
    /// Hugging Face's CLIP: `start pieces end end …`, other cleaning.
    HuggingFaceClip,
    /// What the files of the model's folder say: SigLIP's `pieces end padding …` and others of Hugging Face. The cleaning
    /// is open_clip's where the model's description has one, else that of the tokenizer's class.
    Folder(Option<Clean>),
}

/// What a model's description says of its texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRecipe {
    /// Cleaning and layout.
    pub layout: TextLayout,
    /// Positions of the text tower.
    pub context_length: usize,
}

/// The tokenizer of a recipe with its built-in vocabulary.
///
/// # Errors
/// If the context is too short for the layout, or it is the folder's.
pub fn built_in(recipe: &TextRecipe) -> Result<Box<dyn Tokenizer>, TokenError> {
    let length = recipe.context_length;
    Ok(match recipe.layout {
        TextLayout::OpenVision(variant) => Box::new(OpenVisionTokenizer::new(None, variant, length)?),
        TextLayout::Bert(clean, separator) => Box::new(BertTokenizer::new(None, clean, separator, length)?),
        TextLayout::OpenClip(clean) => Box::new(ClipTokenizer::new(None, clean, length, ClipPadding::Zero)?),
        TextLayout::HuggingFaceClip => Box::new(ClipTokenizer::hugging_face(None, length)?),
        TextLayout::Folder(_) => return Err(TokenError::NotBuiltIn),
    })
}

/// What can be wrong with tokenizer files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read, or its gzip is broken.
    #[error("{path}: cannot read the tokenizer file: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system or the decompressor said.
        source: std::io::Error,
    },
    /// The file, or what it inflates to, is larger than any vocabulary.
    #[error("{path}: over {limit} bytes, no vocabulary is that large", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit that was passed.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("{path}: not UTF-8 text from byte {offset} on", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// First wrong byte.
        offset: usize,
    },
    /// The file holds no pieces.
    #[error("{path}: the vocabulary is empty", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A piece that the rules need is not in the vocabulary.
    #[error("{path}: the vocabulary lacks {piece:?}", path = path.display())]
    MissingPiece {
        /// The file.
        path: PathBuf,
        /// The piece.
        piece: String,
    },
    /// A merge is not two known parts.
    #[error("{path}: line {line} is not a merge of two known pieces", path = path.display())]
    BadMerge {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The file is not the JSON that it should be.
    #[error("{path}: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A field of a JSON file is missing or has a value that cannot be used.
    #[error("{path}: {field}: {problem}", path = path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Not a sentencepiece model.
    #[error("{path}: not a sentencepiece model, or damaged", path = path.display())]
    NotSentencePiece {
        /// The file.
        path: PathBuf,
    },
    /// The model's texts need files that are not there.
    #[error(
        "the tokenizer of this model is not built in and its folder has none: put its tokenizer.json, spiece.model or \
         tokenizer.model beside the weights"
    )]
    NotBuiltIn,
    /// An id beyond any vocabulary.
    #[error("{path}: id {id} is out of range, ids end at {MOST_IDS}", path = path.display())]
    IdOutOfRange {
        /// The file.
        path: PathBuf,
        /// The id.
        id: u64,
    },
    /// The class token is not where OpenVision's weights expect it.
    #[error("OpenVision needs [CLS] as id 101, this vocabulary has it at {found:?}; use the model's own vocab.txt")]
    ClassIdElsewhere {
        /// Its id, if it has one.
        found: Option<u32>,
    },
    /// The context is too short for the layout's own ids.
    #[error("a context of {given} ids is too short, this layout needs {least}")]
    ContextTooShort {
        /// The length that was asked for.
        given: usize,
        /// The shortest length that works.
        least: usize,
    },
    /// A context longer than any text tower's.
    #[error("a context of {given} ids is longer than the limit of {LONGEST_CONTEXT}")]
    ContextTooLong {
        /// The length that was asked for.
        given: usize,
    },
    /// The padding id is not in the vocabulary.
    #[error("padding id {id} is outside of the vocabulary of {size}")]
    PaddingOutside {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        size: usize,
    },
}

/// Ids of real vocabularies end below 262,144 (Gemma); no table is sized by an id past this.
const MOST_IDS: u64 = 1 << 22;
/// Text towers have 16 to 256 positions.
const LONGEST_CONTEXT: usize = 1 << 16;
/// Bytes of a text that are read. A row has some tens of pieces, and repairs of nested escapes are quadratic: the worst text takes
/// a quarter of a second.
const LONGEST_TEXT: usize = 32 << 10;

fn check_id(id: u64, path: &Path) -> Result<u32, TokenError> {
    match u32::try_from(id) {
        Ok(small) if id < MOST_IDS => Ok(small),
        _ => Err(TokenError::IdOutOfRange { path: path.to_owned(), id }),
    }
}

fn check_context(given: usize, least: usize) -> Result<(), TokenError> {
    match given {
        _ if given < least => Err(TokenError::ContextTooShort { given, least }),
        _ if given > LONGEST_CONTEXT => Err(TokenError::ContextTooLong { given }),
        _ => Ok(()),
    }
}

/// The beginning of a text, up to [`LONGEST_TEXT`] bytes.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

/// FNV-1a of 64 bits: fingerprints tell vocabularies apart, they do not protect against forgery.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
    fn bytes(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)))
    }
    fn number(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }
    fn finish(self) -> u64 {
        self.0
    }
}

//! Tokenizer files of a model folder: `tokenizer.json`, `vocab.json` with `merges.txt`, `vocab.txt`.
use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::bpe::{BytePairs, bad_merge, merge_lines};
use super::tokenizer_json::file::{
    ModelKind, NormalizerFile, PatternFile, PreTokenizerFile, TokenizerFile, VocabularyFile,
};
use super::tokenizer_json::model::distinct;
use super::wordpiece::Vocabulary;
use super::{
    BertTokenizer, ClipPadding, ClipTokenizer, FolderTokenizer, JsonTokenizer, OpenVisionTokenizer, Pieces,
    SentencePiece, TextLayout, TextRecipe, TokenError, Tokenizer, assets, check_id,
};

/// The tokenizer of a recipe with the vocabulary that lies in a model's folder, or `None` if there is none.
///
/// WordPiece layouts take `vocab.txt`, else `tokenizer.json`; CLIP layouts take `vocab.json` and `merges.txt`, else
/// `tokenizer.json`, and Hugging Face's padding from `tokenizer_config.json`. Cleaning and layout are the recipe's: what
/// a `tokenizer.json` says of them is not run. [`TextLayout::Folder`] takes all from the folder, see [`FolderTokenizer`].
///
/// # Errors
/// If a file that is there cannot be used.
pub fn from_folder(folder: &Path, recipe: &TextRecipe) -> Result<Option<Box<dyn Tokenizer>>, TokenError> {
    let length = recipe.context_length;
    Ok(match recipe.layout {
        TextLayout::OpenVision(variant) => match read_word_pieces(folder)? {
            Some(vocabulary) => Some(Box::new(OpenVisionTokenizer::with_vocabulary(vocabulary, variant, length)?)),
            None => None,
        },
        TextLayout::Bert(clean, separator) => match read_word_pieces(folder)? {
            Some(vocabulary) => {
                let rules = (clean, separator);
                Some(Box::new(BertTokenizer::with_vocabulary(vocabulary, folder, rules, length)?))
            }
            None => None,
        },
        TextLayout::OpenClip(clean) => match read_pairs(folder)? {
            Some(pairs) => Some(Box::new(ClipTokenizer::open_clip_with(pairs, clean, length)?)),
            None => None,
        },
        TextLayout::HuggingFaceClip => match read_pairs(folder)? {
            Some(pairs) => {
                let padding = read_padding(folder, &pairs)?;
                Some(Box::new(ClipTokenizer::hugging_face_with(pairs, length, padding)?))
            }
            None => None,
        },
        TextLayout::Folder(clean) => match FolderTokenizer::from_folder(folder, clean, length)? {
            Some(tokenizer) => Some(Box::new(tokenizer)),
            None => None,
        },
    })
}

/// What a tokenizer file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VocabularyInfo {
    /// The algorithm, such as "WordPiece" or "byte pairs".
    pub kind: &'static str,
    /// One more than the largest id.
    pub size: usize,
}

/// Reads one tokenizer file to see whether it can be used: `tokenizer.json`, sentencepiece's `.model`, `vocab.json` with
/// its `merges.txt`, a `vocab.txt`, or CLIP's merges (`bpe_simple_vocab_16e6.txt[.gz]`).
///
/// # Errors
/// Whatever is wrong with the file.
pub fn inspect_file(path: &Path) -> Result<VocabularyInfo, TokenError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let word_pieces = |vocabulary: Vocabulary| VocabularyInfo { kind: "WordPiece", size: vocabulary.size() };
    let byte_pairs = |pairs: BytePairs| VocabularyInfo { kind: "byte pairs", size: pairs.size() };
    if name == "vocab.json" {
        read_vocab_and_merges(path).map(byte_pairs)
    } else if [".json", ".model"].iter().any(|ending| name.trim_end_matches(".gz").ends_with(ending)) {
        let pieces = read_pieces(path)?;
        Ok(VocabularyInfo { kind: pieces.kind(), size: pieces.size() })
    } else if name.contains("bpe") || name.contains("merges") {
        BytePairs::from_clip_file(path).map(byte_pairs)
    } else {
        Vocabulary::from_file(path).map(word_pieces)
    }
}

/// The tokenizer of a `tokenizer.json` or of a sentencepiece `.model`, gzip or not, without a layout.
///
/// # Errors
/// Whatever is wrong with the file.
pub fn read_pieces(path: &Path) -> Result<Box<dyn Pieces>, TokenError> {
    if path.to_str().is_some_and(|name| name.trim_end_matches(".gz").ends_with(".model")) {
        return Ok(Box::new(SentencePiece::from_file(path)?));
    }
    Ok(Box::new(JsonTokenizer::from_file(path)?))
}

fn read_word_pieces(folder: &Path) -> Result<Option<Vocabulary>, TokenError> {
    let list = folder.join("vocab.txt");
    if list.is_file() {
        return Vocabulary::from_file(&list).map(Some);
    }
    let file = folder.join("tokenizer.json");
    if file.is_file() { word_pieces_of(&file).map(Some) } else { Ok(None) }
}

fn read_pairs(folder: &Path) -> Result<Option<BytePairs>, TokenError> {
    let list = folder.join("vocab.json");
    if list.is_file() && folder.join("merges.txt").is_file() {
        return read_vocab_and_merges(&list).map(Some);
    }
    let file = folder.join("tokenizer.json");
    if file.is_file() { byte_pairs_of(&file).map(Some) } else { Ok(None) }
}

/// `vocab.json` and the `merges.txt` beside it.
pub(super) fn read_vocab_and_merges(vocab: &Path) -> Result<BytePairs, TokenError> {
    let ids = ids_of(&read_object(vocab)?, vocab)?;
    let path = vocab.with_file_name("merges.txt");
    let text = assets::read_text(&path)?;
    let pairs = merge_lines(&text).map(|pair| match pair {
        Ok((_, left, right)) => Ok((left, right)),
        Err(line) => Err(bad_merge(&path, line)),
    });
    BytePairs::from_vocabulary(&ids, pairs.collect::<Result<Vec<_>, _>>()?.into_iter(), &path)
}

/// The model of a `tokenizer.json` that must be WordPiece.
fn word_pieces_of(path: &Path) -> Result<Vocabulary, TokenError> {
    let mut file = TokenizerFile::read(path)?;
    let ids = known_ids(&mut file, ModelKind::WordPiece, path)?;
    let prefix = file.model.continuing_subword_prefix.as_deref().unwrap_or("##");
    Ok(Vocabulary::from_ids(ids, file.model.unk_token.as_deref().unwrap_or("[UNK]"), path)?.with_prefix(prefix))
}

/// The model of a `tokenizer.json` that must be byte pairs with `</w>` word ends.
fn byte_pairs_of(path: &Path) -> Result<BytePairs, TokenError> {
    let mut file = TokenizerFile::read(path)?;
    let ids = known_ids(&mut file, ModelKind::BytePairs, path)?;
    if file.model.end_of_word_suffix.as_deref() != Some("</w>") {
        return Err(field(path, "model.end_of_word_suffix", "not \"</w>\", so this is not CLIP's kind of BPE".into()));
    }
    let merges = file.model.merges.unwrap_or_default();
    BytePairs::from_vocabulary(&ids, merges.iter().map(|pair| (pair.0.as_str(), pair.1.as_str())), path)
}

/// Vocabulary and added tokens of a file whose rules are those that run in their place.
fn known_ids(file: &mut TokenizerFile, kind: ModelKind, path: &Path) -> Result<HashMap<Box<str>, u32>, TokenError> {
    if file.model.kind() != kind {
        let problem = format!("{}, but this model's texts need {}", file.model.kind().name(), kind.name());
        return Err(field(path, "model.type", problem));
    }
    let VocabularyFile::Ids(vocabulary) = std::mem::take(&mut file.model.vocab) else {
        return Err(field(path, "model.vocab", "scores in place of ids".into()));
    };
    file.normalizer.iter().try_for_each(|step| check_normalizer(step, path))?;
    file.pre_tokenizer.iter().try_for_each(|step| check_pre_tokenizer(step, path))?;
    let mut ids = distinct(vocabulary, path)?;
    for token in &file.added_tokens {
        let id = check_id(token.id, path)?;
        ids.entry(token.content.as_str().into()).or_insert(id);
    }
    Ok(ids)
}

/// Our own rules are run in place of the file's, so a file that asks for others must be refused: cased BERT, and patterns
/// that are not CLIP's.
fn check_normalizer(step: &NormalizerFile, path: &Path) -> Result<(), TokenError> {
    match step {
        NormalizerFile::Sequence { normalizers } => {
            normalizers.iter().try_for_each(|step| check_normalizer(step, path))
        }
        NormalizerFile::Replace { pattern, .. } => check_pattern(pattern, path),
        NormalizerFile::BertNormalizer { lowercase: false, .. } => {
            Err(field(path, "normalizer.lowercase", "this model's texts need a lower-case vocabulary".into()))
        }
        _ => Ok(()),
    }
}

fn check_pre_tokenizer(step: &PreTokenizerFile, path: &Path) -> Result<(), TokenError> {
    match step {
        PreTokenizerFile::Sequence { pretokenizers } => {
            pretokenizers.iter().try_for_each(|step| check_pre_tokenizer(step, path))
        }
        PreTokenizerFile::Split { pattern, .. } => check_pattern(pattern, path),
        _ => Ok(()),
    }
}

fn check_pattern(pattern: &PatternFile, path: &Path) -> Result<(), TokenError> {
    const CLIP: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    const CLIP_WITH_SPECIALS: &str =
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    match pattern {
        PatternFile::Regex(pattern) if ![CLIP, CLIP_WITH_SPECIALS, r"\s+"].contains(&pattern.as_str()) => {
            let problem = format!("the pattern {pattern:?} is not CLIP's");
            Err(field(path, "normalizer or pre_tokenizer", problem))
        }
        _ => Ok(()),
    }
}

/// The padding of `tokenizer_config.json`: a name, or an object with its `content`.
fn read_padding(folder: &Path, pairs: &BytePairs) -> Result<ClipPadding, TokenError> {
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(ClipPadding::End);
    }
    let config = read_object(&path)?;
    let token = config.get("pad_token").map(|token| token.get("content").unwrap_or(token));
    let Some(name) = token.and_then(Value::as_str) else { return Ok(ClipPadding::End) };
    if let Some(id) = pairs.special(name) {
        return Ok(ClipPadding::Id(id));
    }
    // Some folders pad with "!", whose id is 0: a whole piece inside of a word, which byte pairs know by its byte.
    match name.as_bytes() {
        [byte] => Ok(ClipPadding::Id(pairs.byte(*byte))),
        _ => Err(field(&path, "pad_token", format!("{name:?} is not in the vocabulary"))),
    }
}

pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>, TokenError> {
    let bytes = assets::read_bounded(path)?;
    // serde_json stops at 128 levels, so nested files cannot exhaust the stack.
    serde_json::from_slice(&bytes).map_err(|source| TokenError::Json { path: path.to_owned(), source })
}

fn ids_of(vocabulary: &Map<String, Value>, path: &Path) -> Result<HashMap<Box<str>, u32>, TokenError> {
    let id_of = |id: &Value| match id.as_u64() {
        Some(id) => check_id(id, path),
        None => Err(field(path, "model.vocab", format!("{id} is not an id"))),
    };
    vocabulary.iter().map(|(piece, id)| Ok((piece.as_str().into(), id_of(id)?))).collect()
}

fn field(path: &Path, field: &'static str, problem: String) -> TokenError {
    TokenError::Field { path: path.to_owned(), field, problem }
}

//! Tokenizer files of a model folder: `tokenizer.json`, `vocab.json` with `merges.txt`, `vocab.txt`.
use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::bpe::{BytePairs, bad_merge, merge_lines};
use super::wordpiece::Vocabulary;
use super::{
    BertTokenizer, ClipPadding, ClipTokenizer, OpenVisionTokenizer, TextLayout, TextRecipe, TokenError, Tokenizer,
    assets, check_id,
};

/// The tokenizer of a recipe with the vocabulary that lies in a model's folder, or `None` if there is none.
///
/// WordPiece layouts take `vocab.txt`, else `tokenizer.json`; CLIP layouts take `vocab.json` and `merges.txt`, else
/// `tokenizer.json`, and Hugging Face's padding from `tokenizer_config.json`. Cleaning and layout are the recipe's: what
/// a `tokenizer.json` says of them is not run.
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
    })
}

/// What a tokenizer file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VocabularyInfo {
    /// "WordPiece" or "byte pairs".
    pub kind: &'static str,
    /// One more than the largest id.
    pub size: usize,
}

/// Reads one tokenizer file to see whether it can be used: `tokenizer.json`, `vocab.json` with its `merges.txt`, a
/// `vocab.txt`, or CLIP's merges (`bpe_simple_vocab_16e6.txt[.gz]`).
///
/// # Errors
/// Whatever is wrong with the file.
pub fn inspect_file(path: &Path) -> Result<VocabularyInfo, TokenError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let word_pieces = |vocabulary: Vocabulary| VocabularyInfo { kind: "WordPiece", size: vocabulary.size() };
    let byte_pairs = |pairs: BytePairs| VocabularyInfo { kind: "byte pairs", size: pairs.size() };
    if name == "vocab.json" {
        read_vocab_and_merges(path).map(byte_pairs)
    } else if name.ends_with(".json") {
        match read_object(path)?.get("model").map(model_type) {
            Some("BPE") => byte_pairs_of(path).map(byte_pairs),
            _ => word_pieces_of(path).map(word_pieces),
        }
    } else if name.contains("bpe") || name.contains("merges") {
        BytePairs::from_clip_file(path).map(byte_pairs)
    } else {
        Vocabulary::from_file(path).map(word_pieces)
    }
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
        Ok((_, left, right)) => Ok((left.to_owned(), right.to_owned())),
        Err(line) => Err(bad_merge(&path, line)),
    });
    BytePairs::from_vocabulary(&ids, &pairs.collect::<Result<Vec<_>, _>>()?, &path)
}

/// The model of a `tokenizer.json` that must be WordPiece.
pub(super) fn word_pieces_of(path: &Path) -> Result<Vocabulary, TokenError> {
    let file = read_tokenizer(path, "WordPiece")?;
    let unknown = file.model.get("unk_token").and_then(Value::as_str).unwrap_or("[UNK]");
    let prefix = file.model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or("##");
    if prefix != "##" {
        return Err(field(
            path,
            "model.continuing_subword_prefix",
            format!("{prefix:?} is not supported, only \"##\""),
        ));
    }
    let ids = file.ids.into_iter().map(|(piece, id)| (piece.into_boxed_str(), id)).collect();
    Vocabulary::from_ids(ids, unknown, path)
}

/// The model of a `tokenizer.json` that must be byte pairs with `</w>` word ends.
fn byte_pairs_of(path: &Path) -> Result<BytePairs, TokenError> {
    let file = read_tokenizer(path, "BPE")?;
    let Some(merges) = file.model.get("merges").and_then(Value::as_array) else {
        return Err(field(path, "model.merges", "missing".into()));
    };
    let pairs = merges.iter().enumerate().map(|(at, merge)| {
        merge_of(merge).ok_or_else(|| field(path, "model.merges", format!("entry {at} is not a pair of pieces")))
    });
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    for (at, (left, right)) in pairs.iter().enumerate() {
        if !file.ids.contains_key(&format!("{left}{right}")) {
            let problem = format!("entry {at} makes {left:?} + {right:?}, which is not in the vocabulary");
            return Err(field(path, "model.merges", problem));
        }
    }
    if file.model.get("end_of_word_suffix").and_then(Value::as_str) != Some("</w>") {
        return Err(field(path, "model.end_of_word_suffix", "not \"</w>\", so this is not CLIP's kind of BPE".into()));
    }
    BytePairs::from_vocabulary(&file.ids, &pairs, path)
}

/// `"a b"` in older files, `["a", "b"]` in newer ones.
fn merge_of(merge: &Value) -> Option<(String, String)> {
    match merge {
        Value::String(text) => {
            let (left, right) = text.split_once(' ')?;
            let whole = !left.is_empty() && !right.is_empty() && !right.contains(' ');
            whole.then(|| (left.to_owned(), right.to_owned()))
        }
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// Files of before 2021 name no type; the merges tell.
fn model_type(model: &Value) -> &str {
    match model.get("type").and_then(Value::as_str) {
        Some(name) => name,
        None if model.get("merges").is_some() => "BPE",
        None => "WordPiece",
    }
}

struct TokenizerFile {
    model: Value,
    /// Vocabulary and added tokens.
    ids: HashMap<String, u32>,
}

fn read_tokenizer(path: &Path, kind: &str) -> Result<TokenizerFile, TokenError> {
    let mut file = read_object(path)?;
    let Some(Value::Object(model)) = file.remove("model") else {
        return Err(field(path, "model", "missing".into()));
    };
    let model = Value::Object(model);
    let found = model_type(&model);
    if found != kind {
        return Err(field(path, "model.type", format!("{found:?}, but this model's texts need {kind:?}")));
    }
    let Some(Value::Object(vocabulary)) = model.get("vocab") else {
        return Err(field(path, "model.vocab", "missing, or not an object of piece to id".into()));
    };
    check_rules(&file, path)?;
    let mut ids = ids_of(vocabulary, path)?;
    add_tokens(&file, path, &mut ids)?;
    check_template(&file, path, &ids)?;
    check_distinct(&ids, path)?;
    Ok(TokenizerFile { model, ids })
}

/// Our own rules are run in place of the file's, so a file that asks for others must be refused: cased BERT, and patterns
/// that are not CLIP's.
fn check_rules(file: &Map<String, Value>, path: &Path) -> Result<(), TokenError> {
    const CLIP: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    const CLIP_WITH_SPECIALS: &str =
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    for (name, list) in [("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")] {
        let Some(step) = file.get(name) else { continue };
        let steps = step.get(list).and_then(Value::as_array).map_or(std::slice::from_ref(step), Vec::as_slice);
        for step in steps {
            let pattern = step.get("pattern").and_then(|pattern| pattern.get("Regex")).and_then(Value::as_str);
            if let Some(pattern) = pattern.filter(|pattern| ![CLIP, CLIP_WITH_SPECIALS, r"\s+"].contains(pattern)) {
                return Err(field(
                    path,
                    "normalizer or pre_tokenizer",
                    format!("the pattern {pattern:?} is not CLIP's"),
                ));
            }
            if step.get("lowercase") == Some(&Value::Bool(false)) {
                return Err(field(path, "normalizer.lowercase", "cased vocabularies are not supported".into()));
            }
        }
    }
    Ok(())
}

fn add_tokens(file: &Map<String, Value>, path: &Path, ids: &mut HashMap<String, u32>) -> Result<(), TokenError> {
    let Some(Value::Array(added)) = file.get("added_tokens") else { return Ok(()) };
    for token in added {
        let content = token.get("content").and_then(Value::as_str).unwrap_or("");
        if content.is_empty() {
            return Err(field(path, "added_tokens", "a token without content".into()));
        }
        let id = id_of(token.get("id").unwrap_or(&Value::Null), path, "added_tokens")?;
        ids.insert(content.to_owned(), id);
    }
    Ok(())
}

/// The post processor is not run, but one that names tokens that do not exist shows a damaged file.
fn check_template(file: &Map<String, Value>, path: &Path, ids: &HashMap<String, u32>) -> Result<(), TokenError> {
    let Some(Value::Object(processor)) = file.get("post_processor") else { return Ok(()) };
    let templates = ["single", "pair"].into_iter().filter_map(|name| processor.get(name)?.as_array());
    let names = templates.flatten().filter_map(|step| step.get("SpecialToken")?.get("id")?.as_str());
    let defined = processor.get("special_tokens").and_then(Value::as_object);
    for name in names {
        if !ids.contains_key(name) || !defined.is_some_and(|tokens| tokens.contains_key(name)) {
            return Err(field(path, "post_processor", format!("special token {name:?} is not defined")));
        }
    }
    Ok(())
}

fn check_distinct(ids: &HashMap<String, u32>, path: &Path) -> Result<(), TokenError> {
    let mut sorted: Vec<u32> = ids.values().copied().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(field(path, "model.vocab", format!("two pieces have the id {}", pair[0]))),
        None => Ok(()),
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

fn read_object(path: &Path) -> Result<Map<String, Value>, TokenError> {
    let bytes = assets::read_bounded(path)?;
    // serde_json stops at 128 levels, so nested files cannot exhaust the stack.
    serde_json::from_slice(&bytes).map_err(|source| TokenError::Json { path: path.to_owned(), source })
}

fn ids_of(vocabulary: &Map<String, Value>, path: &Path) -> Result<HashMap<String, u32>, TokenError> {
    vocabulary.iter().map(|(piece, id)| Ok((piece.clone(), id_of(id, path, "model.vocab")?))).collect()
}

fn id_of(value: &Value, path: &Path, name: &'static str) -> Result<u32, TokenError> {
    match value.as_u64() {
        Some(id) => check_id(id, path),
        None => Err(field(path, name, format!("{value} is not an id"))),
    }
}

fn field(path: &Path, field: &'static str, problem: String) -> TokenError {
    TokenError::Field { path: path.to_owned(), field, problem }
}

//! Models of a `tokenizer.json`: from a word to the ids of its pieces.
use std::collections::HashMap;
use std::path::Path;

use super::Problem;
use super::file::{ModelFile, ModelKind, VocabularyFile};
use crate::token::bpe::{PairHashers, pair_key};
use crate::token::merge::Word;
use crate::token::trie::Trie;
use crate::token::unigram::{Precision, UNKNOWN_PENALTY, Unigram};
use crate::token::wordpiece::Vocabulary;
use crate::token::{TokenError, check_id};

/// A vocabulary and the way to cut words into its pieces.
pub(super) struct Model {
    pub(super) ids: HashMap<Box<str>, u32>,
    pub(super) kind: ModelKind,
    cutter: Cutter,
}

enum Cutter {
    BytePairs(BytePairs),
    Unigram { unigram: Unigram, unknown: Option<u32>, bytes: Option<[u32; 256]> },
    WordPiece { vocabulary: Vocabulary, longest: usize },
    WordLevel { unknown: u32 },
}

struct BytePairs {
    /// (left, right) to (rank, merged piece).
    merges: HashMap<u64, (u32, u32), PairHashers>,
    unknown: Option<u32>,
    fuse_unknown: bool,
    bytes: Option<[u32; 256]>,
    /// Put before pieces inside of a word.
    prefix: String,
    /// Put after the last piece of a word.
    suffix: String,
    /// A word that is a piece is that piece, whatever the merges say.
    whole_words: bool,
}

const LONGEST_WORD: usize = 100;

impl Model {
    pub(super) fn new(mut file: ModelFile, path: &Path) -> Result<Self, TokenError> {
        let field = |(field, problem): Problem| TokenError::Field { path: path.to_owned(), field, problem };
        let kind = file.kind();
        let (ids, scores) = vocabulary(std::mem::take(&mut file.vocab), path)?;
        if ids.is_empty() {
            return Err(TokenError::Empty { path: path.to_owned() });
        }
        let cutter = match (kind, scores) {
            (ModelKind::BytePairs, None) => Cutter::BytePairs(byte_pairs(&file, &ids).map_err(field)?),
            (ModelKind::Unigram, Some(scores)) => unigram(&file, &ids, scores).map_err(field)?,
            (ModelKind::WordPiece, None) => {
                let unknown = file.unk_token.as_deref().unwrap_or("[UNK]");
                let prefix = file.continuing_subword_prefix.as_deref().unwrap_or("##");
                let vocabulary = Vocabulary::from_ids(ids.clone(), unknown, path)?.with_prefix(prefix);
                Cutter::WordPiece { vocabulary, longest: file.max_input_chars_per_word.unwrap_or(LONGEST_WORD) }
            }
            (ModelKind::WordLevel, None) => {
                let name = file.unk_token.as_deref().unwrap_or("<unk>");
                let missing = || TokenError::MissingPiece { path: path.to_owned(), piece: name.to_owned() };
                Cutter::WordLevel { unknown: ids.get(name).copied().ok_or_else(missing)? }
            }
            (ModelKind::Unigram, None) => return Err(field(("model.vocab", "a unigram model without scores".into()))),
            (_, Some(_)) => return Err(field(("model.vocab", "a list of scores, but the model needs ids".into()))),
        };
        Ok(Self { ids, kind, cutter })
    }

    /// Appends the ids of a word's pieces.
    pub(super) fn cut(&self, word: &str, out: &mut Vec<u32>) {
        match &self.cutter {
            Cutter::BytePairs(pairs) => self.cut_pairs(pairs, word, out),
            Cutter::Unigram { unigram, unknown, bytes } => {
                let mut unknown_text = String::new();
                for (range, piece) in unigram.cut(word) {
                    // The unknown piece written out in a text is as unknown as any other.
                    match piece.filter(|_| piece != *unknown) {
                        Some(id) => {
                            self.push_unknown(&mut unknown_text, *unknown, bytes.as_ref(), out);
                            out.push(id);
                        }
                        None => unknown_text.push_str(&word[range]),
                    }
                }
                self.push_unknown(&mut unknown_text, *unknown, bytes.as_ref(), out);
            }
            Cutter::WordPiece { vocabulary, longest } if word.chars().nth(*longest).is_some() => {
                out.push(vocabulary.unknown());
            }
            Cutter::WordPiece { vocabulary, .. } => vocabulary.split_word(word, out),
            Cutter::WordLevel { unknown } => out.push(self.ids.get(word).copied().unwrap_or(*unknown)),
        }
    }

    /// Unknown neighbors are one: a piece if there is one of their whole text, else bytes, else the unknown id.
    fn push_unknown(&self, text: &mut String, unknown: Option<u32>, bytes: Option<&[u32; 256]>, out: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        match (self.ids.get(text.as_str()), bytes) {
            (Some(&id), _) => out.push(id),
            (None, Some(bytes)) => out.extend(text.bytes().map(|b| bytes[usize::from(b)])),
            (None, None) => out.extend(unknown),
        }
        text.clear();
    }

    fn cut_pairs(&self, pairs: &BytePairs, text: &str, out: &mut Vec<u32>) {
        if let Some(&id) = self.ids.get(text).filter(|_| pairs.whole_words) {
            out.push(id);
            return;
        }
        let mut word = Word::with_capacity(text.len());
        // Bytes of unknown characters that wait to be one symbol.
        let mut waiting = 0;
        let mut spelled = String::new();
        for (at, c) in text.char_indices() {
            let end = at + c.len_utf8();
            spelled.clear();
            if at > 0 {
                spelled.push_str(&pairs.prefix);
            }
            spelled.push(c);
            if end == text.len() {
                spelled.push_str(&pairs.suffix);
            }
            if let Some(&id) = self.ids.get(spelled.as_str()) {
                push_waiting(&mut word, pairs.unknown, &mut waiting);
                word.push(id, c.len_utf8());
            } else if let Some(bytes) = &pairs.bytes {
                // As in the peer, this does not end a run of unknown characters.
                spelled.bytes().for_each(|b| word.push(bytes[usize::from(b)], 1));
            } else {
                if !pairs.fuse_unknown {
                    push_waiting(&mut word, pairs.unknown, &mut waiting);
                }
                waiting += c.len_utf8();
            }
        }
        push_waiting(&mut word, pairs.unknown, &mut waiting);
        word.merge(|left, right| pairs.merges.get(&pair_key(left.piece, right.piece)).copied());
        out.extend(word.symbols().map(|symbol| symbol.piece));
    }
}

/// Without an unknown piece unknown characters vanish.
fn push_waiting(word: &mut Word, unknown: Option<u32>, waiting: &mut usize) {
    if let Some(id) = unknown.filter(|_| *waiting > 0) {
        word.push(id, *waiting);
    }
    *waiting = 0;
}

type Ids = HashMap<Box<str>, u32>;

/// The ids of pieces, and their scores by id where the file has scores.
fn vocabulary(file: VocabularyFile, path: &Path) -> Result<(Ids, Option<Vec<f64>>), TokenError> {
    match file {
        VocabularyFile::Ids(ids) => Ok((distinct(ids, path)?, None)),
        VocabularyFile::Scores(list) => {
            let mut ids = HashMap::with_capacity(list.len());
            let mut scores = Vec::with_capacity(list.len());
            for (id, (piece, score)) in (0..).zip(list) {
                // Of repeated pieces the last one counts, as in the peer.
                ids.insert(piece.into(), check_id(id, path)?);
                scores.push(score);
            }
            Ok((ids, Some(scores)))
        }
    }
}

/// Ids that the file names, none of them twice.
pub(in crate::token) fn distinct(pairs: Vec<(String, u64)>, path: &Path) -> Result<Ids, TokenError> {
    let mut ids = HashMap::with_capacity(pairs.len());
    for (piece, id) in pairs {
        ids.insert(piece.into_boxed_str(), check_id(id, path)?);
    }
    let mut sorted: Vec<u32> = ids.values().copied().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            let problem = format!("two pieces have the id {}", pair[0]);
            Err(TokenError::Field { path: path.to_owned(), field: "model.vocab", problem })
        }
        None => Ok(ids),
    }
}

fn bytes_of(ids: &Ids) -> Option<[u32; 256]> {
    let mut bytes = [0; 256];
    for (byte, id) in bytes.iter_mut().enumerate() {
        *id = *ids.get(format!("<0x{byte:02X}>").as_str())?;
    }
    Some(bytes)
}

fn byte_pairs(file: &ModelFile, ids: &Ids) -> Result<BytePairs, Problem> {
    if file.dropout.is_some_and(|share| share > 0.0) {
        return Err(("model.dropout", "texts would be cut by chance".into()));
    }
    let prefix = file.continuing_subword_prefix.clone().unwrap_or_default();
    let list = file.merges.as_deref().ok_or(("model.merges", "missing".to_owned()))?;
    let mut merges = HashMap::with_capacity_and_hasher(list.len(), PairHashers::new());
    let mut merged = String::new();
    for (rank, pair) in (0u32..).zip(list) {
        let find = |piece: &str| {
            let missing = || ("model.merges", format!("entry {rank} needs {piece:?}, which is not in the vocabulary"));
            ids.get(piece).copied().ok_or_else(missing)
        };
        merged.clear();
        merged.push_str(&pair.0);
        merged.push_str(pair.1.strip_prefix(prefix.as_str()).unwrap_or(&pair.1));
        merges.insert(pair_key(find(&pair.0)?, find(&pair.1)?), (rank, find(&merged)?));
    }
    Ok(BytePairs {
        merges,
        unknown: file.unk_token.as_deref().and_then(|name| ids.get(name).copied()),
        fuse_unknown: file.fuse_unk,
        bytes: bytes_of(ids).filter(|_| file.byte_fallback),
        prefix,
        suffix: file.end_of_word_suffix.clone().unwrap_or_default(),
        whole_words: file.ignore_merges,
    })
}

fn unigram(file: &ModelFile, ids: &Ids, scores: Vec<f64>) -> Result<Cutter, Problem> {
    if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
        return Err(("model.vocab", format!("{score} is not a score")));
    }
    let unknown = match file.unk_id {
        Some(id) if id >= scores.len() as u64 => {
            return Err(("model.unk_id", format!("{id} is not in the vocabulary of {}", scores.len())));
        }
        id => id.map(|id| id as u32),
    };
    let mut trie = Trie::new();
    for (piece, &id) in ids {
        trie.insert(piece.as_bytes(), id);
    }
    let unknown_score = scores.iter().copied().fold(f64::INFINITY, f64::min) - UNKNOWN_PENALTY;
    let unigram = Unigram { trie, scores, unknown_score, precision: Precision::Double };
    Ok(Cutter::Unigram { unigram, unknown, bytes: bytes_of(ids).filter(|_| file.byte_fallback) })
}

//! sentencepiece `.model` files: unigram and byte-pair models, encoding and decoding as the library does both.
mod normalizer;
mod proto;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;

use self::normalizer::{Normalizer, SPACE};
use self::proto::{Algorithm, Kind, Piece};
use super::charsmap::CharsMap;
use super::merge::Word;
use super::trie::Trie;
use super::unigram::{Precision, UNKNOWN_PENALTY, Unigram};
use super::{Fnv, Pieces, Specials, TokenError, assets};

/// A sentencepiece model.
pub struct SentencePiece {
    pieces: Vec<Piece>,
    ids: HashMap<String, u32>,
    unknown: u32,
    /// Ids of the byte pieces, where unknown characters are spelled in bytes.
    bytes: Option<[u32; 256]>,
    normalizer: Normalizer,
    user_defined: Trie,
    cutter: Cutter,
    unknown_text: String,
    digest: u64,
}

enum Cutter {
    Unigram(Unigram),
    BytePairs,
}

/// Stands for a symbol that is no piece while byte pairs are merged.
const NO_PIECE: u32 = u32::MAX;

impl SentencePiece {
    /// Reads a `.model` file.
    ///
    /// # Errors
    /// If the file is damaged or asks for what is not supported.
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        Self::from_bytes(&assets::read_bounded(path)?, path)
    }

    /// Reads the contents of a `.model` file; `path` is for messages.
    ///
    /// # Errors
    /// As [`SentencePiece::from_file`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, TokenError> {
        let model = proto::read(bytes, path)?;
        let field = |field, problem: String| TokenError::Field { path: path.to_owned(), field, problem };
        if model.pieces.is_empty() {
            return Err(TokenError::Empty { path: path.to_owned() });
        }
        let mut unknown = None;
        let mut ids = HashMap::with_capacity(model.pieces.len());
        let mut user_defined = Trie::new();
        for (id, piece) in (0u32..).zip(&model.pieces) {
            if ids.insert(piece.text.clone(), id).is_some() {
                return Err(field("pieces", format!("{:?} is there twice", piece.text)));
            }
            match piece.kind {
                Kind::Unknown if unknown.is_some() => {
                    return Err(field("pieces", format!("piece {id} is a second unknown piece")));
                }
                Kind::Unknown => unknown = Some(id),
                Kind::UserDefined => user_defined.insert(piece.text.as_bytes(), id),
                _ => {}
            }
        }
        let unknown = unknown.ok_or_else(|| field("pieces", "none is of the type UNKNOWN".into()))?;
        let map = match &model.chars_map[..] {
            [] => None,
            blob => {
                let problem = |problem: &str| field("normalizer_spec.precompiled_charsmap", problem.into());
                Some(CharsMap::new(blob).map_err(problem)?)
            }
        };
        let byte = |b: u8| ids.get(&format!("<0x{b:02X}>")).copied().unwrap_or(unknown);
        let bytes_of_unknown = model.byte_fallback.then(|| std::array::from_fn(|b| byte(b as u8)));
        let cutter = match model.algorithm {
            Algorithm::Unigram => Cutter::Unigram(unigram(&model.pieces)),
            Algorithm::BytePairs => Cutter::BytePairs,
        };
        let normalizer = Normalizer {
            map,
            dummy_prefix: model.dummy_prefix,
            remove_extra_spaces: model.remove_extra_spaces,
            escape_spaces: model.escape_spaces,
            space_after: model.space_after,
        };
        Ok(Self {
            ids,
            unknown,
            bytes: bytes_of_unknown,
            normalizer,
            user_defined,
            cutter,
            pieces: model.pieces,
            unknown_text: model.unknown_text,
            digest: Fnv::new().bytes(bytes).finish(),
        })
    }

    /// The text after normalization, as pieces are cut from it: spaces are `▁`.
    pub fn normalize(&self, text: &str) -> String {
        self.normalizer.normalize(text, &self.user_defined)
    }

    /// The pieces of a normalized text: the text of each, and its id if it has one.
    fn cut<'a>(&self, text: &'a str) -> Vec<(&'a str, Option<u32>)> {
        match &self.cutter {
            Cutter::Unigram(unigram) => {
                unigram.cut(text).into_iter().map(|(range, piece)| (&text[range], piece)).collect()
            }
            Cutter::BytePairs => self.merge(text),
        }
    }

    /// Byte pairs by score: the neighbors that make the piece of the highest score are merged first.
    fn merge<'a>(&self, text: &'a str) -> Vec<(&'a str, Option<u32>)> {
        let mut word = Word::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let user_defined = self.user_defined.longest_prefix(rest.as_bytes());
            let (length, piece) = user_defined.unwrap_or((first.len_utf8(), NO_PIECE));
            word.push(piece, length);
            rest = &rest[length..];
        }
        let is_frozen =
            |piece: u32| self.pieces.get(piece as usize).is_some_and(|piece| piece.kind == Kind::UserDefined);
        let mut halves = HashMap::new();
        word.merge(|left, right| {
            let id = *self.ids.get(&text[left.start..right.end])?;
            let piece = &self.pieces[id as usize];
            match piece.kind {
                _ if is_frozen(left.piece) || is_frozen(right.piece) => return None,
                Kind::Normal => {}
                Kind::Unused => {
                    let parts = (&text[left.start..left.end], &text[right.start..right.end]);
                    halves.insert(&text[left.start..right.end], parts);
                }
                _ => return None,
            }
            Some((Reverse(Score(piece.score)), id))
        });
        let mut out = Vec::new();
        for symbol in word.symbols() {
            // Pieces marked as unused are taken apart again, as they were made.
            let mut stack = vec![&text[symbol.start..symbol.end]];
            while let Some(part) = stack.pop() {
                let id = self.ids.get(part).copied();
                let unused = id.is_some_and(|id| self.pieces[id as usize].kind == Kind::Unused);
                match halves.get(part).filter(|_| unused) {
                    Some((left, right)) => stack.extend([right, left]),
                    None => out.push((part, id)),
                }
            }
        }
        out
    }

    fn decode_bytes(&self, bytes: &mut Vec<u8>, out: &mut String) {
        for chunk in bytes.utf8_chunks() {
            out.push_str(chunk.valid());
            out.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
        }
        bytes.clear();
    }
}

fn unigram(pieces: &[Piece]) -> Unigram {
    let mut trie = Trie::new();
    let normal = || pieces.iter().filter(|piece| piece.kind == Kind::Normal).map(|piece| piece.score);
    let lowest = normal().fold(f32::MAX, f32::min);
    // A floor that scores, which are logarithms, never reach; 0.1 is what version 0.2.3 was found to do.
    let highest = normal().fold(0.1, f32::max);
    let mut scores = Vec::with_capacity(pieces.len());
    for (id, piece) in (0..).zip(pieces) {
        if matches!(piece.kind, Kind::Normal | Kind::UserDefined) {
            trie.insert(piece.text.as_bytes(), id);
        }
        scores.push(match piece.kind {
            // Nearly always better than any other cut (unigram_model.cc).
            Kind::UserDefined => f64::from(piece.text.len() as f32 * highest) - 0.1,
            _ => f64::from(piece.score),
        });
    }
    let unknown_score = f64::from(lowest - UNKNOWN_PENALTY as f32);
    Unigram { trie, scores, unknown_score, precision: Precision::Single }
}

/// A score as an order.
#[derive(PartialEq)]
struct Score(f32);

impl Eq for Score {}
impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Pieces for SentencePiece {
    /// Control pieces such as `<s>` are never found in a text, whatever `specials` says, and user-defined ones always are: so
    /// does the library.
    fn encode(&self, text: &str, _: Specials) -> Vec<u32> {
        let text = self.normalize(text);
        let mut out = Vec::new();
        let mut after_unknown = false;
        for (piece, id) in self.cut(&text) {
            let id = id.unwrap_or(self.unknown);
            let is_unknown = id == self.unknown;
            match &self.bytes {
                Some(bytes) if is_unknown => out.extend(piece.bytes().map(|b| bytes[usize::from(b)])),
                // Neighbors that are unknown are one unknown piece.
                _ if is_unknown && after_unknown => {}
                _ => out.push(id),
            }
            after_unknown = is_unknown;
        }
        out
    }

    fn decode(&self, ids: &[u32], _: Specials) -> String {
        let mut out = String::new();
        let mut bytes = Vec::new();
        let trims = self.normalizer.dummy_prefix || self.normalizer.remove_extra_spaces;
        let (mut at_start, mut trimmed) = (true, false);
        for &id in ids {
            let Some(piece) = self.pieces.get(id as usize) else { continue };
            let byte = piece.text.strip_prefix("<0x").and_then(|hex| hex.strip_suffix('>'));
            if let (Kind::Byte, Some(byte)) = (piece.kind, byte.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
                bytes.push(byte);
                continue;
            }
            self.decode_bytes(&mut bytes, &mut out);
            at_start &= !trimmed && out.is_empty();
            trimmed = false;
            match piece.kind {
                Kind::Control => {}
                Kind::Unknown => out.push_str(&self.unknown_text),
                _ => {
                    let mut text = piece.text.as_str();
                    if let Some(rest) = text.strip_prefix(SPACE).filter(|_| at_start && trims) {
                        text = rest;
                        // Without the trimming of spaces only the dummy prefix goes.
                        trimmed = !self.normalizer.remove_extra_spaces;
                    }
                    out.extend(text.chars().map(|c| if c == SPACE { ' ' } else { c }));
                }
            }
        }
        self.decode_bytes(&mut bytes, &mut out);
        out
    }

    fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize).map(|piece| piece.text.as_str())
    }

    fn size(&self) -> usize {
        self.pieces.len()
    }

    fn kind(&self) -> &'static str {
        match self.cutter {
            Cutter::Unigram(_) => "sentencepiece unigram",
            Cutter::BytePairs => "sentencepiece byte pairs",
        }
    }

    fn digest(&self) -> u64 {
        self.digest
    }
}

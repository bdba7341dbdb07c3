//! The protocol buffer of a sentencepiece `.model`: the few fields that encoding needs, read with bounds.
use std::path::Path;

use crate::token::{MOST_IDS, TokenError};

/// What a piece is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: Kind,
}

/// How texts are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    BytePairs,
}

/// A model file; fields that it leaves out have the defaults of sentencepiece_model.proto.
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    pub(super) algorithm: Algorithm,
    pub(super) byte_fallback: bool,
    /// The space mark follows words, rather than going before them.
    pub(super) space_after: bool,
    /// What decoding writes for the unknown piece.
    pub(super) unknown_text: String,
    pub(super) chars_map: Vec<u8>,
    pub(super) dummy_prefix: bool,
    pub(super) remove_extra_spaces: bool,
    pub(super) escape_spaces: bool,
}

/// A value of a field.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Float(f32),
    Other,
}

/// Fields of one message, in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..10 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    /// The next field's number and value; `None` if the message is damaged.
    fn next(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => self.take(8).map(|_| Wire::Other)?,
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Float(f32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Model, TokenError> {
    let mut model = Model {
        pieces: Vec::new(),
        algorithm: Algorithm::Unigram,
        byte_fallback: false,
        space_after: false,
        unknown_text: " \u{2047} ".into(),
        chars_map: Vec::new(),
        dummy_prefix: true,
        remove_extra_spaces: true,
        escape_spaces: true,
    };
    each(bytes, path, &mut |number, value| {
        match (number, value) {
            (1, Wire::Bytes(piece)) => {
                let id = model.pieces.len() as u64;
                if id >= MOST_IDS {
                    return Err(TokenError::IdOutOfRange { path: path.to_owned(), id });
                }
                model.pieces.push(read_piece(piece, path, id)?);
            }
            (2, Wire::Bytes(trainer)) => read_trainer(trainer, path, &mut model)?,
            (3, Wire::Bytes(normalizer)) => read_normalizer(normalizer, path, &mut model)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(model)
}

fn each<'a>(
    bytes: &'a [u8],
    path: &Path,
    visit: &mut dyn FnMut(u64, Wire<'a>) -> Result<(), TokenError>,
) -> Result<(), TokenError> {
    let mut fields = Fields(bytes);
    while !fields.0.is_empty() {
        let (number, value) = fields.next().ok_or_else(|| TokenError::NotSentencePiece { path: path.to_owned() })?;
        visit(number, value)?;
    }
    Ok(())
}

fn read_piece(bytes: &[u8], path: &Path, id: u64) -> Result<Piece, TokenError> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
    let bad = |problem: String| TokenError::Field { path: path.to_owned(), field: "pieces", problem };
    each(bytes, path, &mut |number, value| {
        match (number, value) {
            (1, Wire::Bytes(text)) => {
                let text = std::str::from_utf8(text).map_err(|_| bad(format!("piece {id} is not UTF-8")))?;
                text.clone_into(&mut piece.text);
            }
            (2, Wire::Float(score)) => piece.score = score,
            (3, Wire::Varint(kind)) => {
                piece.kind = match kind {
                    1 => Kind::Normal,
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    other => return Err(bad(format!("piece {id} has the unknown type {other}"))),
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    match () {
        () if piece.text.is_empty() => Err(bad(format!("piece {id} is empty"))),
        () if !piece.score.is_finite() => Err(bad(format!("piece {id} has the score {}", piece.score))),
        () => Ok(piece),
    }
}

fn read_trainer(bytes: &[u8], path: &Path, model: &mut Model) -> Result<(), TokenError> {
    let bad = |field, problem: String| TokenError::Field { path: path.to_owned(), field, problem };
    each(bytes, path, &mut |number, value| {
        match (number, value) {
            (3, Wire::Varint(1)) => model.algorithm = Algorithm::Unigram,
            (3, Wire::Varint(2)) => model.algorithm = Algorithm::BytePairs,
            (3, Wire::Varint(other)) => {
                let name = match other {
                    3 => "WORD".to_owned(),
                    4 => "CHAR".to_owned(),
                    other => other.to_string(),
                };
                let problem = format!("{name} is not supported, only UNIGRAM and BPE");
                return Err(bad("trainer_spec.model_type", problem));
            }
            (24, Wire::Varint(flag)) => model.space_after = flag != 0,
            (35, Wire::Varint(flag)) => model.byte_fallback = flag != 0,
            (44, Wire::Bytes(text)) => {
                let text =
                    std::str::from_utf8(text).map_err(|_| bad("trainer_spec.unk_surface", "not UTF-8".into()))?;
                text.clone_into(&mut model.unknown_text);
            }
            _ => {}
        }
        Ok(())
    })
}

fn read_normalizer(bytes: &[u8], path: &Path, model: &mut Model) -> Result<(), TokenError> {
    each(bytes, path, &mut |number, value| {
        match (number, value) {
            (2, Wire::Bytes(map)) => map.clone_into(&mut model.chars_map),
            (3, Wire::Varint(flag)) => model.dummy_prefix = flag != 0,
            (4, Wire::Varint(flag)) => model.remove_extra_spaces = flag != 0,
            (5, Wire::Varint(flag)) => model.escape_spaces = flag != 0,
            _ => {}
        }
        Ok(())
    })
}

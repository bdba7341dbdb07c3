//! Decoders of a `tokenizer.json`: from pieces back to a text.
use std::collections::HashMap;
use std::sync::LazyLock;

use super::Problem;
use super::file::{DecoderFile, PrependScheme};
use super::normalizer::Replace;
use crate::token::bpe::byte_letters;

/// One step, from a list of pieces to another.
pub(super) enum Decoder {
    ByteLevel,
    Metaspace { mark: char, trims: bool },
    WordPiece { prefix: String, cleanup: bool },
    BytePairs { suffix: String },
    ByteFallback,
    Fuse,
    Strip { content: char, start: usize, stop: usize },
    Replace(Replace),
}

/// The steps of a file in order.
pub(super) fn steps(file: DecoderFile, out: &mut Vec<Decoder>) -> Result<(), Problem> {
    out.push(match file {
        DecoderFile::Sequence { decoders } => return decoders.into_iter().try_for_each(|step| steps(step, out)),
        DecoderFile::ByteLevel => Decoder::ByteLevel,
        DecoderFile::Metaspace(metaspace) => {
            Decoder::Metaspace { mark: metaspace.replacement, trims: metaspace.scheme() != PrependScheme::Never }
        }
        DecoderFile::WordPiece { prefix, cleanup } => Decoder::WordPiece { prefix, cleanup },
        DecoderFile::BytePairs { suffix } => Decoder::BytePairs { suffix },
        DecoderFile::ByteFallback => Decoder::ByteFallback,
        DecoderFile::Fuse => Decoder::Fuse,
        DecoderFile::Strip { content, start, stop } => Decoder::Strip { content, start, stop },
        DecoderFile::Replace { pattern, content } => Decoder::Replace(Replace::new(pattern, content)?),
    });
    Ok(())
}

impl Decoder {
    pub(super) fn apply(&self, pieces: Vec<String>) -> Vec<String> {
        let last = pieces.len().saturating_sub(1);
        let each = |change: &dyn Fn(usize, String) -> String| {
            pieces.iter().cloned().enumerate().map(|(at, piece)| change(at, piece)).collect()
        };
        match self {
            Decoder::ByteLevel => vec![decode_bytes(&pieces)],
            Decoder::Metaspace { mark, trims } => each(&|at, piece| {
                if at == 0 && *trims { piece.replace(*mark, "") } else { piece.replace(*mark, " ") }
            }),
            Decoder::WordPiece { prefix, cleanup } => each(&|at, piece| {
                let piece = match piece.strip_prefix(prefix.as_str()) {
                    _ if at == 0 => piece,
                    Some(rest) => rest.to_owned(),
                    None => format!(" {piece}"),
                };
                if *cleanup { clean_up(&piece) } else { piece }
            }),
            Decoder::BytePairs { suffix } => {
                each(&|at, piece| piece.replace(suffix.as_str(), if at == last { "" } else { " " }))
            }
            Decoder::ByteFallback => join_bytes(pieces),
            Decoder::Fuse => vec![pieces.concat()],
            Decoder::Strip { content, start, stop } => each(&|_, piece| strip(&piece, *content, *start, *stop)),
            Decoder::Replace(replace) => each(&|_, piece| replace.apply(&piece)),
        }
    }
}

/// Letters of bytes to bytes; a piece with any other character is itself.
fn decode_bytes(pieces: &[String]) -> String {
    static BYTES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| byte_letters().into_iter().zip(0..=255).collect());
    let mut bytes = Vec::new();
    for piece in pieces {
        let before = bytes.len();
        for c in piece.chars() {
            match BYTES.get(&c) {
                Some(&byte) => bytes.push(byte),
                None => {
                    bytes.truncate(before);
                    bytes.extend_from_slice(piece.as_bytes());
                    break;
                }
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs of `<0x41>` to text, or to one replacement character a byte if they are none.
fn join_bytes(pieces: Vec<String>) -> Vec<String> {
    let (mut out, mut bytes) = (Vec::with_capacity(pieces.len()), Vec::new());
    let flush = |bytes: &mut Vec<u8>, out: &mut Vec<String>| {
        let count = bytes.len();
        match String::from_utf8(std::mem::take(bytes)) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => out.push(text),
            Err(_) => out.extend((0..count).map(|_| "\u{fffd}".to_owned())),
        }
    };
    for piece in pieces {
        let hex = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => bytes.push(byte),
            None => {
                flush(&mut bytes, &mut out);
                out.push(piece);
            }
        }
    }
    flush(&mut bytes, &mut out);
    out
}

fn strip(piece: &str, content: char, start: usize, stop: usize) -> String {
    let head = piece.chars().take(start).take_while(|&c| c == content).count();
    let rest = &piece[head * content.len_utf8()..];
    let tail = rest.chars().rev().take(stop).take_while(|&c| c == content).count();
    rest[..rest.len() - tail * content.len_utf8()].to_owned()
}

/// English spacing as the peer restores it.
fn clean_up(piece: &str) -> String {
    const CHANGES: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    CHANGES.iter().fold(piece.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_llama() {
        let pieces = ["▁Hey", "<0xC3>", "<0xA9>", "<0xff>", "x"].map(str::to_owned).to_vec();
        assert_eq!(Decoder::ByteFallback.apply(pieces.clone()), ["▁Hey", "\u{fffd}", "\u{fffd}", "\u{fffd}", "x"]);
        let joined = Decoder::ByteFallback.apply(pieces[..3].to_vec());
        assert_eq!(joined, ["▁Hey", "é"]);
        assert_eq!(Decoder::Metaspace { mark: '▁', trims: true }.apply(joined), ["Hey", "é"]);
        let strip = Decoder::Strip { content: ' ', start: 1, stop: 9 };
        assert_eq!(strip.apply(["  a  ", "", " "].map(str::to_owned).to_vec()), [" a", "", ""]);
        assert_eq!(Decoder::BytePairs { suffix: "</w>".into() }.apply(vec![]), [""; 0]);
    }
}

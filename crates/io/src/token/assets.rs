//! Embedded vocabularies and the bounded reading of vocabulary files.
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::{GzDecoder, ZlibDecoder};

use super::TokenError;

/// bert-base-uncased's vocabulary, 30,522 lines (Apache-2.0). OpenVision's differs in lines 2 and 3 only.
pub(super) static BERT_VOCABULARY: &[u8] = include_bytes!("../../assets/bert-vocab.txt.z");
/// CLIP's 48,894 merges (MIT) as 16-bit ids: all left halves, then all right halves.
pub(super) static CLIP_MERGES: &[u8] = include_bytes!("../../assets/clip-merges.bin.z");

/// No tokenizer file is read past this size: the largest in use, Gemma's tokenizer.json, has 34 MB.
const LARGEST_FILE: u64 = 40 << 20;
/// No compressed tokenizer file inflates past this size: OpenAI's own merges inflate to 3.1 MB.
const LARGEST_INFLATED: u64 = 16 << 20;

/// Inflates an asset of this program. The contents are our own, so a failure is a broken build: it gives an empty vector,
/// which the tests of each user exclude.
pub(super) fn inflate_embedded(packed: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packed.len() * 3);
    match ZlibDecoder::new(packed).take(LARGEST_INFLATED).read_to_end(&mut out) {
        Ok(_) => out,
        Err(_) => Vec::new(),
    }
}

/// The bytes of a tokenizer file, inflated if they are gzip.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, TokenError> {
    let io = |source| TokenError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let bytes = read_at_most(file, LARGEST_FILE, path)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return read_at_most(GzDecoder::new(&bytes[..]), LARGEST_INFLATED, path);
    }
    Ok(bytes)
}

fn read_at_most(reader: impl Read, limit: u64, path: &Path) -> Result<Vec<u8>, TokenError> {
    let mut bytes = Vec::new();
    let read = reader.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
    if bytes.len() as u64 > limit {
        return Err(TokenError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// The text of a tokenizer file.
pub(super) fn read_text(path: &Path) -> Result<String, TokenError> {
    let bytes = read_bounded(path)?;
    String::from_utf8(bytes)
        .map_err(|e| TokenError::NotText { path: path.to_owned(), offset: e.utf8_error().valid_up_to() })
}

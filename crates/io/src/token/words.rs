//! From the ids of a caption decoder back to text.
use std::path::Path;

use super::{TokenError, assets};

/// Names under which a folder may hold the pieces; the first is that of OpenVision 2's folders.
const FILES: [&str; 2] = ["bert_base_vocab_bos_eos.txt", "vocab.txt"];

/// WordPieces by id.
#[derive(Debug)]
pub struct Words {
    pieces: Vec<String>,
}

impl Words {
    /// The pieces that lie in a model's folder, else the built-in ones of bert-base-uncased.
    ///
    /// # Errors
    /// A file that is there cannot be used.
    pub fn load(folder: Option<&Path>) -> Result<Self, TokenError> {
        let file = FILES.iter().filter_map(|name| Some(folder?.join(name))).find(|path| path.is_file());
        let text = match &file {
            Some(path) => assets::read_text(path)?,
            None => String::from_utf8(assets::inflate_embedded(assets::BERT_VOCABULARY)).unwrap_or_default(),
        };
        let pieces: Vec<String> = text.lines().map(str::to_owned).collect();
        match file {
            Some(path) if pieces.is_empty() => Err(TokenError::Empty { path }),
            _ => Ok(Self { pieces }),
        }
    }

    /// Text of a caption: pieces joined by spaces, those that begin with `##` to the piece before. Ids 0 to 2 (padding,
    /// begin, end) are left out; the rest is as lower-case and as spaced as the model writes it.
    pub fn text(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        for id in ids.iter().filter(|id| **id > 2) {
            let piece = self.pieces.get(*id as usize).map_or("[UNK]", String::as_str);
            match piece.strip_prefix("##") {
                Some(rest) => text.push_str(rest),
                None if text.is_empty() => text.push_str(piece),
                None => text.extend([" ", piece]),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join() {
        let words = Words::load(None).unwrap();
        // "a beignet." of openvision.md 2.2, with begin, end and padding.
        assert_eq!(words.text(&[1, 1037, 21388, 10177, 2102, 1012, 2, 0]), "a beignet .");
        assert_eq!(words.text(&[10177, 1037, 40_000]), "gne a [UNK]");
        assert_eq!(words.text(&[]), "");
    }
}

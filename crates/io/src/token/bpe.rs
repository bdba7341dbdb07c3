//! Byte-pair encoding over bytes, as CLIP uses it: a vocabulary of letters and merges, and the merging of one word.
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use super::merge::Word;
use super::{Fnv, TokenError, assets};

/// CLIP's list is a file of 262,145 lines of which the tools use lines 2..48895.
const CLIP_MERGES: usize = 49152 - 256 - 2;
/// Ids of the pieces before the first merge: 256 bytes, and 256 bytes that end a word.
const LETTERS: u32 = 512;

/// Letters and merges.
pub(super) struct BytePairs {
    /// Piece of each byte inside of a word and at its end.
    bytes: [u32; 256],
    last_bytes: [u32; 256],
    /// (left, right) to (rank, merged piece).
    merges: HashMap<u64, (u32, u32), PairHashers>,
    /// Ids of the special strings, found by name.
    specials: HashMap<String, u32>,
    size: usize,
    digest: u64,
}

impl BytePairs {
    /// CLIP's own: ids 0..49405, specials 49406 and 49407.
    pub(super) fn clip() -> Result<Self, TokenError> {
        let bytes = assets::inflate_embedded(assets::CLIP_MERGES);
        let halves: Vec<u32> = bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect();
        let (left, right) = halves.split_at(halves.len() / 2);
        Ok(Self::numbered(left.iter().copied().zip(right.iter().copied())))
    }

    /// A merges file in CLIP's own form, `bpe_simple_vocab_16e6.txt[.gz]`: a first line of comment, then two parts a line.
    /// Ids follow from the order of the lines.
    pub(super) fn from_clip_file(path: &Path) -> Result<Self, TokenError> {
        let text = assets::read_text(path)?;
        let letters = byte_letters();
        let mut ids: HashMap<String, u32> = HashMap::with_capacity(2 * CLIP_MERGES);
        for (id, letter) in (0..).zip(letters_in_id_order(&letters)) {
            ids.insert(letter.to_string(), id);
            ids.insert(format!("{letter}</w>"), id + 256);
        }
        let mut pairs = Vec::new();
        for (rank, pair) in merge_lines(&text).enumerate().take(CLIP_MERGES) {
            let (line, left, right) = pair.map_err(|line| bad_merge(path, line))?;
            let find = |part: &str| ids.get(part).copied().ok_or_else(|| bad_merge(path, line));
            pairs.push((find(left)?, find(right)?));
            ids.insert(format!("{left}{right}"), LETTERS + rank as u32);
        }
        if pairs.is_empty() {
            return Err(TokenError::Empty { path: path.to_owned() });
        }
        Ok(Self::numbered(pairs.into_iter()))
    }

    /// Merge number i makes piece 512 + i; the two special ids follow the last merge.
    fn numbered(pairs: impl ExactSizeIterator<Item = (u32, u32)>) -> Self {
        let count = pairs.len() as u32;
        let letters = byte_letters();
        let mut bytes = [0; 256];
        for (id, letter) in (0..).zip(letters_in_id_order(&letters)) {
            if let Some(byte) = letters.iter().position(|&l| l == letter) {
                bytes[byte] = id;
            }
        }
        let mut digest = Fnv::new();
        let mut merges = HashMap::with_capacity_and_hasher(pairs.len(), PairHashers::new());
        for (rank, (left, right)) in (0..).zip(pairs) {
            digest = digest.number(pair_key(left, right));
            merges.entry(pair_key(left, right)).or_insert((rank, LETTERS + rank));
        }
        let first_special = LETTERS + count;
        let names = ["<start_of_text>", "<end_of_text>", "<|startoftext|>", "<|endoftext|>"];
        let specials =
            names.into_iter().zip([0, 1, 0, 1]).map(|(name, i)| (name.to_owned(), first_special + i)).collect();
        Self {
            bytes,
            last_bytes: bytes.map(|id| id + 256),
            merges,
            specials,
            size: first_special as usize + 2,
            digest: digest.finish(),
        }
    }

    /// A vocabulary with explicit ids, as in `vocab.json` and `merges.txt` or a `tokenizer.json`. `merges` are the parts
    /// in order of rank.
    pub(super) fn from_vocabulary<'a>(
        ids: &HashMap<Box<str>, u32>,
        merges: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
        path: &Path,
    ) -> Result<Self, TokenError> {
        let letters = byte_letters();
        let find = |piece: &str| {
            let missing = || TokenError::MissingPiece { path: path.to_owned(), piece: piece.to_owned() };
            ids.get(piece).copied().ok_or_else(missing)
        };
        let (mut bytes, mut last_bytes) = ([0; 256], [0; 256]);
        for (byte, letter) in letters.iter().enumerate() {
            bytes[byte] = find(&letter.to_string())?;
            last_bytes[byte] = find(&format!("{letter}</w>"))?;
        }
        let mut digest = Fnv::new();
        let mut table = HashMap::with_capacity_and_hasher(merges.len(), PairHashers::new());
        for (rank, (left, right)) in (0..).zip(merges) {
            let (l, r, merged) = (find(left)?, find(right)?, find(&format!("{left}{right}"))?);
            digest = digest.number(pair_key(l, r)).number(u64::from(merged));
            table.entry(pair_key(l, r)).or_insert((rank, merged));
        }
        let size = ids.values().max().map_or(0, |&id| id as usize + 1);
        let specials =
            ids.iter().filter(|(piece, _)| piece.starts_with('<') && piece.ends_with('>') && piece.len() > 4);
        let mut specials: HashMap<String, u32> = specials.map(|(piece, &id)| (piece.to_string(), id)).collect();
        // The peers spell the two special tokens differently; either spelling serves both.
        for (one, other) in [("<|startoftext|>", "<start_of_text>"), ("<|endoftext|>", "<end_of_text>")] {
            if let Some(&id) = specials.get(one).or_else(|| specials.get(other)) {
                specials.insert(one.to_owned(), id);
                specials.insert(other.to_owned(), id);
            }
        }
        Ok(Self { bytes, last_bytes, merges: table, specials, size, digest: digest.finish() })
    }

    /// One more than the largest id.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// The piece of one byte inside of a word.
    pub(super) fn byte(&self, byte: u8) -> u32 {
        self.bytes[usize::from(byte)]
    }

    pub(super) fn special(&self, name: &str) -> Option<u32> {
        self.specials.get(name).copied()
    }

    /// Appends the pieces of one word. The pair of lowest rank is merged first, leftmost first among equals.
    pub(super) fn split_word(&self, bytes: &[u8], out: &mut Vec<u32>) {
        let Some((&last, rest)) = bytes.split_last() else { return };
        let mut word = Word::with_capacity(bytes.len());
        rest.iter().for_each(|&b| word.push(self.bytes[usize::from(b)], 1));
        word.push(self.last_bytes[usize::from(last)], 1);
        word.merge(|left, right| self.merges.get(&pair_key(left.piece, right.piece)).copied());
        out.extend(word.symbols().map(|symbol| symbol.piece));
    }
}

pub(super) fn pair_key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// A folded multiplication in place of SipHash, because start-up counts; seeded, so that a file cannot be written to collide.
pub(super) struct PairHashers {
    seed: u64,
}

impl PairHashers {
    pub(super) fn new() -> Self {
        Self { seed: RandomState::new().build_hasher().finish() }
    }
}

impl BuildHasher for PairHashers {
    type Hasher = PairHasher;
    fn build_hasher(&self) -> PairHasher {
        PairHasher(self.seed)
    }
}

pub(super) struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u64(u64::from(b)));
    }
    fn write_u64(&mut self, value: u64) {
        let wide = u128::from(self.0 ^ value) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (wide ^ (wide >> 64)) as u64;
    }
}

/// GPT-2's printable letter of each byte: itself where printable, else 256, 257, … in order of the bytes.
pub(super) fn byte_letters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        if is_own_letter(byte) {
            return char::from(byte as u8);
        }
        next += 1;
        char::from_u32(next - 1).unwrap_or('\0')
    })
}

fn is_own_letter(byte: usize) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// Ids begin with the bytes that are their own letters; the others follow.
fn letters_in_id_order(letters: &[char; 256]) -> impl Iterator<Item = char> + '_ {
    let own = (0..256).filter(|&byte| is_own_letter(byte));
    own.chain((0..256).filter(|&byte| !is_own_letter(byte))).map(|byte| letters[byte])
}

/// The merges of a text: (line number, left, right), or the number of a line that has not two parts. A first line that is a
/// comment, and empty lines at the end, are left out.
pub(super) fn merge_lines(text: &str) -> impl Iterator<Item = Result<(usize, &str, &str), usize>> {
    let is_comment = |line: &str| line.starts_with("#version") || line.starts_with("\"bpe_simple_vocab");
    let lines = text.trim_end().lines().enumerate().filter(move |(at, line)| *at > 0 || !is_comment(line));
    lines.map(|(at, line)| {
        let mut parts = line.split_ascii_whitespace();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(left), Some(right), None) => Ok((at + 1, left, right)),
            _ => Err(at + 1),
        }
    })
}

pub(super) fn bad_merge(path: &Path, line: usize) -> TokenError {
    TokenError::BadMerge { path: path.to_owned(), line }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// open_clip's `bpe`, the plain way: the pair of lowest rank, all its occurrences from the left, again and again.
    fn split_naively(pairs: &BytePairs, word: &[u8]) -> Vec<u32> {
        let (last, rest) = word.split_last().unwrap();
        let mut pieces: Vec<u32> = rest.iter().map(|&b| pairs.bytes[usize::from(b)]).collect();
        pieces.push(pairs.last_bytes[usize::from(*last)]);
        loop {
            let rank = |p: &[u32]| pairs.merges.get(&pair_key(p[0], p[1])).copied();
            let Some((_, merged, left, right)) =
                pieces.windows(2).filter_map(|p| rank(p).map(|(r, m)| (r, m, p[0], p[1]))).min()
            else {
                return pieces;
            };
            let mut next = Vec::new();
            let mut at = 0;
            while at < pieces.len() {
                if pieces[at..].starts_with(&[left, right]) {
                    next.push(merged);
                    at += 2;
                } else {
                    next.push(pieces[at]);
                    at += 1;
                }
            }
            pieces = next;
        }
    }

    #[test]
    fn heap_equals_the_plain_way() {
        let pairs = BytePairs::clip().unwrap();
        let mut state = 1u32;
        for length in 1..60 {
            for alphabet in [&b"ab"[..], b"aeinrst", b"abcdefghijklmnopqrstuvwxyz!\xc3\xa9"] {
                let word: Vec<u8> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                        alphabet[(state >> 16) as usize % alphabet.len()]
                    })
                    .collect();
                let mut fast = Vec::new();
                pairs.split_word(&word, &mut fast);
                assert_eq!(fast, split_naively(&pairs, &word), "{word:?}");
            }
        }
    }

    #[test]
    fn clip_vocabulary() {
        let pairs = BytePairs::clip().unwrap();
        assert_eq!((pairs.size(), pairs.merges.len()), (49408, CLIP_MERGES));
        assert_eq!((pairs.special("<start_of_text>"), pairs.special("<|endoftext|>")), (Some(49406), Some(49407)));
        let mut out = Vec::new();
        pairs.split_word(b"photo", &mut out);
        pairs.split_word(b"", &mut out);
        assert_eq!(out, [1125]);
    }

    #[test]
    fn long_words_are_fast() {
        let mut out = Vec::new();
        BytePairs::clip().unwrap().split_word(&b"ab".repeat(100_000), &mut out);
        assert!(out.len() < 200_000);
    }
}

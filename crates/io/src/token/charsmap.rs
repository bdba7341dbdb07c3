//! sentencepiece's precompiled normalization: a double array of the characters to replace, and their replacements.
use unicode_segmentation::UnicodeSegmentation;

/// Rules of replacement, as `precompiled_charsmap` holds them: the size of the array in bytes, its units of four bytes, and
/// the replacements, each ended by a zero. The layout of units is that of darts-clone.
#[derive(Debug)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

/// A grapheme longer than this is normalized character by character (Hugging Face).
const LONGEST_GRAPHEME: usize = 5;

impl CharsMap {
    /// Reads the bytes; the problem with them if they are none.
    pub(super) fn new(blob: &[u8]) -> Result<Self, &'static str> {
        let (size, rest) = blob.split_first_chunk::<4>().ok_or("shorter than its own size")?;
        let size = u32::from_le_bytes(*size) as usize;
        if size > rest.len() || !size.is_multiple_of(4) || size == 0 {
            return Err("the size of the array does not fit the bytes");
        }
        let (array, replacements) = rest.split_at(size);
        if std::str::from_utf8(replacements).is_err() {
            return Err("replacements are not UTF-8");
        }
        let units = array.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(Self { units, replacements: replacements.to_vec() })
    }

    /// Length and replacement of every rule that `text` begins with, shortest first. A damaged array ends the search.
    fn rules<'a>(&'a self, text: &[u8]) -> impl Iterator<Item = (usize, &'a str)> {
        let root = self.units.first().copied().unwrap_or(0);
        let mut node = offset(root);
        let mut lengths = text.iter().enumerate();
        std::iter::from_fn(move || {
            loop {
                let (at, &byte) = lengths.next()?;
                node ^= u32::from(byte);
                let unit = *self.units.get(node as usize)?;
                // The label's sign bit marks leaves, which no byte reaches.
                if byte == 0 || unit & 0x8000_00ff != u32::from(byte) {
                    return None;
                }
                node ^= offset(unit);
                if unit >> 8 & 1 == 1 {
                    let value = *self.units.get(node as usize)? & 0x7fff_ffff;
                    return Some((at + 1, self.replacement(value as usize)?));
                }
            }
        })
    }

    fn replacement(&self, start: usize) -> Option<&str> {
        let rest = self.replacements.get(start..)?;
        let end = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// What sentencepiece makes of the beginning of a text: bytes that are read, and their replacement.
    pub(super) fn longest<'a>(&'a self, text: &str) -> Option<(usize, &'a str)> {
        self.rules(text.as_bytes()).last()
    }

    /// The whole text as Hugging Face's `Precompiled` normalizes it: by short graphemes, else by characters, and by the
    /// shortest rule.
    pub(super) fn normalize_by_graphemes(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let shortest = |part: &str| self.rules(part.as_bytes()).next().map(|(_, to)| to.to_owned());
        for grapheme in text.graphemes(true) {
            let whole = (grapheme.len() <= LONGEST_GRAPHEME).then(|| shortest(grapheme)).flatten();
            match whole {
                Some(to) => out.push_str(&to),
                None => {
                    for c in grapheme.chars() {
                        let mut buffer = [0; 4];
                        match shortest(c.encode_utf8(&mut buffer)) {
                            Some(to) => out.push_str(&to),
                            None => out.push(c),
                        }
                    }
                }
            }
        }
        out
    }
}

fn offset(unit: u32) -> u32 {
    unit >> 10 << ((unit & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_maps_are_refused_or_harmless() {
        assert!(CharsMap::new(b"").is_err());
        assert!(CharsMap::new(&[8, 0, 0, 0, 1, 2, 3, 4]).is_err());
        assert!(CharsMap::new(&[4, 0, 0, 0, 1, 2, 3, 4, 0xff]).is_err());
        for byte in 0..=255 {
            let mut blob = vec![64, 0, 0, 0];
            blob.extend([byte; 64]);
            blob.extend(b"ab\0");
            let map = CharsMap::new(&blob).unwrap();
            let _ = (map.longest("héllo"), map.normalize_by_graphemes("héllo\u{301} \u{200d}"));
        }
    }
}

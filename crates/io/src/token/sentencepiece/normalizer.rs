//! sentencepiece's normalization (its normalizer.cc): replacements by the character map, spaces trimmed and marked.
use crate::token::charsmap::CharsMap;
use crate::token::trie::Trie;

/// The visible mark of a space.
pub(super) const SPACE: char = '\u{2581}';

pub(super) struct Normalizer {
    pub(super) map: Option<CharsMap>,
    pub(super) dummy_prefix: bool,
    pub(super) remove_extra_spaces: bool,
    pub(super) escape_spaces: bool,
    pub(super) space_after: bool,
}

impl Normalizer {
    /// The normalized text; `kept` are user-defined pieces, which stay as they are.
    pub(super) fn normalize(&self, text: &str, kept: &Trie) -> String {
        let mut rest = text;
        if self.remove_extra_spaces {
            while let Some((1.., " ")) = self.first(rest, kept) {
                rest = &rest[self.first(rest, kept).map_or(0, |(length, _)| length)..];
            }
        }
        let mut out = String::with_capacity(text.len() + 3);
        if rest.is_empty() {
            return out;
        }
        let space = if self.escape_spaces { SPACE } else { ' ' };
        if self.dummy_prefix && !self.space_after {
            out.push(space);
        }
        let mut after_space = self.remove_extra_spaces;
        while let Some((length, mut part)) = self.first(rest, kept) {
            if after_space {
                part = part.trim_start_matches(' ');
            }
            if !part.is_empty() {
                out.extend(part.chars().map(|c| if c == ' ' { space } else { c }));
                after_space = part.ends_with(' ');
            }
            after_space &= self.remove_extra_spaces;
            rest = &rest[length..];
        }
        if self.remove_extra_spaces {
            out.truncate(out.trim_end_matches(space).len());
        }
        if self.dummy_prefix && self.space_after {
            out.push(space);
        }
        out
    }

    /// How many bytes the next rule reads, at least one character, and what they become.
    fn first<'a>(&'a self, text: &'a str, kept: &Trie) -> Option<(usize, &'a str)> {
        let character = text.chars().next()?.len_utf8();
        if let Some((length, _)) = kept.longest_prefix(text.as_bytes()) {
            return Some((length, &text[..length]));
        }
        let rule = self.map.as_ref().and_then(|map| map.longest(text));
        // A damaged map could end a rule inside of a character.
        Some(rule.filter(|&(length, _)| text.is_char_boundary(length)).unwrap_or((character, &text[..character])))
    }
}

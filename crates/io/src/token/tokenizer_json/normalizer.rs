//! Normalizers of a `tokenizer.json`: what happens to a text before it is cut.
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::Problem;
use super::file::{NormalizerFile, PatternFile};
use super::pre_tokenizer::byte_letters_of;
use crate::token::bert_text::BertRules;
use crate::token::charsmap::CharsMap;
use crate::token::pattern::Pattern;

/// One step.
pub(super) enum Normalizer {
    Bert(BertRules),
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Nmt,
    Lowercase,
    Strip { left: bool, right: bool },
    StripAccents,
    Replace(Replace),
    Prepend(String),
    Precompiled(CharsMap),
    ByteLevel,
}

/// A pattern and what its matches become.
pub(super) struct Replace {
    pattern: Pattern,
    content: String,
}

impl Replace {
    pub(super) fn new(pattern: PatternFile, content: String) -> Result<Self, Problem> {
        Ok(Self { pattern: compile(pattern)?, content })
    }

    pub(super) fn apply(&self, text: &str) -> String {
        let parts = self.pattern.cut(text).into_iter();
        parts.map(|(range, matched)| if matched { self.content.as_str() } else { &text[range] }).collect()
    }
}

pub(super) fn compile(pattern: PatternFile) -> Result<Pattern, Problem> {
    let compiled = match pattern {
        PatternFile::String(text) => Pattern::literal(&text),
        PatternFile::Regex(pattern) => Pattern::new(&pattern),
    };
    compiled.map_err(|problem| ("pattern", problem))
}

/// The steps of a file in order.
pub(super) fn steps(file: NormalizerFile, out: &mut Vec<Normalizer>) -> Result<(), Problem> {
    out.push(match file {
        NormalizerFile::Sequence { normalizers } => {
            return normalizers.into_iter().try_for_each(|step| steps(step, out));
        }
        NormalizerFile::BertNormalizer { clean_text, handle_chinese_chars, strip_accents, lowercase } => {
            let strip_accents = strip_accents.unwrap_or(lowercase);
            Normalizer::Bert(BertRules { clean_text, space_ideographs: handle_chinese_chars, strip_accents, lowercase })
        }
        NormalizerFile::Nfc => Normalizer::Nfc,
        NormalizerFile::Nfd => Normalizer::Nfd,
        NormalizerFile::Nfkc => Normalizer::Nfkc,
        NormalizerFile::Nfkd => Normalizer::Nfkd,
        NormalizerFile::Nmt => Normalizer::Nmt,
        NormalizerFile::Lowercase => Normalizer::Lowercase,
        NormalizerFile::Strip { strip_left, strip_right } => Normalizer::Strip { left: strip_left, right: strip_right },
        NormalizerFile::StripAccents => Normalizer::StripAccents,
        NormalizerFile::Replace { pattern, content } => Normalizer::Replace(Replace::new(pattern, content)?),
        NormalizerFile::Prepend { prepend } => Normalizer::Prepend(prepend),
        NormalizerFile::Precompiled { precompiled_charsmap: None } => return Ok(()),
        NormalizerFile::Precompiled { precompiled_charsmap: Some(text) } => {
            let problem = |problem: &str| ("normalizer.precompiled_charsmap", problem.to_owned());
            let blob = base64(&text).ok_or_else(|| problem("not Base64"))?;
            Normalizer::Precompiled(CharsMap::new(&blob).map_err(problem)?)
        }
        NormalizerFile::ByteLevel => Normalizer::ByteLevel,
    });
    Ok(())
}

impl Normalizer {
    pub(super) fn apply(&self, text: &str) -> String {
        match self {
            Normalizer::Bert(rules) => rules.apply(text),
            Normalizer::Nfc => text.nfc().collect(),
            Normalizer::Nfd => text.nfd().collect(),
            Normalizer::Nfkc => text.nfkc().collect(),
            Normalizer::Nfkd => text.nfkd().collect(),
            Normalizer::Nmt => text.chars().filter_map(nmt).collect(),
            // Character by character, so no final sigma.
            Normalizer::Lowercase => text.chars().flat_map(char::to_lowercase).collect(),
            Normalizer::Strip { left, right } => {
                let text = if *left { text.trim_start() } else { text };
                if *right { text.trim_end() } else { text }.to_owned()
            }
            Normalizer::StripAccents => text.chars().filter(|&c| !is_combining_mark(c)).collect(),
            Normalizer::Replace(replace) => replace.apply(text),
            Normalizer::Prepend(before) if !text.is_empty() => format!("{before}{text}"),
            Normalizer::Prepend(_) => String::new(),
            Normalizer::Precompiled(map) => map.normalize_by_graphemes(text),
            Normalizer::ByteLevel => byte_letters_of(text),
        }
    }
}

/// sentencepiece's `nmt` rules: controls go, other white space is a space.
fn nmt(c: char) -> Option<char> {
    match c {
        '\u{1}'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{8f}' | '\u{9f}' => None,
        '\t'
        | '\n'
        | '\u{c}'
        | '\r'
        | '\u{1680}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2581}'
        | '\u{feff}'
        | '\u{fffd}' => Some(' '),
        c => Some(c),
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(digits.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let bytes = (bits << (6 * (4 - group.len()))).to_be_bytes();
        out.extend_from_slice(bytes.get(1..group.len()).filter(|_| group.len() > 1)?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_digits() {
        for (text, bytes) in [("", Some(&b""[..])), ("TQ==", Some(b"M")), ("TWE=", Some(b"Ma")), ("TWFu", Some(b"Man"))]
        {
            assert_eq!(base64(text).as_deref(), bytes);
        }
        assert_eq!((base64("T"), base64("TW\u{e9}")), (None, None));
    }
}

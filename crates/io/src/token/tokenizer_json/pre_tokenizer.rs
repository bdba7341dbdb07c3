//! Pre-tokenizers of a `tokenizer.json`: where a text is cut before the model sees it.
use std::ops::Range;

use super::Problem;
use super::file::{Behavior, MetaspaceFile, PreTokenizerFile, PrependScheme};
use super::normalizer::compile;
use crate::token::bpe::byte_letters;
use crate::token::pattern::Pattern;
use crate::token::unicode::contains;
use crate::token::unicode_tables::BERT_PUNCTUATION;

/// A stretch of text between two cuts; never empty.
pub(super) struct Part {
    pub(super) text: String,
    /// Whether the whole text begins with it.
    pub(super) first: bool,
}

/// One step.
pub(super) enum PreTokenizer {
    Bert,
    ByteLevel { add_space: bool, pattern: Option<Pattern> },
    Delimiter(char),
    Digits(Behavior),
    Metaspace(MetaspaceFile),
    Punctuation(Behavior),
    Split { pattern: Pattern, behavior: Behavior, invert: bool },
    Whitespace(Pattern),
    WhitespaceSplit,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The steps of a file in order.
pub(super) fn steps(file: PreTokenizerFile, out: &mut Vec<PreTokenizer>) -> Result<(), Problem> {
    let ours = |pattern| Pattern::new(pattern).map_err(|problem| ("pre_tokenizer", problem));
    out.push(match file {
        PreTokenizerFile::Sequence { pretokenizers } => {
            return pretokenizers.into_iter().try_for_each(|step| steps(step, out));
        }
        PreTokenizerFile::BertPreTokenizer => PreTokenizer::Bert,
        PreTokenizerFile::ByteLevel { add_prefix_space, use_regex } => {
            let pattern = use_regex.then(|| ours(GPT2)).transpose()?;
            PreTokenizer::ByteLevel { add_space: add_prefix_space, pattern }
        }
        PreTokenizerFile::CharDelimiterSplit { delimiter } => PreTokenizer::Delimiter(delimiter),
        PreTokenizerFile::Digits { individual_digits: true } => PreTokenizer::Digits(Behavior::Isolated),
        PreTokenizerFile::Digits { individual_digits: false } => PreTokenizer::Digits(Behavior::Contiguous),
        PreTokenizerFile::Metaspace(metaspace) => PreTokenizer::Metaspace(metaspace),
        PreTokenizerFile::Punctuation { behavior } => PreTokenizer::Punctuation(behavior),
        PreTokenizerFile::Split { pattern, behavior, invert } => {
            PreTokenizer::Split { pattern: compile(pattern)?, behavior, invert }
        }
        PreTokenizerFile::Whitespace => PreTokenizer::Whitespace(ours(r"\w+|[^\w\s]+")?),
        PreTokenizerFile::WhitespaceSplit => PreTokenizer::WhitespaceSplit,
    });
    Ok(())
}

impl PreTokenizer {
    /// Cuts one part into several.
    pub(super) fn cut(&self, part: Part, out: &mut Vec<Part>) {
        let Part { mut text, first } = part;
        match self {
            PreTokenizer::Bert => {
                let words = behave(by_char(&text, char::is_whitespace), Behavior::Removed);
                for word in words {
                    let word_first = first && word.start == 0;
                    push(
                        &text[word.clone()],
                        word_first,
                        by_char(&text[word], is_punctuation),
                        Behavior::Isolated,
                        out,
                    );
                }
            }
            PreTokenizer::ByteLevel { add_space, pattern } => {
                if *add_space && !text.starts_with(' ') {
                    text.insert(0, ' ');
                }
                let before = out.len();
                match pattern {
                    Some(pattern) => push(&text, first, pattern.cut(&text), Behavior::Isolated, out),
                    None => out.push(Part { text, first }),
                }
                out[before..].iter_mut().for_each(|part| part.text = byte_letters_of(&part.text));
            }
            PreTokenizer::Delimiter(delimiter) => {
                push(&text, first, by_char(&text, |c| c == *delimiter), Behavior::Removed, out);
            }
            PreTokenizer::Digits(behavior) => push(&text, first, by_char(&text, char::is_numeric), *behavior, out),
            PreTokenizer::Metaspace(metaspace) => {
                let mark = metaspace.replacement;
                let mut text = text.replace(' ', mark.encode_utf8(&mut [0; 4]));
                let prepends = match metaspace.scheme() {
                    PrependScheme::Always => true,
                    PrependScheme::First => first,
                    PrependScheme::Never => false,
                };
                if prepends && !text.starts_with(mark) {
                    text.insert(0, mark);
                }
                if metaspace.splits() {
                    push(&text, first, by_char(&text, |c| c == mark), Behavior::MergedWithNext, out);
                } else {
                    out.push(Part { text, first });
                }
            }
            PreTokenizer::Punctuation(behavior) => push(&text, first, by_char(&text, is_punctuation), *behavior, out),
            PreTokenizer::Split { pattern, behavior, invert } => {
                let mut parts = pattern.cut(&text);
                parts.iter_mut().for_each(|(_, matched)| *matched ^= invert);
                push(&text, first, parts, *behavior, out);
            }
            PreTokenizer::Whitespace(pattern) => {
                let mut parts = pattern.cut(&text);
                parts.iter_mut().for_each(|(_, matched)| *matched = !*matched);
                push(&text, first, parts, Behavior::Removed, out);
            }
            PreTokenizer::WhitespaceSplit => {
                push(&text, first, by_char(&text, char::is_whitespace), Behavior::Removed, out);
            }
        }
    }
}

fn push(text: &str, first: bool, parts: Vec<(Range<usize>, bool)>, behavior: Behavior, out: &mut Vec<Part>) {
    let kept = behave(parts, behavior).into_iter().filter(|range| !range.is_empty());
    out.extend(kept.map(|range| Part { first: first && range.start == 0, text: text[range].to_owned() }));
}

/// Applies the behavior to matches (`true`) and gaps that cover a text in order.
fn behave(parts: Vec<(Range<usize>, bool)>, behavior: Behavior) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::with_capacity(parts.len());
    let mut before = false;
    let join = |out: &mut Vec<Range<usize>>, range: Range<usize>| match out.last_mut() {
        Some(last) => *last = last.start.min(range.start)..last.end.max(range.end),
        None => out.push(range),
    };
    match behavior {
        Behavior::Removed => out.extend(parts.into_iter().filter(|(_, matched)| !matched).map(|(range, _)| range)),
        Behavior::Isolated => out.extend(parts.into_iter().map(|(range, _)| range)),
        Behavior::Contiguous => {
            for (range, matched) in parts {
                if matched == before {
                    join(&mut out, range)
                } else {
                    out.push(range)
                }
                before = matched;
            }
        }
        Behavior::MergedWithPrevious => {
            for (range, matched) in parts {
                if matched && !before {
                    join(&mut out, range)
                } else {
                    out.push(range)
                }
                before = matched;
            }
        }
        Behavior::MergedWithNext => {
            for (range, matched) in parts.into_iter().rev() {
                if matched && !before {
                    join(&mut out, range)
                } else {
                    out.push(range)
                }
                before = matched;
            }
            out.reverse();
        }
    }
    out
}

/// Each matching character by itself, and the gaps between them.
fn by_char(text: &str, matches: impl Fn(char) -> bool) -> Vec<(Range<usize>, bool)> {
    let mut parts = Vec::new();
    let mut end = 0;
    for (at, c) in text.char_indices().filter(|&(_, c)| matches(c)) {
        if end < at {
            parts.push((end..at, false));
        }
        end = at + c.len_utf8();
        parts.push((at..end, true));
    }
    if end < text.len() {
        parts.push((end..text.len(), false));
    }
    parts
}

fn is_punctuation(c: char) -> bool {
    contains(BERT_PUNCTUATION, c)
}

/// GPT-2's printable letter of each byte of a text.
pub(super) fn byte_letters_of(text: &str) -> String {
    static LETTERS: std::sync::LazyLock<[char; 256]> = std::sync::LazyLock::new(byte_letters);
    text.bytes().map(|b| LETTERS[usize::from(b)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: the peer's own test.
    #[test]
    fn behaviors() {
        let text = "The-final--countdown";
        for (behavior, expected) in [
            (Behavior::Removed, "The final countdown"),
            (Behavior::Isolated, "The - final - - countdown"),
            (Behavior::MergedWithPrevious, "The- final- - countdown"),
            (Behavior::MergedWithNext, "The -final - -countdown"),
            (Behavior::Contiguous, "The - final -- countdown"),
        ] {
            let ranges = behave(by_char(text, |c| c == '-'), behavior);
            let parts: Vec<&str> = ranges.into_iter().map(|range| &text[range]).collect();
            assert_eq!(parts.join(" "), expected);
        }
    }
}

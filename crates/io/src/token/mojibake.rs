//! ftfy's detection of mojibake: is a text likely to be UTF-8 that was read in another encoding?
//! A port of ftfy 6.3.1 `badness.py` and of `UTF8_DETECTOR_RE` (Robyn Speer, Apache-2.0), without a regex engine.
use super::ftfy_tables::*;
use super::unicode::{is_letter, is_number, is_python_space};

/// A text as characters with the set of their mojibake categories.
pub(super) struct Marked {
    pub(super) chars: Vec<char>,
    categories: Vec<u32>,
}

impl Marked {
    pub(super) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let categories = chars.iter().map(|&c| categories_of(c)).collect();
        Self { chars, categories }
    }

    /// ftfy's `is_bad` for the characters `from..to` taken as a text of its own.
    pub(super) fn is_bad(&self, from: usize, to: usize) -> bool {
        (from..to).any(|at| self.bad_at(from, at, to))
    }

    fn bad_at(&self, from: usize, at: usize, to: usize) -> bool {
        let fits = |pattern: &&[Set]| {
            pattern.len() <= to - at
                && pattern.iter().enumerate().all(|(i, set)| set.holds(self.chars[at + i], self.categories[at + i]))
        };
        BAD_SEQUENCES.iter().any(fits) || (at == from && fits(&BAD_BEGINNING))
    }

    /// Runs of characters that look like UTF-8 sequences, as (start, end): `UTF8_DETECTOR_RE.finditer`.
    pub(super) fn utf8_runs(&self) -> Vec<(usize, usize)> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < self.chars.len() {
            let after_continuation = at > 0 && self.categories[at - 1] & UTF8_CONTINUATION_STRICT != 0;
            let end = if after_continuation { at } else { self.utf8_run_end(at) };
            if end > at {
                runs.push((at, end));
            }
            at = end.max(at + 1);
        }
        runs
    }

    fn utf8_run_end(&self, start: usize) -> usize {
        let mut end = start;
        while let Some(length) = self.utf8_sequence(end) {
            end += length;
        }
        end
    }

    fn utf8_sequence(&self, at: usize) -> Option<usize> {
        let first = *self.categories.get(at)?;
        let kinds = [(UTF8_FIRST_OF_2, 2), (UTF8_FIRST_OF_3, 3), (UTF8_FIRST_OF_4, 4)];
        let fits = |&&(kind, length): &&(u32, usize)| {
            let rest = self.categories.get(at + 1..at + length);
            first & kind != 0 && rest.is_some_and(|rest| rest.iter().all(|c| c & UTF8_CONTINUATION != 0))
        };
        kinds.iter().find(fits).map(|&(_, length)| length)
    }
}

fn categories_of(c: char) -> u32 {
    let point = c as u32;
    let at = CATEGORIES.partition_point(|&(_, last, _)| last < point);
    match CATEGORIES.get(at) {
        Some(&(first, _, categories)) if first <= point => categories,
        _ => 0,
    }
}

/// One position of a pattern: any of some categories, of some characters, or of a class.
#[derive(Clone, Copy)]
struct Set {
    categories: u32,
    chars: &'static str,
    class: Class,
}

#[derive(Clone, Copy)]
enum Class {
    None,
    AsciiLetter,
    AsciiLower,
    NotAsciiLetter,
    Space,
    Word,
    NotNewline,
}

impl Set {
    fn holds(&self, c: char, categories: u32) -> bool {
        let in_class = match self.class {
            Class::None => false,
            Class::AsciiLetter => c.is_ascii_alphabetic(),
            Class::AsciiLower => c.is_ascii_lowercase(),
            Class::NotAsciiLetter => !c.is_ascii_alphabetic(),
            Class::Space => is_python_space(c),
            Class::Word => is_letter(c) || is_number(c) || c == '_',
            Class::NotNewline => c != '\n',
        };
        in_class || categories & self.categories != 0 || self.chars.contains(c)
    }
}

const fn of(categories: u32) -> Set {
    Set { categories, chars: "", class: Class::None }
}
const fn chars(chars: &'static str) -> Set {
    Set { categories: 0, chars, class: Class::None }
}
const fn either(categories: u32, chars: &'static str) -> Set {
    Set { categories, chars, class: Class::None }
}
const fn class(class: Class, chars: &'static str) -> Set {
    Set { categories: 0, chars, class }
}

const ACCENTED: u32 = LOWER_ACCENTED | UPPER_ACCENTED;
const QUOTES: u32 = START_PUNCTUATION | END_PUNCTUATION;
const UNLIKELY: u32 = ACCENTED | BOX | QUOTES | CURRENCY | NUMERIC | LAW;
const ARABIC: Set = either(COMMON | CURRENCY | BAD | NUMERIC | START_PUNCTUATION, "ŸŠ®°µ»");

/// The alternatives of ftfy's `BADNESS_RE`, in its order; a text is bad if any of them occurs. `\s?` is written as two rows.
const BAD_SEQUENCES: &[&[Set]] = &[
    &[of(C1)],
    &[of(BAD | UNLIKELY), of(BAD)],
    &[class(Class::AsciiLetter, ""), of(LOWER_COMMON | UPPER_COMMON), of(BAD)],
    &[of(BAD), of(UNLIKELY)],
    &[of(LOWER_ACCENTED | LOWER_COMMON | BOX | END_PUNCTUATION | CURRENCY | NUMERIC), of(UPPER_ACCENTED)],
    &[of(BOX | END_PUNCTUATION | CURRENCY | NUMERIC), of(LOWER_ACCENTED)],
    &[of(LOWER_ACCENTED | BOX | END_PUNCTUATION), of(CURRENCY)],
    &[class(Class::Space, ""), of(UPPER_ACCENTED), of(CURRENCY)],
    &[of(UPPER_ACCENTED | BOX), of(NUMERIC | LAW)],
    &[of(ACCENTED | BOX | CURRENCY | END_PUNCTUATION), of(START_PUNCTUATION), of(NUMERIC)],
    &[of(ACCENTED | CURRENCY | NUMERIC | BOX | LAW), of(END_PUNCTUATION), of(START_PUNCTUATION)],
    &[of(CURRENCY | NUMERIC | BOX), of(START_PUNCTUATION)],
    &[class(Class::AsciiLower, ""), of(UPPER_ACCENTED), of(START_PUNCTUATION | CURRENCY)],
    &[of(BOX), of(KAOMOJI)],
    &[of(ACCENTED | CURRENCY | NUMERIC | QUOTES | LAW), of(BOX)],
    &[of(BOX), of(END_PUNCTUATION)],
    &[of(ACCENTED), of(QUOTES), class(Class::Word, "")],
    // The ligature œ when not followed by an unaccented Latin letter.
    &[chars("Œœ"), class(Class::NotAsciiLetter, "")],
    // Degree signs after capital letters.
    &[of(UPPER_ACCENTED), chars("°")],
    // Two characters of Windows-1252 not covered above.
    &[chars("ÂÃÎÐ"), either(QUOTES, "€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»–—´")],
    &[chars("×"), chars("²³")],
    // Windows-1252 mojibake of Arabic has common characters, so four are required.
    &[chars("ØÙ"), ARABIC, chars("ØÙ"), ARABIC],
    // The beginning of three characters in some South Asian alphabets.
    &[chars("à"), chars("²µ¹¼½¾")],
    // MacRoman.
    &[chars("√"), chars("±∂†≠®™´≤≥¥µø")],
    &[chars("≈"), chars("°¢")],
    &[chars("‚"), chars("Ä"), chars("ìîïòôúùû†°¢π")],
    &[chars("‚"), chars("âó"), chars("àä°ê")],
    // Windows-1251 of U+2000..
    &[chars("в"), chars("Ђ")],
    // Windows-1251 of Latin-1 and Cyrillic.
    &[chars("ВГРС"), either(C1 | BAD | QUOTES | CURRENCY, "°µ"), chars("ВГРС")],
    // Windows-1251 on top of Windows-1252, with a Latin letter nearby.
    &[
        chars("Г"),
        chars("ў"),
        chars("В"),
        chars("Ђ"),
        chars("В"),
        class(Class::NotNewline, ""),
        class(Class::AsciiLetter, " "),
    ],
    // Windows-1252 of à, á and U+A0.
    &[chars("Ã"), chars("\u{a0}¡")],
    &[class(Class::AsciiLower, ""), chars("ÃÂ"), chars(" ")],
    &[class(Class::AsciiLower, ""), class(Class::Space, ""), chars("ÃÂ"), chars(" ")],
    // Â before a character that encodes exactly itself.
    &[Set { categories: END_PUNCTUATION, chars: ".,?!", class: Class::AsciiLower }, chars("Â"), either(QUOTES, " ")],
    // Windows-1253 of U+2000.., and of Latin-1 and Greek.
    &[chars("β"), chars("€"), chars("™\u{a0}Ά\u{ad}®°")],
    &[chars("ΒΓΞΟ"), either(C1 | BAD | QUOTES | CURRENCY, "°"), chars("ΒΓΞΟ")],
    // Windows-1257 of U+2000..
    &[chars("ā"), chars("€")],
];

/// The one alternative that is tied to the beginning of the text.
const BAD_BEGINNING: &[Set] = &[chars("ÃÂ"), chars(" ")];

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: ftfy 6.3.1 `badness.is_bad`.
    #[test]
    fn badness() {
        for (text, bad) in [
            ("cafÃ©", true),
            ("café", false),
            ("donâ€™t", true),
            ("Ã la", true),
            ("xÃ y", true),
            ("Ângstrom", false),
            ("1×²", true),
            ("œ uvre", true),
            ("œuvre", false),
            ("вЂ", true),
            ("ā€", true),
            ("100 °C", false),
            ("", false),
        ] {
            let marked = Marked::new(text);
            assert_eq!(marked.is_bad(0, marked.chars.len()), bad, "{text}");
        }
    }

    #[test]
    fn runs() {
        assert_eq!(Marked::new("a cafÃ© â€™ x").utf8_runs(), [(5, 7), (8, 11)]);
        assert_eq!(Marked::new("plain").utf8_runs(), []);
    }
}

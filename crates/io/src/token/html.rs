//! HTML entities: Python's `html.unescape` to the letter, and ftfy's stricter reading.
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

/// Entities of HTML 5 (2,231 names, semicolon kept where it belongs to the name), then after an empty line the upper-case
/// names that ftfy adds. Made by assets/make_assets.py from Python's `html.entities.html5`.
static PACKED: &[u8] = include_bytes!("../../assets/html5-entities.txt.z");

struct Entities {
    html5: HashMap<&'static str, Cow<'static, str>>,
    upper_case: HashMap<&'static str, Cow<'static, str>>,
}

fn entities() -> &'static Entities {
    static TEXT: OnceLock<String> = OnceLock::new();
    static ENTITIES: OnceLock<Entities> = OnceLock::new();
    ENTITIES.get_or_init(|| {
        let text = TEXT.get_or_init(|| String::from_utf8(super::assets::inflate_embedded(PACKED)).unwrap_or_default());
        let (html5, upper_case) = text.split_once("\n\n").unwrap_or((text, ""));
        Entities { html5: parse(html5), upper_case: parse(upper_case) }
    })
}

fn parse(lines: &'static str) -> HashMap<&'static str, Cow<'static, str>> {
    let pairs = lines.lines().filter_map(|line| line.split_once('\t'));
    pairs
        .map(|(name, value)| match value {
            "\\n" => (name, Cow::Borrowed("\n")),
            "\\t" => (name, Cow::Borrowed("\t")),
            "\\\\" => (name, Cow::Borrowed("\\")),
            value => (name, Cow::Borrowed(value)),
        })
        .collect()
}

/// Python 3.11's `html.unescape`: numeric references with or without semicolon, names without semicolon by their longest
/// known beginning, Windows-1252 for 0x80..0x9F, nothing for noncharacters.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match reference_length(rest) {
            0 => out.push('&'),
            length => {
                push_reference(&rest[..length], &mut out);
                rest = &rest[length..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Bytes of `#[0-9]+;?`, `#[xX][0-9a-fA-F]+;?` or `[^\t\n\f <&#;]{1,32};?` at the start of `rest`; 0 if there is none.
fn reference_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let with_semicolon = |end: usize| end + usize::from(bytes.get(end) == Some(&b';'));
    if bytes.first() == Some(&b'#') {
        let hex = matches!(bytes.get(1), Some(b'x' | b'X'));
        let start = if hex { 2 } else { 1 };
        let is_digit = |b: &&u8| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
        let digits = bytes[start.min(bytes.len())..].iter().take_while(is_digit).count();
        return if digits == 0 { 0 } else { with_semicolon(start + digits) };
    }
    let stops = |c: &char| !matches!(c, '\t' | '\n' | '\u{c}' | ' ' | '<' | '&' | '#' | ';');
    let end: usize = rest.chars().take(32).take_while(stops).map(char::len_utf8).sum();
    if end == 0 { 0 } else { with_semicolon(end) }
}

fn push_reference(reference: &str, out: &mut String) {
    if let Some(number) = reference.strip_prefix('#') {
        push_numeric(number, out);
        return;
    }
    let known = &entities().html5;
    if let Some(value) = known.get(reference) {
        out.push_str(value);
        return;
    }
    // The longest beginning of at least two characters that is a name.
    for (cut, _) in reference.char_indices().skip(2).collect::<Vec<_>>().into_iter().rev() {
        if let Some(value) = known.get(&reference[..cut]) {
            out.push_str(value);
            out.push_str(&reference[cut..]);
            return;
        }
    }
    out.push('&');
    out.push_str(reference);
}

fn push_numeric(number: &str, out: &mut String) {
    let digits = number.trim_end_matches(';');
    let (digits, radix) = match digits.strip_prefix(['x', 'X']) {
        Some(hex) => (hex, 16),
        None => (digits, 10),
    };
    // Saturating: whatever does not fit is past the last code point anyway.
    let value = digits
        .chars()
        .filter_map(|c| c.to_digit(radix))
        .fold(0u32, |sum, digit| sum.saturating_mul(radix).saturating_add(digit));
    match value {
        0 => out.push('\u{fffd}'),
        0x0d => out.push('\r'),
        0x80..=0x9f => out.push(windows_1252(value as u8)),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => {}
        value if value <= 0x10ffff && value & 0xfffe == 0xfffe => {}
        value => out.push(char::from_u32(value).unwrap_or('\u{fffd}')),
    }
}

/// Bytes 0x80..0x9F as browsers read them; the five holes stay controls.
fn windows_1252(byte: u8) -> char {
    let upper = super::ftfy_tables::SLOPPY_WINDOWS_1252;
    upper.chars().nth(usize::from(byte & 0x7f)).unwrap_or(char::from(byte))
}

/// ftfy's `unescape_html`: only references that end in a semicolon, and upper-case names such as `&EACUTE;`.
pub(super) fn unescape_strictly(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = strict_length(rest).unwrap_or(1);
        let (reference, after) = rest.split_at(length);
        match strict_value(reference) {
            Some(value) => out.push_str(&value),
            None => out.push_str(reference),
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Bytes of `&#?[0-9A-Za-z]{1,24};` at the start of `rest`.
fn strict_length(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let start = 1 + usize::from(bytes.get(1) == Some(&b'#'));
    let name = bytes[start.min(bytes.len())..].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    ((1..=24).contains(&name) && bytes.get(start + name) == Some(&b';')).then_some(start + name + 1)
}

fn strict_value(reference: &str) -> Option<Cow<'static, str>> {
    let name = reference.strip_prefix('&')?;
    if name.starts_with('#') {
        // A reference that only half decodes, or that is a semicolon, stays as it is.
        let value = unescape(reference).into_owned();
        return (!value.contains(';')).then_some(Cow::Owned(value));
    }
    let known = entities();
    known.html5.get(name).or_else(|| known.upper_case.get(name)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_all_names() {
        assert_eq!(entities().html5.len(), 2231);
        assert!(entities().upper_case.len() > 100);
    }

    /// Expected values: Python 3.11.7 `html.unescape`.
    #[test]
    fn unescape_as_python() {
        for (from, to) in [
            ("&amp;&lt;&#39;&#x27;", "&<''"),
            ("&ampx &notit; &notin; &copy2", "&x \u{ac}it; \u{2209} \u{a9}2"),
            ("&#128;&#x80;&#0;&#13;", "\u{20ac}\u{20ac}\u{fffd}\r"),
            ("&#xD800;&#x110000;&#99999999999999999999;", "\u{fffd}\u{fffd}\u{fffd}"),
            ("&#1;&#xFFFE;&#x1FFFF;&#xfdd0;|", "|"),
            ("&#x;&#;& &&;&bogus;", "&#x;&#;& &&;&bogus;"),
            ("&NewLine;&Tab;&bsol;", "\n\t\\"),
            ("&CounterClockwiseContourIntegral;", "\u{2233}"),
            ("&NotEqualTilde;", "\u{2242}\u{338}"),
            ("&#x41", "A"),
            ("&ampé", "&é"),
        ] {
            assert_eq!(unescape(from), to, "{from}");
        }
    }

    /// Expected values: ftfy 6.3.1 `fixes.unescape_html`.
    #[test]
    fn unescape_as_ftfy() {
        for (from, to) in [
            ("this&not that &eacute; &EACUTE; &nTILDE;", "this&not that é É &nTILDE;"),
            ("BUNDESSTRA&SZLIG;E", "BUNDESSTRASSE"),
            ("&#x3B; &#59; &#xZZ; &#65; &#65", "&#x3B; &#59; &#xZZ; A &#65"),
            ("&aaaaaaaaaaaaaaaaaaaaaaaaa; &;", "&aaaaaaaaaaaaaaaaaaaaaaaaa; &;"),
        ] {
            assert_eq!(unescape_strictly(from), to, "{from}");
        }
    }
}

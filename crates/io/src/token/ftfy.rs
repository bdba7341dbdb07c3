//! `ftfy.fix_text`: repairs mojibake, curly quotes, widths, ligatures, controls, and normalises to NFC.
//! A port of ftfy 6.3.1 with its default settings (Robyn Speer, Apache-2.0): open_clip and OpenVision clean every text
//! with it, so their ids cannot be had without it. Surrogates do not exist in a `str`, so that fixer is absent.
use std::sync::OnceLock;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::ftfy_tables as tables;
use super::html;
use super::mojibake::Marked;

/// Repairs within repairs; each is at least one character shorter than the one around it, and texts need two or three.
const DEEPEST_REPAIR: usize = 16;

/// `ftfy.fix_text(text)`.
pub(super) fn fix_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // A literal `<` means that this is HTML: from that line on entities are left alone.
    let mut unescapes = true;
    for segment in text.split_inclusive('\n') {
        unescapes &= !segment.contains('<');
        out.push_str(&fix_segment(segment, unescapes));
    }
    out
}

fn fix_segment(segment: &str, unescapes: bool) -> String {
    let mut text = segment.to_owned();
    loop {
        let mut next = if unescapes { html::unescape_strictly(&text).into_owned() } else { text.clone() };
        if !is_plain(&next) {
            next = fix_encoding(next, 0);
            next = fix_characters(&next);
            next = remove_controls(&remove_terminal_escapes(&next));
            if !is_nfc(&next) {
                next = next.nfc().collect();
            }
        }
        if next == text {
            return text;
        }
        text = next;
    }
}

/// Text that no fixer but the one of HTML entities changes.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'\t' | b'\n' | b'\x0c' | b' '..=b'~'))
}

/// The fixers that look at one character at a time, in ftfy's order: C1 controls as Windows-1252, ligatures, widths, quotes
/// and line breaks.
fn fix_characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().map(fix_c1_control) {
        match replacement(tables::LIGATURES, c) {
            Some(letters) => letters.chars().for_each(|letter| push_fixed(letter, &mut out)),
            None => push_fixed(c, &mut out),
        }
    }
    out.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n")
}

fn push_fixed(c: char, out: &mut String) {
    let uncurl = |c| match c {
        '\u{201c}'..='\u{201f}' => '"',
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        c => c,
    };
    match replacement(tables::WIDTHS, c) {
        Some(standard) => out.extend(standard.chars().map(uncurl)),
        None => out.push(uncurl(c)),
    }
}

fn replacement(table: &[(u32, &'static str)], c: char) -> Option<&'static str> {
    if c.is_ascii() {
        return None;
    }
    table.binary_search_by_key(&(c as u32), |&(point, _)| point).ok().map(|at| table[at].1)
}

fn fix_c1_control(c: char) -> char {
    match c {
        '\u{80}'..='\u{9f}' => tables::SLOPPY_WINDOWS_1252.chars().nth(c as usize - 0x80).unwrap_or(c),
        c => c,
    }
}

/// Removes `ESC [ digits and semicolons letter`.
fn remove_terminal_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let after = &rest[at + 2..];
        let parameters = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        if parameters.starts_with(|c: char| c.is_ascii_alphabetic()) {
            out.push_str(&rest[..at]);
            rest = &parameters[1..];
        } else {
            out.push_str(&rest[..at + 2]);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

fn remove_controls(text: &str) -> String {
    let is_control = |c: char| {
        matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}'
            | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
    };
    if text.contains(is_control) { text.replace(is_control, "") } else { text.to_owned() }
}

/// `ftfy.fix_encoding`: steps until nothing changes.
fn fix_encoding(mut text: String, depth: usize) -> String {
    while let Some(next) = fix_encoding_once(&text, depth) {
        text = next;
    }
    text
}

/// One repair, or nothing if the text looks right or cannot be repaired.
fn fix_encoding_once(text: &str, depth: usize) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let marked = Marked::new(text);
    if !marked.is_bad(0, marked.chars.len()) {
        return None;
    }
    let changed = |fixed: String| (fixed != text).then_some(fixed);
    // UTF-8 that was read in a single-byte encoding.
    for code_page in code_pages() {
        if let Some(bytes) = code_page.encode(&marked.chars)
            && let Some(fixed) = decode_repaired(bytes, code_page)
        {
            return changed(fixed);
        }
    }
    // UTF-8 sequences inside of a text that is otherwise right.
    let runs = marked.utf8_runs();
    if !runs.is_empty() && depth < DEEPEST_REPAIR {
        let fixed = fix_runs(&marked, &runs, depth);
        if fixed != text {
            return Some(fixed);
        }
    }
    // What is left of C1 controls was meant as Windows-1252. (The original first tries that for pure Latin-1, with the same
    // result.)
    changed(marked.chars.iter().map(|&c| fix_c1_control(c)).collect())
}

fn fix_runs(marked: &Marked, runs: &[(usize, usize)], depth: usize) -> String {
    let mut out = String::new();
    let mut done = 0;
    for &(from, to) in runs {
        out.extend(&marked.chars[done..from]);
        let run: String = marked.chars[from..to].iter().collect();
        // A run that is the whole text would be tried again for ever.
        if to - from < marked.chars.len() && marked.is_bad(from, to) {
            out.push_str(&fix_encoding(run, depth + 1));
        } else {
            out.push_str(&run);
        }
        done = to;
    }
    out.extend(&marked.chars[done..]);
    out
}

/// A single-byte encoding in which UTF-8 may have been read.
struct CodePage {
    name: &'static str,
    /// Characters of bytes 0x80..0xFF, sorted, with their bytes.
    upper: Vec<(char, u8)>,
}

impl CodePage {
    /// Sloppy code pages fill their holes with controls and read byte 1A as U+FFFD.
    fn is_sloppy(&self) -> bool {
        self.name.starts_with("sloppy")
    }

    fn encode(&self, chars: &[char]) -> Option<Vec<u8>> {
        chars.iter().map(|&c| self.encode_one(c)).collect()
    }

    fn encode_one(&self, c: char) -> Option<u8> {
        match c {
            '\u{1a}' if self.is_sloppy() => None,
            '\u{fffd}' if self.is_sloppy() => Some(0x1a),
            c if c.is_ascii() => Some(c as u8),
            c => self.upper.binary_search_by_key(&c, |&(known, _)| known).ok().map(|at| self.upper[at].1),
        }
    }
}

/// In the order in which they are tried.
fn code_pages() -> &'static [CodePage] {
    static CODE_PAGES: OnceLock<Vec<CodePage>> = OnceLock::new();
    CODE_PAGES.get_or_init(|| {
        let pages = [
            ("latin-1", tables::LATIN_1),
            ("sloppy-windows-1252", tables::SLOPPY_WINDOWS_1252),
            ("sloppy-windows-1251", tables::SLOPPY_WINDOWS_1251),
            ("sloppy-windows-1250", tables::SLOPPY_WINDOWS_1250),
            ("sloppy-windows-1253", tables::SLOPPY_WINDOWS_1253),
            ("sloppy-windows-1254", tables::SLOPPY_WINDOWS_1254),
            ("sloppy-windows-1257", tables::SLOPPY_WINDOWS_1257),
            ("iso-8859-2", tables::ISO_8859_2),
            ("macroman", tables::MACROMAN),
            ("cp437", tables::CP437),
        ];
        pages
            .map(|(name, characters)| {
                let mut upper: Vec<(char, u8)> = characters.chars().zip(0x80..=0xff).collect();
                upper.sort_unstable();
                CodePage { name, upper }
            })
            .into()
    })
}

/// Decodes bytes as UTF-8 after the repairs that ftfy makes: spaces that were U+A0, and bytes that were lost.
fn decode_repaired(mut bytes: Vec<u8>, code_page: &CodePage) -> Option<String> {
    // In MacRoman byte 0xE2 0x20 and the like are ordinary text.
    if code_page.name != "macroman" && (0..bytes.len()).any(|at| match_at(ALTERED_UTF8, &bytes[at..]).is_some()) {
        bytes = restore_byte_a0(&bytes);
    }
    if code_page.is_sloppy() {
        bytes = replace_lossy_sequences(&bytes);
    }
    if bytes.contains(&0xed) || bytes.contains(&0xc0) {
        decode_utf8_variants(&bytes)
    } else {
        String::from_utf8(bytes).ok()
    }
}

type ByteSet = &'static [(u8, u8)];
const SPACE: ByteSet = &[(0x20, 0x20)];
const CONTINUATION: ByteSet = &[(0x80, 0xbf)];
/// Continuation bytes that are neither an ellipsis in Windows-1252 nor the space itself.
const PLAIN_CONTINUATION: ByteSet = &[(0x80, 0x84), (0x86, 0x9f), (0xa1, 0xbf)];
const LOST: ByteSet = &[(0x1a, 0x1a)];
const LOST_OR_MARK: ByteSet = &[(0x1a, 0x1a), (0x3f, 0x3f)];
const LOST_OR_CONTINUATION: ByteSet = &[(0x1a, 0x1a), (0x80, 0xbf)];
const ANY_OF_THESE: ByteSet = &[(0x1a, 0x1a), (0x3f, 0x3f), (0x80, 0xbf)];

/// UTF-8 sequences in which an A0 became a space (`ALTERED_UTF8_RE`; the lead bytes are ftfy's choice).
const ALTERED_UTF8: &[&[ByteSet]] = &[
    &[&[(0xc2, 0xc3), (0xc5, 0xc5), (0xce, 0xce), (0xd0, 0xd0), (0xd9, 0xd9)], SPACE],
    &[&[(0xe2, 0xe3)], SPACE, PLAIN_CONTINUATION],
    &[&[(0xe0, 0xe3)], PLAIN_CONTINUATION, SPACE],
    &[&[(0xf0, 0xf0)], SPACE, CONTINUATION, CONTINUATION],
    &[&[(0xf0, 0xf0)], CONTINUATION, SPACE, CONTINUATION],
    &[&[(0xf0, 0xf0)], CONTINUATION, CONTINUATION, SPACE],
];

/// UTF-8 and CESU-8 sequences of which bytes were lost (`LOSSY_UTF8_RE`).
const LOSSY_UTF8: &[&[ByteSet]] = &[
    &[&[(0xc2, 0xdf)], LOST],
    &[&[(0xc2, 0xc3)], &[(0x3f, 0x3f)]],
    &[&[(0xed, 0xed)], &[(0xa0, 0xaf)], LOST_OR_MARK, &[(0xed, 0xed)], &[(0xb0, 0xbf)], ANY_OF_THESE],
    &[&[(0xed, 0xed)], &[(0xa0, 0xaf)], ANY_OF_THESE, &[(0xed, 0xed)], &[(0xb0, 0xbf)], LOST_OR_MARK],
    &[&[(0xe0, 0xef)], LOST_OR_MARK, LOST_OR_CONTINUATION],
    &[&[(0xe0, 0xef)], LOST_OR_CONTINUATION, LOST_OR_MARK],
    &[&[(0xf0, 0xf4)], LOST_OR_MARK, LOST_OR_CONTINUATION, LOST_OR_CONTINUATION],
    &[&[(0xf0, 0xf4)], LOST_OR_CONTINUATION, LOST_OR_MARK, LOST_OR_CONTINUATION],
    &[&[(0xf0, 0xf4)], LOST_OR_CONTINUATION, LOST_OR_CONTINUATION, LOST_OR_MARK],
    &[LOST],
];

/// Length of the first alternative that matches at the start of `bytes`.
fn match_at(alternatives: &[&[ByteSet]], bytes: &[u8]) -> Option<usize> {
    let holds = |set: &ByteSet, b: u8| set.iter().any(|&(first, last)| (first..=last).contains(&b));
    let fits = |sets: &&&[ByteSet]| sets.len() <= bytes.len() && sets.iter().zip(bytes).all(|(set, &b)| holds(set, b));
    alternatives.iter().find(fits).map(|sets| sets.len())
}

/// Replaces every match by what `replace` makes of it.
fn substitute(alternatives: &[&[ByteSet]], bytes: &[u8], replace: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match match_at(alternatives, &bytes[at..]) {
            Some(length) => {
                replace(&bytes[at..at + length], &mut out);
                at += length;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

fn restore_byte_a0(bytes: &[u8]) -> Vec<u8> {
    let with_words = restore_a_grave_words(bytes);
    let restore = |sequence: &[u8], out: &mut Vec<u8>| {
        out.extend(sequence.iter().map(|&b| if b == 0x20 { 0xa0 } else { b }));
    };
    substitute(ALTERED_UTF8, &with_words, restore)
}

/// "Ã la mode" is "à la mode": the word à keeps its space. Portuguese contractions and a second space are exceptions.
fn restore_a_grave_words(bytes: &[u8]) -> Vec<u8> {
    const JOINED: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(b"\xc3 ") && !JOINED.iter().any(|joined| rest[2..].starts_with(joined)) {
            out.extend_from_slice(b"\xc3\xa0 ");
            at += 2;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

fn replace_lossy_sequences(bytes: &[u8]) -> Vec<u8> {
    substitute(LOSSY_UTF8, bytes, |_, out| out.extend_from_slice("\u{fffd}".as_bytes()))
}

/// ftfy's codec utf-8-variants: UTF-8 with CESU-8 pairs and Java's C0 80 for NUL.
fn decode_utf8_variants(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        match rest {
            // The second form is a quirk of the original's regular expression: `$` also matches before a last line break.
            [0xc0, 0x80, ..] | [0xc0, b'\n'] => {
                out.push('\0');
                at += 2;
            }
            [0xed, b @ 0xa0..=0xaf, c @ 0x80..=0xbf, 0xed, e @ 0xb0..=0xbf, f @ 0x80..=0xbf, ..] => {
                let [b, c, e, f] = [*b, *c, *e, *f].map(u32::from);
                let point = ((b & 0xf) << 16) + ((c & 0x3f) << 10) + ((e & 0xf) << 6) + (f & 0x3f) + 0x10000;
                out.push(char::from_u32(point)?);
                at += 6;
            }
            _ => {
                let is_special = |i: &usize| rest[*i] == 0xc0 || (rest[*i] == 0xed && rest.get(i + 1) >= Some(&0xa0));
                let end = (1..rest.len()).find(is_special).unwrap_or(rest.len());
                out.push_str(std::str::from_utf8(&rest[..end]).ok()?);
                at += end;
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: ftfy 6.3.1 `fix_text`.
    #[test]
    fn fix_text_as_ftfy() {
        for (from, to) in [
            ("âœ” No problems", "✔ No problems"),
            ("&macr;\\_(ã\u{83}\u{84})_/&macr;", "¯\\_(ツ)_/¯"),
            ("Broken text&hellip; it&#x2019;s ﬂubberiﬁc!", "Broken text… it's flubberific!"),
            ("ＬＯＵＤ　ＮＯＩＳＥＳ", "LOUD NOISES"),
            ("voilÃ  le travail", "voilà le travail"),
            ("voilÃ le travail", "voilà le travail"),
            ("â€œ like this â€\u{fffd}", "\" like this \u{fffd}"),
            ("ÃƒÂ©", "é"),
            ("&amp; <b> &amp;\n&amp;", "&amp; <b> &amp;\n&amp;"),
            ("a\r\nb\rc\u{2028}d", "a\nb\nc\nd"),
            ("\u{1b}[36;44mblue\u{1b}[0m \u{1b}[", "blue ["),
            ("l’humanitÃ©", "l'humanité"),
            ("e\u{301}", "é"),
        ] {
            assert_eq!(fix_text(from), to, "{from}");
        }
    }

    #[test]
    fn utf8_variants() {
        assert_eq!(decode_utf8_variants(b"a\xc0\x80b"), Some("a\0b".into()));
        assert_eq!(decode_utf8_variants(b"\xed\xa0\xbd\xed\xb2\xa9"), Some("💩".into()));
        assert_eq!(decode_utf8_variants("한글".as_bytes()), Some("한글".into()));
        assert_eq!(decode_utf8_variants(b"\xed\xa0\xbd"), None);
        assert_eq!(decode_utf8_variants(b"\xc0"), None);
    }

    #[test]
    fn code_pages_have_128_upper_characters() {
        assert!(code_pages().iter().all(|page| page.upper.len() == 128));
    }
}

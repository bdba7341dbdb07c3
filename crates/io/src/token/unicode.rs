//! Questions about characters as the peers ask them: set membership, Python's white space, NFKC case folding.
use unicode_normalization::UnicodeNormalization;

use super::unicode_tables as tables;

/// Whether `c` is in a sorted table of inclusive ranges.
pub(super) fn contains(table: &[(u32, u32)], c: char) -> bool {
    let point = c as u32;
    let at = table.partition_point(|&(_, last)| last < point);
    table.get(at).is_some_and(|&(first, _)| first <= point)
}

/// `\p{L}`
pub(super) fn is_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { contains(tables::LETTER, c) }
}

/// `\p{N}`
pub(super) fn is_number(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { contains(tables::NUMBER, c) }
}

/// Whether Hugging Face's CLIP pattern, whose Unicode is older, takes the letter or number for neither.
pub(super) fn is_unknown_to_hugging_face(c: char) -> bool {
    !c.is_ascii() && contains(tables::NEW_LETTER_OR_NUMBER, c)
}

/// Python's `str.isspace`, which `str.split` and `str.strip` use: Unicode white space and the four separators 1C..1F.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Python's `" ".join(text.split())`.
pub(super) fn collapse_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(is_python_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Unicode NFKC case folding (ICU's `nfkc_cf`) followed by NFD: what `tf_text.case_fold_utf8` and then
/// `tf_text.normalize_utf8(…, "NFD")` give. Each character is folded to its fixed point (UAX #44, NFKC_Casefold).
pub(super) fn nfkc_casefold_nfd(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            folded.push(c.to_ascii_lowercase());
        } else {
            fold_one(c, &mut folded);
        }
    }
    folded.nfd().collect()
}

fn fold_one(c: char, out: &mut String) {
    let mut now = String::from(c);
    // Two rounds are enough for all of Unicode; the bound only keeps a table error from looping.
    for _ in 0..4 {
        let kept = now.chars().filter(|&k| !contains(tables::DEFAULT_IGNORABLE, k));
        let next: String = kept.flat_map(case_fold).nfkc().collect();
        if next == now {
            break;
        }
        now = next;
    }
    out.push_str(&now);
}

/// Full case folding, by lower case of upper case; the exceptions are those of CaseFolding.txt.
fn case_fold(c: char) -> Vec<char> {
    match c {
        'ı' => vec![c],
        'ẞ' => vec!['s', 's'],
        // Cherokee folds to its capitals.
        '\u{13a0}'..='\u{13f5}' => vec![c],
        '\u{13f8}'..='\u{13fd}' => vec![char::from_u32(c as u32 - 8).unwrap_or(c)],
        '\u{ab70}'..='\u{abbf}' => vec![char::from_u32(c as u32 - 0xab70 + 0x13a0).unwrap_or(c)],
        _ => c.to_uppercase().flat_map(char::to_lowercase).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_disjoint() {
        for table in [
            tables::LETTER,
            tables::NUMBER,
            tables::NEW_LETTER_OR_NUMBER,
            tables::PUNCTUATION,
            tables::NONSPACING_MARK,
            tables::CONTROL_OR_FORMAT,
            tables::DEFAULT_IGNORABLE,
            tables::BERT_MARK,
            tables::BERT_CONTROL,
            tables::BERT_PUNCTUATION,
            tables::BERT_IDEOGRAPH,
        ] {
            assert!(table.iter().all(|&(first, last)| first <= last));
            assert!(table.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }

    #[test]
    fn membership() {
        for (c, letter, number) in [('a', true, false), ('é', true, false), ('7', false, true), ('²', false, true)] {
            assert_eq!((is_letter(c), is_number(c)), (letter, number), "{c}");
        }
        assert!(!is_letter('\u{301}') && is_letter('語') && is_number('Ⅷ') && !is_number('-'));
    }

    #[test]
    fn python_spaces_collapse() {
        assert_eq!(collapse_spaces("  a\u{1c}\u{a0}b\u{3000}\nc\u{200b}d "), "a b c\u{200b}d");
        assert_eq!(collapse_spaces(" \t"), "");
    }

    #[test]
    fn nfkc_case_folding() {
        for (from, to) in [
            ("Straße", "strasse"),
            ("ΣΊΣΥΦΟΣ", "σι\u{301}συφοσ"),
            ("½ №", "1\u{2044}2 no"),
            ("ﬁ™…", "fitm..."),
            ("a\u{ad}b\u{200d}", "ab"),
            ("Ꭰꭰ", "ᎠᎠ"),
            ("İ", "i\u{307}"),
        ] {
            assert_eq!(nfkc_casefold_nfd(from), to, "{from}");
        }
    }
}

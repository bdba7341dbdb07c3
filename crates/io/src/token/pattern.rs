//! Regular expressions of tokenizer files: compiled with bounds, run with a limit, cut into matches and gaps.
use std::ops::Range;

use fancy_regex::{Regex, RegexBuilder};

/// Longest pattern that is compiled; those of real files have some hundred bytes.
const LONGEST_PATTERN: usize = 16 << 10;
/// Steps back that one match may take. Real patterns take tens.
const MOST_STEPS_BACK: usize = 100_000;
/// Bytes that the compiled pattern may take.
const LARGEST_PROGRAM: usize = 8 << 20;

/// Instructions that the parts with look-around may take.
const MOST_INSTRUCTIONS: usize = 100_000;

/// A pattern of a tokenizer file.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern; what is wrong with it if it cannot be.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > LONGEST_PATTERN {
            return Err(format!("a pattern of {} bytes, more than {LONGEST_PATTERN}", pattern.len()));
        }
        let mut builder = RegexBuilder::new(pattern);
        // Oniguruma, for which these patterns are written, lets ^ and $ match at every line.
        builder.oniguruma_mode(true).multi_line(true);
        builder.backtrack_limit(MOST_STEPS_BACK).delegate_size_limit(LARGEST_PROGRAM).max_prog_size(MOST_INSTRUCTIONS);
        builder.build().map(Self).map_err(|error| format!("the pattern {pattern:?} cannot be used: {error}"))
    }

    /// A pattern that matches this text and nothing else.
    pub(super) fn literal(text: &str) -> Result<Self, String> {
        Self::new(&fancy_regex::escape(text))
    }

    /// The whole text in order, as matches (`true`) and what lies between them. A match that takes too many steps ends the
    /// search: the rest is one gap.
    pub(super) fn cut(&self, text: &str) -> Vec<(Range<usize>, bool)> {
        let mut parts = Vec::new();
        let mut end = 0;
        for found in self.0.find_iter(text).map_while(Result::ok) {
            if end < found.start() {
                parts.push((end..found.start(), false));
            }
            parts.push((found.start()..found.end(), true));
            end = found.end();
        }
        if end < text.len() {
            parts.push((end..text.len(), false));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(pattern: &str, text: &'a str) -> Vec<&'a str> {
        Pattern::new(pattern).unwrap().cut(text).into_iter().map(|(range, _)| &text[range]).collect()
    }

    #[test]
    fn patterns_of_real_files_compile() {
        const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
        assert_eq!(parts(GPT2, "it's  12 é!\n"), ["it", "'s", " ", " 12", " é", "!", "\n"]);
        const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        assert_eq!(parts(LLAMA3, "IT'S 12345\n\n x"), ["IT", "'S", " ", "123", "45", "\n\n", " x"]);
        const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        assert_eq!(parts(O200K, "camelCase"), ["camel", "Case"]);
        const POSSESSIVE: &str = r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|\s++";
        assert_eq!(parts(POSSESSIVE, "a b"), ["a", " b"]);
    }

    #[test]
    fn backtracking_ends() {
        let start = std::time::Instant::now();
        let text = "a".repeat(10_000);
        assert_eq!(parts(r"(?:a+)+(?=b)", &text), [text.as_str()]);
        assert!(start.elapsed().as_secs() < 2);
        assert!(Pattern::new("(").is_err());
    }

    /// Small patterns that stand for huge programs: refused or compiled, but soon.
    #[test]
    fn huge_programs_end() {
        let start = std::time::Instant::now();
        let nested = "(?:".repeat(200) + "a" + &")+".repeat(200);
        for pattern in [
            "(?:(?:(?=a)a{1000}){1000}){1000}",
            "(?:(?:a{1000}){1000}){1000}",
            r"(?:[\p{L}\p{N}]{1000}){1000}",
            "(?=a){1000000000}",
            "(?:(?!b)a|(?!c)d){4294967295}",
            r"(?<x>\g<x>a|b)\g<x>",
            "(a)\\1{100000}",
            &nested,
            &"(".repeat(16_000),
        ] {
            if let Ok(pattern) = Pattern::new(pattern) {
                pattern.cut(&"a".repeat(5_000));
            }
            assert!(start.elapsed().as_secs() < 8, "{} {:?}", &pattern[..pattern.len().min(60)], start.elapsed());
        }
    }
}

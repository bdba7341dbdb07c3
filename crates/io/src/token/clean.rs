//! Text cleaning before tokenizing, as open_clip and OpenVision do it.
use super::ftfy::fix_text;
use super::html::unescape;
use super::unicode::{collapse_spaces, is_python_space};

/// open_clip's `clean` argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clean {
    /// The text as it is.
    None,
    /// Repaired (ftfy, HTML entities), white space collapsed, lower case. open_clip's default for CLIP.
    Lower,
    /// Repaired, white space collapsed, case kept. OpenVision's default and open_clip's for Hugging Face tokenizers.
    Whitespace,
    /// Repaired, ASCII punctuation removed and `_` made a space, lower case, white space collapsed. CLIPA's evaluation texts.
    Canonicalize,
}

impl Clean {
    /// The cleaned text.
    pub fn apply(self, text: &str) -> String {
        match self {
            Clean::None => text.to_owned(),
            Clean::Lower => collapse_spaces(&basic_clean(text)).to_lowercase(),
            Clean::Whitespace => collapse_spaces(&basic_clean(text)),
            Clean::Canonicalize => canonicalize(&basic_clean(text)),
        }
    }

    /// Stable name, part of fingerprints.
    pub fn name(self) -> &'static str {
        match self {
            Clean::None => "none",
            Clean::Lower => "lower",
            Clean::Whitespace => "whitespace",
            Clean::Canonicalize => "canonicalize",
        }
    }
}

/// open_clip's `basic_clean`: ftfy, HTML entities twice, ends trimmed.
fn basic_clean(text: &str) -> String {
    let fixed = fix_text(text);
    unescape(&unescape(&fixed)).trim_matches(is_python_space).to_owned()
}

/// open_clip's and big_vision's `canonicalize_text`: `_` is a space, ASCII punctuation goes, lower case, single spaces.
/// Prompt sets use it with exceptions, see [`super::prompts`].
pub fn canonicalize(text: &str) -> String {
    let words = text.replace('_', " ").replace(|c: char| c.is_ascii_punctuation(), "");
    collapse_spaces(&words.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: open_clip 3.3.0.
    #[test]
    fn modes() {
        let text = "  A  &amp;lt;b&gt; snake_case,\tcafe\u{301} &amp;amp;copy ";
        for (clean, to) in [
            (Clean::None, text),
            (Clean::Whitespace, "A <b> snake_case, café ©"),
            (Clean::Lower, "a <b> snake_case, café ©"),
            (Clean::Canonicalize, "a b snake case café ©"),
        ] {
            assert_eq!(clean.apply(text), to, "{clean:?}");
        }
    }
}

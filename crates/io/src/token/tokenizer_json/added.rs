//! Added tokens of a `tokenizer.json`: strings that are found in a text before anything else happens to it.
use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::file;
use crate::token::trie::Trie;
use crate::token::{Specials, TokenError, check_id};

/// All added tokens.
pub(super) struct AddedTokens {
    tokens: Vec<Added>,
    /// Index of the token by its text as written, of those that are looked for in the text as written.
    plain: Trie,
    /// Likewise in the normalized text.
    normalized: Trie,
    /// Texts of special tokens: decoding can leave them out.
    special: HashSet<String>,
    /// What decoding writes for tokens that are looked for in the normalized text, by id.
    written: HashMap<u32, String>,
}

pub(super) struct Added {
    pub(super) id: u32,
    pub(super) content: String,
    single_word: bool,
    takes_space_before: bool,
    takes_space_after: bool,
    special: bool,
}

/// In which text to look.
#[derive(Clone, Copy)]
pub(super) enum Stage {
    Plain,
    Normalized,
}

/// A stretch of text, or the id of the token that stood there.
pub(super) enum Found<'a> {
    Text(&'a str),
    Token(u32),
}

impl AddedTokens {
    /// The file's list. A token that is in the model's vocabulary has its id there, whatever the list says, as in the peer.
    pub(super) fn new(
        list: Vec<file::AddedToken>,
        model: &HashMap<Box<str>, u32>,
        normalize: impl Fn(&str) -> String,
        path: &Path,
    ) -> Result<Self, TokenError> {
        let (mut tokens, mut special) = (Vec::with_capacity(list.len()), HashSet::new());
        let (mut plain, mut normalized) = (Trie::new(), Trie::new());
        let mut taken: HashMap<u32, String> = HashMap::new();
        let mut written = HashMap::new();
        for (index, token) in (0..).zip(list) {
            let field = |problem| TokenError::Field { path: path.to_owned(), field: "added_tokens", problem };
            if token.content.is_empty() {
                return Err(field("a token without content".into()));
            }
            let id = match model.get(token.content.as_str()) {
                Some(&id) => id,
                None => check_id(token.id, path)?,
            };
            if let Some(other) = taken.insert(id, token.content.clone()).filter(|other| *other != token.content) {
                return Err(field(format!("{other:?} and {:?} both have the id {id}", token.content)));
            }
            if token.normalized {
                let text = normalize(&token.content);
                normalized.insert(text.as_bytes(), index);
                written.insert(id, text);
            } else {
                plain.insert(token.content.as_bytes(), index);
            }
            if token.special {
                special.insert(token.content.clone());
            }
            tokens.push(Added {
                id,
                content: token.content,
                single_word: token.single_word,
                takes_space_before: token.lstrip,
                takes_space_after: token.rstrip,
                special: token.special,
            });
        }
        Ok(Self { tokens, plain, normalized, special, written })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Added> {
        self.tokens.iter()
    }

    pub(super) fn is_special(&self, content: &str) -> bool {
        self.special.contains(content)
    }

    /// What decoding writes for a token, if that is not its name.
    pub(super) fn written(&self, id: u32) -> Option<&str> {
        self.written.get(&id).map(String::as_str)
    }

    /// Cuts a text at the tokens, the longest at each place.
    pub(super) fn split<'a>(&self, text: &'a str, stage: Stage, specials: Specials) -> Vec<Found<'a>> {
        let trie = match stage {
            Stage::Plain => &self.plain,
            Stage::Normalized => &self.normalized,
        };
        let mut out = Vec::new();
        // Where the last token ended with its space, and where the search goes on: two places, for a token found inside of
        // space that another one took still counts.
        let (mut end, mut at) = (0, 0);
        while at < text.len() {
            let Some((length, index)) = trie.longest_prefix(&text.as_bytes()[at..]) else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let token = &self.tokens[index as usize];
            let (mut start, mut stop) = (at, at + length);
            at = stop;
            let ignored = token.special && specials == Specials::AsText;
            if ignored || (token.single_word && !stands_alone(text, start, stop)) {
                continue;
            }
            if token.takes_space_before {
                start = text[..start].trim_end().len().max(end);
            }
            if token.takes_space_after {
                stop = text.len() - text[stop..].trim_start().len();
            }
            if end < start {
                out.push(Found::Text(&text[end..start]));
            }
            out.push(Found::Token(token.id));
            end = stop;
        }
        if end < text.len() {
            out.push(Found::Text(&text[end..]));
        }
        out
    }
}

fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    !is_word(text[..start].chars().next_back()) && !is_word(text[end..].chars().next())
}

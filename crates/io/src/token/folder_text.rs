//! Texts of models whose tokenizer lies in their folder, SigLIP's above all: which file, which cleaning, which layout.
use std::path::Path;

use serde_json::{Map, Value};

use super::folder::read_object;
use super::unicode::{collapse_spaces, is_python_space};
use super::{
    Affixes, Clean, Encoded, Fnv, JsonTokenizer, Pieces, SentencePiece, Specials, TokenError, Tokenizer, bounded,
};

/// What happens to a text before its pieces are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cleaning {
    /// open_clip's, as its configuration names it.
    OpenClip(Clean),
    /// transformers' SiglipTokenizer: lower case, ASCII punctuation removed, single spaces.
    Siglip,
    /// transformers' Siglip2Tokenizer: lower case.
    Lower,
    /// Nothing but what the file itself does.
    Own,
}

/// A tokenizer from a folder: `before pieces after padding …`.
pub struct FolderTokenizer {
    pieces: Box<dyn Pieces>,
    cleaning: Cleaning,
    /// transformers' SiglipTokenizer over sentencepiece: its way to call the library shows in the ids.
    siglip_calls: bool,
    affixes: Affixes,
    padding: u32,
    context_length: usize,
}

/// Files of sentencepiece, in the order in which they are looked for.
const MODELS: [&str; 3] = ["spiece.model", "tokenizer.model", "sentencepiece.model"];

impl FolderTokenizer {
    /// The tokenizer of a folder, or `None` if there is none: `tokenizer.json`, else `spiece.model`, `tokenizer.model` or
    /// `sentencepiece.model`. (SiglipTokenizer of transformers reads sentencepiece only, so for that class it goes first.)
    ///
    /// Cleaning is open_clip's where `clean` says one, else that of the class in `tokenizer_config.json`, and SigLIP's or
    /// SigLIP 2's where none is named. Their layout is pieces, end token, padding; other classes have what the
    /// post-processor says.
    ///
    /// # Errors
    /// If a file that is there cannot be used, or the end and padding tokens cannot be found.
    pub fn from_folder(folder: &Path, clean: Option<Clean>, context_length: usize) -> Result<Option<Self>, TokenError> {
        let config = Config::read(folder)?;
        let class = config.class();
        let json = Some(folder.join("tokenizer.json")).filter(|path| path.is_file());
        let model = MODELS.into_iter().map(|name| folder.join(name)).find(|path| path.is_file());
        let calls_library = class == Class::Siglip && clean.is_none();
        let (pieces, path): (Box<dyn Pieces>, _) = match (json, model) {
            (json, Some(model)) if json.is_none() || calls_library => {
                (Box::new(SentencePiece::from_file(&model)?), model)
            }
            (Some(json), _) => (Box::new(JsonTokenizer::from_file(&json)?), json),
            (None, _) => return Ok(None),
        };
        let gemma = class == Class::Gemma || (class == Class::Unnamed && pieces.id("<eos>").is_some());
        let find = |name: &str| {
            let missing = || TokenError::MissingPiece { path: path.clone(), piece: name.to_owned() };
            pieces.id(name).ok_or_else(missing)
        };
        let (end, padding) = if gemma { ("<eos>", "<pad>") } else { ("</s>", "</s>") };
        let own = pieces.affixes();
        let affixes = if class == Class::Other && own != Affixes::default() {
            own
        } else {
            Affixes { before: Vec::new(), after: vec![find(config.token("eos_token").unwrap_or(end))?] }
        };
        let padding = find(config.token("pad_token").unwrap_or(padding))?;
        super::check_context(context_length, affixes.before.len() + affixes.after.len() + 1)?;
        let cleaning = match (clean, class) {
            (Some(clean), _) => Cleaning::OpenClip(clean),
            (None, Class::Other) => Cleaning::Own,
            (None, _) if gemma => Cleaning::Lower,
            (None, _) => Cleaning::Siglip,
        };
        let siglip_calls = calls_library && path.extension().is_some_and(|extension| extension == "model");
        Ok(Some(Self { pieces, cleaning, siglip_calls, affixes, padding, context_length }))
    }

    /// The text after cleaning.
    pub fn clean(&self, text: &str) -> String {
        match self.cleaning {
            Cleaning::OpenClip(clean) => clean.apply(text),
            Cleaning::Siglip => siglip_clean(text),
            Cleaning::Lower => text.to_lowercase(),
            Cleaning::Own => text.to_owned(),
        }
    }

    /// All pieces of a text, uncut and without the layout.
    pub fn pieces(&self, text: &str) -> Vec<u32> {
        if self.siglip_calls {
            return self.siglip_pieces(text);
        }
        self.pieces.encode(&self.clean(text), Specials::Apart)
    }

    /// What SiglipTokenizer does: a space mark goes before the text, special strings are cut out, and each stretch is cleaned
    /// and encoded behind `<unk>`, whose pieces are dropped again.
    fn siglip_pieces(&self, text: &str) -> Vec<u32> {
        const UNKNOWN: &str = "<unk>";
        let skipped = self.pieces.encode(UNKNOWN, Specials::AsText).len();
        let marked = format!("\u{2581}{}", text.replace('\u{2581}', " "));
        let mut out = Vec::new();
        let push = |stretch: &str, out: &mut Vec<u32>| {
            if !stretch.is_empty() {
                let ids = self.pieces.encode(&format!("{UNKNOWN}{}", siglip_clean(stretch)), Specials::AsText);
                out.extend_from_slice(ids.get(skipped..).unwrap_or(&ids));
            }
        };
        let mut rest = marked.as_str();
        while let Some((at, name)) =
            ["</s>", UNKNOWN].into_iter().filter_map(|name| Some((rest.find(name)?, name))).min()
        {
            let mark = "\u{2581}";
            let before = rest[..at].trim_end();
            // A mark alone before a special string goes.
            if !(out.is_empty() && before == mark) {
                push(before, &mut out);
            }
            out.extend(self.pieces.id(name));
            rest = rest[at + name.len()..].trim_start();
        }
        push(rest, &mut out);
        out
    }

    fn cleaning_name(&self) -> String {
        match self.cleaning {
            Cleaning::OpenClip(clean) => format!("openclip-{}", clean.name()),
            Cleaning::Siglip if self.siglip_calls => "siglip-sentencepiece".into(),
            Cleaning::Siglip => "siglip".into(),
            Cleaning::Lower => "siglip2".into(),
            Cleaning::Own => "own".into(),
        }
    }
}

/// transformers' `SiglipTokenizer.canonicalize_text`; unlike open_clip's, it drops `_`.
fn siglip_clean(text: &str) -> String {
    let words = text.to_lowercase().replace(|c: char| c.is_ascii_punctuation(), "");
    collapse_spaces(words.trim_matches(is_python_space))
}

/// Classes of transformers that have rules of their own here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Siglip,
    /// Gemma's, which SigLIP 2 uses.
    Gemma,
    /// T5's, which open_clip uses for SigLIP.
    T5,
    /// The folder names none.
    Unnamed,
    Other,
}

/// The configuration files of a folder, empty where there are none.
struct Config {
    tokenizer: Map<String, Value>,
    specials: Map<String, Value>,
}

impl Config {
    fn read(folder: &Path) -> Result<Self, TokenError> {
        let read = |name: &str| {
            let path = folder.join(name);
            if path.is_file() { read_object(&path).map(Some) } else { Ok(None) }
        };
        Ok(Self {
            tokenizer: read("tokenizer_config.json")?.unwrap_or_default(),
            specials: read("special_tokens_map.json")?.unwrap_or_default(),
        })
    }

    fn class(&self) -> Class {
        match self.tokenizer.get("tokenizer_class").and_then(Value::as_str) {
            Some("SiglipTokenizer" | "SiglipTokenizerFast") => Class::Siglip,
            Some("Siglip2Tokenizer" | "GemmaTokenizer" | "GemmaTokenizerFast") => Class::Gemma,
            Some("T5Tokenizer" | "T5TokenizerFast") => Class::T5,
            None => Class::Unnamed,
            Some(_) => Class::Other,
        }
    }

    /// The name of a special token: a string, or an object with its `content`.
    fn token(&self, name: &str) -> Option<&str> {
        [&self.tokenizer, &self.specials].into_iter().find_map(|file| {
            let token = file.get(name)?;
            token.get("content").unwrap_or(token).as_str()
        })
    }
}

impl Tokenizer for FolderTokenizer {
    fn encode(&self, text: &str) -> Encoded {
        let pieces = self.pieces(bounded(text));
        let Affixes { before, after } = &self.affixes;
        let kept = pieces.len().min(self.context_length - before.len() - after.len());
        let mut ids = Vec::with_capacity(self.context_length);
        ids.extend_from_slice(before);
        ids.extend_from_slice(&pieces[..kept]);
        // SiglipTokenizer adds no second end token.
        if !(self.siglip_calls && ids.ends_with(after)) {
            ids.extend_from_slice(after);
        }
        let used = ids.len();
        ids.resize(self.context_length, self.padding);
        Encoded { ids, used, dropped: pieces.len() - kept }
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn fingerprint(&self) -> String {
        let rules = self.cleaning_name();
        let mut hash = Fnv::new().number(self.pieces.digest()).bytes(rules.as_bytes()).number(u64::from(self.padding));
        for side in [&self.affixes.before, &self.affixes.after] {
            hash = side.iter().fold(hash.number(side.len() as u64), |hash, &id| hash.number(u64::from(id)));
        }
        format!("folder-{rules}-{}-{:016x}", self.context_length, hash.finish())
    }

    fn vocabulary_size(&self) -> usize {
        self.pieces.size()
    }

    fn describe(&self) -> String {
        let Affixes { before, after } = &self.affixes;
        format!(
            "the folder's: {} ids, {before:?} pieces {after:?} padding {}; {} of {}; cleaning: {}",
            self.context_length,
            self.padding,
            self.pieces.kind(),
            self.pieces.size(),
            self.cleaning_name()
        )
    }
}

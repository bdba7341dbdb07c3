//! Hugging Face's `tokenizer.json` in general: normalizers, pre-tokenizers, models, added tokens, post-processors and
//! decoders, each as the `tokenizers` crate runs them. Offsets, pairs, truncation and padding are not here.
mod added;
mod decoder;
pub(in crate::token) mod file;
pub(in crate::token) mod model;
mod normalizer;
mod pre_tokenizer;
mod template;

use std::collections::HashMap;
use std::path::Path;

use self::added::{AddedTokens, Found, Stage};
use self::decoder::Decoder;
use self::file::TokenizerFile;
use self::model::Model;
use self::normalizer::Normalizer;
use self::pre_tokenizer::{Part, PreTokenizer};
pub use self::template::Affixes;
use super::bpe::PairHashers;
use super::{Fnv, Pieces, Specials, TokenError, assets, check_id};

/// Field and problem, before the file is known.
type Problem = (&'static str, String);

/// Steps of all kinds that a file may have; those of real files have up to ten.
const MOST_STEPS: usize = 64;

/// The tokenizer of a `tokenizer.json`.
pub struct JsonTokenizer {
    model: Model,
    /// Pieces by id: the model's and the added ones.
    pieces: HashMap<u64, Box<str>, PairHashers>,
    added: AddedTokens,
    normalizers: Vec<Normalizer>,
    pre_tokenizers: Vec<PreTokenizer>,
    decoders: Option<Vec<Decoder>>,
    affixes: Affixes,
    size: usize,
    digest: u64,
}

impl JsonTokenizer {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is not a tokenizer, is damaged, or has a part that is not known.
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        Self::from_bytes(&assets::read_bounded(path)?, path)
    }

    /// Reads the contents of a file; `path` is for messages.
    ///
    /// # Errors
    /// As [`JsonTokenizer::from_file`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, TokenError> {
        let file = TokenizerFile::from_bytes(bytes, path)?;
        let field = |(field, problem): Problem| TokenError::Field { path: path.to_owned(), field, problem };
        let (mut normalizers, mut pre_tokenizers) = (Vec::new(), Vec::new());
        if let Some(steps) = file.normalizer {
            normalizer::steps(steps, &mut normalizers).map_err(field)?;
        }
        if let Some(steps) = file.pre_tokenizer {
            pre_tokenizer::steps(steps, &mut pre_tokenizers).map_err(field)?;
        }
        let decoders = match file.decoder {
            Some(steps) => {
                let mut decoders = Vec::new();
                decoder::steps(steps, &mut decoders).map_err(field)?;
                Some(decoders)
            }
            None => None,
        };
        let steps = normalizers.len() + pre_tokenizers.len() + decoders.as_ref().map_or(0, Vec::len);
        if steps > MOST_STEPS {
            return Err(field(("normalizer", format!("{steps} steps in all, more than {MOST_STEPS}"))));
        }
        let model = Model::new(file.model, path)?;
        let added = AddedTokens::new(file.added_tokens, &model.ids, |text| normalize(&normalizers, text), path)?;
        let mut pieces = HashMap::with_capacity_and_hasher(model.ids.len(), PairHashers::new());
        pieces.extend(model.ids.iter().map(|(piece, &id)| (u64::from(id), piece.clone())));
        for token in added.iter() {
            let piece = pieces.entry(u64::from(token.id)).or_insert_with(|| token.content.as_str().into());
            if **piece != *token.content {
                let problem = format!("{:?} has the id {} of {piece:?}", token.content, token.id);
                return Err(field(("added_tokens", problem)));
            }
        }
        let known = |id: u64| check_id(id, path).ok().filter(|&id| pieces.contains_key(&u64::from(id)));
        let affixes = file.post_processor.as_ref().map(|file| Affixes::new(file, &known));
        let affixes = affixes.transpose().map_err(field)?.unwrap_or_default();
        let size = pieces.keys().max().map_or(0, |&id| id as usize + 1);
        let digest = Fnv::new().bytes(bytes).finish();
        Ok(Self { model, pieces, added, normalizers, pre_tokenizers, decoders, affixes, size, digest })
    }

    /// Appends the ids of a stretch between added tokens that are looked for in the text as written.
    fn encode_stretch(&self, text: &str, first: bool, specials: Specials, out: &mut Vec<u32>) {
        let normalized = normalize(&self.normalizers, text);
        let mut first = first;
        for found in self.added.split(&normalized, Stage::Normalized, specials) {
            match found {
                Found::Token(id) => out.push(id),
                Found::Text(text) => {
                    let mut parts = vec![Part { text: text.to_owned(), first }];
                    for step in &self.pre_tokenizers {
                        let mut next = Vec::with_capacity(parts.len());
                        parts.into_iter().for_each(|part| step.cut(part, &mut next));
                        parts = next;
                    }
                    parts.iter().for_each(|part| self.model.cut(&part.text, out));
                }
            }
            first = false;
        }
    }
}

fn normalize(steps: &[Normalizer], text: &str) -> String {
    steps.iter().fold(text.to_owned(), |text, step| step.apply(&text))
}

impl Pieces for JsonTokenizer {
    fn encode(&self, text: &str, specials: Specials) -> Vec<u32> {
        let mut out = Vec::new();
        let mut first = true;
        for found in self.added.split(text, Stage::Plain, specials) {
            match found {
                Found::Token(id) => out.push(id),
                Found::Text(text) => self.encode_stretch(text, first, specials, &mut out),
            }
            first = false;
        }
        out
    }

    fn decode(&self, ids: &[u32], specials: Specials) -> String {
        let pieces = ids.iter().filter_map(|id| Some((*id, self.pieces.get(&u64::from(*id))?)));
        let kept = pieces.filter(|(_, piece)| specials == Specials::AsText || !self.added.is_special(piece));
        let mut pieces: Vec<String> =
            kept.map(|(id, piece)| self.added.written(id).unwrap_or(piece).to_owned()).collect();
        let Some(decoders) = &self.decoders else { return pieces.join(" ") };
        for step in decoders {
            pieces = step.apply(pieces);
        }
        pieces.concat()
    }

    fn id(&self, piece: &str) -> Option<u32> {
        let added = || self.added.iter().find(|token| token.content == piece).map(|token| token.id);
        self.model.ids.get(piece).copied().or_else(added)
    }

    fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(&u64::from(id)).map(|piece| &**piece)
    }

    fn affixes(&self) -> Affixes {
        self.affixes.clone()
    }

    fn size(&self) -> usize {
        self.size
    }

    fn kind(&self) -> &'static str {
        self.model.kind.name()
    }

    fn digest(&self) -> u64 {
        self.digest
    }
}

//! `embed`: pictures and texts to vectors, into a file or to a reader.

use crate::inputs::Input;
use crate::interrupt::Interrupt;
use crate::output::{Entry, Journal, Meta};
use crate::pictures::{self, ItemError, Layer, Run, Want};
use crate::{Error, Model};
use openvision_io::image::Limits;
use std::collections::{BTreeMap, BTreeSet};

/// What to embed.
pub struct Job<'a> {
    /// The model, with the towers that the inputs need.
    pub model: &'a Model,
    /// Pictures.
    pub files: Vec<Input>,
    /// Texts.
    pub texts: Vec<String>,
    /// What is wanted.
    pub want: Content,
    /// Limits of decoding.
    pub limits: Limits,
    /// Stops the run.
    pub interrupt: &'a Interrupt,
}

/// What an embedding is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Unit embeddings.
    Unit,
    /// Raw embeddings.
    Raw,
    /// Tokens of a layer: 0 is the first block's output, -1 the last's, -2 the one before.
    Tokens {
        /// The layer.
        layer: i32,
        /// Whether the final norm is applied.
        final_norm: bool,
    },
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Inputs that gave a vector in this run.
    pub done: usize,
    /// Inputs that failed.
    pub failed: usize,
    /// Inputs that an earlier run had finished.
    pub skipped: usize,
    /// Texts of which the end did not fit.
    pub truncated: usize,
}

/// Takes one result: the entry and its values, or why there are none.
pub type Take<'a> = &'a mut (dyn FnMut(&Entry, Result<&[f32], &ItemError>) -> Result<(), Error> + Send);

impl Content {
    fn blocks(layer: i32, layers: usize) -> Result<usize, Error> {
        let count = i64::try_from(layers).unwrap_or(i64::MAX);
        let index = if layer < 0 { count + i64::from(layer) } else { i64::from(layer) };
        if (0..count).contains(&index) {
            return Ok(index as usize + 1);
        }
        Err(Error::Usage(format!("--tokens {layer}: the tower has layers 0 to {} (or -1 to -{layers})", layers - 1)))
    }

    fn want(self, layers: usize, skip: usize) -> Result<Want, Error> {
        Ok(match self {
            Content::Unit => Want::Unit,
            Content::Raw => Want::Raw,
            Content::Tokens { layer, final_norm } => {
                Want::Tokens(Layer { blocks: Self::blocks(layer, layers)?, final_norm, skip })
            }
        })
    }

    fn name(self) -> String {
        match self {
            Content::Unit => "unit".into(),
            Content::Raw => "raw".into(),
            Content::Tokens { layer, final_norm: false } => format!("tokens of layer {layer}"),
            Content::Tokens { layer, final_norm: true } => format!("tokens of layer {layer} after the final norm"),
        }
    }
}

/// What an earlier run finished, and how often: an input that is named twice gives two rows.
struct Finished(BTreeMap<Entry, usize>);

impl Finished {
    fn new(entries: &[Entry]) -> Self {
        let mut counts = BTreeMap::new();
        entries.iter().for_each(|entry| *counts.entry(entry.clone()).or_default() += 1);
        Self(counts)
    }

    /// Whether this occurrence of an input is there already.
    fn take(&mut self, entry: &Entry) -> bool {
        self.0.get_mut(entry).filter(|left| **left > 0).map(|left| *left -= 1).is_some()
    }
}

impl Job<'_> {
    /// What the vectors will be: their shape and fingerprints.
    ///
    /// # Errors
    /// A layer that is not there, a tower that was not loaded, or pictures and texts together where their shapes differ.
    pub fn meta(&self) -> Result<Meta, Error> {
        let config = &self.model.config;
        let mut fingerprints = BTreeMap::new();
        let mut shapes = BTreeSet::new();
        let shape = |tokens: usize, width: usize| match self.want {
            Content::Tokens { .. } => vec![tokens, width],
            _ => vec![config.embed_dim],
        };
        if !self.files.is_empty() {
            match self.want {
                Content::Tokens { .. } => pictures::check_tokens(self.model)?,
                _ => self.model.config.check_pooled()?,
            }
            fingerprints.insert("image".to_owned(), self.model.image_fingerprint()?);
            // The class token is no patch.
            let patches = config.image.tokens() - config.image.leading();
            shapes.insert(shape(patches, config.image.transformer.width));
            self.want.want(config.image.transformer.layers, config.image.leading())?;
        }
        if !self.texts.is_empty() {
            fingerprints.insert("text".to_owned(), self.model.text_fingerprint()?);
            let text = config.text()?;
            shapes.insert(shape(text.context, text.transformer.width));
            self.want.want(text.transformer.layers, 0)?;
        }
        if shapes.len() > 1 {
            return Err(Error::Usage("tokens of pictures and of texts differ in shape: run twice".into()));
        }
        let shape = shapes.pop_first().ok_or_else(|| Error::Usage("nothing to embed".into()))?;
        let model = config.name.clone().unwrap_or_else(|| config.family.name().to_owned());
        let precision = self.model.precision().to_owned();
        Ok(Meta { model, precision, ..Meta::new(shape, self.want.name(), fingerprints) })
    }

    /// Embeds everything that `finished` does not hold, in order: pictures, then texts.
    ///
    /// # Errors
    /// The model does not fit, or `take` failed. Broken inputs are counted, not errors.
    pub fn run(&self, finished: &[Entry], take: Take) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let mut finished = Finished::new(finished);
        self.pictures(&mut finished, take, &mut summary)?;
        self.texts(&mut finished, take, &mut summary)?;
        Ok(summary)
    }

    fn pictures(&self, finished: &mut Finished, take: Take, summary: &mut Summary) -> Result<(), Error> {
        let entry = |file: &Input| Entry { kind: "image".into(), input: file.name().into_owned() };
        let left: Vec<Input> = self.files.iter().filter(|file| !finished.take(&entry(file))).cloned().collect();
        summary.skipped += self.files.len() - left.len();
        if left.is_empty() {
            return Ok(());
        }
        let image = &self.model.config.image;
        let want = self.want.want(image.transformer.layers, image.leading())?;
        let run = Run { model: self.model, limits: self.limits, want, interrupt: self.interrupt };
        run.files(&left, &mut |index, outcome| {
            summary.count(&outcome);
            take(&entry(&left[index]), outcome.as_deref())
        })
    }

    fn texts(&self, finished: &mut Finished, take: Take, summary: &mut Summary) -> Result<(), Error> {
        let entry = |text: &String| Entry { kind: "text".into(), input: text.clone() };
        let left: Vec<&String> = self.texts.iter().filter(|text| !finished.take(&entry(text))).collect();
        summary.skipped += self.texts.len() - left.len();
        if left.is_empty() || self.interrupt.is_set() {
            return Ok(());
        }
        let tokenizer = self.model.tokenizer()?;
        let rows: Vec<_> = left.iter().map(|text| tokenizer.encode(text)).collect();
        summary.truncated += rows.iter().filter(|row| row.dropped > 0).count();
        let ids: Vec<Vec<u32>> = rows.into_iter().map(|row| row.ids).collect();
        let want = self.want.want(self.model.config.text()?.transformer.layers, 0)?;
        let run = Run { model: self.model, limits: self.limits, want, interrupt: self.interrupt };
        run.ids(&ids, &mut |index, outcome| {
            summary.count(&outcome);
            take(&entry(left[index]), outcome.as_deref())
        })
    }

    /// Embeds into a journal. The caller finishes it, or keeps it for `--resume`.
    ///
    /// # Errors
    /// As [`Job::run`]; what was finished before an error stays in the journal.
    pub fn run_into(&self, journal: &mut Journal, report: Take) -> Result<Summary, Error> {
        let finished = journal.entries().to_vec();
        self.run(&finished, &mut |entry, outcome| {
            if let Ok(values) = outcome {
                journal.push(entry.clone(), values)?;
            }
            report(entry, outcome)
        })
    }
}

impl Summary {
    fn count(&mut self, outcome: &crate::pictures::Outcome) {
        match outcome {
            Ok(_) => self.done += 1,
            Err(_) => self.failed += 1,
        }
    }
}

//! `caption`: what pictures show, in the words of the model's decoder; and captions written back into shards.

use crate::inputs::{Input, is_picture};
use crate::interrupt::Interrupt;
use crate::pictures::{ItemError, Layer, Run, Want};
use crate::{Error, Model};
use openvision_io::data::shard::{Sample, ShardError, ShardWriter};
use openvision_io::data::tar::Tar;
use openvision_io::image::Limits;
use openvision_io::token::Words;
use openvision_model::caption::{Captioner, Picture, Strategy};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Keys and values of the pictures that are decoded together take no more than this.
const CACHE_BYTES: usize = 1 << 30;
/// Most pictures that are decoded together where nothing is said: past this, one reading of the weights saves little.
const BATCH: usize = 16;

/// How to caption.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How words are chosen.
    pub strategy: Strategy,
    /// Most ids of a caption, its end included.
    pub longest: usize,
    /// Pictures decoded together; by memory where nothing is said.
    pub batch: Option<usize>,
    /// Limits of decoding pictures.
    pub limits: Limits,
}

/// A caption.
#[derive(Clone, Debug, PartialEq)]
pub struct Caption {
    /// The text.
    pub text: String,
    /// Ids of the text, the end not counted.
    pub tokens: usize,
    /// Whether it ended by itself, before the limit.
    pub ended: bool,
    /// Σ log p.
    pub log_probability: f64,
}

/// Takes a picture's caption, or why there is none, in order of the inputs; an error ends the run.
pub type Take<'a> = &'a mut (dyn FnMut(usize, Result<&Caption, &ItemError>) -> Result<(), Error> + Send);

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Captions written.
    pub captions: usize,
    /// Ids generated, ends included.
    pub tokens: usize,
    /// Time of decoding pictures and the image tower.
    pub encoding: Duration,
    /// Time of the decoder.
    pub decoding: Duration,
}

/// A model that captions pictures.
pub struct Job<'a> {
    model: &'a Model,
    captioner: Captioner,
    words: Words,
    options: Options,
    interrupt: &'a Interrupt,
}

/// Name of a caption in a shard: the entry `KEY.synthetic.txt` for the key `synthetic`.
fn field_of(write_key: &str) -> String {
    format!("{write_key}.txt")
}

impl<'a> Job<'a> {
    /// Loads the decoder of a model whose image tower is loaded.
    ///
    /// # Errors
    /// The model has no decoder, its files are broken, or the options cannot be.
    pub fn new(model: &'a Model, options: Options, interrupt: &'a Interrupt) -> Result<Self, Error> {
        options.strategy.check()?;
        let captioner = model.captioner()?;
        let words = Words::load(model.folder()).map_err(openvision_model::ModelError::from)?;
        Ok(Self { model, captioner, words, options, interrupt })
    }

    /// Pictures decoded together.
    pub fn batch(&self) -> usize {
        let image = &self.model.config.image;
        let patches = image.tokens() - image.leading();
        let one = self.captioner.bytes_per_picture(patches, &self.options.strategy, self.options.longest);
        self.options.batch.unwrap_or_else(|| (CACHE_BYTES / one.max(1)).clamp(1, BATCH))
    }

    /// Captions pictures, batch by batch.
    ///
    /// # Errors
    /// The model does not fit, or `take` failed. Broken pictures are outcomes, not errors.
    pub fn run(&self, inputs: &[Input], take: Take) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let batch = self.batch();
        for (number, inputs) in inputs.chunks(batch).enumerate() {
            if self.interrupt.is_set() {
                break;
            }
            let captions = self.captions(inputs, &mut summary)?;
            for (index, caption) in captions.iter().enumerate() {
                // An interrupted batch has no outcome for its last pictures.
                if let Some(caption) = caption {
                    take(number * batch + index, caption.as_ref())?;
                }
            }
        }
        Ok(summary)
    }

    /// Captions of one batch.
    fn captions(
        &self,
        inputs: &[Input],
        summary: &mut Summary,
    ) -> Result<Vec<Option<Result<Caption, ItemError>>>, Error> {
        let image = &self.model.config.image;
        let layer = Layer { blocks: image.transformer.layers, final_norm: false, skip: image.leading() };
        let run = Run {
            model: self.model,
            limits: self.options.limits,
            want: Want::Tokens(layer),
            interrupt: self.interrupt,
        };
        let started = Instant::now();
        let mut outcomes: Vec<_> = inputs.iter().map(|_| None).collect();
        run.files(inputs, &mut |index, outcome| {
            outcomes[index] = Some(outcome);
            Ok(())
        })?;
        summary.encoding += started.elapsed();
        let started = Instant::now();
        let names: Vec<_> = inputs.iter().map(Input::name).collect();
        let pictures: Vec<Picture> = std::iter::zip(&names, &outcomes)
            .filter_map(|(name, outcome)| Some(Picture { name, tokens: outcome.as_ref()?.as_ref().ok()? }))
            .collect();
        let generated = self.captioner.generate(&pictures, &self.options.strategy, self.options.longest)?;
        summary.decoding += started.elapsed();
        summary.captions += generated.len();
        summary.tokens += generated.iter().map(|g| g.ids.len() + usize::from(g.ended)).sum::<usize>();
        let mut captions = generated.into_iter().map(|generated| Caption {
            text: self.words.text(&generated.ids),
            tokens: generated.ids.len(),
            ended: generated.ended,
            log_probability: generated.log_probability,
        });
        let mut caption = |outcome: Result<Vec<f32>, ItemError>| match outcome {
            Ok(_) => captions.next().map(Ok),
            Err(error) => Some(Err(error)),
        };
        Ok(outcomes.into_iter().map(|outcome| outcome.and_then(&mut caption)).collect())
    }

    /// Copies a WebDataset shard with a caption for every picture, as the field `WRITE_KEY.txt` of its sample. The new
    /// shard appears whole or not at all. `take` hears of every sample, by its number in the shard.
    ///
    /// # Errors
    /// [`Error::Shard`] where the shard cannot be read whole or has the field already; the file cannot be written, or
    /// `take` failed. Samples without a readable picture are copied as they are.
    pub fn shard(&self, from: &Path, to: &Path, write_key: &str, take: Take) -> Result<Summary, Error> {
        let tar = Arc::new(Tar::open(from).map_err(|error| Error::Shard(error.to_string()))?);
        if let Some(defect) = tar.defects().first() {
            return Err(Error::Shard(defect.to_string()));
        }
        let field = field_of(write_key);
        let samples: Vec<Sample> = tar.samples().collect();
        let mut writer = ShardWriter::create(to)?;
        let mut summary = Summary::default();
        let batch = self.batch();
        for (number, samples) in samples.chunks(batch).enumerate() {
            let inputs: Vec<Input> = samples.iter().map(|sample| picture(&tar, sample)).collect();
            let captions = self.captions(&inputs, &mut summary)?;
            for (index, (sample, caption)) in std::iter::zip(samples, &captions).enumerate() {
                let Some(caption) = caption else { return Ok(summary) };
                take(number * batch + index, caption.as_ref())?;
                let text = caption.as_ref().map_or("", |caption| &caption.text);
                self.copy(&tar, sample, (&field, text), &mut writer)?;
            }
        }
        writer.finish()?;
        Ok(summary)
    }

    /// Writes a sample with its caption, if there is one.
    fn copy(
        &self,
        tar: &Tar,
        sample: &Sample,
        (field, text): (&str, &str),
        writer: &mut ShardWriter,
    ) -> Result<(), Error> {
        let read = |entry| tar.read(entry, u64::MAX).map_err(|error| Error::Shard(error.to_string()));
        let data = sample.fields.iter().map(|field| read(field.entry)).collect::<Result<Vec<_>, _>>()?;
        let mut fields: Vec<(&str, &[u8])> =
            std::iter::zip(&sample.fields, &data).map(|(field, data)| (&*field.extension, &data[..])).collect();
        if !text.is_empty() {
            fields.push((field, text.as_bytes()));
        }
        Ok(writer.write_sample(&sample.key, &fields)?)
    }
}

/// The picture of a sample: its first field that is one.
fn picture(tar: &Arc<Tar>, sample: &Sample) -> Input {
    let named = |extension: &str| PathBuf::from(format!("{}.{extension}", sample.key));
    match sample.fields.iter().find(|field| is_picture(&named(&field.extension))) {
        Some(field) => Input::Entry { tar: Arc::clone(tar), index: field.entry, earlier: 0 },
        None => {
            let name = format!("{}/{}", tar.path().display(), sample.key);
            let error = ItemError::NoPicture { path: name.clone().into() };
            Input::Broken { name, error }
        }
    }
}

impl From<ShardError> for Error {
    fn from(error: ShardError) -> Self {
        match error {
            ShardError::Write(error) => Error::Write(error),
            other => Error::Shard(other.to_string()),
        }
    }
}

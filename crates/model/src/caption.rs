//! Captions from patch tokens: a loaded decoder, and greedy, beam and sampled generation over many pictures at once.

mod choose;

use crate::config::DecoderConfig;
use crate::decoder::Decoder;
use crate::import::decoder::WEIGHTS_FILE;
use crate::import::names::NameLayout;
use crate::load::{LoadOptions, Named, Source, check, load};
use crate::random::Stream;
use crate::rounded::Rounded;
use crate::{ModelError, Tensors};
use choose::{Candidate, Group, Hypothesis};
use openvision_io::weights::Checkpoint;
use openvision_kernels::Isa;
use openvision_kernels::pool::Pool;
use openvision_kernels::vector::Rows;
use openvision_tensor::{Arena, CacheShape, CachedExec, CpuStore, KeyValueCache, NewRows, Place};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// How words are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// The most probable word, step by step.
    Greedy,
    /// The best of several continuations that are kept at each step (beam search). A finished caption of n ids, its end
    /// included, is worth Σ log p / n^length_penalty.
    Beam {
        /// Continuations kept.
        width: usize,
        /// Above 0 favors longer captions.
        length_penalty: f64,
    },
    /// Drawn by probability, from a stream of its own for each picture's name.
    Sample {
        /// Scores are divided by this before the softmax.
        temperature: f64,
        /// Only the most probable words; 0 is all.
        top_k: usize,
        /// Only the fewest most probable words that together reach this probability; 1 is all.
        top_p: f64,
        /// Seed of all streams.
        seed: u64,
    },
}

impl Strategy {
    fn width(&self) -> usize {
        match self {
            Strategy::Beam { width, .. } => *width,
            _ => 1,
        }
    }

    /// Refuses settings that cannot be.
    ///
    /// # Errors
    /// Names the setting.
    pub fn check(&self) -> Result<(), ModelError> {
        let problem = match self {
            Strategy::Beam { width, .. } if !(1..=64).contains(width) => format!("a beam of {width} is not 1 to 64"),
            Strategy::Beam { length_penalty, .. } if !length_penalty.is_finite() => {
                "the length penalty is not a number".into()
            }
            Strategy::Sample { temperature, .. } if !(temperature.is_finite() && *temperature > 0.0) => {
                format!("a temperature of {temperature} is not above 0; greedy choice needs none")
            }
            Strategy::Sample { top_p, .. } if !(*top_p > 0.0 && *top_p <= 1.0) => {
                format!("a top-p of {top_p} is not above 0 and up to 1")
            }
            _ => return Ok(()),
        };
        Err(ModelError::Input(problem))
    }
}

/// A picture to caption.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// Its name, which seeds what is drawn for it.
    pub name: &'a str,
    /// Its patch tokens, [patches × vision width].
    pub tokens: &'a [f32],
}

/// What was generated for a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The words' ids, without begin and end.
    pub ids: Vec<u32>,
    /// Σ log p of the ids and of the end.
    pub log_probability: f64,
    /// Whether the caption ended by itself, before the limit.
    pub ended: bool,
}

/// A loaded caption decoder. Shared between threads; one generation runs at a time.
pub struct Captioner {
    /// What the decoder is.
    pub config: DecoderConfig,
    decoder: Decoder,
    store: CpuStore,
    pool: Arc<Pool>,
    memory: Mutex<(Arena, KeyValueCache)>,
}

impl Captioner {
    /// Loads `caption_decoder.safetensors` of a model's folder. Of the options, `rounded`, `arithmetic` and `isa` count.
    ///
    /// # Errors
    /// The file is not there, broken, or does not fit the description.
    pub fn load(
        folder: &Path,
        config: DecoderConfig,
        options: &LoadOptions,
        pool: Arc<Pool>,
    ) -> Result<Self, ModelError> {
        let path = folder.join(WEIGHTS_FILE);
        let checkpoint = Checkpoint::open(&path)?;
        Self::from_tensors(&checkpoint, config, options, pool).map_err(|error| match error {
            ModelError::Tensors { problems, .. } => ModelError::Tensors { place: path.display().to_string(), problems },
            other => other,
        })
    }

    /// Loads from any source of tensors.
    ///
    /// # Errors
    /// Tensors are missing, unexpected, misshapen, or hold values that are no finite numbers.
    pub fn from_tensors(
        tensors: &dyn Tensors,
        config: DecoderConfig,
        options: &LoadOptions,
        pool: Arc<Pool>,
    ) -> Result<Self, ModelError> {
        config.check("the decoder")?;
        let isa = options.isa.map_or_else(Isa::from_environment, Ok)?;
        let rounded = options.rounded.map(|dtype| Rounded { tensors, dtype });
        let tensors = rounded.as_ref().map_or(tensors, |rounded| rounded);
        let decoder = Decoder::new(&config);
        let named = Named { tensors, layout: NameLayout::OpenClip };
        let problems = check(named, &[&decoder.plan], &[]);
        if !problems.is_empty() {
            return Err(ModelError::Tensors { place: "the decoder".into(), problems });
        }
        let (store, _) = load(Source { named, isa, arithmetic: options.arithmetic }, &decoder.plan, None, &pool)?;
        Ok(Self { config, decoder, store, pool, memory: Mutex::default() })
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.store.bytes()
    }

    /// Bytes of keys and values for each picture of `patches` tokens.
    pub fn bytes_per_picture(&self, patches: usize, strategy: &Strategy, longest: usize) -> usize {
        self.cache_shape(1, patches, strategy.width(), longest).bytes()
    }

    fn cache_shape(&self, pictures: usize, patches: usize, width: usize, longest: usize) -> CacheShape {
        let transformer = &self.config.transformer;
        CacheShape {
            layers: transformer.layers,
            width: transformer.width,
            prefixes: pictures,
            prefix: patches,
            slots: pictures * width,
            longest: longest.max(1),
        }
    }

    /// Captions of up to `longest` ids (the end included) for some pictures, which are computed together.
    ///
    /// A caption does not depend on the other pictures, nor on the number of threads.
    ///
    /// # Errors
    /// The tokens are no rows of the vision width, not the same number for every picture, or the strategy cannot be.
    pub fn generate(
        &self,
        pictures: &[Picture],
        strategy: &Strategy,
        longest: usize,
    ) -> Result<Vec<Generated>, ModelError> {
        strategy.check()?;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let (arena, cache) = &mut *memory;
        self.read(pictures, (strategy.width(), longest), arena, cache)?;
        let width = strategy.width();
        let mut groups: Vec<Group> = (0..pictures.len()).map(|i| Group::new(i * width)).collect();
        let mut streams: Vec<Stream> = match strategy {
            Strategy::Sample { seed, .. } => pictures.iter().map(|p| Stream::new(*seed, p.name)).collect(),
            _ => Vec::new(),
        };
        for length in 0..longest {
            let (places, ids) = self.next_rows(&groups, length);
            if places.is_empty() {
                break;
            }
            let mut ex = CachedExec::new(&self.store, &self.pool, (&mut *arena, &mut *cache), NewRows::Step(&places));
            let logits = self.decoder.next_words(&mut ex, &self.store, &ids);
            let logits = ex.read(logits);
            let mut copies = Vec::new();
            let mut row = 0;
            for (number, group) in groups.iter_mut().enumerate() {
                let running = group.running.len();
                if running == 0 {
                    continue;
                }
                let candidates = group.candidates(logits.rows(row, running), strategy, streams.get_mut(number));
                row += running;
                self.advance(group, candidates, strategy, length + 1, &mut copies);
            }
            for (from, to) in copies {
                cache.copy(from, to, length + 1);
            }
        }
        Ok(groups.into_iter().map(|group| group.finish(strategy)).collect())
    }

    /// Scores of every next word where a caption is given, [ids + 1, vocabulary]: after the begin, after the first id...
    ///
    /// # Errors
    /// As [`Captioner::generate`], or an id is outside the vocabulary.
    pub fn scores(&self, picture: Picture, caption: &[u32]) -> Result<Vec<f32>, ModelError> {
        if let Some(id) = caption.iter().find(|id| **id as usize >= self.config.vocabulary) {
            return Err(ModelError::Input(format!("id {id} is outside the vocabulary of {}", self.config.vocabulary)));
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let (arena, cache) = &mut *memory;
        self.read(&[picture], (1, caption.len() + 1), arena, cache)?;
        let mut scores = Vec::new();
        for (length, id) in std::iter::once(&self.config.begin).chain(caption).enumerate() {
            let place = [Place { prefix: 0, slot: 0, length }];
            let mut ex = CachedExec::new(&self.store, &self.pool, (&mut *arena, &mut *cache), NewRows::Step(&place));
            let row = self.decoder.next_words(&mut ex, &self.store, &[*id]);
            scores.extend_from_slice(ex.read(row).row(0));
        }
        Ok(scores)
    }

    /// Computes and remembers the prefixes of pictures.
    fn read(
        &self,
        pictures: &[Picture],
        (width, longest): (usize, usize),
        arena: &mut Arena,
        cache: &mut KeyValueCache,
    ) -> Result<(), ModelError> {
        let (vision, length) = (self.config.vision_width, pictures.first().map_or(0, |picture| picture.tokens.len()));
        if let Some(bad) = pictures
            .iter()
            .find(|p| p.tokens.is_empty() || p.tokens.len() != length || !p.tokens.len().is_multiple_of(vision))
        {
            let problem =
                format!("{}: {} values are not the patch tokens of width {vision}", bad.name, bad.tokens.len());
            return Err(ModelError::Input(problem));
        }
        let patches = length / vision;
        cache.reset(self.cache_shape(pictures.len(), patches, width, longest));
        for (number, picture) in pictures.iter().enumerate() {
            let rows = NewRows::Prefix(number);
            let mut ex = CachedExec::new(&self.store, &self.pool, (&mut *arena, &mut *cache), rows);
            self.decoder.read_picture(&mut ex, Rows::new(picture.tokens, patches, vision));
        }
        Ok(())
    }

    /// The rows of the next step: the last word of every running hypothesis.
    fn next_rows(&self, groups: &[Group], length: usize) -> (Vec<Place>, Vec<u32>) {
        let running = groups.iter().enumerate().flat_map(|(prefix, group)| {
            group.running.iter().map(move |hypothesis| {
                let last = hypothesis.ids.last().copied().unwrap_or(self.config.begin);
                (Place { prefix, slot: hypothesis.slot, length }, last)
            })
        });
        running.unzip()
    }

    /// Turns the chosen candidates into the hypotheses of the next step; `copies` names slots to be copied.
    fn advance(
        &self,
        group: &mut Group,
        candidates: Vec<Candidate>,
        strategy: &Strategy,
        length: usize,
        copies: &mut Vec<(usize, usize)>,
    ) {
        let width = strategy.width();
        let mut next: Vec<(usize, Candidate)> = Vec::new();
        for (rank, candidate) in candidates.into_iter().enumerate() {
            if candidate.id != self.config.end {
                next.push((candidate.parent, candidate));
            } else if rank < width {
                group.end(&candidate, length, strategy);
            }
            if next.len() == width {
                break;
            }
        }
        if group.is_done(&next, length, strategy) {
            next.clear();
        }
        let slots = group.assign_slots(&next, width, copies);
        let old = std::mem::take(&mut group.running);
        group.running = next
            .into_iter()
            .zip(slots)
            .map(|((parent, candidate), slot)| {
                let mut ids = old[parent].ids.clone();
                ids.push(candidate.id);
                Hypothesis { slot, ids, score: candidate.score }
            })
            .collect();
    }
}

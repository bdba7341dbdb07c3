//! Many picture files through the image tower: decoded and encoded on every thread, given out in order.

use crate::inputs::Input;
use crate::interrupt::Interrupt;
use crate::{Error, Model};
use openvision_io::data::parquet::ParquetError;
use openvision_io::data::tar::TarError;
use openvision_io::image::{ImageError, Limits};
use openvision_io::preprocess::PreprocessError;
use openvision_kernels::vector::{Rows, normalize};
use openvision_model::tower::Until;
use openvision_model::{Fill, Item, Pass};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is wanted of each input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The embedding, scaled to unit length.
    Unit,
    /// The embedding as the projection gives it.
    Raw,
    /// The tokens of a layer.
    Tokens(Layer),
}

/// A layer's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Blocks to run: 1 gives the output of the first.
    pub blocks: usize,
    /// Whether the final norm is applied.
    pub final_norm: bool,
    /// Tokens to leave out at the start: 1 for the class token of pictures.
    pub skip: usize,
}

/// Why one input gave no vector.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// The file is not a picture that can be decoded.
    #[error("{0}")]
    Image(Arc<ImageError>),
    /// The archive that holds the picture.
    #[error("{0}")]
    Tar(Arc<TarError>),
    /// The table that holds the picture.
    #[error("{0}")]
    Table(Arc<ParquetError>),
    /// The picture cannot be brought to the model's size.
    #[error("{path}: {source}")]
    Preprocess {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Arc<PreprocessError>,
    },
    /// A sample of a shard has no field with a picture's ending.
    #[error("{path}: no picture among its fields")]
    NoPicture {
        /// The sample.
        path: PathBuf,
    },
    /// The model gave a value that is no finite number.
    #[error("{path}: the model's output is not finite; the weights may be broken (`openvision models verify`)")]
    NotFinite {
        /// The input.
        path: PathBuf,
    },
}

impl From<ImageError> for ItemError {
    fn from(error: ImageError) -> Self {
        ItemError::Image(Arc::new(error))
    }
}

impl From<TarError> for ItemError {
    fn from(error: TarError) -> Self {
        ItemError::Tar(Arc::new(error))
    }
}

impl From<ParquetError> for ItemError {
    fn from(error: ParquetError) -> Self {
        ItemError::Table(Arc::new(error))
    }
}

impl ItemError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            ItemError::Image(error) => error.code(),
            ItemError::Tar(error) => error.code(),
            ItemError::Table(error) => error.code(),
            ItemError::Preprocess { .. } => "cannot_preprocess",
            ItemError::NoPicture { .. } => "no_picture",
            ItemError::NotFinite { .. } => "not_finite",
        }
    }
}

/// The values of one input, or why there are none.
pub type Outcome = Result<Vec<f32>, ItemError>;

/// Takes outcomes in order of the inputs; an error ends the run.
pub type Emit<'a> = &'a mut (dyn FnMut(usize, Outcome) -> Result<(), Error> + Send);

/// A run over files.
pub struct Run<'a> {
    /// The model; its image tower is loaded.
    pub model: &'a Model,
    /// Limits of decoding.
    pub limits: Limits,
    /// What is wanted.
    pub want: Want,
    /// Stops the run after the inputs in work.
    pub interrupt: &'a Interrupt,
}

/// Holds outcomes back until all earlier ones are there. Of an interrupted run, the few after a gap are left out: given
/// out, they would stand before the missing ones for good once the run is resumed.
struct InOrder<'a> {
    next: usize,
    waiting: BTreeMap<usize, Outcome>,
    emit: Emit<'a>,
    failed: Option<Error>,
}

impl InOrder<'_> {
    fn put(&mut self, index: usize, outcome: Outcome) {
        self.waiting.insert(index, outcome);
        while let Some(outcome) = self.waiting.remove(&self.next) {
            if self.failed.is_none() {
                self.failed = (self.emit)(self.next, outcome).err();
            }
            self.next += 1;
        }
    }
}

fn lock<'a, 'b>(mutex: &'a Mutex<InOrder<'b>>) -> MutexGuard<'a, InOrder<'b>> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decodes a picture and brings it to the model's pixels, [3, height, width].
///
/// # Errors
/// It is no picture, or cannot be resized.
pub fn read_pixels(model: &Model, input: &Input, limits: &Limits, out: &mut [f32]) -> Result<(), ItemError> {
    let preprocess = &model.config.preprocess;
    let picture = input.read(limits, &|width, height| preprocess.decode_scale(width, height))?;
    let named = |source| ItemError::Preprocess { path: input.name().as_ref().into(), source: Arc::new(source) };
    preprocess.to_tensor(&picture, out).map_err(named)
}

/// Tokens can be given out only where there is one for each patch.
pub(crate) fn check_tokens(model: &Model) -> Result<(), Error> {
    match model.merge_tokens() {
        0 => Ok(()),
        _ => Err(Error::Usage("--merge-tokens leaves fewer tokens than patches: it is for embeddings only".into())),
    }
}

impl Run<'_> {
    /// Runs over pictures.
    ///
    /// # Errors
    /// The model has no image tower, or `emit` failed. Broken pictures are outcomes, not errors.
    pub fn files(&self, files: &[Input], emit: Emit) -> Result<(), Error> {
        let fill = |index: usize, item: Item| read_pixels(self.model, &files[index], &self.limits, item.pixels);
        self.run(Kind::Image, files.len(), &fill, &|index| files[index].name().as_ref().into(), emit)
    }

    /// Runs over rows of token ids.
    ///
    /// # Errors
    /// The model has no text tower, a row does not fit it, or `emit` failed.
    pub fn ids(&self, rows: &[Vec<u32>], emit: Emit) -> Result<(), Error> {
        let copies = Copies::new(rows, REMEMBERED_VALUES / self.values(Kind::Text));
        let new = &copies.new;
        let marks = new.iter().map(|&row| self.model.mark(&rows[row])).collect::<Result<Vec<usize>, _>>()?;
        let fill = |index: usize, item: Item| {
            item.ids.copy_from_slice(&rows[new[index]]);
            *item.mark = marks[index];
            Ok(())
        };
        let mut remembered = BTreeMap::new();
        let emit: Emit = &mut |index, outcome| {
            let next = new.get(index + 1).copied().unwrap_or(rows.len());
            if copies.last[index] > new[index] {
                remembered.insert(index, outcome.clone());
            }
            emit(new[index], outcome)?;
            // What lies before the next new row was there before.
            for row in new[index] + 1..next {
                let same = copies.same[row];
                let done = copies.last[same] == row;
                let outcome = if done { remembered.remove(&same) } else { remembered.get(&same).cloned() };
                emit(row, outcome.expect("a copy comes after its original"))?;
            }
            Ok(())
        };
        self.run(Kind::Text, new.len(), &fill, &|index| PathBuf::from(format!("text {}", new[index] + 1)), emit)
    }

    fn run(
        &self,
        kind: Kind,
        count: usize,
        fill: &(dyn Fn(usize, Item) -> Result<(), ItemError> + Sync),
        name: &(dyn Fn(usize) -> PathBuf + Sync),
        emit: Emit,
    ) -> Result<(), Error> {
        let order = Mutex::new(InOrder { next: 0, waiting: BTreeMap::new(), emit, failed: None });
        let partial = Mutex::new(BTreeMap::new());
        let checked = |index: usize, values: Vec<f32>| {
            let finite = values.iter().all(|v| v.is_finite());
            if finite { Ok(values) } else { Err(ItemError::NotFinite { path: name(index) }) }
        };
        let observe = |index: usize, tap, tokens: std::ops::Range<usize>, rows: Rows| {
            if let Want::Tokens(layer) = self.want
                && layer.shows(tap)
                && let Some(values) = layer.collect(&partial, index, tokens, rows, self.tokens(kind))
            {
                lock(&order).put(index, checked(index, values));
            }
        };
        let pass = Pass {
            count,
            until: self.until(),
            fill: &|index, item| {
                if self.interrupt.is_set() || lock(&order).failed.is_some() {
                    return Fill::Stop;
                }
                match fill(index, item) {
                    Ok(()) => Fill::Ready,
                    Err(error) => {
                        lock(&order).put(index, Err(error));
                        Fill::Skip
                    }
                }
            },
            sink: &|index, embedding| {
                let mut values = embedding.to_vec();
                if self.want == Want::Unit {
                    normalize(self.model.isa(), &mut values);
                }
                lock(&order).put(index, checked(index, values));
            },
            observe: if matches!(self.want, Want::Tokens(_)) { Some(&observe) } else { None },
        };
        match (kind, self.want) {
            (Kind::Image, Want::Tokens(_)) => check_tokens(self.model)?,
            (Kind::Image, _) => self.model.config.check_pooled()?,
            (Kind::Text, _) => {}
        }
        let encoder = match kind {
            Kind::Image => self.model.image()?,
            Kind::Text => self.model.text()?,
        };
        encoder.run(self.model.pool(), &pass);
        let failed = lock(&order).failed.take();
        failed.map_or(Ok(()), Err)
    }

    /// Values of one result.
    fn values(&self, kind: Kind) -> usize {
        let width = match kind {
            Kind::Image => self.model.config.image.transformer.width,
            Kind::Text => self.model.config.text.map_or(1, |text| text.transformer.width),
        };
        if matches!(self.want, Want::Tokens(_)) { self.tokens(kind) * width } else { self.model.config.embed_dim }
            .max(1)
    }

    fn until(&self) -> Until {
        match self.want {
            Want::Tokens(Layer { blocks, final_norm: true, .. }) => Until::BlocksThenNorm(blocks),
            Want::Tokens(Layer { blocks, .. }) => Until::Blocks(blocks),
            _ => Until::Embedding,
        }
    }

    fn tokens(&self, kind: Kind) -> usize {
        match kind {
            Kind::Image => self.model.config.image.tokens(),
            Kind::Text => self.model.config.text.map_or(0, |text| text.context),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Text,
}

/// Most values of results that are kept for rows that come again: 256 MiB.
const REMEMBERED_VALUES: usize = 64 << 20;

/// Which rows are encoded, and which have the ids of one before them.
struct Copies {
    /// Rows to encode, in order.
    new: Vec<usize>,
    /// For each row, which of `new` gives its result.
    same: Vec<usize>,
    /// For each of `new`, the last row that it gives the result of.
    last: Vec<usize>,
}

impl Copies {
    /// Only the first `most` different rows are looked for again: their results have to be kept.
    fn new(rows: &[Vec<u32>], most: usize) -> Self {
        let mut seen: HashMap<&[u32], usize> = HashMap::new();
        let mut copies = Copies { new: Vec::new(), same: Vec::with_capacity(rows.len()), last: Vec::new() };
        for (row, ids) in rows.iter().enumerate() {
            let index = seen.get(ids.as_slice()).copied().unwrap_or(copies.new.len());
            if index == copies.new.len() {
                copies.new.push(row);
                copies.last.push(row);
                if seen.len() < most {
                    seen.insert(ids, index);
                }
            }
            copies.last[index] = row;
            copies.same.push(index);
        }
        copies
    }
}

/// Token ranges of one item that are there so far.
type Parts = BTreeMap<usize, BTreeMap<usize, Vec<f32>>>;

impl Layer {
    fn shows(&self, tap: openvision_model::Tap) -> bool {
        use openvision_model::Tap;
        match tap {
            Tap::FinalNorm => self.final_norm,
            Tap::Block(i) => !self.final_norm && i + 1 == self.blocks,
            Tap::Embedded => !self.final_norm && self.blocks == 0,
            Tap::Pooled => false,
        }
    }

    /// Adds a range of an item's tokens; all of them in order once they are there, without the skipped ones.
    fn collect(
        &self,
        parts: &Mutex<Parts>,
        index: usize,
        tokens: std::ops::Range<usize>,
        rows: Rows,
        total: usize,
    ) -> Option<Vec<f32>> {
        let values: Vec<f32> = (0..rows.count).flat_map(|i| rows.row(i).iter().copied()).collect();
        let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
        let item = parts.entry(index).or_default();
        item.insert(tokens.start, values);
        let there: usize = item.values().map(|part| part.len() / rows.width).sum();
        if there < total {
            return None;
        }
        let mut all: Vec<f32> = parts.remove(&index)?.into_values().flatten().collect();
        all.drain(..self.skip * rows.width);
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_are_encoded_once() {
        let rows: Vec<Vec<u32>> = [1, 2, 1, 3, 3, 2, 4].map(|id| vec![id, 0]).to_vec();
        let copies = Copies::new(&rows, 10);
        assert_eq!(copies.new, [0, 1, 3, 6]);
        assert_eq!(copies.same, [0, 1, 0, 2, 2, 1, 3]);
        assert_eq!(copies.last, [2, 5, 4, 6]);
        let short_of_memory = Copies::new(&rows, 1);
        assert_eq!(short_of_memory.same, [0, 1, 0, 2, 3, 4, 5]);
    }
}

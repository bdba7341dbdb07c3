//! Checkpoint tensors into a store: checked as a whole first, then read, hashed and packed on all threads.

use crate::config::{ActivationName, ImageConfig, Positions};
use crate::fingerprint::TensorHash;
use crate::import::names::{NameLayout, TensorSource, places};
use crate::positions::{resample_image, sin_cos_2d};
use crate::quantized::{Arithmetic, check_bytes, check_possible};
use crate::{ModelError, fingerprint};
use openvision_io::weights::{Checkpoint, DType, TensorInfo, WeightsError};
use openvision_kernels::gemm::{
    BrainLinear, BrainMatrix, Linear, MatrixSource, PackedMatrix, QuantizedLinear, QuantizedMatrix, quantize_weights,
};
use openvision_kernels::pool::Pool;
use openvision_kernels::vector::{Rows, RowsMut, transpose};
use openvision_kernels::{Buffer, Isa};
use openvision_tensor::{
    CpuStore, Layout, LinearId, LinearSpec, NormId, ParamPlan, TableId, TableSpec, TensorSpec, Weights,
};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Load the image tower.
    pub image: bool,
    /// Load the text tower.
    pub text: bool,
    /// Input height and width other than the model's own: positions are recomputed or resampled.
    pub image_size: Option<(usize, usize)>,
    /// Follow the peers' literal behaviour: published text layout, no EXIF orientation, their order of conversion.
    pub as_published: bool,
    /// The GELU of a SigLIP model, where it is not to be that of the file's layout.
    pub gelu: Option<ActivationName>,
    /// Round weights to this 16-bit type; arithmetic stays f32.
    pub rounded: Option<DType>,
    /// What products are computed with.
    pub arithmetic: Arithmetic,
    /// Tokenise OpenVision's texts as the JAX training pipeline did.
    pub jax_texts: bool,
    /// Tokens of pictures to merge in each block (arXiv:2210.09461); 0 changes nothing.
    pub merge_tokens: usize,
    /// Decode JPEG pictures at a half, a quarter or an eighth of their size where both sides stay at least this many
    /// times what they are resized to; nothing decodes them whole.
    pub scaled_decode: Option<u8>,
    /// Instruction set; the best where nothing is said.
    pub isa: Option<Isa>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            image: true,
            text: true,
            image_size: None,
            as_published: false,
            gelu: None,
            rounded: None,
            arithmetic: Arithmetic::Stored,
            jax_texts: false,
            merge_tokens: 0,
            scaled_decode: None,
            isa: None,
        }
    }
}

/// One thing that is wrong with a checkpoint's tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The model needs a tensor that is not there.
    Missing {
        /// Its name in the file's layout.
        name: String,
        /// The shape that it would have.
        shape: Vec<usize>,
    },
    /// The file has a tensor that the model does not use.
    Unexpected {
        /// Its name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor has another shape than the configuration says.
    Shape {
        /// Its name.
        name: String,
        /// By the configuration.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A value is not a finite number.
    NotFinite {
        /// The tensor.
        name: String,
        /// Index of the first such value.
        index: usize,
    },
    /// A tensor of bytes is not what this program stores as one.
    Quantized {
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Problem::Missing { name, shape } => write!(f, "missing: {name} {shape:?}"),
            Problem::Unexpected { name, shape } => write!(f, "unexpected: {name} {shape:?}"),
            Problem::Shape { name, expected, found } => {
                write!(f, "wrong shape: {name} is {found:?}, the configuration says {expected:?}")
            }
            Problem::NotFinite { name, index } => write!(f, "not a finite number: {name} at index {index}"),
            Problem::Quantized { name, problem } => write!(f, "not quantised weights: {name}: {problem}"),
        }
    }
}

/// Something that gives tensors by name: a checkpoint, or values made up by a seed.
pub trait Tensors: Sync {
    /// All tensors, sorted by name.
    fn tensors(&self) -> &[TensorInfo];
    /// One tensor's description.
    fn get(&self, name: &str) -> Option<&TensorInfo>;
    /// One tensor's values, widened to f32.
    ///
    /// # Errors
    /// The tensor cannot be read.
    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError>;
    /// Elements from `start` on; false, with nothing read, where a tensor can only be read as a whole.
    ///
    /// # Errors
    /// The tensor cannot be read.
    fn read_f32_part(&self, _name: &str, _start: usize, _out: &mut [f32]) -> Result<bool, WeightsError> {
        Ok(false)
    }
    /// The scales of a matrix that is stored as bytes, one a row.
    fn stored_scales(&self, _name: &str) -> Option<&[f32]> {
        None
    }
    /// As [`Tensors::read_f32_part`], but the bytes as they are, without their scales.
    ///
    /// # Errors
    /// The tensor cannot be read.
    fn read_bytes_part(&self, _name: &str, _start: usize, _out: &mut [f32]) -> Result<bool, WeightsError> {
        Ok(false)
    }
}

impl Tensors for Checkpoint {
    fn tensors(&self) -> &[TensorInfo] {
        Checkpoint::tensors(self)
    }
    fn get(&self, name: &str) -> Option<&TensorInfo> {
        Checkpoint::get(self, name)
    }
    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
        Checkpoint::read_f32(self, name, out)
    }
    fn read_f32_part(&self, name: &str, start: usize, out: &mut [f32]) -> Result<bool, WeightsError> {
        Checkpoint::read_f32_part(self, name, start, out)
    }
}

/// Tensors under our names, whatever the file's layout is.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    /// The file.
    pub tensors: &'a dyn Tensors,
    /// Its layout.
    pub layout: NameLayout,
}

impl Named<'_> {
    /// The problems of one tensor of ours.
    fn problems(&self, spec: &TensorSpec, free_rows: bool) -> Vec<Problem> {
        if self.computed(&spec.name) {
            return Vec::new();
        }
        let source = self.layout.source(&spec.name);
        let expected = source.stored_shape(&spec.shape);
        let fits = |found: &[usize]| match (source.block, found) {
            (Some(block), [blocks, found @ ..]) => block < *blocks && fits(found, &expected, free_rows),
            (Some(_), []) => false,
            (None, found) => fits(found, &expected, free_rows),
        };
        let is_right = |found: &[usize]| fits(found) || (source.view.cut && cut(found, &expected, source.block));
        source
            .names()
            .iter()
            .filter_map(|name| match self.tensors.get(name) {
                None => Some(Problem::Missing { name: (*name).to_owned(), shape: expected.clone() }),
                Some(found) if is_right(&found.shape) => None,
                Some(found) => Some(Problem::Shape {
                    name: (*name).to_owned(),
                    expected: expected.clone(),
                    found: found.shape.clone(),
                }),
            })
            .collect()
    }

    /// Whether a tensor of ours follows from the sizes and is not in the file: the position table in OpenVision's tree.
    pub(crate) fn computed(&self, name: &str) -> bool {
        self.layout == NameLayout::OpenvisionJax
            && name == "visual.positional_embedding"
            && self.layout.source(name).names().iter().all(|name| self.tensors.get(name).is_none())
    }

    /// Reads one tensor of ours in our layout; `out` has its length, which its shape may not (positions).
    pub(crate) fn read(&self, spec: &TensorSpec, out: &mut [f32]) -> Result<(), ModelError> {
        let source = self.layout.source(&spec.name);
        let names = source.names();
        let one = out.len() / names.len();
        for (name, rows) in names.iter().zip(out.chunks_exact_mut(one)) {
            if source.view.order.is_empty() {
                self.read_one(name, &source, rows)?;
                continue;
            }
            let mut stored = vec![0.0; one];
            self.read_one(name, &source, &mut stored)?;
            match (&source.shape_of_one(&spec.shape)[..], &source.view.order[..]) {
                (&[n, k], [1, 0]) => transpose(Rows::new(&stored, k, n), RowsMut::new(rows, n, k)),
                (shape, order) => rows.iter_mut().zip(places(shape, order)).for_each(|(v, at)| *v = stored[at]),
            }
        }
        Ok(())
    }

    /// The elements of a file's tensor that are meant, in the file's order.
    fn read_one(&self, name: &str, source: &TensorSource, out: &mut [f32]) -> Result<(), ModelError> {
        let start = match (source.view.part, source.block) {
            (Some([from, to, _]), _) => out.len() / (to - from) * from,
            (None, block) => out.len() * block.unwrap_or(0),
        };
        let whole = self.tensors.get(name).map_or(out.len(), TensorInfo::elements);
        if whole == out.len() {
            self.tensors.read_f32(name, out)?;
        } else if !self.tensors.read_f32_part(name, start, out)? {
            let mut stored = vec![0.0; whole];
            self.tensors.read_f32(name, &mut stored)?;
            out.copy_from_slice(&stored[start..start + out.len()]);
        }
        Ok(())
    }

    /// Reads elements from `start` on of a tensor of `length` elements of ours; false where it has to be read as a whole.
    fn read_part(&self, name: &str, length: usize, start: usize, out: &mut [f32]) -> Result<bool, ModelError> {
        let source = self.layout.source(name);
        if !source.in_order() {
            return Ok(false);
        }
        let names = source.names();
        let one = length / names.len();
        let (mut done, mut at) = (0, start);
        while done < out.len() {
            let count = (one - at % one).min(out.len() - done);
            if !self.tensors.read_f32_part(names[at / one], at % one, &mut out[done..done + count])? {
                return Ok(false);
            }
            done += count;
            at += count;
        }
        Ok(true)
    }

    /// The name and scales of a matrix of ours that is stored as bytes.
    pub(crate) fn stored_scales(&self, name: &str) -> Option<(&str, &[f32])> {
        let source = self.layout.source(name);
        let (&[one], true) = (&source.names()[..], source.in_order()) else { return None };
        let name = &self.tensors.get(one)?.name;
        Some((name, self.tensors.stored_scales(name)?))
    }

    /// A scalar, if the file has it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn scalar(&self, name: &str) -> Result<Option<f32>, ModelError> {
        let source = self.layout.source(name);
        let name = source.names()[0];
        match self.tensors.get(name) {
            Some(tensor) if tensor.elements() == 1 => {
                let mut value = [0.0];
                self.tensors.read_f32(name, &mut value)?;
                Ok(Some(value[0]))
            }
            _ => Ok(None),
        }
    }
}

/// Whether a stored shape serves; `free_rows` lets the first axis differ, for position tables of another grid.
fn fits(found: &[usize], expected: &[usize], free_rows: bool) -> bool {
    // A scalar may have one axis or none; open_clip and transformers differ there.
    let scalar = |shape: &[usize]| shape.iter().all(|&axis| axis == 1);
    let other_rows = || match (found, expected) {
        ([1, found, width], [1, _, expected]) | ([found, width], [_, expected]) => width == expected && *found > 1,
        _ => false,
    };
    found == expected || (scalar(found) && scalar(expected)) || (free_rows && other_rows())
}

/// Whether a stored shape is the expected one with axes cut into several: width into heads. Axes of 1 do not count.
fn cut(found: &[usize], expected: &[usize], block: Option<usize>) -> bool {
    let found = match (block, found) {
        (Some(block), [blocks, found @ ..]) if block < *blocks => found,
        (Some(_), _) => return false,
        (None, found) => found,
    };
    let mut found = found.iter().filter(|size| **size != 1);
    let whole = expected.iter().filter(|size| **size != 1).all(|wanted| {
        let mut product = 1usize;
        while product < *wanted {
            let Some(size) = found.next() else { return false };
            product = product.saturating_mul(*size);
        }
        product == *wanted
    });
    whole && found.next().is_none()
}

/// What a tower needs beyond its plan.
#[derive(Clone, Copy)]
pub(crate) struct Positional<'a> {
    /// The table's id.
    pub(crate) table: TableId,
    /// The tower's description.
    pub(crate) image: &'a ImageConfig,
    /// The same at the model's own input size.
    pub(crate) own: &'a ImageConfig,
}

/// All problems of a checkpoint for the given plans, unexpected tensors included, so that a user sees them at once.
pub(crate) fn check(named: Named, plans: &[&ParamPlan], positions: &[&str]) -> Vec<Problem> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut problems = Vec::new();
    let scalars = ["logit_scale", "logit_bias"].map(|name| TensorSpec { name: name.into(), shape: vec![] });
    for spec in plans.iter().flat_map(|plan| plan.tensors()) {
        problems.extend(named.problems(&spec, positions.contains(&spec.name.as_str())));
        known.extend(named.layout.source(&spec.name).names().into_iter().map(str::to_owned));
    }
    known.extend(
        scalars.iter().flat_map(|spec| {
            named.layout.source(&spec.name).names().into_iter().map(str::to_owned).collect::<Vec<_>>()
        }),
    );
    for tensor in named.tensors.tensors() {
        if !known.contains(&tensor.name) && !named.layout.ignores(&tensor.name) {
            problems.push(Problem::Unexpected { name: tensor.name.clone(), shape: tensor.shape.clone() });
        }
    }
    problems
}

/// A parameter to load.
#[derive(Clone, Copy)]
enum Unit {
    Linear(LinearId),
    Norm(NormId),
    Table(TableId),
}

/// Where a tower's parameters come from, and what becomes of them.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) named: Named<'a>,
    pub(crate) isa: Isa,
    pub(crate) arithmetic: Arithmetic,
}

/// Loads a tower: every thread takes the largest parameter left, reads, hashes and packs it, and drops the source.
///
/// # Errors
/// The first tensor that cannot be read or holds a value that is no finite number.
pub(crate) fn load(
    from: Source,
    plan: &ParamPlan,
    positional: Option<Positional>,
    pool: &Pool,
) -> Result<(CpuStore, blake3::Hash), ModelError> {
    let Source { named, isa, arithmetic } = from;
    let store = CpuStore::new(isa, plan);
    let mut units: Vec<(usize, Unit)> = Vec::new();
    units.extend(plan.linears.iter().enumerate().map(|(i, l)| (l.k * l.n, Unit::Linear(LinearId(i)))));
    units.extend(plan.norms.iter().enumerate().map(|(i, n)| (n.width, Unit::Norm(NormId(i)))));
    units.extend(plan.tables.iter().enumerate().map(|(i, t)| (t.rows * t.width, Unit::Table(TableId(i)))));
    units.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let next = AtomicUsize::new(0);
    let outcome: Mutex<Result<Vec<blake3::Hash>, ModelError>> = Mutex::new(Ok(Vec::new()));
    let loader = Loader { named, plan, positional, arithmetic, store: &store };
    pool.run(&|_| {
        let mut staging = Buffer::default();
        while let Some(&(_, unit)) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hashes = loader.unit(unit, &mut staging);
            let mut outcome = outcome.lock().expect("no thread panics while it holds the lock");
            match (&mut *outcome, hashes) {
                (Ok(all), Ok(new)) => all.extend(new),
                (Ok(_), Err(error)) => *outcome = Err(error),
                (Err(_), _) => return,
            }
        }
    });
    let hashes = outcome.into_inner().expect("no thread panics while it holds the lock")?;
    Ok((store, fingerprint::tower(hashes)))
}

/// Bytes of a matrix that are read at once: they are hashed and packed while they are in the second-level cache.
const PART_BYTES: usize = 192 << 10;

/// Parts are whole numbers of this many rows, so that they fill whole panels.
const PART_ROWS: usize = 32;

/// Refuses values that are no finite numbers; `start` is the index of the first value in its tensor.
fn finite(name: &str, start: usize, values: &[f32]) -> Result<(), ModelError> {
    // Checked as the largest bit pattern first: one pass of integers, which vectorises.
    let largest = values.iter().fold(0, |largest: u32, v| largest.max(v.to_bits() & 0x7FFF_FFFF));
    if largest < f32::INFINITY.to_bits() {
        return Ok(());
    }
    let index = start + values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    let problems = vec![Problem::NotFinite { name: name.to_owned(), index }];
    Err(ModelError::Tensors { place: "checkpoint".into(), problems })
}

/// Checks and hashes a whole tensor.
fn hashed(name: &str, values: &[f32]) -> Result<blake3::Hash, ModelError> {
    finite(name, 0, values)?;
    let mut hash = TensorHash::new(name);
    hash.update(values);
    Ok(hash.finish())
}

struct Loader<'a> {
    named: Named<'a>,
    plan: &'a ParamPlan,
    positional: Option<Positional<'a>>,
    arithmetic: Arithmetic,
    store: &'a CpuStore,
}

impl Loader<'_> {
    fn unit(&self, unit: Unit, staging: &mut Buffer) -> Result<Vec<blake3::Hash>, ModelError> {
        match unit {
            Unit::Linear(id) => self.linear(id, &self.plan.linears[id.0], staging),
            Unit::Norm(id) => self.norm(id),
            Unit::Table(id) => self.table(id, &self.plan.tables[id.0]),
        }
    }

    /// Reads a whole tensor.
    fn read(&self, name: &str, shape: Vec<usize>, out: &mut [f32]) -> Result<blake3::Hash, ModelError> {
        self.named.read(&TensorSpec { name: name.to_owned(), shape }, out)?;
        hashed(name, out)
    }

    fn linear(&self, id: LinearId, spec: &LinearSpec, staging: &mut Buffer) -> Result<Vec<blake3::Hash>, ModelError> {
        let mut bias = vec![0.0; spec.n];
        let mut hashes = Vec::new();
        if let Some(name) = &spec.bias {
            hashes.push(self.read(name, vec![spec.n], &mut bias)?);
        }
        let bias = spec.bias.is_some().then_some(&bias[..]);
        if self.arithmetic.quantizes(spec) {
            let (matrix, hash) = self.quantized(spec, staging)?;
            hashes.push(hash);
            self.store.set_linear(id, Weights::Quantized(QuantizedLinear::new(matrix, bias)));
            return Ok(hashes);
        }
        if self.arithmetic.rounds(spec) {
            let (matrix, hash) = self.brain(spec, staging)?;
            hashes.push(hash);
            self.store.set_linear(id, Weights::Brain(BrainLinear::new(matrix, bias)));
            return Ok(hashes);
        }
        let mut packed = PackedMatrix::reserve(self.store.isa(), spec.k, spec.n);
        let mut hash = TensorHash::new(&spec.weight);
        match spec.layout {
            Layout::OutIn => self.parts(spec, staging, &mut |row, part| {
                if row == 0 {
                    hash = TensorHash::new(&spec.weight);
                }
                hash.update(part);
                packed.fill(row, MatrixSource::out_in(part, part.len() / spec.k, spec.k));
            })?,
            Layout::InOut => {
                staging.ensure(spec.k * spec.n);
                let weight = &mut staging[..spec.k * spec.n];
                self.named.read(&TensorSpec { name: spec.weight.clone(), shape: spec.weight_shape() }, weight)?;
                finite(&spec.weight, 0, weight)?;
                hash.update(weight);
                packed.fill(0, MatrixSource::in_out(weight, spec.k, spec.n));
            }
        }
        hashes.push(hash.finish());
        self.store.set_linear(id, Weights::Float(Linear::new(packed, bias)));
        Ok(hashes)
    }

    /// Rows that are worked on at once.
    fn rows_of_part(spec: &LinearSpec) -> usize {
        (PART_BYTES / (spec.k * size_of::<f32>())).next_multiple_of(PART_ROWS).clamp(PART_ROWS, spec.n.max(PART_ROWS))
    }

    /// Reads and checks some rows at a time; `take` works on them while they are in the cache. It is given the number of
    /// the first one, and all of them anew where that is 0.
    fn parts(
        &self,
        spec: &LinearSpec,
        staging: &mut Buffer,
        take: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        let (k, n) = (spec.k, spec.n);
        let mut rows = Self::rows_of_part(spec);
        let mut row = 0;
        while row < n {
            let count = rows.min(n - row);
            staging.ensure(count * k);
            let part = &mut staging[..count * k];
            if count == n {
                self.named.read(&TensorSpec { name: spec.weight.clone(), shape: spec.weight_shape() }, part)?;
            } else if !self.named.read_part(&spec.weight, k * n, row * k, part)? {
                // Stored in another order: all rows at once, from the start (parts that were read are the same then).
                (rows, row) = (n, 0);
                continue;
            }
            finite(&spec.weight, row * k, part)?;
            take(row, part);
            row += count;
        }
        Ok(())
    }

    /// A matrix of bytes: as it is stored, or quantised. The hash is that of the bytes and scales, so that a folder which
    /// stores them has the fingerprint of the one that it was made from.
    fn quantized(
        &self,
        spec: &LinearSpec,
        staging: &mut Buffer,
    ) -> Result<(QuantizedMatrix, blake3::Hash), ModelError> {
        let (k, n, isa) = (spec.k, spec.n, self.store.isa());
        let mut matrix = QuantizedMatrix::reserve(isa, k, n);
        let mut hash = TensorHash::new(&spec.weight);
        let (mut bytes, mut scales) = (Vec::new(), vec![0.0; n]);
        if let Some((name, stored)) = self.named.stored_scales(&spec.weight) {
            scales.copy_from_slice(stored);
            let rows = Self::rows_of_part(spec);
            for row in (0..n).step_by(rows) {
                let count = rows.min(n - row);
                staging.ensure(count * k);
                let part = &mut staging[..count * k];
                if !self.named.tensors.read_bytes_part(name, row * k, part)? {
                    let problem =
                        Problem::Quantized { name: name.to_owned(), problem: "cannot be read by parts".into() };
                    return Err(ModelError::Tensors { place: "checkpoint".into(), problems: vec![problem] });
                }
                bytes.clear();
                bytes.extend(part.iter().map(|value| *value as i8));
                check_bytes(name, k, &bytes)
                    .map_err(|problem| ModelError::Tensors { place: "checkpoint".into(), problems: vec![problem] })?;
                hash.update_bytes(&bytes);
                matrix.fill(row, &bytes, &scales[row..row + count]);
            }
        } else {
            self.parts(spec, staging, &mut |row, part| {
                if row == 0 {
                    hash = TensorHash::new(&spec.weight);
                }
                let scales = &mut scales[row..row + part.len() / k];
                bytes.resize(part.len(), 0);
                quantize_weights(isa, part, k, &mut bytes, scales);
                hash.update_bytes(&bytes);
                matrix.fill(row, &bytes, scales);
            })?;
        }
        hash.update(&scales);
        Ok((matrix, hash.finish()))
    }

    /// A matrix of bfloat16; the hash is that of the values in the file.
    fn brain(&self, spec: &LinearSpec, staging: &mut Buffer) -> Result<(BrainMatrix, blake3::Hash), ModelError> {
        check_possible(self.arithmetic, self.store.isa())?;
        let mut matrix = BrainMatrix::reserve(self.store.isa(), spec.k, spec.n).expect("just checked");
        let mut hash = TensorHash::new(&spec.weight);
        self.parts(spec, staging, &mut |row, part| {
            if row == 0 {
                hash = TensorHash::new(&spec.weight);
            }
            hash.update(part);
            matrix.fill(row, part);
        })?;
        Ok((matrix, hash.finish()))
    }

    fn norm(&self, id: NormId) -> Result<Vec<blake3::Hash>, ModelError> {
        let spec = &self.plan.norms[id.0];
        let (mut gamma, mut beta) = (Buffer::zeroed(spec.width), Buffer::zeroed(spec.width));
        let hashes = vec![
            self.read(&format!("{}.weight", spec.name), vec![spec.width], &mut gamma)?,
            self.read(&format!("{}.bias", spec.name), vec![spec.width], &mut beta)?,
        ];
        self.store.set_norm(id, gamma, beta, spec.epsilon);
        Ok(hashes)
    }

    /// Positions that follow from the grid. Their hash is that of the own grid, as where they are stored.
    fn computed(&self, id: TableId, spec: &TableSpec, at: Positional) -> Result<Vec<blake3::Hash>, ModelError> {
        if at.image.positions != Positions::SinCos2d {
            let problems = vec![Problem::Missing { name: spec.name.clone(), shape: spec.shape() }];
            return Err(ModelError::Tensors { place: "checkpoint".into(), problems });
        }
        let hash = hashed(&spec.name, &sin_cos_2d(at.own.grid(), spec.width))?;
        let table = sin_cos_2d(at.image.grid(), spec.width);
        self.store.set_table(id, Buffer::padded(&table, table.len()));
        Ok(vec![hash])
    }

    fn table(&self, id: TableId, spec: &TableSpec) -> Result<Vec<blake3::Hash>, ModelError> {
        let positional = self.positional.filter(|positional| positional.table == id);
        if let (true, Some(positional)) = (self.named.computed(&spec.name), positional) {
            return self.computed(id, spec, positional);
        }
        let source = self.named.layout.source(&spec.name);
        let stored = self.named.tensors.get(source.names()[0]).map_or(spec.rows, |t| t.elements() / spec.width);
        let mut table = Buffer::zeroed(stored * spec.width);
        let hash = self.read(&spec.name, spec.shape(), &mut table)?;
        let Some(Positional { image, .. }) = positional.filter(|_| stored != spec.rows) else {
            self.store.set_table(id, table);
            return Ok(vec![hash]);
        };
        let moved = match image.positions {
            Positions::SinCos2d => Some(sin_cos_2d(image.grid(), spec.width)),
            Positions::Learned => resample_image(&table, (image.leading(), spec.width), image.grid()),
        };
        let moved = moved.ok_or_else(|| {
            let problem = format!("{stored} positions are not those of a square grid and its leading tokens");
            ModelError::config("checkpoint", &spec.name, problem)
        })?;
        let length = moved.len();
        self.store.set_table(id, Buffer::padded(&moved, length));
        Ok(vec![hash])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openvision_tensor::Role;

    /// Tensors whose values follow from their names, some of which give parts.
    struct Made {
        infos: Vec<TensorInfo>,
        parts: bool,
        broken: Option<usize>,
    }

    impl Made {
        fn value(&self, name: &str, index: usize) -> f32 {
            if self.broken == Some(index) && !name.ends_with("bias") {
                return f32::NEG_INFINITY;
            }
            // Third of three tensors that form one of ours: the values go on where the second ends.
            let order = ["q_proj", "k_proj", "v_proj"].iter().position(|part| name.contains(part)).unwrap_or(0);
            let length = self.get(name).map_or(0, TensorInfo::elements);
            ((order * length + index) as f32 * 0.618_034).fract() - 0.5
        }
    }

    impl Tensors for Made {
        fn tensors(&self) -> &[TensorInfo] {
            &self.infos
        }
        fn get(&self, name: &str) -> Option<&TensorInfo> {
            self.infos.iter().find(|info| info.name == name)
        }
        fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
            (0..out.len()).for_each(|i| out[i] = self.value(name, i));
            Ok(())
        }
        fn read_f32_part(&self, name: &str, start: usize, out: &mut [f32]) -> Result<bool, WeightsError> {
            (0..out.len()).for_each(|i| out[i] = self.value(name, start + i));
            Ok(self.parts)
        }
    }

    const WIDTH: usize = 1000;
    const NAME: &str = "visual.transformer.resblocks.0.attn.in_proj";

    fn load_one(
        layout: NameLayout,
        parts: bool,
        broken: Option<usize>,
    ) -> Result<(Vec<f32>, blake3::Hash), ModelError> {
        let mut plan = ParamPlan::default();
        let (weight, bias) = (format!("{NAME}_weight"), format!("{NAME}_bias"));
        let id = plan.linear(LinearSpec {
            weight: weight.clone(),
            bias: Some(bias.clone()),
            k: WIDTH,
            n: 3 * WIDTH,
            layout: Layout::OutIn,
            shape: None,
            role: Role::Block,
        });
        let (weight, bias) = (layout.source(&weight), layout.source(&bias));
        let info = |name: &str, columns: &[usize], count: usize| TensorInfo {
            name: name.to_owned(),
            dtype: DType::F32,
            shape: [&[3 * WIDTH / count], columns].concat(),
        };
        let count = weight.names().len();
        let mut infos: Vec<TensorInfo> = weight.names().iter().map(|name| info(name, &[WIDTH], count)).collect();
        infos.extend(bias.names().iter().map(|name| info(name, &[], count)));
        let made = Made { infos, parts, broken };
        let named = Named { tensors: &made, layout };
        let from = Source { named, isa: Isa::best(), arithmetic: Arithmetic::Float };
        let (store, hash) = load(from, &plan, None, &Pool::new(2))?;
        Ok((store.linear(id).float().weights.unpack(), hash))
    }

    #[test]
    fn parts_rows_and_wholes_give_the_same_matrix_and_fingerprint() {
        let (want, hash) = load_one(NameLayout::OpenClip, false, None).unwrap();
        assert!((0..want.len()).all(|i| want[i] == (i as f32 * 0.618_034).fract() - 0.5));
        for layout in [NameLayout::OpenClip, NameLayout::HuggingFace] {
            for parts in [false, true] {
                let (got, other) = load_one(layout, parts, None).unwrap();
                assert!(got == want && other == hash, "{} {parts}", layout.describe());
            }
        }
    }

    #[test]
    fn a_broken_value_is_named_with_its_place_in_the_whole() {
        for parts in [false, true] {
            let broken = 2 * WIDTH * WIDTH + 5;
            let error = load_one(NameLayout::OpenClip, parts, Some(broken)).unwrap_err();
            assert!(error.to_string().contains(&format!("{NAME}_weight at index {broken}")), "{error}");
        }
    }
}

//! Checkpoint tensors into a store: checked as a whole first, then read, hashed and packed on all threads.

use crate::config::{ImageConfig, Positions};
use crate::import::names::{NameLayout, TensorSource};
use crate::positions::{resample_image, sin_cos_2d};
use crate::{ModelError, fingerprint};
use openvision_io::weights::{Checkpoint, TensorInfo, WeightsError};
use openvision_kernels::pool::Pool;
use openvision_kernels::{Buffer, Isa};
use openvision_tensor::{CpuStore, LinearId, LinearParts, LinearSpec, NormId, ParamPlan, TableId, TableSpec, TensorSpec};
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
    /// Tokenise OpenVision's texts as the JAX training pipeline did.
    pub jax_texts: bool,
    /// Instruction set; the best where nothing is said.
    pub isa: Option<Isa>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { image: true, text: true, image_size: None, as_published: false, jax_texts: false, isa: None }
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
        let source = self.layout.source(&spec.name);
        let names = source.names();
        let mut expected = spec.shape.clone();
        if let TensorSource::Transposed(_) = source {
            expected.reverse();
        }
        if names.len() > 1 {
            expected[0] /= names.len();
        }
        names
            .iter()
            .filter_map(|name| match self.tensors.get(name) {
                None => Some(Problem::Missing { name: (*name).to_owned(), shape: expected.clone() }),
                Some(found) if fits(&found.shape, &expected, free_rows) => None,
                Some(found) => Some(Problem::Shape {
                    name: (*name).to_owned(),
                    expected: expected.clone(),
                    found: found.shape.clone(),
                }),
            })
            .collect()
    }

    /// Reads one tensor of ours in our layout; `out` has its length.
    fn read(&self, name: &str, out: &mut [f32]) -> Result<(), ModelError> {
        match self.layout.source(name) {
            TensorSource::Copy(name) => self.tensors.read_f32(&name, out)?,
            TensorSource::Rows(names) => {
                let part = out.len() / names.len();
                for (name, rows) in names.iter().zip(out.chunks_exact_mut(part)) {
                    self.tensors.read_f32(name, rows)?;
                }
            }
            TensorSource::Transposed(name) => {
                let rows = self.tensors.get(&name).map_or(1, |tensor| tensor.shape[0]).max(1);
                let columns = out.len() / rows;
                let mut stored = vec![0.0; out.len()];
                self.tensors.read_f32(&name, &mut stored)?;
                for (i, value) in stored.into_iter().enumerate() {
                    out[i % columns * rows + i / columns] = value;
                }
            }
        }
        Ok(())
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
    found == expected || (free_rows && found.len() == 2 && expected.len() == 2 && found[1] == expected[1] && found[0] > 1)
}

/// What a tower needs beyond its plan.
#[derive(Clone, Copy)]
pub(crate) struct Positional<'a> {
    /// The table's id.
    pub(crate) table: TableId,
    /// The tower's description.
    pub(crate) image: &'a ImageConfig,
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
    known.extend(scalars.iter().flat_map(|spec| {
        named.layout.source(&spec.name).names().into_iter().map(str::to_owned).collect::<Vec<_>>()
    }));
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

/// Loads a tower: every thread takes the largest parameter left, reads, hashes and packs it, and drops the source.
///
/// # Errors
/// The first tensor that cannot be read or holds a value that is no finite number.
pub(crate) fn load(
    named: Named,
    plan: &ParamPlan,
    positional: Option<Positional>,
    isa: Isa,
    pool: &Pool,
) -> Result<(CpuStore, blake3::Hash), ModelError> {
    let store = CpuStore::new(isa, plan);
    let mut units: Vec<(usize, Unit)> = Vec::new();
    units.extend(plan.linears.iter().enumerate().map(|(i, l)| (l.k * l.n, Unit::Linear(LinearId(i)))));
    units.extend(plan.norms.iter().enumerate().map(|(i, n)| (n.width, Unit::Norm(NormId(i)))));
    units.extend(plan.tables.iter().enumerate().map(|(i, t)| (t.rows * t.width, Unit::Table(TableId(i)))));
    units.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let next = AtomicUsize::new(0);
    let outcome: Mutex<Result<Vec<blake3::Hash>, ModelError>> = Mutex::new(Ok(Vec::new()));
    let loader = Loader { named, plan, positional, store: &store };
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

struct Loader<'a> {
    named: Named<'a>,
    plan: &'a ParamPlan,
    positional: Option<Positional<'a>>,
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

    fn read(&self, name: &str, out: &mut [f32]) -> Result<blake3::Hash, ModelError> {
        self.named.read(name, out)?;
        // Checked as a sum first: one pass that vectorises. NaN and infinity both make it non-finite; a sum that
        // overflows by itself is looked at value by value.
        if !out.iter().map(|v| v.abs()).sum::<f32>().is_finite()
            && let Some(index) = out.iter().position(|v| !v.is_finite())
        {
            let problems = vec![Problem::NotFinite { name: name.to_owned(), index }];
            return Err(ModelError::Tensors { place: "checkpoint".into(), problems });
        }
        Ok(fingerprint::tensor(name, out))
    }

    fn linear(&self, id: LinearId, spec: &LinearSpec, staging: &mut Buffer) -> Result<Vec<blake3::Hash>, ModelError> {
        staging.ensure(spec.k * spec.n);
        let weight = &mut staging[..spec.k * spec.n];
        let mut hashes = vec![self.read(&spec.weight, weight)?];
        let mut bias = vec![0.0; spec.n];
        if let Some(name) = &spec.bias {
            hashes.push(self.read(name, &mut bias)?);
        }
        let parts = LinearParts { weight, bias: spec.bias.is_some().then_some(&bias[..]) };
        self.store.set_linear(id, spec, parts);
        Ok(hashes)
    }

    fn norm(&self, id: NormId) -> Result<Vec<blake3::Hash>, ModelError> {
        let spec = &self.plan.norms[id.0];
        let (mut gamma, mut beta) = (Buffer::zeroed(spec.width), Buffer::zeroed(spec.width));
        let hashes = vec![
            self.read(&format!("{}.weight", spec.name), &mut gamma)?,
            self.read(&format!("{}.bias", spec.name), &mut beta)?,
        ];
        self.store.set_norm(id, gamma, beta, spec.epsilon);
        Ok(hashes)
    }

    fn table(&self, id: TableId, spec: &TableSpec) -> Result<Vec<blake3::Hash>, ModelError> {
        let positional = self.positional.filter(|positional| positional.table == id);
        let source = self.named.layout.source(&spec.name);
        let stored = self.named.tensors.get(source.names()[0]).map_or(spec.rows, |t| t.elements() / spec.width);
        let mut table = Buffer::zeroed(stored * spec.width);
        let hash = self.read(&spec.name, &mut table)?;
        let Some(Positional { image, .. }) = positional.filter(|_| stored != spec.rows) else {
            self.store.set_table(id, table);
            return Ok(vec![hash]);
        };
        let moved = match image.positions {
            Positions::SinCos2d => Some(sin_cos_2d(image.grid(), spec.width)),
            Positions::Learned => resample_image(&table, spec.width, image.grid()),
        };
        let moved = moved.ok_or_else(|| {
            let problem = format!("{stored} positions are not those of a square grid and a class token");
            ModelError::config("checkpoint", &spec.name, problem)
        })?;
        let length = moved.len();
        self.store.set_table(id, Buffer::padded(&moved, length));
        Ok(vec![hash])
    }
}

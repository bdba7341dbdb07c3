//! Checkpoint containers: safetensors (one file, or shards with an index), torch files by a restricted reader, `.npz`
//! trees, GGUF.
//! Knows names, types, shapes and bytes of tensors; which model they make is not its business.
//!
//! Files are read by positioned reads and never mapped. Everything a file declares is checked against the file or a
//! stated limit before memory is reserved for it, and every defect is an error of its own ([`WeightsError`]).

mod blocks;
mod dtype;
mod error;
mod folder;
mod gguf;
mod layout;
mod npz;
mod pickle;
mod pickle_input;
mod safetensors;
mod safetensors_write;
mod sharded;
mod source;
mod torch;
mod torch_tree;
mod zip;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use dtype::{DType, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, narrow_from_f32, widen_to_f32};
pub use error::{
    Foreign, GgufError, HeaderError, IndexError, NpyError, PickleError, TorchError, WeightsError, ZipError,
};
pub use folder::{NOT_WEIGHTS, PREFERRED};
pub use gguf::GgufValue;
pub use safetensors_write::{SafeTensorsWriter, TensorData, write_safetensors};

use layout::Layout;
use npz::Deflated;
use source::Source;
use zip::Directory;

/// Longest safetensors header and index, in bytes: the reference reader's limit.
pub const MAX_HEADER: usize = 100_000_000;
/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 8;
/// Most tensors of a checkpoint (and most entries of a safetensors file's metadata). The largest published ones have
/// about 100,000; the limit bounds what a file of the right length can make a reader remember.
pub const MAX_TENSORS: usize = 250_000;
/// Most shards of a checkpoint; each stays open while the checkpoint is.
pub const MAX_SHARDS: usize = 500;

/// Bytes that are converted at once in [`Checkpoint::read_f32`].
const CONVERT: usize = 64 << 10;

/// Name, type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// As in the file, after a `module.` before all names, or a tree's `params/`, was taken off. It may hold any character: escape it before
    /// printing, and never use it as a path.
    pub name: String,
    /// Type as stored.
    pub dtype: DType,
    /// Sizes, outermost first; empty for a scalar. At most [`MAX_RANK`].
    pub shape: Vec<usize>,
}

impl TensorInfo {
    /// Number of elements; that this and the bytes fit was checked when the file was opened.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the contiguous tensor.
    pub fn bytes(&self) -> usize {
        let (together, bytes) = self.dtype.block();
        self.elements() / together * bytes
    }
}

/// What kind of file a checkpoint came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Container {
    /// One `.safetensors` file.
    SafeTensors,
    /// safetensors shards and their index.
    ShardedSafeTensors,
    /// `torch.save` since 1.6: a zip archive.
    TorchZip,
    /// `torch.jit.save`, as OpenAI published CLIP: a zip archive with code, which is not read.
    TorchScript,
    /// `torch.save` before 1.6.
    TorchLegacy,
    /// Torch files and their index.
    ShardedTorch,
    /// numpy arrays in a zip archive, as JAX code saves trees.
    Npz,
    /// GGUF, as llama.cpp and its kin use it.
    Gguf,
}

impl Container {
    /// A name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Container::SafeTensors => "safetensors",
            Container::ShardedSafeTensors => "safetensors shards",
            Container::TorchZip => "torch zip archive",
            Container::TorchScript => "TorchScript archive",
            Container::TorchLegacy => "legacy torch file",
            Container::ShardedTorch => "torch shards",
            Container::Npz => "npz tree",
            Container::Gguf => "GGUF",
        }
    }
}

/// An opened checkpoint: names, types and shapes are known and checked, values are read on demand, by any number of
/// threads at once.
#[derive(Debug)]
pub struct Checkpoint {
    container: Container,
    files: Vec<PathBuf>,
    sources: Vec<Source>,
    tensors: Vec<TensorInfo>,
    /// Of each tensor, in the same order.
    locations: Vec<Location>,
    metadata: BTreeMap<String, String>,
    typed: BTreeMap<String, GgufValue>,
    ignored: Vec<String>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Location {
    source: usize,
    /// Byte of the first element, or of the deflate stream that holds them.
    offset: u64,
    layout: Layout,
    deflated: Option<Deflated>,
}

/// One file, read.
struct Part {
    container: Container,
    source: Source,
    tensors: Vec<(TensorInfo, Location)>,
    metadata: BTreeMap<String, String>,
    typed: BTreeMap<String, GgufValue>,
    ignored: Vec<String>,
}

/// What the first bytes of a file say it is. Suffixes are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    SafeTensors,
    Index,
    /// A torch file or a tree of arrays.
    Zip,
    TorchLegacy,
    BarePickle,
    Gguf,
}

impl Location {
    /// Whether the elements lie in the file in their own order.
    fn in_order(&self) -> bool {
        self.deflated.is_none() && matches!(self.layout, Layout::Contiguous { .. })
    }
}

/// Zeros for all bytes of a tensor.
fn allocate(info: &TensorInfo) -> Result<Vec<u8>, WeightsError> {
    let (mut out, bytes) = (Vec::new(), info.bytes());
    if out.try_reserve_exact(bytes).is_err() {
        return Err(WeightsError::OutOfMemory { tensor: Foreign::from(info.name.as_str()), bytes });
    }
    out.resize(bytes, 0);
    Ok(out)
}

impl Checkpoint {
    /// Opens a safetensors file, an index of shards, a torch file, an `.npz` tree, a GGUF file, or the preferred one of
    /// these in a folder.
    ///
    /// A torch file's state dict is found as open_clip finds it: the entry `state_dict` of a dict, else the dict; of a
    /// TorchScript archive the attributes. If all names begin with `module.`, that is taken off. A tree's model is found
    /// as big_vision finds it: under `params/` or `opt/target/`, else the tree.
    ///
    /// # Errors
    /// [`WeightsError`] says which file is wrong, how, and at which tensor.
    pub fn open(path: &Path) -> Result<Checkpoint, WeightsError> {
        let found;
        let path = if path.is_dir() {
            found = folder::find(path)?;
            &found
        } else {
            path
        };
        let source = Source::open(path)?;
        let content = Content::recognize(&source)?;
        if content != Content::Index {
            let part = Part::read(source, content)?;
            return Checkpoint::assemble(part.container, path, vec![part]);
        }
        let parts = sharded::read(&source)?;
        let torch = parts.first().is_some_and(|part| part.container != Container::SafeTensors);
        let container = if torch { Container::ShardedTorch } else { Container::ShardedSafeTensors };
        Checkpoint::assemble(container, path, parts)
    }

    /// Reads a file of one part from memory (tests, fuzzing, downloads).
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; an index is refused, it needs its folder.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Checkpoint, WeightsError> {
        let source = Source::from_bytes(bytes);
        let path = source.path().to_owned();
        match Content::recognize(&source)? {
            Content::Index => Err(WeightsError::Index { path, source: IndexError::InMemory }),
            content => {
                let part = Part::read(source, content)?;
                Checkpoint::assemble(part.container, &path, vec![part])
            }
        }
    }

    fn assemble(container: Container, path: &Path, parts: Vec<Part>) -> Result<Checkpoint, WeightsError> {
        let mut checkpoint = Checkpoint {
            container,
            files: Vec::new(),
            sources: Vec::new(),
            tensors: Vec::new(),
            locations: Vec::new(),
            metadata: BTreeMap::new(),
            typed: BTreeMap::new(),
            ignored: Vec::new(),
        };
        let mut all = Vec::new();
        for (number, part) in parts.into_iter().enumerate() {
            checkpoint.files.push(part.source.path().to_owned());
            checkpoint.sources.push(part.source);
            all.extend(part.tensors.into_iter().map(|(info, place)| (info, Location { source: number, ..place })));
            for (key, value) in part.metadata {
                checkpoint.metadata.entry(key).or_insert(value);
            }
            checkpoint.typed.extend(part.typed);
            checkpoint.ignored.extend(part.ignored);
        }
        if all.iter().all(|(info, _)| info.name.starts_with("module.")) {
            for (info, _) in &mut all {
                info.name.drain(.."module.".len());
            }
        }
        all.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        if let Some(pair) = all.windows(2).find(|pair| pair[0].0.name == pair[1].0.name) {
            let tensor = Foreign::from(pair[0].0.name.as_str());
            return Err(WeightsError::DuplicateTensor { path: path.to_owned(), tensor });
        }
        (checkpoint.tensors, checkpoint.locations) = all.into_iter().unzip();
        Ok(checkpoint)
    }

    /// The files that hold the tensors (of shards all, without the index).
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The kind of file.
    pub fn container(&self) -> Container {
        self.container
    }

    /// All tensors, sorted by name (by its bytes).
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.find(name).map(|at| &self.tensors[at])
    }

    /// safetensors: its `__metadata__`. Torch: the plain values beside the tensors (`epoch`, `name`) as text. GGUF: all
    /// values as text, arrays shortened.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The metadata of a GGUF file with its types; empty for other files.
    pub fn gguf_metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.typed
    }

    /// Entries of a torch file that are neither tensors of the state dict nor plain values (`optimizer`); of an archive
    /// of arrays what is not the model's.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The tensor's bytes: contiguous, row-major, little-endian, in the stored type.
    ///
    /// # Errors
    /// [`WeightsError::NoSuchTensor`], [`WeightsError::OutOfMemory`], or a read error.
    pub fn read_bytes(&self, name: &str) -> Result<Vec<u8>, WeightsError> {
        let (info, location) = self.look_up(name)?;
        let mut out = allocate(info)?;
        self.read_stored(info, location, &mut out)?;
        Ok(out)
    }

    /// As [`Checkpoint::read_bytes`], into a buffer of exactly [`TensorInfo::bytes`] bytes.
    ///
    /// # Errors
    /// [`WeightsError::NoSuchTensor`], [`WeightsError::WrongLength`], or a read error; `out` is then unspecified.
    pub fn read_bytes_into(&self, name: &str, out: &mut [u8]) -> Result<(), WeightsError> {
        let (info, location) = self.look_up(name)?;
        if out.len() != info.bytes() {
            let (together, bytes) = info.dtype.block();
            let given = out.len() / bytes * together;
            return Err(WeightsError::WrongLength { tensor: Foreign::from(name), elements: info.elements(), given });
        }
        self.read_stored(info, location, out)
    }

    /// All bytes of a tensor, row-major; `out` has their number.
    fn read_stored(&self, info: &TensorInfo, location: &Location, out: &mut [u8]) -> Result<(), WeightsError> {
        let source = &self.sources[location.source];
        let Some(deflated) = location.deflated else {
            return layout::read(source, location.offset, &location.layout, info.dtype, out);
        };
        let inflate = |out: &mut [u8]| {
            let array = || Foreign::from(info.name.as_str());
            let inflated = deflated.inflate(source, location.offset, out);
            inflated.map_err(|error| WeightsError::Npy { path: source.path().into(), array: array(), source: error })
        };
        if matches!(location.layout, Layout::Contiguous { .. }) {
            return inflate(out);
        }
        let mut all = allocate(info)?;
        inflate(&mut all)?;
        layout::read(&Source::from_bytes(all), 0, &location.layout, info.dtype, out)
    }

    /// The tensor as f32, row-major: halves exactly, f64 and integers to the nearest f32, booleans to 0 and 1, blocks
    /// dequantized. f32 is read straight into `out`; other types pass through a buffer of 64 KiB (through one of the
    /// tensor's stored size when it is not contiguous or deflated).
    ///
    /// # Errors
    /// [`WeightsError::NoSuchTensor`], [`WeightsError::WrongLength`] when `out` has not exactly the tensor's number of
    /// elements, or a read error; `out` is then unspecified.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
        let (info, location) = self.look_up(name)?;
        let elements = info.elements();
        if out.len() != elements {
            return Err(WeightsError::WrongLength { tensor: Foreign::from(name), elements, given: out.len() });
        }
        if location.in_order() {
            return self.read_contiguous(info, location, 0, out);
        }
        if info.dtype == DType::F32 {
            self.read_stored(info, location, bytemuck::cast_slice_mut(out))?;
            from_little_endian(out);
        } else {
            widen_to_f32(info.dtype, &self.read_bytes(name)?, out);
        }
        Ok(())
    }

    /// Elements `start..start + out.len()` of a tensor as f32, as [`Checkpoint::read_f32`] gives them, so that a large
    /// tensor can pass through a small buffer. `false`, with nothing read, where the tensor is deflated or not stored in
    /// its own order and has to be read as a whole.
    ///
    /// # Errors
    /// [`WeightsError::NoSuchTensor`], [`WeightsError::WrongLength`] when the tensor has no such elements, or a read
    /// error; `out` is then unspecified.
    pub fn read_f32_part(&self, name: &str, start: usize, out: &mut [f32]) -> Result<bool, WeightsError> {
        let (info, location) = self.look_up(name)?;
        let elements = info.elements();
        if start.checked_add(out.len()).is_none_or(|end| end > elements) {
            let given = start.saturating_add(out.len());
            return Err(WeightsError::WrongLength { tensor: Foreign::from(name), elements, given });
        }
        if !location.in_order() {
            return Ok(false);
        }
        self.read_contiguous(info, location, start, out)?;
        Ok(true)
    }

    /// Elements from `start` on of a tensor that lies in the file in its own order; the caller checked the range.
    fn read_contiguous(
        &self,
        info: &TensorInfo,
        location: &Location,
        start: usize,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let source = &self.sources[location.source];
        if out.is_empty() {
            return Ok(());
        }
        if info.dtype == DType::F32 {
            source.read_at(bytemuck::cast_slice_mut(out), location.offset + 4 * start as u64)?;
            from_little_endian(out);
            return Ok(());
        }
        let (together, width) = info.dtype.block();
        // u64 so that the bytes are aligned for every type.
        let mut buffer = [0u64; CONVERT / 8];
        let buffer: &mut [u8] = bytemuck::cast_slice_mut(&mut buffer);
        let mut done = 0;
        while done < out.len() {
            let (block, within) = ((start + done) / together, (start + done) % together);
            let rest = &mut out[done..];
            let blocks = (rest.len() / together).min(CONVERT / width);
            let bytes = &mut buffer[..blocks.max(1) * width];
            source.read_at(bytes, location.offset + (block * width) as u64)?;
            if within == 0 && blocks > 0 {
                widen_to_f32(info.dtype, bytes, &mut rest[..blocks * together]);
                done += blocks * together;
            } else {
                // A part that begins or ends inside a block.
                let mut whole = [0.0; blocks::LARGEST];
                widen_to_f32(info.dtype, &bytes[..width], &mut whole[..together]);
                let count = (together - within).min(rest.len());
                rest[..count].copy_from_slice(&whole[within..within + count]);
                done += count;
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.tensors.binary_search_by(|info| info.name.as_str().cmp(name)).ok()
    }

    fn look_up(&self, name: &str) -> Result<(&TensorInfo, &Location), WeightsError> {
        match self.find(name) {
            Some(at) => Ok((&self.tensors[at], &self.locations[at])),
            None => {
                let path = self.files.first().cloned().unwrap_or_default();
                Err(WeightsError::NoSuchTensor { path, tensor: Foreign::from(name) })
            }
        }
    }
}

impl Content {
    fn recognize(source: &Source) -> Result<Content, WeightsError> {
        let head = source.read_vec(0, source.len().min(16))?;
        let unrecognized = |hint| Err(WeightsError::Unrecognized { path: source.path().to_owned(), hint });
        let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
        // A safetensors file of 123 header bytes begins with '{' too, but then with zeros.
        let is_length = head.len() >= 8 && head[4..8] == [0; 4];
        Ok(match head.as_slice() {
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Content::Zip,
            [b'G', b'G', b'U', b'F', ..] => Content::Gguf,
            _ if head.starts_with(&torch::LEGACY_MAGIC) => Content::TorchLegacy,
            _ if is_length || head.get(8) == Some(&b'{') => Content::SafeTensors,
            _ if first == Some(&b'{') => Content::Index,
            [0x80, 0..=5, ..] => Content::BarePickle,
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => return unrecognized("it is one array; .npz holds named ones"),
            [b'<', ..] => return unrecognized("it is a web page; the download went wrong"),
            _ if head.starts_with(b"version https://") => {
                return unrecognized("it is a Git LFS pointer; fetch the file itself with git lfs pull");
            }
            _ if head.len() < 9 => Content::SafeTensors,
            _ => return unrecognized("its first bytes are those of no known format"),
        })
    }
}

impl Part {
    fn read(source: Source, content: Content) -> Result<Part, WeightsError> {
        match content {
            Content::SafeTensors => safetensors::read(source),
            Content::Zip => {
                let directory = Directory::read(&source)?;
                if npz::is_npz(&directory) {
                    npz::read(source, &directory)
                } else {
                    torch::read_zip(source, &directory)
                }
            }
            Content::Gguf => gguf::read(source),
            Content::TorchLegacy => torch::read_legacy(source),
            Content::BarePickle => Err(torch::refuse_bare_pickle(&source)),
            Content::Index => Err(WeightsError::Index { path: source.path().to_owned(), source: IndexError::InMemory }),
        }
    }
}

/// Values whose bytes came from a file, in the order of this machine.
fn from_little_endian(values: &mut [f32]) {
    if cfg!(target_endian = "big") {
        for value in values {
            *value = f32::from_bits(u32::from_le(value.to_bits()));
        }
    }
}

/// Number of elements, if it and the bytes fit into `isize`. Sizes of zero do not excuse the others from fitting.
fn element_count(shape: &[usize], dtype: DType) -> Option<usize> {
    let mut nonzero = shape.iter().filter(|size| **size != 0);
    let count = nonzero.try_fold(1usize, |count, size| count.checked_mul(*size))?;
    let (together, bytes) = dtype.block();
    let bytes = count.div_ceil(together).checked_mul(bytes)?;
    if isize::try_from(bytes).is_err() {
        return None;
    }
    Some(if shape.contains(&0) { 0 } else { count })
}

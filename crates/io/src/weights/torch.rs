//! The three files that `torch.save` and `torch.jit.save` have written over the years: zip archives, TorchScript
//! archives (a zip too), and the row of pickles and raw storages from before torch 1.6.

use std::collections::{BTreeMap, HashMap};

use super::dtype::DType;
use super::error::{Foreign, TorchError, WeightsError};
use super::layout::Layout;
use super::pickle::{Node, Pickle, Value};
use super::source::Source;
use super::torch_tree::{StateDict, StoredTensor};
use super::zip::Directory;
use super::{Container, Location, Part, TensorInfo};

/// The magic number 0x1950a86a20f9469cfc6c as the pickle that opens a legacy file.
pub(super) const LEGACY_MAGIC: [u8; 15] =
    [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// Reads a zip archive. Layout: one root folder with `data.pkl` and `data/KEY`, each stored plain.
pub(super) fn read_zip(source: Source, directory: &Directory) -> Result<Part, WeightsError> {
    let wrap = |error| WeightsError::Torch { path: source.path().to_owned(), source: error };
    let root = find_root(directory).map_err(wrap)?;
    let member_named = |name: &str| -> Option<(Vec<u8>, super::zip::Member)> {
        let name = [root.as_slice(), name.as_bytes()].concat();
        directory.get(&name).map(|member| (name, member))
    };
    if let Some((name, member)) = member_named("byteorder") {
        let offset = directory.data_offset(&source, &name, member)?;
        if source.read_vec(offset, member.size.min(16))? != b"little" {
            return Err(wrap(TorchError::BigEndian));
        }
    }
    let (name, member) = member_named("data.pkl").ok_or_else(|| wrap(TorchError::NoPickle))?;
    let start = directory.data_offset(&source, &name, member)?;
    let pickle = Pickle::read(&source, start, start + member.size)?;
    let found = StateDict::find(&pickle).map_err(wrap)?;
    let container = if found.is_script || member_named("constants.pkl").is_some() {
        Container::TorchScript
    } else {
        Container::TorchZip
    };

    let mut places: HashMap<String, (u64, u64)> = HashMap::new();
    let mut tensors = Vec::with_capacity(found.tensors.len());
    for tensor in &found.tensors {
        let (at, size) = match places.get(&tensor.key) {
            Some(place) => *place,
            None => {
                let missing = || wrap(TorchError::NoStorage { tensor: tensor.foreign(), key: tensor.foreign_key() });
                let (name, member) = member_named(&format!("data/{}", tensor.key)).ok_or_else(missing)?;
                let place = (directory.data_offset(&source, &name, member)?, member.size);
                places.insert(tensor.key.clone(), place);
                place
            }
        };
        tensors.push(tensor.place(at, size).map_err(wrap)?);
    }
    Ok(part(source, container, tensors, found))
}

/// The root folder, with its slash: the part before the only `data.pkl` one level down (or at the top).
fn find_root(directory: &Directory) -> Result<Vec<u8>, TorchError> {
    let mut root: Option<Vec<u8>> = None;
    for name in directory.names() {
        let Some(prefix) = name.strip_suffix(b"data.pkl") else { continue };
        let slashes = prefix.iter().filter(|byte| **byte == b'/').count();
        if slashes > 1 || (!prefix.is_empty() && !prefix.ends_with(b"/")) {
            continue;
        }
        if let Some(first) = root {
            let text = |name: &[u8]| Foreign::from(String::from_utf8_lossy(name).as_ref());
            return Err(TorchError::TwoPickles { first: text(&first), second: text(prefix) });
        }
        root = Some(prefix.to_vec());
    }
    root.ok_or(TorchError::NoPickle)
}

/// Reads a legacy file: pickles of magic, protocol, system, object and storage keys; then for each key in that order
/// an i64 number of elements and the elements.
pub(super) fn read_legacy(source: Source) -> Result<Part, WeightsError> {
    let wrap = |error| WeightsError::Torch { path: source.path().to_owned(), source: error };
    let end = source.len();
    let protocol = Pickle::read(&source, LEGACY_MAGIC.len() as u64, end)?;
    match protocol.top {
        Value::Int(1001) => {}
        Value::Int(found) => return Err(wrap(TorchError::LegacyProtocol { found })),
        _ => return Err(wrap(TorchError::LegacyShape { what: "its protocol number" })),
    }
    let system = Pickle::read(&source, protocol.end, end)?;
    check_system(&system).map_err(wrap)?;
    let object = Pickle::read(&source, system.end, end)?;
    let found = StateDict::find(&object).map_err(wrap)?;
    let keys = Pickle::read(&source, object.end, end)?;
    let places = legacy_storages(&source, &object, &keys)?;
    let mut tensors = Vec::with_capacity(found.tensors.len());
    for tensor in &found.tensors {
        let missing = || wrap(TorchError::NoStorage { tensor: tensor.foreign(), key: tensor.foreign_key() });
        let (at, size) = *places.get(tensor.key.as_bytes()).ok_or_else(missing)?;
        tensors.push(tensor.place(at, size).map_err(wrap)?);
    }
    Ok(part(source, Container::TorchLegacy, tensors, found))
}

/// The system record must say little-endian.
fn check_system(system: &Pickle) -> Result<(), TorchError> {
    let Some(Node::Dict(pairs)) = system.node(system.top) else {
        return Err(TorchError::LegacyShape { what: "its system record" });
    };
    let endian = pairs.iter().find(|(key, _)| system.text(*key) == Some("little_endian"));
    match endian {
        Some((_, Value::Bool(false))) => Err(TorchError::BigEndian),
        _ => Ok(()),
    }
}

/// Offset and size in bytes of each storage, by key.
fn legacy_storages(
    source: &Source,
    object: &Pickle,
    keys: &Pickle,
) -> Result<HashMap<Vec<u8>, (u64, u64)>, WeightsError> {
    let wrap = |error| WeightsError::Torch { path: source.path().to_owned(), source: error };
    let mut declared: HashMap<&[u8], (DType, i64)> = HashMap::new();
    for node in &object.nodes {
        if let Node::Storage(storage) = node {
            declared.insert(storage.key.of(&object.bytes), (storage.dtype, storage.elements));
        }
    }
    let Some(Node::List(list)) = keys.node(keys.top) else {
        return Err(wrap(TorchError::LegacyShape { what: "its list of storages" }));
    };
    let mut places = HashMap::new();
    let mut position = keys.end;
    for key in list {
        let Value::Text(span) = *key else {
            return Err(wrap(TorchError::LegacyShape { what: "its list of storages" }));
        };
        let key = span.of(&keys.bytes);
        let foreign = || Foreign::from(String::from_utf8_lossy(&key[..key.len().min(200)]).as_ref());
        let unknown = || wrap(TorchError::LegacyUnknownStorage { key: foreign() });
        let (dtype, elements) = *declared.get(key).ok_or_else(unknown)?;
        let mut count = [0; 8];
        source.read_at(&mut count, position)?;
        let (count, elements) = (u64::from_le_bytes(count), u64::try_from(elements).map_err(|_| unknown())?);
        if count != elements {
            return Err(wrap(TorchError::LegacyCount { key: foreign(), declared: elements, found: count }));
        }
        let size = count.checked_mul(dtype.block().1 as u64).ok_or_else(unknown)?;
        let next = (position + 8).checked_add(size).filter(|next| *next <= source.len());
        let short = || WeightsError::ShortRead { path: source.path().to_owned(), offset: position, wanted: size };
        let next = next.ok_or_else(short)?;
        if places.insert(key.to_vec(), (position + 8, size)).is_some() {
            return Err(wrap(TorchError::LegacyShape { what: "its list of storages" }));
        }
        position = next;
    }
    Ok(places)
}

/// Why a bare pickle is refused: by the name of what it wants, if it wants something, else for lacking storages.
pub(super) fn refuse_bare_pickle(source: &Source) -> WeightsError {
    match Pickle::read(source, 0, source.len()) {
        Err(error) => error,
        Ok(_) => WeightsError::Torch { path: source.path().to_owned(), source: TorchError::BarePickle },
    }
}

fn part(source: Source, container: Container, tensors: Vec<(TensorInfo, Location)>, found: StateDict) -> Part {
    Part { container, source, tensors, metadata: found.scalars, typed: BTreeMap::new(), ignored: found.ignored }
}

impl StoredTensor {
    fn foreign(&self) -> Foreign {
        Foreign::from(self.name.as_str())
    }

    fn foreign_key(&self) -> Foreign {
        Foreign::from(self.key.as_str())
    }

    /// The tensor's place in a file where its storage has `size` bytes from `start` on.
    fn place(&self, start: u64, size: u64) -> Result<(TensorInfo, Location), TorchError> {
        let width = self.dtype.block().1 as u64;
        // As torch: the declared size must be the stored one, not just fit.
        let declared = self.elements.checked_mul(width);
        if declared != Some(size) {
            let declared = declared.unwrap_or(u64::MAX);
            let (tensor, key) = (self.foreign(), self.foreign_key());
            return Err(TorchError::StorageSize { tensor, key, declared, found: size });
        }
        let layout = Layout::new(&self.shape, &self.strides);
        // An empty tensor may have any offset; it is never read.
        let offset = if layout.elements() == 0 { start } else { start + self.offset * width };
        let info = TensorInfo { name: self.name.clone(), dtype: self.dtype, shape: self.shape.clone() };
        Ok((info, Location { source: 0, offset, layout, deflated: None }))
    }
}

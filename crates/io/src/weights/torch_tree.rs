//! From what a pickle built to named tensors: which dict is the state dict, names of TorchScript attributes, and the
//! check of each tensor against its storage.

use std::collections::BTreeMap;

use super::dtype::DType;
use super::error::{Foreign, TorchError};
use super::pickle::{Node, Pickle, Tensor, Value};

/// Longest tensor name in bytes.
pub(super) const MAX_NAME: usize = 4096;
/// Most bytes of all tensor names together: a pickle can use one long text for many names.
pub(super) const MAX_NAMES: usize = 64 << 20;
/// Most entries noted in [`StateDict::scalars`] and in [`StateDict::ignored`]; for information only.
const MAX_NOTES: usize = 1000;
/// Deepest nesting of TorchScript modules.
pub(super) const MAX_MODULE_DEPTH: usize = 100;
/// Most modules and attributes visited: shared modules are visited once for each path.
pub(super) const MAX_VISITS: usize = 4_000_000;
/// A tensor may repeat stored elements (stride 0, overlapping windows) up to this many. One with no more elements than
/// its storage is bounded by the file; 2^24 is far above any position table or mask that is stored so, and keeps the
/// copy that a reader makes under 128 MiB.
pub(super) const MAX_EXPANDED: u64 = 1 << 24;

/// A tensor of the state dict whose extent is inside its storage.
#[derive(Debug)]
pub(super) struct StoredTensor {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// In elements.
    pub(super) strides: Vec<usize>,
    /// Of the first element, in elements.
    pub(super) offset: u64,
    /// Key of the storage and its declared number of elements.
    pub(super) key: String,
    pub(super) elements: u64,
}

/// What a torch file offers.
#[derive(Debug, Default)]
pub(super) struct StateDict {
    pub(super) tensors: Vec<StoredTensor>,
    /// Plain values beside the tensors (`epoch`, `name`), as text.
    pub(super) scalars: BTreeMap<String, String>,
    /// Entries that are neither (`optimizer`).
    pub(super) ignored: Vec<String>,
    /// The top object is a TorchScript module.
    pub(super) is_script: bool,
    /// Bytes of the tensors' names.
    names: usize,
}

impl StateDict {
    /// open_clip's rules: a dict's `state_dict` if it has one, else the dict itself; of a TorchScript module the
    /// attributes. (open_clip 3.3, factory.py, `load_state_dict`.)
    pub(super) fn find(pickle: &Pickle) -> Result<StateDict, TorchError> {
        let mut found = StateDict::default();
        match pickle.node(pickle.top) {
            Some(Node::Dict(pairs)) => {
                let inner = pairs.iter().find_map(|(key, value)| match (pickle.text(*key), pickle.node(*value)) {
                    (Some("state_dict"), Some(Node::Dict(inner))) => Some(inner),
                    _ => None,
                });
                match inner {
                    Some(inner) => {
                        found.add_dict(pickle, inner)?;
                        found.add_plain(pickle, pairs);
                        found.ignored.retain(|name| name != "state_dict");
                    }
                    None => found.add_dict(pickle, pairs)?,
                }
            }
            Some(Node::Object(attributes)) => {
                found.is_script = true;
                Walk { pickle, found: &mut found, visits: 0 }.object(attributes, "", 0)?;
            }
            _ => return Err(TorchError::NotAStateDict { found: describe(pickle, pickle.top) }),
        }
        if found.tensors.is_empty() {
            let mut names: Vec<&str> = found.ignored.iter().map(String::as_str).collect();
            names.extend(found.scalars.keys().map(String::as_str));
            let names: Vec<String> = names.iter().take(10).map(|name| format!("{name:?}")).collect();
            let list = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            return Err(TorchError::NoTensors { found: Foreign::from(list.as_str()) });
        }
        Ok(found)
    }

    fn add_dict(&mut self, pickle: &Pickle, pairs: &[(Value, Value)]) -> Result<(), TorchError> {
        for (key, value) in pairs {
            if let (Some(name), Some(Node::Tensor(tensor))) = (pickle.text(*key), pickle.node(*value)) {
                self.add_tensor(pickle, name, tensor)?;
            }
        }
        self.add_plain(pickle, pairs);
        Ok(())
    }

    fn add_tensor(&mut self, pickle: &Pickle, name: &str, tensor: &Tensor) -> Result<(), TorchError> {
        if name.len() > MAX_NAME {
            return Err(TorchError::NameTooLong { len: name.len() });
        }
        self.names += name.len();
        if self.tensors.len() >= super::MAX_TENSORS || self.names > MAX_NAMES {
            return Err(TorchError::TooManyTensors);
        }
        self.tensors.push(check(pickle, name, tensor)?);
        Ok(())
    }

    /// Notes what in a dict is not a tensor.
    fn add_plain(&mut self, pickle: &Pickle, pairs: &[(Value, Value)]) {
        for (key, value) in pairs {
            let Some(name) = pickle.text(*key) else { continue };
            if name.len() > MAX_NAME || self.scalars.len().max(self.ignored.len()) >= MAX_NOTES {
                continue;
            }
            match (value, pickle.node(*value)) {
                (_, Some(Node::Tensor(_))) => {}
                (Value::Bool(flag), _) => self.add_scalar(name, flag.to_string()),
                (Value::Int(number), _) => self.add_scalar(name, number.to_string()),
                (Value::Float(number), _) => self.add_scalar(name, number.to_string()),
                (Value::Text(span), _) if span.len() <= MAX_NAME => {
                    self.add_scalar(name, pickle.text(*value).unwrap_or_default().to_owned());
                }
                _ => self.ignored.push(name.to_owned()),
            }
        }
    }

    fn add_scalar(&mut self, name: &str, text: String) {
        self.scalars.insert(name.to_owned(), text);
    }
}

/// The walk through TorchScript objects; names are attribute paths, as `state_dict()` gives them.
struct Walk<'a> {
    pickle: &'a Pickle,
    found: &'a mut StateDict,
    visits: usize,
}

impl Walk<'_> {
    /// `depth` is checked, so the recursion is bounded.
    fn object(&mut self, attributes: &[(Value, Value)], prefix: &str, depth: usize) -> Result<(), TorchError> {
        if depth > MAX_MODULE_DEPTH {
            return Err(TorchError::TooDeep);
        }
        self.visits += attributes.len() + 1;
        if self.visits > MAX_VISITS {
            return Err(TorchError::TooManyModules);
        }
        for (key, value) in attributes {
            let Some(key) = self.pickle.text(*key) else { continue };
            let node = self.pickle.node(*value);
            if !matches!(node, Some(Node::Tensor(_) | Node::Object(_))) {
                continue;
            }
            let len = prefix.len() + 1 + key.len();
            if len > MAX_NAME {
                return Err(TorchError::NameTooLong { len });
            }
            let path = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
            match node {
                Some(Node::Tensor(tensor)) => self.found.add_tensor(self.pickle, &path, tensor)?,
                Some(Node::Object(inner)) => self.object(inner, &path, depth + 1)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Checks signs, sizes and the extent of a tensor against its storage's declared size.
fn check(pickle: &Pickle, name: &str, tensor: &Tensor) -> Result<StoredTensor, TorchError> {
    let foreign = || Foreign::from(name);
    let negative = || TorchError::Negative { tensor: foreign() };
    let overflow = || TorchError::ShapeOverflow { tensor: foreign() };
    let natural = |numbers: &[i64]| -> Result<Vec<usize>, TorchError> {
        numbers.iter().map(|n| usize::try_from(*n).map_err(|_| negative())).collect()
    };
    let (shape, strides) = (natural(&tensor.shape)?, natural(&tensor.strides)?);
    let offset = u64::try_from(tensor.offset).map_err(|_| negative())?;
    let elements = u64::try_from(tensor.storage.elements).map_err(|_| negative())?;
    let dtype = tensor.storage.dtype;
    let count = super::element_count(&shape, dtype).ok_or_else(overflow)? as u64;
    if count > 0 {
        let mut last = Some(offset);
        for (size, stride) in shape.iter().zip(&strides) {
            let reach = (*size as u64 - 1).checked_mul(*stride as u64);
            last = last.zip(reach).and_then(|(last, reach)| last.checked_add(reach));
        }
        if last.is_none_or(|last| last >= elements) {
            return Err(TorchError::OutsideStorage { tensor: foreign(), elements });
        }
        if count > elements && count > MAX_EXPANDED {
            return Err(TorchError::Expanded { tensor: foreign(), elements: count, stored: elements });
        }
    }
    let key = tensor.storage.key.of(&pickle.bytes);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if key.is_empty() || key.len() > 64 || !key.iter().all(plain) {
        let key = Foreign::from(String::from_utf8_lossy(&key[..key.len().min(200)]).as_ref());
        return Err(TorchError::BadStorageKey { tensor: foreign(), key });
    }
    let key = String::from_utf8_lossy(key).into_owned();
    Ok(StoredTensor { name: name.to_owned(), dtype, shape, strides, offset, key, elements })
}

fn describe(pickle: &Pickle, value: Value) -> &'static str {
    match (value, pickle.node(value)) {
        (_, Some(Node::List(_))) => "a list",
        (_, Some(Node::Tuple(_))) => "a tuple",
        (_, Some(Node::Tensor(_))) => "a single tensor",
        (_, Some(Node::Storage(_))) => "a bare storage",
        (Value::None, _) => "None",
        _ => "a plain value",
    }
}

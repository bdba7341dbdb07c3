//! The safetensors header: u64 length, JSON, then the tensors' bytes without gap or overlap.
//! Format: <https://github.com/huggingface/safetensors#format>.
//!
//! Why not the `safetensors` crate: it wants the whole file in memory or mapped, knows no rank limit, and lets a
//! header begin with a space; its rules for offsets are repeated here.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::dtype::DType;
use super::error::{Foreign, HeaderError, WeightsError};
use super::layout::Layout;
use super::source::Source;
use super::{Container, Location, MAX_HEADER, MAX_RANK, Part, TensorInfo};

/// Reads and checks the header; no tensor is read.
pub(super) fn read(source: Source) -> Result<Part, WeightsError> {
    let wrap = |error| WeightsError::SafeTensors { path: source.path().to_owned(), source: error };
    let text = read_header(&source)?;
    let data_start = 8 + text.len() as u64;
    let header = parse(&text).map_err(wrap)?;
    let tensors = place(&header.tensors, data_start, source.len() - data_start).map_err(wrap)?;
    Ok(Part {
        container: Container::SafeTensors,
        source,
        tensors,
        metadata: header.metadata,
        typed: BTreeMap::new(),
        ignored: Vec::new(),
    })
}

/// The header's bytes; the announced length is checked before anything is allocated.
fn read_header(source: &Source) -> Result<Vec<u8>, WeightsError> {
    let wrap = |error| WeightsError::SafeTensors { path: source.path().to_owned(), source: error };
    let Some(available) = source.len().checked_sub(8) else {
        return Err(wrap(HeaderError::NoLength { len: source.len() }));
    };
    let mut length = [0; 8];
    source.read_at(&mut length, 0)?;
    let len = u64::from_le_bytes(length);
    if len > MAX_HEADER as u64 {
        return Err(wrap(HeaderError::TooLarge { len }));
    }
    if len > available {
        return Err(wrap(HeaderError::Cut { len, available }));
    }
    source.read_vec(8, len)
}

fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HeaderError::NotUtf8)?;
    if !text.starts_with('{') {
        return Err(HeaderError::NoBrace);
    }
    serde_json::from_str(text).map_err(|error| HeaderError::Json { message: printable(&error) })
}

/// A JSON error as text that may be printed: it can quote the file.
pub(super) fn printable(error: &serde_json::Error) -> String {
    error.to_string().chars().take(300).flat_map(char::escape_debug).collect::<String>().replace("\\\"", "\"")
}

/// Checks types, sizes and that the tensors cover the data exactly; gives each its place in the file.
fn place(
    entries: &[(String, Entry)],
    data_start: u64,
    available: u64,
) -> Result<Vec<(TensorInfo, Location)>, HeaderError> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|index| (entries[*index].1.data_offsets, *index));
    let mut tensors = Vec::with_capacity(entries.len());
    let mut position = 0;
    for index in order {
        let (name, entry) = &entries[index];
        let tensor = || Foreign::from(name.as_str());
        let (begin, end) = entry.data_offsets;
        let dtype = DType::from_name(&entry.dtype).ok_or_else(|| HeaderError::UnknownDType {
            tensor: tensor(),
            dtype: Foreign::from(entry.dtype.as_str()),
        })?;
        let elements = super::element_count(&entry.shape.0, dtype);
        let elements = elements.ok_or_else(|| HeaderError::ShapeOverflow { tensor: tensor() })?;
        let given = end.checked_sub(begin).ok_or_else(|| HeaderError::Reversed { tensor: tensor(), begin, end })?;
        let needed = (elements * dtype.block().1) as u64;
        if given != needed {
            return Err(HeaderError::SizeMismatch { tensor: tensor(), needed, given });
        }
        if begin < position {
            return Err(HeaderError::Overlap { tensor: tensor(), begin, previous_end: position });
        }
        if end > available {
            return Err(HeaderError::BeyondEnd { tensor: tensor(), end, available });
        }
        if begin > position {
            return Err(HeaderError::Gap { tensor: tensor(), gap: begin - position });
        }
        position = end;
        let info = TensorInfo { name: name.clone(), dtype, shape: entry.shape.0.clone() };
        let layout = Layout::Contiguous { elements };
        tensors.push((info, Location { source: 0, offset: data_start + begin, layout, deflated: None }));
    }
    match available - position {
        0 => Ok(tensors),
        extra => Err(HeaderError::Trailing { extra }),
    }
}

struct Header {
    metadata: BTreeMap<String, String>,
    tensors: Vec<(String, Entry)>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// At most [`MAX_RANK`] sizes; a longer list is refused while it is read.
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;
        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_RANK} sizes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = items.next_element::<usize>()? {
                    if sizes.len() == MAX_RANK {
                        return Err(A::Error::invalid_length(MAX_RANK + 1, &self));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut metadata = None;
                let mut tensors: Vec<(String, Entry)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        let UniqueMap(texts) = map.next_value()?;
                        if metadata.replace(texts).is_some() {
                            return Err(A::Error::custom("__metadata__ is there twice"));
                        }
                        continue;
                    }
                    if tensors.len() == super::MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {} tensors", super::MAX_TENSORS)));
                    }
                    let entry = map.next_value();
                    let foreign = Foreign::from(name.as_str());
                    let entry = entry.map_err(|e| A::Error::custom(format!("tensor \"{foreign}\": {e}")))?;
                    tensors.push((name, entry));
                }
                Ok(Header { metadata: metadata.unwrap_or_default(), tensors })
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A JSON object of texts in which no key may be there twice.
pub(super) struct UniqueMap(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueVisitor;
        impl<'de> Visitor<'de> for UniqueVisitor {
            type Value = UniqueMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    let foreign = Foreign::from(key.as_str());
                    if texts.insert(key, value).is_some() {
                        return Err(A::Error::custom(format!("key \"{foreign}\" is there twice")));
                    }
                    if texts.len() > super::MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {} entries", super::MAX_TENSORS)));
                    }
                }
                Ok(UniqueMap(texts))
            }
        }
        deserializer.deserialize_map(UniqueVisitor)
    }
}

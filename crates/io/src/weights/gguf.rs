//! The GGUF container, versions 2 and 3: typed metadata, then a table of tensors, then their data.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::BTreeMap;
use std::fmt;

use super::dtype::DType;
use super::error::{Foreign, GgufError, WeightsError};
use super::layout::Layout;
use super::source::Source;
use super::{Container, Location, MAX_HEADER, MAX_TENSORS, Part, TensorInfo};

/// Most entries of metadata.
pub(super) const MAX_ENTRIES: u64 = 65_536;
/// Most elements of all arrays of the metadata; the largest vocabularies have half a million tokens and merges.
pub(super) const MAX_ELEMENTS: u64 = 4_000_000;
/// Most dimensions of a tensor.
pub(super) const MAX_DIMENSIONS: u32 = 4;
/// Where `general.alignment` is absent.
const ALIGNMENT: u64 = 32;
/// How much is read ahead.
const CHUNK: u64 = 64 << 10;

/// A value of the metadata. Numbers are widened to the largest type of their kind, which is exact.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// u8, u16, u32 or u64.
    Unsigned(u64),
    /// i8, i16, i32 or i64.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// UTF-8.
    Text(String),
    /// Unsigned numbers.
    UnsignedArray(Vec<u64>),
    /// Signed numbers.
    SignedArray(Vec<i64>),
    /// Floats.
    FloatArray(Vec<f64>),
    /// Flags.
    BoolArray(Vec<bool>),
    /// Texts: tokens, merges.
    TextArray(Vec<String>),
}

impl GgufValue {
    /// A number that is not negative, whatever its type.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            GgufValue::Unsigned(value) => Some(*value),
            GgufValue::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A float.
    pub fn as_f64(&self) -> Option<f64> {
        if let GgufValue::Float(value) = self { Some(*value) } else { None }
    }

    /// A flag.
    pub fn as_bool(&self) -> Option<bool> {
        if let GgufValue::Bool(value) = self { Some(*value) } else { None }
    }

    /// A text.
    pub fn as_text(&self) -> Option<&str> {
        if let GgufValue::Text(value) = self { Some(value) } else { None }
    }

    /// Texts.
    pub fn as_texts(&self) -> Option<&[String]> {
        if let GgufValue::TextArray(values) = self { Some(values) } else { None }
    }
}

/// For people: texts as they are, of an array the first four elements and their number.
impl fmt::Display for GgufValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GgufValue::Unsigned(value) => write!(f, "{value}"),
            GgufValue::Signed(value) => write!(f, "{value}"),
            GgufValue::Float(value) => f.write_str(&plain(*value)),
            GgufValue::Bool(value) => write!(f, "{value}"),
            GgufValue::Text(value) => f.write_str(value),
            GgufValue::UnsignedArray(values) => shortened(f, values, u64::to_string),
            GgufValue::SignedArray(values) => shortened(f, values, i64::to_string),
            GgufValue::FloatArray(values) => shortened(f, values, |value| plain(*value)),
            GgufValue::BoolArray(values) => shortened(f, values, bool::to_string),
            GgufValue::TextArray(values) => shortened(f, values, |value| format!("{value:?}")),
        }
    }
}

fn shortened<T>(f: &mut fmt::Formatter<'_>, values: &[T], text: impl Fn(&T) -> String) -> fmt::Result {
    let first: Vec<String> = values.iter().take(4).map(text).collect();
    let first = first.join(", ");
    if values.len() > 4 { write!(f, "[{first}, ...] ({} elements)", values.len()) } else { write!(f, "[{first}]") }
}

/// The shortest text of a number that may have been an f32.
fn plain(value: f64) -> String {
    let short = value as f32;
    if f64::from(short) == value { short.to_string() } else { value.to_string() }
}

/// Reads and checks everything before the data.
pub(super) fn read(source: Source) -> Result<Part, WeightsError> {
    let mut input = Input { source: &source, ahead: Vec::new(), start: 0, position: 0 };
    let version = u32::from_le_bytes(input.after_magic()?);
    if !(2..=3).contains(&version) {
        let swapped = version.swap_bytes();
        let big_endian = (1..=3).contains(&swapped);
        return Err(input.error(if big_endian { GgufError::BigEndian } else { GgufError::Version { version } }));
    }
    let (tensors, entries) = (input.u64()?, input.u64()?);
    if tensors > MAX_TENSORS as u64 {
        return Err(input.error(GgufError::TooManyTensors { count: tensors }));
    }
    if entries > MAX_ENTRIES {
        return Err(input.error(GgufError::TooManyEntries { count: entries }));
    }
    let metadata = input.metadata(entries)?;
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(GgufValue::Unsigned(value)) if value.is_power_of_two() => *value,
        Some(other) => {
            let found = Foreign::from(other.to_string().as_str());
            return Err(input.error(GgufError::Alignment { found }));
        }
    };
    // Nothing is reserved by the declared number: each tensor takes bytes of the file.
    let mut table = Vec::new();
    for _ in 0..tensors {
        table.push(input.tensor()?);
    }
    let data = input.position.checked_next_multiple_of(alignment);
    let data = data.ok_or_else(|| input.error(GgufError::Alignment { found: Foreign(alignment.to_string()) }))?;
    check_places(&table, &source, data, alignment)
        .map_err(|error| WeightsError::Gguf { path: source.path().to_owned(), source: error })?;
    let tensors = table
        .into_iter()
        .map(|(info, offset)| {
            let layout = Layout::Contiguous { elements: info.elements() };
            (info, Location { source: 0, offset: data + offset, layout, deflated: None })
        })
        .collect();
    let texts = metadata.iter().map(|(key, value)| (key.clone(), value.to_string())).collect();
    Ok(Part { container: Container::Gguf, source, tensors, metadata: texts, typed: metadata, ignored: Vec::new() })
}

/// Offsets are aligned, and no two tensors overlap or leave the file. Gaps are padding.
fn check_places(table: &[(TensorInfo, u64)], source: &Source, data: u64, alignment: u64) -> Result<(), GgufError> {
    let mut order: Vec<&(TensorInfo, u64)> = table.iter().collect();
    order.sort_by_key(|(_, offset)| *offset);
    let mut taken = 0;
    for (info, offset) in order {
        let tensor = || Foreign::from(info.name.as_str());
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Unaligned { tensor: tensor(), offset: *offset, alignment });
        }
        if *offset < taken {
            return Err(GgufError::Overlap { tensor: tensor(), offset: *offset, previous_end: taken });
        }
        let end = offset.checked_add(info.bytes() as u64);
        let inside = end.and_then(|end| end.checked_add(data)).is_some_and(|end| end <= source.len());
        match end.filter(|_| inside) {
            Some(end) => taken = end,
            None => {
                let available = source.len().saturating_sub(data);
                return Err(GgufError::BeyondEnd {
                    tensor: tensor(),
                    offset: *offset,
                    bytes: info.bytes() as u64,
                    available,
                });
            }
        }
    }
    Ok(())
}

/// The type of a GGUF type number that is read.
fn dtype(number: u32) -> Option<DType> {
    Some(match number {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        3 => DType::Q4_1,
        6 => DType::Q5_0,
        7 => DType::Q5_1,
        8 => DType::Q8_0,
        9 => DType::Q8_1,
        10 => DType::Q2K,
        11 => DType::Q3K,
        12 => DType::Q4K,
        13 => DType::Q5K,
        14 => DType::Q6K,
        15 => DType::Q8K,
        24 => DType::I8,
        25 => DType::I16,
        26 => DType::I32,
        27 => DType::I64,
        28 => DType::F64,
        30 => DType::BF16,
        _ => return None,
    })
}

/// The bytes before the data, read forwards in chunks: nothing says beforehand where they end.
struct Input<'a> {
    source: &'a Source,
    ahead: Vec<u8>,
    /// Offset of the first byte of `ahead`.
    start: u64,
    position: u64,
}

impl Input<'_> {
    fn error(&self, source: GgufError) -> WeightsError {
        WeightsError::Gguf { path: self.source.path().to_owned(), source }
    }

    /// The next `len` bytes. A length beyond the end is an error before anything is allocated.
    fn take(&mut self, len: u64) -> Result<&[u8], WeightsError> {
        let end = self.position.checked_add(len).filter(|end| *end <= self.source.len());
        let end = end.ok_or_else(|| self.error(GgufError::Cut { offset: self.position, wanted: len }))?;
        if end > MAX_HEADER as u64 {
            return Err(self.error(GgufError::TooLong));
        }
        if self.position < self.start || end > self.start + self.ahead.len() as u64 {
            let wanted = len.max(CHUNK).min(self.source.len() - self.position);
            self.ahead = self.source.read_vec(self.position, wanted)?;
            self.start = self.position;
        }
        let first = (self.position - self.start) as usize;
        self.position = end;
        Ok(&self.ahead[first..first + len as usize])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    fn after_magic(&mut self) -> Result<[u8; 4], WeightsError> {
        match self.array::<4>()? {
            [b'G', b'G', b'U', b'F'] => self.array(),
            _ => Err(self.error(GgufError::Magic)),
        }
    }

    fn u32(&mut self) -> Result<u32, WeightsError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, WeightsError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, WeightsError> {
        let len = self.u64()?;
        let offset = self.position;
        let text = std::str::from_utf8(self.take(len)?).map(str::to_owned);
        text.map_err(|_| self.error(GgufError::NotUtf8 { offset }))
    }

    fn metadata(&mut self, entries: u64) -> Result<BTreeMap<String, GgufValue>, WeightsError> {
        let mut metadata = BTreeMap::new();
        let mut elements_left = MAX_ELEMENTS;
        for _ in 0..entries {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = self.value(kind, &mut elements_left)?;
            let name = Foreign::from(key.as_str());
            if metadata.insert(key, value).is_some() {
                return Err(self.error(GgufError::DuplicateKey { key: name }));
            }
        }
        Ok(metadata)
    }

    fn value(&mut self, kind: u32, elements_left: &mut u64) -> Result<GgufValue, WeightsError> {
        Ok(match kind {
            0 | 2 | 4 | 10 => GgufValue::Unsigned(self.unsigned(kind)?),
            1 | 3 | 5 | 11 => GgufValue::Signed(self.signed(kind)?),
            6 | 12 => GgufValue::Float(self.float(kind)?),
            7 => GgufValue::Bool(self.flag()?),
            8 => GgufValue::Text(self.text()?),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                *elements_left =
                    elements_left.checked_sub(count).ok_or_else(|| self.error(GgufError::TooManyElements { count }))?;
                match kind {
                    0 | 2 | 4 | 10 => GgufValue::UnsignedArray(self.many(count, |input| input.unsigned(kind))?),
                    1 | 3 | 5 | 11 => GgufValue::SignedArray(self.many(count, |input| input.signed(kind))?),
                    6 | 12 => GgufValue::FloatArray(self.many(count, |input| input.float(kind))?),
                    7 => GgufValue::BoolArray(self.many(count, Self::flag)?),
                    8 => GgufValue::TextArray(self.many(count, Self::text)?),
                    9 => return Err(self.error(GgufError::NestedArray)),
                    _ => return Err(self.error(GgufError::ValueType { kind })),
                }
            }
            _ => return Err(self.error(GgufError::ValueType { kind })),
        })
    }

    /// An array's elements; the vector grows with what the file really holds.
    fn many<T>(
        &mut self,
        count: u64,
        mut one: impl FnMut(&mut Self) -> Result<T, WeightsError>,
    ) -> Result<Vec<T>, WeightsError> {
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(one(self)?);
        }
        Ok(values)
    }

    fn unsigned(&mut self, kind: u32) -> Result<u64, WeightsError> {
        Ok(match kind {
            0 => u64::from(self.array::<1>()?[0]),
            2 => u64::from(u16::from_le_bytes(self.array()?)),
            4 => u64::from(self.u32()?),
            _ => self.u64()?,
        })
    }

    fn signed(&mut self, kind: u32) -> Result<i64, WeightsError> {
        Ok(match kind {
            1 => i64::from(i8::from_le_bytes(self.array()?)),
            3 => i64::from(i16::from_le_bytes(self.array()?)),
            5 => i64::from(i32::from_le_bytes(self.array()?)),
            _ => i64::from_le_bytes(self.array()?),
        })
    }

    fn float(&mut self, kind: u32) -> Result<f64, WeightsError> {
        Ok(match kind {
            6 => f64::from(f32::from_le_bytes(self.array()?)),
            _ => f64::from_le_bytes(self.array()?),
        })
    }

    fn flag(&mut self) -> Result<bool, WeightsError> {
        Ok(self.array::<1>()?[0] != 0)
    }

    /// One entry of the table: the tensor and its offset in the data.
    fn tensor(&mut self) -> Result<(TensorInfo, u64), WeightsError> {
        let name = self.text()?;
        let tensor = || Foreign::from(name.as_str());
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(self.error(GgufError::TooManyDimensions { tensor: tensor(), dimensions }));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = usize::try_from(self.u64()?);
            shape.push(size.map_err(|_| self.error(GgufError::ShapeOverflow { tensor: tensor() }))?);
        }
        let number = self.u32()?;
        let dtype = dtype(number).ok_or_else(|| self.error(GgufError::TensorType { tensor: tensor(), number }))?;
        // In the file the fastest axis comes first.
        let row = shape.first().copied().unwrap_or(1);
        shape.reverse();
        let (block, _) = dtype.block();
        if !row.is_multiple_of(block) {
            return Err(self.error(GgufError::RowNotWhole { tensor: tensor(), dtype: dtype.name(), row, block }));
        }
        if super::element_count(&shape, dtype).is_none() {
            return Err(self.error(GgufError::ShapeOverflow { tensor: tensor() }));
        }
        let offset = self.u64()?;
        Ok((TensorInfo { name, dtype, shape }, offset))
    }
}

//! Writes safetensors files of any size: the header comes first, from the list of tensors, then each tensor as it is
//! ready, in any order. The file appears under its name only when it is whole.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use super::dtype::DType;
use super::error::{Foreign, WeightsError};
use super::{MAX_HEADER, MAX_RANK, TensorInfo};
use crate::atomic::AtomicFile;

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct TensorData<'a> {
    /// Name; unique in the file.
    pub name: &'a str,
    /// Type of `bytes`.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Contiguous, row-major, little-endian.
    pub bytes: Cow<'a, [u8]>,
}

/// A safetensors file being written. Dropping it unfinished leaves nothing.
#[derive(Debug)]
pub struct SafeTensorsWriter {
    file: AtomicFile,
    /// By name: place in the file, and whether it was written.
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    offset: u64,
    bytes: usize,
    written: bool,
}

impl SafeTensorsWriter {
    /// Writes the header for `tensors` to a temporary file beside `path`. In the data, wider types come first and names
    /// are sorted within a type, as the reference writer does, so that every tensor is aligned.
    ///
    /// # Errors
    /// [`WeightsError::BadTensorToWrite`] for a name twice, a reserved name, a block type, more than 8 dimensions or a shape that
    /// overflows; [`WeightsError::HeaderTooLargeToWrite`]; [`WeightsError::Write`].
    pub fn create(
        path: &Path,
        metadata: &BTreeMap<String, String>,
        tensors: &[TensorInfo],
    ) -> Result<SafeTensorsWriter, WeightsError> {
        let mut order: Vec<&TensorInfo> = tensors.iter().collect();
        order.sort_by(|a, b| (rank(a.dtype), &a.name).cmp(&(rank(b.dtype), &b.name)));
        let mut places = BTreeMap::new();
        let mut end = 0u64;
        for info in &order {
            let bad = |why| WeightsError::BadTensorToWrite { tensor: Foreign::from(info.name.as_str()), why };
            if info.name == "__metadata__" {
                return Err(bad("the name is reserved"));
            }
            if !info.dtype.is_plain() {
                return Err(bad("safetensors has no block types"));
            }
            if info.shape.len() > MAX_RANK {
                return Err(bad("more than 8 dimensions"));
            }
            let elements = super::element_count(&info.shape, info.dtype).ok_or_else(|| bad("the shape overflows"))?;
            let bytes = elements * info.dtype.block().1;
            let place = Place { offset: end, bytes, written: bytes == 0 };
            if places.insert(info.name.clone(), place).is_some() {
                return Err(bad("the name is there twice"));
            }
            end = end.checked_add(bytes as u64).ok_or_else(|| bad("the file would be too large"))?;
        }
        let header = header(metadata, &order, &places);
        if header.len() > MAX_HEADER {
            return Err(WeightsError::HeaderTooLargeToWrite { bytes: header.len() });
        }
        let start = 8 + header.len() as u64;
        places.values_mut().for_each(|place| place.offset += start);
        let mut file = AtomicFile::create(path)?;
        file.write_with(|file| {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)
        })?;
        Ok(SafeTensorsWriter { file, places })
    }

    /// Writes one announced tensor; the order does not matter.
    ///
    /// # Errors
    /// [`WeightsError::BadTensorToWrite`] when the name was not announced, was written before, or `bytes` has not its
    /// size; [`WeightsError::Write`], a full disk among them.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), WeightsError> {
        let bad = |why| WeightsError::BadTensorToWrite { tensor: Foreign::from(name), why };
        let place = self.places.get_mut(name).ok_or_else(|| bad("it was not announced"))?;
        if place.written && place.bytes > 0 {
            return Err(bad("it was written before"));
        }
        if bytes.len() != place.bytes {
            return Err(bad("its bytes are not as many as its shape and type need"));
        }
        let offset = place.offset;
        self.file.write_with(|file| {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)
        })?;
        place.written = true;
        Ok(())
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// [`WeightsError::NotWritten`] names a tensor that is missing; [`WeightsError::Write`].
    pub fn finish(self) -> Result<(), WeightsError> {
        if let Some((name, _)) = self.places.iter().find(|(_, place)| !place.written) {
            return Err(WeightsError::NotWritten { tensor: Foreign::from(name.as_str()) });
        }
        Ok(self.file.commit()?)
    }
}

/// Place of a type in the reference writer's order (safetensors 0.8, `Dtype` backwards): by falling alignment.
fn rank(dtype: DType) -> usize {
    use DType::{BF16, Bool, F16, F32, F64, I8, I16, I32, I64, U8};
    [I64, F64, F32, I32, BF16, F16, I16, I8, U8, Bool].iter().position(|other| *other == dtype).unwrap_or_default()
}

/// Writes tensors that are in memory already. For a large model use [`SafeTensorsWriter`].
///
/// # Errors
/// As [`SafeTensorsWriter`].
pub fn write_safetensors(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[TensorData<'_>],
) -> Result<(), WeightsError> {
    let info = |tensor: &TensorData| TensorInfo {
        name: tensor.name.to_owned(),
        dtype: tensor.dtype,
        shape: tensor.shape.to_vec(),
    };
    let infos: Vec<TensorInfo> = tensors.iter().map(info).collect();
    let mut writer = SafeTensorsWriter::create(path, metadata, &infos)?;
    for tensor in tensors {
        writer.write(tensor.name, &tensor.bytes)?;
    }
    writer.finish()
}

/// The JSON header, padded with spaces to a multiple of 8. Byte for byte what the reference writer gives, so equal
/// tensors make equal files.
fn header(metadata: &BTreeMap<String, String>, order: &[&TensorInfo], places: &BTreeMap<String, Place>) -> Vec<u8> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut entries = Vec::with_capacity(order.len() + 1);
    if !metadata.is_empty() {
        let pairs: Vec<String> = metadata.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
        entries.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
    }
    for info in order {
        let (begin, bytes) = places.get(&info.name).map_or((0, 0), |place| (place.offset, place.bytes));
        let shape: Vec<String> = info.shape.iter().map(usize::to_string).collect();
        entries.push(format!(
            "{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
            quoted(&info.name),
            info.dtype.name(),
            shape.join(","),
            begin,
            begin + bytes as u64,
        ));
    }
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

//! WebDataset shards: the entries of a tar archive that share a key are one sample. Reading and writing.
//!
//! The key is the path up to the first dot of the file name, the field's extension is what follows: `a/0001.seg.png` is
//! the field `seg.png` of `a/0001`. A sample's entries stand together; this is how the `webdataset` package reads too.

use super::tar::Tar;
use crate::atomic::{AtomicFile, WriteError};
use std::io::Write;
use std::path::{Path, PathBuf};

const BLOCK: usize = 512;

/// Archives end on a multiple of this, as tar and Python's tarfile write them.
const RECORD: u64 = 20 * BLOCK as u64;

/// Longest field: what eleven octal digits hold.
const LONGEST_FIELD: u64 = 0o77_777_777_777;

/// The entries of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Path up to the first dot of the file name.
    pub key: String,
    /// In the order of the archive.
    pub fields: Vec<Field>,
}

/// One entry of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What follows the first dot of the file name, in lower case.
    pub extension: String,
    /// Index for [`Tar::read`].
    pub entry: usize,
    /// Bytes.
    pub length: u64,
}

impl Sample {
    /// The field of an extension.
    pub fn field(&self, extension: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.extension == extension)
    }
}

/// Key and extension of a name; hidden files (macOS leaves `._NAME` in archives) and names without a dot have none.
fn split(name: &str) -> Option<(&str, &str)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[file..].find('.').filter(|dot| *dot > 0)?;
    let (key, extension) = (&name[..file + dot], &name[file + dot + 1..]);
    (!extension.is_empty()).then_some((key, extension))
}

impl Tar {
    /// The samples of a shard. An extension that comes twice begins a new sample.
    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let mut sample: Option<Sample> = None;
            while next < self.len() {
                let entry = self.entry(next);
                if let Some((key, extension)) = split(&entry.name) {
                    let extension = extension.to_lowercase();
                    let sample = sample.get_or_insert_with(|| Sample { key: key.into(), fields: Vec::new() });
                    if sample.key != key || sample.field(&extension).is_some() {
                        break;
                    }
                    sample.fields.push(Field { extension, entry: next, length: entry.length });
                }
                next += 1;
            }
            sample
        })
    }
}

/// Why a shard could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The file.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A sample that could not be read back as what it is.
    #[error("{}: sample '{key}', field '{extension}': {what}", path.display())]
    Sample {
        /// The shard.
        path: PathBuf,
        /// The sample's key.
        key: String,
        /// The field.
        extension: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// Writes a shard: whole under its name, or not at all. The same samples give the same bytes.
#[derive(Debug)]
pub struct ShardWriter {
    file: AtomicFile,
    length: u64,
}

impl ShardWriter {
    /// Begins a shard under a temporary name beside `path`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> Result<Self, ShardError> {
        Ok(Self { file: AtomicFile::create(path)?, length: 0 })
    }

    /// Adds the fields of a sample, in this order, as `KEY.EXTENSION`.
    ///
    /// # Errors
    /// A name that would be read back as another sample, or the file cannot be written.
    pub fn write_sample(&mut self, key: &str, fields: &[(&str, &[u8])]) -> Result<(), ShardError> {
        let mut bytes = Vec::new();
        for (index, (extension, data)) in fields.iter().enumerate() {
            let bad = |what| {
                let (key, extension) = (key.to_owned(), (*extension).to_owned());
                Err(ShardError::Sample { path: self.file.target().into(), key, extension, what })
            };
            let name = format!("{key}.{extension}");
            if name.contains('\0') {
                return bad("a name cannot hold NUL");
            }
            if split(&name) != Some((key, *extension)) || extension.contains('/') {
                return bad("the file name of a key holds no dot, and neither part is empty");
            }
            let same = |(other, _): &(&str, &[u8])| other.to_lowercase() == extension.to_lowercase();
            if fields[..index].iter().any(same) {
                return bad("the sample has this field already");
            }
            if data.len() as u64 > LONGEST_FIELD {
                return bad("it is longer than 8 GiB");
            }
            append(&mut bytes, &name, data);
        }
        self.length += bytes.len() as u64;
        Ok(self.file.write_with(|file| file.write_all(&bytes))?)
    }

    /// Ends the archive, syncs it and gives it its name.
    ///
    /// # Errors
    /// The file cannot be written or moved; nothing is left then.
    pub fn finish(mut self) -> Result<(), ShardError> {
        let end = (self.length + 2 * BLOCK as u64).next_multiple_of(RECORD);
        let padding = vec![0; (end - self.length) as usize];
        self.file.write_with(|file| file.write_all(&padding))?;
        Ok(self.file.commit()?)
    }
}

/// An entry: a pax header where the name needs one, the header, the data and their padding.
fn append(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    let (prefix, short) = match split_for_ustar(name) {
        Some(parts) => parts,
        None => {
            let record = pax_record("path", name);
            out.extend_from_slice(&header("", "././@PaxHeader", b'x', record.len()));
            pad(out, record.as_bytes());
            // Readers that do not know pax see the end of the name.
            let from = (name.len() - 100..name.len()).find(|at| name.is_char_boundary(*at)).unwrap_or(name.len());
            ("", &name[from..])
        }
    };
    out.extend_from_slice(&header(prefix, short, b'0', data.len()));
    pad(out, data);
}

fn pad(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// A name in ustar's 100 bytes, or cut at a slash into a prefix of at most 155 and the rest.
fn split_for_ustar(name: &str) -> Option<(&str, &str)> {
    if name.len() <= 100 {
        return Some(("", name));
    }
    let fits = |slash: &usize| (1..=155).contains(slash) && name.len() - slash - 1 <= 100;
    let slash = name.match_indices('/').map(|(at, _)| at).find(fits)?;
    Some((&name[..slash], &name[slash + 1..]))
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn pax_record(key: &str, value: &str) -> String {
    let body = format!(" {key}={value}\n");
    let mut length = body.len();
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    format!("{length}{body}")
}

/// A ustar header with everything that could differ from run to run left out: time 0, owner 0, mode 0644.
fn header(prefix: &str, name: &str, kind: u8, size: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    put(345, prefix.as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

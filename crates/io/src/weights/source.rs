//! A checkpoint file that is read at any offset, with errors that name it.

use std::io;
use std::path::{Path, PathBuf};

use super::error::WeightsError;
use crate::positioned::Positioned;

/// The bytes of a checkpoint.
#[derive(Debug)]
pub(super) struct Source {
    bytes: Positioned,
    /// For messages; `<memory>` when there is no file.
    path: PathBuf,
}

impl Source {
    /// Opens a regular file. Anything else is refused before it is opened: a named pipe would block for ever.
    pub(super) fn open(path: &Path) -> Result<Source, WeightsError> {
        match Positioned::open(path) {
            Ok(bytes) => Ok(Source { bytes, path: path.to_owned() }),
            Err(source) if source.kind() == io::ErrorKind::InvalidInput => {
                Err(WeightsError::NotAFile { path: path.to_owned() })
            }
            Err(source) => Err(WeightsError::Open { path: path.to_owned(), source }),
        }
    }

    /// Bytes in memory.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Source {
        Source { bytes: Positioned::from_bytes(bytes), path: PathBuf::from("<memory>") }
    }

    /// Name for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Length when opened.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len()
    }

    /// Fills `out` from `offset` on, or fails: also where the file became shorter since it was opened.
    pub(super) fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), WeightsError> {
        self.bytes.read_at(out, offset).map_err(|source| self.failed(source, offset, out.len() as u64))
    }

    fn failed(&self, source: io::Error, offset: u64, wanted: u64) -> WeightsError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::UnexpectedEof => WeightsError::ShortRead { path, offset, wanted },
            _ => WeightsError::Read { path, offset, source },
        }
    }

    /// The part of the file from `offset` on as a stream.
    pub(super) fn reader(&self, offset: u64, len: u64) -> Reader<'_> {
        Reader { source: self, offset, end: offset.saturating_add(len).min(self.len()) }
    }

    /// A part of the file in a new vector. The part is checked against the length first, so a declared size
    /// never allocates more than the file has.
    pub(super) fn read_vec(&self, offset: u64, len: u64) -> Result<Vec<u8>, WeightsError> {
        self.bytes.read_vec(offset, len).map_err(|source| self.failed(source, offset, len))
    }
}

/// A part of a source, read forwards.
pub(super) struct Reader<'a> {
    source: &'a Source,
    offset: u64,
    end: u64,
}

impl std::io::Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let len = (out.len() as u64).min(self.end.saturating_sub(self.offset)) as usize;
        self.source.read_at(&mut out[..len], self.offset).map_err(std::io::Error::other)?;
        self.offset += len as u64;
        Ok(len)
    }
}

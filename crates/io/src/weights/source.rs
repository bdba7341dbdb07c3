//! Positioned reads from a file or from memory, by any number of threads at once. Foreign files are never mapped:
//! another program that truncates a mapped file kills the reader, a short read is only an error.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::error::WeightsError;

/// Bytes that can be read at any offset.
#[derive(Debug)]
pub(super) struct Source {
    bytes: Bytes,
    /// For messages; `<memory>` when there is no file.
    path: PathBuf,
    len: u64,
}

#[derive(Debug)]
enum Bytes {
    #[cfg(any(unix, windows))]
    File(File),
    #[cfg(not(any(unix, windows)))]
    File(std::sync::Mutex<File>),
    Memory(Vec<u8>),
}

impl Source {
    /// Opens a regular file. Anything else is refused before it is opened: a named pipe would block for ever.
    pub(super) fn open(path: &Path) -> Result<Source, WeightsError> {
        let io = |source| WeightsError::Open { path: path.to_owned(), source };
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(WeightsError::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        #[cfg(not(any(unix, windows)))]
        let file = std::sync::Mutex::new(file);
        Ok(Source { bytes: Bytes::File(file), path: path.to_owned(), len })
    }

    /// Bytes in memory.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Source {
        let len = bytes.len() as u64;
        Source { bytes: Bytes::Memory(bytes), path: PathBuf::from("<memory>"), len }
    }

    /// Name for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Length when opened.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` from `offset` on, or fails: also where the file became shorter since it was opened.
    pub(super) fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), WeightsError> {
        let result = match &self.bytes {
            Bytes::File(file) => read_file_at(file, out, offset),
            Bytes::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                match start.checked_add(out.len()).and_then(|end| bytes.get(start..end)) {
                    Some(part) => {
                        out.copy_from_slice(part);
                        Ok(())
                    }
                    None => Err(std::io::ErrorKind::UnexpectedEof.into()),
                }
            }
        };
        result.map_err(|source| {
            if source.kind() == std::io::ErrorKind::UnexpectedEof {
                WeightsError::ShortRead { path: self.path.clone(), offset, wanted: out.len() as u64 }
            } else {
                WeightsError::Read { path: self.path.clone(), offset, source }
            }
        })
    }

    /// The part of the file from `offset` on as a stream.
    pub(super) fn reader(&self, offset: u64, len: u64) -> Reader<'_> {
        Reader { source: self, offset, end: offset.saturating_add(len).min(self.len) }
    }

    /// A part of the file in a new vector. The part is checked against the length first, so a declared size
    /// never allocates more than the file has.
    pub(super) fn read_vec(&self, offset: u64, len: u64) -> Result<Vec<u8>, WeightsError> {
        let short = || WeightsError::ShortRead { path: self.path.clone(), offset, wanted: len };
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(short());
        }
        let mut out = vec![0; usize::try_from(len).map_err(|_| short())?];
        self.read_at(&mut out, offset)?;
        Ok(out)
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

#[cfg(unix)]
fn read_file_at(file: &File, out: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_file_at(file: &File, mut out: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                out = &mut out[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(not(any(unix, windows)))]
fn read_file_at(file: &std::sync::Mutex<File>, out: &mut [u8], offset: u64) -> std::io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(out)
}

//! Uncompressed tar archives: one scan of the headers gives names, offsets and lengths; entries are then read by
//! position, on any thread. Nothing is unpacked, so a name with `../` is only a label.
//!
//! ustar with prefix, GNU long names, pax `path` and `size`, base-256 sizes. Links, folders and devices are passed over;
//! sparse files are refused. An archive that is cut off or broken gives what is whole before the defect.

use crate::positioned::Positioned;
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

const BLOCK: u64 = 512;

/// Longest pax header or GNU long name; what is longer would only slow the scan down.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// It cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The archive.
        path: PathBuf,
        /// The system's message.
        source: io::Error,
    },
    /// An entry or a header cannot be read.
    #[error("{}: cannot read {wanted} bytes at byte {offset}: {source}", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How many.
        wanted: u64,
        /// The system's message.
        source: io::Error,
    },
    /// Compressed, or no archive at all.
    #[error("{}: {what}", path.display())]
    NotTar {
        /// The file.
        path: PathBuf,
        /// What it is and what to do.
        what: &'static str,
    },
    /// The archive ends inside an entry or before its end marker.
    #[error("{}: cut off at byte {offset}: {what}; the {whole} entries before it are used", path.display())]
    Truncated {
        /// The archive.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is missing.
        what: String,
        /// Entries that are whole.
        whole: usize,
    },
    /// A header that is none; what follows it cannot be found.
    #[error("{}: broken header at byte {offset}: {what}; the {whole} entries before it are used", path.display())]
    Header {
        /// The archive.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
        /// Entries that are whole.
        whole: usize,
    },
    /// A sparse file. The others are used.
    #[error("{}/{name}: is stored as a sparse file, which is not supported; make the archive without --sparse", path.display())]
    Sparse {
        /// The archive.
        path: PathBuf,
        /// The entry.
        name: String,
    },
    /// Longer than the caller takes.
    #[error("{}/{name}: has {bytes} bytes, the limit is {limit}", path.display())]
    EntryTooLong {
        /// The archive.
        path: PathBuf,
        /// The entry.
        name: String,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

impl TarError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            TarError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => "not_found",
            TarError::Open { .. } | TarError::Read { .. } => "unreadable",
            TarError::NotTar { .. } | TarError::Sparse { .. } => "unsupported",
            TarError::Truncated { .. } => "truncated",
            TarError::Header { .. } => "corrupt",
            TarError::EntryTooLong { .. } => "too_large",
        }
    }
}

/// The index of an archive.
#[derive(Debug)]
pub struct Tar {
    source: Positioned,
    path: PathBuf,
    /// All names, one after the other.
    names: Vec<u8>,
    slots: Vec<Slot>,
    defects: Vec<TarError>,
}

/// A regular file of the archive.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Where its name ends in `names`; it begins where the one before ends.
    name_end: usize,
    offset: u64,
    length: u64,
}

/// A regular file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path inside the archive. Only a label: nothing is ever written to it.
    pub name: Cow<'a, str>,
    /// Where its bytes begin in the archive.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl Tar {
    /// Opens an archive and scans its headers.
    ///
    /// # Errors
    /// It cannot be opened, or its beginning is no tar header. What is wrong further in is in [`Tar::defects`].
    pub fn open(path: &Path) -> Result<Self, TarError> {
        let source = Positioned::open(path).map_err(|source| TarError::Open { path: path.into(), source })?;
        Self::scan(source, path)
    }

    /// An archive in memory; `path` is for messages.
    ///
    /// # Errors
    /// As [`Tar::open`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, TarError> {
        Self::scan(Positioned::from_bytes(bytes), path)
    }

    fn scan(source: Positioned, path: &Path) -> Result<Self, TarError> {
        let mut tar = Self { source, path: path.into(), names: Vec::new(), slots: Vec::new(), defects: Vec::new() };
        if let Err(defect) = (Scan { tar: &mut tar, offset: 0 }).run() {
            // Nothing but a broken beginning: this is no archive, rather than one with a defect.
            if matches!(defect, TarError::Header { offset: 0, .. } | TarError::Truncated { offset: 0, .. }) {
                let what = tar.what_it_is();
                return Err(TarError::NotTar { path: tar.path, what });
            }
            tar.defects.push(defect);
        }
        Ok(tar)
    }

    fn what_it_is(&self) -> &'static str {
        let mut head = [0; 6];
        let length = self.source.len().min(6) as usize;
        if length == 0 || self.source.read_at(&mut head[..length], 0).is_err() {
            return "the file is empty, not a tar archive";
        }
        match &head {
            [0x1F, 0x8B, ..] => "is compressed with gzip; entries are read by position: unpack it with gunzip first",
            [0x28, 0xB5, 0x2F, 0xFD, ..] => "is compressed with zstd; unpack it with `zstd -d` first",
            [b'B', b'Z', b'h', ..] => "is compressed with bzip2; unpack it with bunzip2 first",
            [0xFD, b'7', b'z', b'X', b'Z', 0] => "is compressed with xz; unpack it with unxz first",
            _ => "is not a tar archive: its first 512 bytes are no header",
        }
    }

    /// The archive's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Regular files.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no regular files.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A regular file, in the order of the archive.
    ///
    /// # Panics
    /// `index` is not below [`Tar::len`].
    pub fn entry(&self, index: usize) -> Entry<'_> {
        let slot = self.slots[index];
        let start = index.checked_sub(1).map_or(0, |before| self.slots[before].name_end);
        let name = String::from_utf8_lossy(&self.names[start..slot.name_end]);
        Entry { name, offset: slot.offset, length: slot.length }
    }

    /// The regular files in the order of the archive.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).map(|index| self.entry(index))
    }

    /// What is wrong: sparse entries, and at most one place behind which nothing could be found.
    pub fn defects(&self) -> &[TarError] {
        &self.defects
    }

    /// What is wrong, for the caller to keep.
    pub fn take_defects(&mut self) -> Vec<TarError> {
        std::mem::take(&mut self.defects)
    }

    /// The bytes of a regular file.
    ///
    /// # Errors
    /// Longer than `limit`, or it cannot be read.
    ///
    /// # Panics
    /// `index` is not below [`Tar::len`].
    pub fn read(&self, index: usize, limit: u64) -> Result<Vec<u8>, TarError> {
        let Slot { offset, length, .. } = self.slots[index];
        if length > limit {
            let name = self.entry(index).name.into_owned();
            return Err(TarError::EntryTooLong { path: self.path.clone(), name, bytes: length, limit });
        }
        let read = self.source.read_vec(offset, length);
        read.map_err(|source| TarError::Read { path: self.path.clone(), offset, wanted: length, source })
    }
}

/// The headers, one after the other.
struct Scan<'a> {
    tar: &'a mut Tar,
    offset: u64,
}

/// What extension headers say of the entry that follows them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

type Block = [u8; BLOCK as usize];

impl Scan<'_> {
    fn run(&mut self) -> Result<(), TarError> {
        let mut extension = Extension::default();
        loop {
            if self.offset == self.tar.source.len() {
                return Err(self.truncated("there is no end marker"));
            }
            let header = self.block()?;
            if header.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            let header_offset = self.offset;
            self.verify(&header)?;
            let stored = number(&header[124..136]).ok_or_else(|| self.broken("its size is no number"))?;
            self.offset += BLOCK;
            match header[156] {
                b'L' => extension.name = Some(until_nul(&self.extension(stored, header_offset)?).to_vec()),
                b'x' | b'X' => {
                    let records = self.extension(stored, header_offset)?;
                    if !read_pax(&records, &mut extension) {
                        self.offset = header_offset;
                        return Err(self.broken("its pax records are malformed"));
                    }
                }
                // Long link names and global headers say nothing that is needed.
                b'K' | b'g' => {
                    self.skip(stored, "an extension header")?;
                }
                kind => self.entry(kind, &header, stored, std::mem::take(&mut extension))?,
            }
        }
    }

    fn entry(&mut self, kind: u8, header: &Block, stored: u64, extension: Extension) -> Result<(), TarError> {
        // Links, devices, folders and pipes have no data, whatever their size field says.
        if matches!(kind, b'1'..=b'6') {
            return Ok(());
        }
        let size = extension.size.unwrap_or(stored);
        let name = extension.name.unwrap_or_else(|| ustar_name(header));
        if kind == b'S' && header[482] != 0 {
            // The list of holes goes on in further blocks.
            while self.block()?[504] != 0 {
                self.offset += BLOCK;
            }
            self.offset += BLOCK;
        }
        let label = || String::from_utf8_lossy(&name).into_owned();
        let offset = self.offset;
        self.skip(size, &label())?;
        if kind == b'S' || extension.sparse {
            self.tar.defects.push(TarError::Sparse { path: self.tar.path.clone(), name: label() });
        } else if matches!(kind, 0 | b'0' | b'7') && !name.ends_with(b"/") {
            self.tar.names.extend_from_slice(&name);
            self.tar.slots.push(Slot { name_end: self.tar.names.len(), offset, length: size });
        }
        Ok(())
    }

    fn block(&self) -> Result<Block, TarError> {
        let mut block = [0; BLOCK as usize];
        if self.tar.source.len() - self.offset.min(self.tar.source.len()) < BLOCK {
            return Err(self.truncated("a header is not whole"));
        }
        let read = self.tar.source.read_at(&mut block, self.offset);
        read.map_err(|source| self.unreadable(BLOCK, source))?;
        Ok(block)
    }

    /// Moves behind `size` bytes of data and their padding.
    fn skip(&mut self, size: u64, of: &str) -> Result<(), TarError> {
        let left = self.tar.source.len() - self.offset;
        if size > left {
            return Err(self.truncated(&format!("{of} has {size} bytes, {left} are there")));
        }
        // The padding of a last entry may be missing; that is found as a missing end marker.
        self.offset += size.next_multiple_of(BLOCK).min(left);
        Ok(())
    }

    fn extension(&mut self, size: u64, header_offset: u64) -> Result<Vec<u8>, TarError> {
        if size > LONGEST_EXTENSION {
            self.offset = header_offset;
            return Err(self.broken(&format!("an extension of {size} bytes, the limit is {LONGEST_EXTENSION}")));
        }
        let offset = self.offset;
        self.skip(size, "an extension header")?;
        let read = self.tar.source.read_vec(offset, size);
        read.map_err(|source| self.unreadable(size, source))
    }

    /// The sum of all bytes, its own field taken as blanks; some old programs summed signed bytes.
    fn verify(&self, header: &Block) -> Result<(), TarError> {
        let stored = number(&header[148..156]);
        let byte = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
        let unsigned: u64 = header.iter().enumerate().map(|b| u64::from(byte(b))).sum();
        let signed: i64 = header.iter().enumerate().map(|b| i64::from(byte(b).cast_signed())).sum();
        if stored == Some(unsigned) || stored.is_some_and(|sum| i64::try_from(sum) == Ok(signed)) {
            return Ok(());
        }
        Err(self.broken("its checksum is wrong"))
    }

    fn truncated(&self, what: &str) -> TarError {
        let (path, offset, whole) = (self.tar.path.clone(), self.offset, self.tar.slots.len());
        TarError::Truncated { path, offset, what: what.into(), whole }
    }

    fn broken(&self, what: &str) -> TarError {
        let (path, offset, whole) = (self.tar.path.clone(), self.offset, self.tar.slots.len());
        TarError::Header { path, offset, what: what.into(), whole }
    }

    fn unreadable(&self, wanted: u64, source: io::Error) -> TarError {
        TarError::Read { path: self.tar.path.clone(), offset: self.offset, wanted, source }
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// POSIX names have a prefix; GNU's header keeps times in its place.
fn ustar_name(header: &Block) -> Vec<u8> {
    let (name, prefix) = (until_nul(&header[..100]), until_nul(&header[345..500]));
    if &header[257..263] != b"ustar\0" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// Octal digits between blanks and NULs, or GNU's big-endian number marked by the top bit.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, rest)) = field.split_first() {
        return rest.iter().try_fold(0u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// Records `LENGTH KEY=VALUE\n`; false where they are malformed.
fn read_pax(mut records: &[u8], extension: &mut Extension) -> bool {
    while !records.is_empty() {
        let digits = records.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let length = std::str::from_utf8(&records[..digits]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(record) = length.and_then(|length| records.get(..length)) else { return false };
        let Some(body) = record.get(digits..).and_then(|b| b.strip_prefix(b" ")).and_then(|b| b.strip_suffix(b"\n"))
        else {
            return false;
        };
        let Some(equals) = body.iter().position(|byte| *byte == b'=') else { return false };
        let (key, value) = (&body[..equals], &body[equals + 1..]);
        match key {
            b"path" => extension.name = Some(value.to_vec()),
            b"size" => match std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
                Some(size) => extension.size = Some(size),
                None => return false,
            },
            _ if key.starts_with(b"GNU.sparse.") => extension.sparse = true,
            _ => {}
        }
        records = &records[record.len()..];
    }
    true
}

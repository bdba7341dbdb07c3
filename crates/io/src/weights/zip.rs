//! The directory of a zip archive, and where each member's bytes lie. Reads only: no inflating, no writing.
//!
//! Why not the `zip` crate (9.8 was tried): without its optional parts it still brings 9 crates and 12,000 lines, it
//! reserves memory by the declared number of members and by the declared length of the zip64 record, and it wants
//! one seekable reader; torch needs only the offsets of stored members, zip64 included.

use std::collections::BTreeMap;

use super::error::{Foreign, WeightsError, ZipError};
use super::source::Source;

/// Most members of an archive: a checkpoint has one a tensor.
pub(super) const MAX_MEMBERS: u64 = 1 << 20;
/// Longest end record: 22 bytes and a comment of 65,535.
const MAX_END: u64 = 22 + 65_535;

/// A member as the directory describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// Bytes as stored.
    pub(super) size: u64,
    /// Bytes once inflated, as the directory says; the same where the member is stored plain.
    pub(super) inflated: u64,
    header: u64,
    method: u16,
    flags: u16,
}

impl Member {
    /// Whether the bytes are a deflate stream.
    pub(super) fn deflated(self) -> bool {
        self.method == 8
    }
}

/// The directory, by raw member name.
#[derive(Debug)]
pub(super) struct Directory {
    members: BTreeMap<Vec<u8>, Member>,
}

/// Where the directory lies.
struct End {
    count: u64,
    size: u64,
    offset: u64,
}

impl Directory {
    /// Reads the directory from the end of the archive.
    pub(super) fn read(source: &Source) -> Result<Directory, WeightsError> {
        let wrap = |error| WeightsError::Zip { path: source.path().to_owned(), source: error };
        let end = read_end(source)?;
        if end.offset.checked_add(end.size).is_none_or(|stop| stop > source.len()) {
            return Err(wrap(ZipError::DirectoryOutside));
        }
        // An entry takes at least 46 bytes, so this also bounds what the count can make us store.
        if end.count > MAX_MEMBERS || end.count > end.size / 46 {
            return Err(wrap(ZipError::TooManyMembers { count: end.count }));
        }
        let bytes = source.read_vec(end.offset, end.size)?;
        let mut members = BTreeMap::new();
        let mut rest = bytes.as_slice();
        for index in 0..end.count {
            let (name, member, after) = parse_entry(rest).ok_or_else(|| wrap(ZipError::BadEntry { index }))?;
            if members.insert(name.to_vec(), member).is_some() {
                return Err(wrap(ZipError::DuplicateMember { member: lossy(name) }));
            }
            rest = after;
        }
        Ok(Directory { members })
    }

    /// Member names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.members.keys().map(Vec::as_slice)
    }

    /// The member of this name.
    pub(super) fn get(&self, name: &[u8]) -> Option<Member> {
        self.members.get(name).copied()
    }

    /// The offset of a plain member's first byte; a compressed one is refused.
    pub(super) fn data_offset(&self, source: &Source, name: &[u8], member: Member) -> Result<u64, WeightsError> {
        if member.method != 0 {
            let error = ZipError::Compressed { member: lossy(name) };
            return Err(WeightsError::Zip { path: source.path().to_owned(), source: error });
        }
        self.start(source, name, member)
    }

    /// The offset of a plain or deflated member's first byte, from its local header; all of it is inside the file.
    pub(super) fn start(&self, source: &Source, name: &[u8], member: Member) -> Result<u64, WeightsError> {
        let wrap = |error| WeightsError::Zip { path: source.path().to_owned(), source: error };
        if member.flags & 1 != 0 {
            return Err(wrap(ZipError::Encrypted { member: lossy(name) }));
        }
        if !matches!(member.method, 0 | 8) {
            return Err(wrap(ZipError::Method { member: lossy(name), method: member.method }));
        }
        let outside = || wrap(ZipError::MemberOutside { member: lossy(name) });
        if member.header.checked_add(30).is_none_or(|end| end > source.len()) {
            return Err(outside());
        }
        let mut header = [0; 30];
        source.read_at(&mut header, member.header)?;
        if header[..4] != *b"PK\x03\x04" {
            return Err(wrap(ZipError::BadLocalHeader { member: lossy(name) }));
        }
        // The local lengths differ from the directory's: torch pads the local extra field to align the data.
        let skip = 30 + u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let start = member.header.checked_add(skip).ok_or_else(outside)?;
        if start.checked_add(member.size).is_none_or(|end| end > source.len()) {
            return Err(outside());
        }
        Ok(start)
    }
}

/// Finds the end record (and its zip64 twin): the last one whose comment ends exactly at the end of the file.
fn read_end(source: &Source) -> Result<End, WeightsError> {
    let wrap = |error| WeightsError::Zip { path: source.path().to_owned(), source: error };
    let window = source.len().min(MAX_END);
    let start = source.len() - window;
    let tail = source.read_vec(start, window)?;
    let position = (0..tail.len().saturating_sub(21))
        .rev()
        .find(|&at| tail[at..at + 4] == *b"PK\x05\x06" && at + 22 + usize::from(u16_at(&tail, at + 20)) == tail.len());
    let Some(at) = position else {
        return Err(wrap(ZipError::NoEnd));
    };
    let record = &tail[at..];
    if let Some(end) = read_end64(source, start + at as u64)? {
        return Ok(end);
    }
    let disks = (u16_at(record, 4), u16_at(record, 6));
    if disks != (0, 0) || u16_at(record, 8) != u16_at(record, 10) {
        return Err(wrap(ZipError::SeveralVolumes));
    }
    Ok(End {
        count: u64::from(u16_at(record, 10)),
        size: u64::from(u32_at(record, 12)),
        offset: u64::from(u32_at(record, 16)),
    })
}

/// The zip64 end record, if its locator stands before the plain one at `end`.
fn read_end64(source: &Source, end: u64) -> Result<Option<End>, WeightsError> {
    let wrap = |error| WeightsError::Zip { path: source.path().to_owned(), source: error };
    let Some(locator_at) = end.checked_sub(20) else { return Ok(None) };
    let locator = source.read_vec(locator_at, 20)?;
    if locator[..4] != *b"PK\x06\x07" {
        return Ok(None);
    }
    let at = u64_at(&locator, 8);
    if at.checked_add(56).is_none_or(|stop| stop > locator_at) {
        return Err(wrap(ZipError::DirectoryOutside));
    }
    let record = source.read_vec(at, 56)?;
    if record[..4] != *b"PK\x06\x06" {
        return Err(wrap(ZipError::NoEnd));
    }
    if u32_at(&record, 16) != 0 || u32_at(&record, 20) != 0 || u64_at(&record, 24) != u64_at(&record, 32) {
        return Err(wrap(ZipError::SeveralVolumes));
    }
    Ok(Some(End { count: u64_at(&record, 32), size: u64_at(&record, 40), offset: u64_at(&record, 48) }))
}

/// One directory entry: its name, the member, and the bytes after it.
fn parse_entry(bytes: &[u8]) -> Option<(&[u8], Member, &[u8])> {
    let (fixed, rest) = bytes.split_at_checked(46)?;
    if fixed[..4] != *b"PK\x01\x02" {
        return None;
    }
    let (name, rest) = rest.split_at_checked(usize::from(u16_at(fixed, 28)))?;
    let (extra, rest) = rest.split_at_checked(usize::from(u16_at(fixed, 30)))?;
    let (_comment, rest) = rest.split_at_checked(usize::from(u16_at(fixed, 32)))?;
    let mut fields = [u32_at(fixed, 24), u32_at(fixed, 20), u32_at(fixed, 42)].map(u64::from);
    let wide = fields.map(|field| field == u64::from(u32::MAX));
    if wide.contains(&true) {
        // Only the saturated fields are in the zip64 extra field, in this order.
        let mut values = zip64_extra(extra)?;
        for (field, wide) in fields.iter_mut().zip(wide) {
            if wide {
                let (value, after) = values.split_at_checked(8)?;
                *field = u64_at(value, 0);
                values = after;
            }
        }
    }
    let [size, stored, header] = fields;
    let (method, flags) = (u16_at(fixed, 10), u16_at(fixed, 8));
    if method == 0 && size != stored {
        return None;
    }
    Some((name, Member { size: stored, inflated: size, header, method, flags }, rest))
}

/// The body of the extra field with id 1.
fn zip64_extra(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (head, rest) = extra.split_at_checked(4)?;
        let (body, after) = rest.split_at_checked(usize::from(u16_at(head, 2)))?;
        if u16_at(head, 0) == 1 {
            return Some(body);
        }
        extra = after;
    }
}

fn lossy(name: &[u8]) -> Foreign {
    Foreign::from(String::from_utf8_lossy(name).as_ref())
}

// The callers below index inside slices whose length they have checked.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

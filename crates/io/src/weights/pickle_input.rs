//! Bytes of a pickle, read from the file in pieces as far as the pickle reaches. In a legacy torch file gigabytes of
//! tensors follow the pickle, and nothing says beforehand where it ends.

use super::error::{PickleError, WeightsError};
use super::pickle::MAX_PICKLE;
use super::source::Source;

/// How much is read ahead.
const CHUNK: usize = 64 << 10;

/// A place in the bytes read so far. Pickle texts are kept as spans, so a text that is used often exists once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// The reader; keeps all bytes that it has read.
pub(super) struct Input<'a> {
    source: &'a Source,
    /// Where the pickle begins and where it must have ended, as offsets in the file.
    start: u64,
    end: u64,
    bytes: Vec<u8>,
    position: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(source: &'a Source, start: u64, end: u64) -> Input<'a> {
        Input { source, start, end, bytes: Vec::new(), position: 0 }
    }

    /// Offset in the file of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.start + self.position as u64
    }

    /// All bytes read; spans point into them.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn error(&self, source: PickleError) -> WeightsError {
        WeightsError::Pickle { path: self.source.path().to_owned(), source }
    }

    /// The next `len` bytes as a span. A length beyond the end is an error before anything is allocated.
    pub(super) fn take(&mut self, len: u64) -> Result<Span, WeightsError> {
        let stop = (self.position as u64).checked_add(len);
        let Some(stop) = stop.filter(|stop| *stop <= self.end - self.start) else {
            return Err(self.error(PickleError::Cut { offset: self.offset() }));
        };
        if stop > MAX_PICKLE as u64 {
            return Err(self.error(PickleError::TooLong));
        }
        let stop = stop as usize;
        if stop > self.bytes.len() {
            let available = (self.end - self.start).min(MAX_PICKLE as u64) as usize;
            let target = stop.max(self.bytes.len() + CHUNK).min(available);
            let old = self.bytes.len();
            self.bytes.resize(target, 0);
            self.source.read_at(&mut self.bytes[old..], self.start + old as u64)?;
        }
        let span = Span { start: self.position as u32, end: stop as u32 };
        self.position = stop;
        Ok(span)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsError> {
        let span = self.take(N as u64)?;
        let mut out = [0; N];
        out.copy_from_slice(self.get(span));
        Ok(out)
    }

    /// The next bytes up to a line feed, which is consumed and not part of the span.
    pub(super) fn line(&mut self) -> Result<Span, WeightsError> {
        let start = self.position as u32;
        loop {
            if self.array::<1>()? == *b"\n" {
                return Ok(Span { start, end: self.position as u32 - 1 });
            }
        }
    }

    /// The bytes of a span.
    pub(super) fn get(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// The text of a span that must be UTF-8.
    pub(super) fn text(&self, span: Span) -> Result<&str, WeightsError> {
        std::str::from_utf8(self.get(span))
            .map_err(|_| self.error(PickleError::NotUtf8 { offset: self.start + u64::from(span.start) }))
    }
}

impl Span {
    /// The bytes of the span in those of a finished pickle.
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

//! A table of texts and of vectors of one shape, to be written as Parquet or Arrow. Values are streamed, so memory does
//! not grow with the number of rows.

use std::io::{self, Read, Write};

/// What is written. All columns are without null.
#[derive(Clone, Copy)]
pub struct VectorTable<'a> {
    /// Columns of texts, in front.
    pub texts: &'a [TextColumn<'a>],
    /// Name of the column of vectors.
    pub vector: &'a str,
    /// Shape of a vector, not empty: `[D]`, or `[tokens, D]` for lists of lists.
    pub shape: &'a [usize],
    /// Rows.
    pub rows: usize,
    /// Keys and values about the whole.
    pub metadata: &'a [(String, String)],
}

/// A column of texts.
#[derive(Clone, Copy)]
pub struct TextColumn<'a> {
    /// Its name.
    pub name: &'a str,
    /// The text of a row.
    pub value: &'a (dyn Fn(usize) -> &'a str + 'a),
}

/// Bytes of values of a row group or record batch.
const GROUP: usize = 32 << 20;

/// Most rows of a row group or record batch: their texts are held at once.
const MOST_ROWS: usize = 65_536;

impl VectorTable<'_> {
    /// Values of a row.
    pub(super) fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// Ranges of rows that are written together.
    pub(super) fn groups(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let rows = (GROUP / (self.width() * 4).max(1)).clamp(1, MOST_ROWS);
        let count = self.rows;
        (0..count).step_by(rows).map(move |first| first..(first + rows).min(count))
    }
}

/// A writer that knows how far it is.
pub(super) struct Counted<W> {
    pub(super) out: W,
    pub(super) at: u64,
}

impl<W: Write> Counted<W> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// `count` little-endian values into `out`.
pub(super) fn read_values(values: &mut dyn Read, count: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.resize(start + count * 4, 0);
    values.read_exact(&mut out[start..])
}

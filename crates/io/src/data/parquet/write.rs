//! Writes a table of texts and vectors. Values are PLAIN and uncompressed: vectors do not compress. Lists are written
//! as Parquet's lists, and the Arrow schema in the metadata says that they have a fixed size.

use super::thrift::{self, Value};
use crate::data::vectors::{Counted, VectorTable, read_values};
use std::io::{self, Read, Write};
use std::ops::Range;

const MAGIC: &[u8] = b"PAR1";
const BYTE_ARRAY: i64 = 6;
const FLOAT: i64 = 4;
const REQUIRED: i64 = 0;
const REPEATED: i64 = 2;
const PLAIN: i64 = 0;
const RLE: i64 = 3;
const DATA_PAGE: i64 = 0;

/// Values of a page in bytes, where a row is not longer.
const PAGE: usize = 1 << 20;

/// Texts of a page.
const TEXTS: usize = 8192;

impl VectorTable<'_> {
    /// Writes the table as a Parquet file; `values` gives the little-endian values, row by row.
    ///
    /// # Errors
    /// Reading or writing failed.
    pub fn write_parquet(&self, out: &mut dyn Write, values: &mut dyn Read) -> io::Result<()> {
        let mut out = Counted { out, at: 0 };
        out.write(MAGIC)?;
        let mut groups = Vec::new();
        for rows in self.groups() {
            let start = out.at;
            let mut columns = Vec::new();
            for column in self.texts {
                let mut chunk = Chunk { start: out.at, values: rows.len() };
                for first in rows.clone().step_by(TEXTS) {
                    let part = first..(first + TEXTS).min(rows.end);
                    let mut page = Vec::new();
                    for text in part.clone().map(|row| (column.value)(row)) {
                        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
                        page.extend_from_slice(&length.to_le_bytes());
                        page.extend_from_slice(text.as_bytes());
                    }
                    write_page(&mut out, &page, part.len())?;
                }
                columns.push(chunk.finish(BYTE_ARRAY, vec![column.name], out.at));
            }
            columns.push(self.vectors(&mut out, rows.clone(), values)?);
            let length = (out.at - start) as i64;
            groups.push(structure([
                (1, Value::List(columns)),
                (2, Value::Long(length)),
                (3, Value::Long(rows.len() as i64)),
            ]));
        }
        let mut footer = Vec::new();
        thrift::write(&self.footer(groups), &mut footer);
        out.write(&footer)?;
        out.write(&(footer.len() as u32).to_le_bytes())?;
        out.write(MAGIC)
    }

    /// The column of vectors of one row group.
    fn vectors(
        &self,
        out: &mut Counted<&mut dyn Write>,
        rows: Range<usize>,
        values: &mut dyn Read,
    ) -> io::Result<Value> {
        let width = self.width();
        let mut chunk = Chunk { start: out.at, values: rows.len() * width };
        let rows_a_page = (PAGE / (width * 4).max(1)).max(1);
        for first in rows.clone().step_by(rows_a_page) {
            let count = rows_a_page.min(rows.end - first);
            let mut page = Vec::new();
            let mut levels = Vec::new();
            for _ in 0..count {
                self.repetition(0, 0, &mut levels);
            }
            append_levels(&levels, &mut page);
            levels.clear();
            run(count * width, self.shape.len() as u8, &mut levels);
            append_levels(&levels, &mut page);
            read_values(values, count * width, &mut page)?;
            write_page(out, &page, count * width)?;
        }
        let mut path = vec![self.vector];
        path.extend(self.shape.iter().flat_map(|_| ["list", "element"]));
        Ok(chunk.finish(FLOAT, path, out.at))
    }

    /// Levels of repetition of one vector: the depth of the list that goes on with each value; `first` is that of the
    /// first value.
    fn repetition(&self, depth: usize, first: u8, out: &mut Vec<u8>) {
        let here = depth as u8 + 1;
        if depth + 1 == self.shape.len() {
            run(1, first, out);
            run(self.shape[depth] - 1, here, out);
        } else {
            for i in 0..self.shape[depth] {
                self.repetition(depth + 1, if i == 0 { first } else { here }, out);
            }
        }
    }

    fn footer(&self, groups: Vec<Value>) -> Value {
        let children = self.texts.len() as i64 + 1;
        let mut schema = vec![structure([(4, bytes("schema")), (5, Value::Int(children))])];
        for column in self.texts {
            schema.push(structure([
                (1, Value::Int(BYTE_ARRAY)),
                (3, Value::Int(REQUIRED)),
                (4, bytes(column.name)),
                (6, Value::Int(0)), // UTF8
                (10, structure([(1, structure([]))])),
            ]));
        }
        for depth in 0..self.shape.len() {
            let name = if depth == 0 { self.vector } else { "element" };
            schema.push(structure([
                (3, Value::Int(REQUIRED)),
                (4, bytes(name)),
                (5, Value::Int(1)),
                (6, Value::Int(3)), // LIST
                (10, structure([(3, structure([]))])),
            ]));
            schema.push(structure([(3, Value::Int(REPEATED)), (4, bytes("list")), (5, Value::Int(1))]));
        }
        schema.push(structure([(1, Value::Int(FLOAT)), (3, Value::Int(REQUIRED)), (4, bytes("element"))]));
        let pair = |key: &str, value: &str| structure([(1, bytes(key)), (2, bytes(value))]);
        let mut metadata: Vec<Value> = self.metadata.iter().map(|(key, value)| pair(key, value)).collect();
        metadata.push(pair("ARROW:schema", &base64(&self.schema_message())));
        structure([
            (1, Value::Int(2)),
            (2, Value::List(schema)),
            (3, Value::Long(self.rows as i64)),
            (4, Value::List(groups)),
            (5, Value::List(metadata)),
            (6, bytes(concat!("openvision version ", env!("CARGO_PKG_VERSION")))),
        ])
    }
}

struct Chunk {
    start: u64,
    values: usize,
}

impl Chunk {
    /// What the footer says of a column that ends at `end`.
    fn finish(&mut self, physical: i64, path: Vec<&str>, end: u64) -> Value {
        let length = (end - self.start) as i64;
        let facts = structure([
            (1, Value::Int(physical)),
            (2, Value::List(vec![Value::Int(PLAIN), Value::Int(RLE)])),
            (3, Value::List(path.into_iter().map(bytes).collect())),
            (4, Value::Int(0)), // uncompressed
            (5, Value::Long(self.values as i64)),
            (6, Value::Long(length)),
            (7, Value::Long(length)),
            (9, Value::Long(self.start as i64)),
        ]);
        structure([(2, Value::Long(0)), (3, facts)])
    }
}

fn structure<const N: usize>(fields: [(i16, Value); N]) -> Value {
    Value::Struct(fields.into())
}

fn bytes(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec())
}

fn write_page(out: &mut Counted<&mut dyn Write>, page: &[u8], count: usize) -> io::Result<()> {
    let length = i32::try_from(page.len()).map_err(|_| io::Error::other("a row of more than 2 GiB"))?;
    let count = i32::try_from(count).map_err(|_| io::Error::other("a row of more than 2^31 values"))?;
    let header = structure([
        (1, Value::Int(DATA_PAGE)),
        (2, Value::Int(length.into())),
        (3, Value::Int(length.into())),
        (
            5,
            structure([
                (1, Value::Int(count.into())),
                (2, Value::Int(PLAIN)),
                (3, Value::Int(RLE)),
                (4, Value::Int(RLE)),
            ]),
        ),
    ]);
    let mut head = Vec::new();
    thrift::write(&header, &mut head);
    out.write(&head)?;
    out.write(page)
}

/// A run of one level.
fn run(count: usize, level: u8, out: &mut Vec<u8>) {
    if count > 0 {
        thrift::write_varint((count as u64) << 1, out);
        out.push(level);
    }
}

fn append_levels(levels: &[u8], page: &mut Vec<u8>) {
    page.extend_from_slice(&(levels.len() as u32).to_le_bytes());
    page.extend_from_slice(levels);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in bytes.chunks(3) {
        let word = part.iter().chain(&[0, 0]).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place > part.len() { '=' } else { digit as char });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_as_in_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(super::base64(bytes.as_bytes()), text);
        }
    }
}

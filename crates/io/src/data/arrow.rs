//! Arrow's interprocess format (`.arrow`, Feather version 2), written by hand: a schema, record batches, a footer.
//! Parquet files carry the same schema, so that readers know that lists have a fixed size.

use super::flatbuffer::{Builder, Slot};
use super::vectors::{Counted, VectorTable, read_values};
use std::io::{self, Read, Write};

const MAGIC: &[u8] = b"ARROW1";
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// Version 5 of the metadata, of every library since 2020.
const VERSION: i16 = 4;

/// Members of the union of message headers.
const SCHEMA: u8 = 1;
const RECORD_BATCH: u8 = 3;

/// Members of the union of types.
const FLOATING_POINT: u8 = 3;
const UTF8: u8 = 5;
const FIXED_SIZE_LIST: u8 = 16;

const SINGLE_PRECISION: i16 = 1;

/// Buffers begin at multiples of this.
const ALIGNMENT: usize = 64;

impl VectorTable<'_> {
    /// Writes the table as an Arrow file; `values` gives the little-endian values, row by row.
    ///
    /// # Errors
    /// Reading or writing failed.
    pub fn write_arrow(&self, out: &mut dyn Write, values: &mut dyn Read) -> io::Result<()> {
        let mut out = Counted { out, at: 0 };
        out.write(MAGIC)?;
        out.write(&[0; 2])?;
        out.write(&self.schema_message())?;
        let mut blocks = Vec::new();
        for rows in self.groups() {
            let (head, body) = self.batch(rows, values)?;
            // An offset, the length of the header in 32 bits and four of padding, the length of the body.
            blocks.push([out.at as i64, head.len() as i64, body.len() as i64]);
            out.write(&head)?;
            out.write(&body)?;
        }
        out.write(&CONTINUATION)?;
        out.write(&[0; 4])?;
        let mut builder = Builder::default();
        let schema = self.schema(&mut builder);
        let batches = builder.structures(&blocks);
        let none = builder.structures::<3>(&[]);
        let slots = [(1, Slot::At(schema)), (2, Slot::At(none)), (3, Slot::At(batches)), (0, Slot::I16(VERSION))];
        let root = builder.table(&slots);
        let footer = builder.finish(root);
        out.write(&footer)?;
        out.write(&(footer.len() as u32).to_le_bytes())?;
        out.write(MAGIC)
    }

    /// The schema as a message of its own.
    pub(super) fn schema_message(&self) -> Vec<u8> {
        let mut builder = Builder::default();
        let schema = self.schema(&mut builder);
        message(builder, SCHEMA, schema, 0)
    }

    fn schema(&self, builder: &mut Builder) -> usize {
        let mut fields = Vec::new();
        for column in self.texts {
            let utf8 = builder.table(&[]);
            fields.push(field(builder, column.name, (UTF8, utf8), &[]));
        }
        let single = builder.table(&[(0, Slot::I16(SINGLE_PRECISION))]);
        let mut inner = field(builder, "element", (FLOATING_POINT, single), &[]);
        for (depth, size) in self.shape.iter().enumerate().rev() {
            let list = builder.table(&[(0, Slot::I32(*size as i32))]);
            let name = if depth == 0 { self.vector } else { "element" };
            inner = field(builder, name, (FIXED_SIZE_LIST, list), &[inner]);
        }
        fields.push(inner);
        let fields = builder.vector(&fields);
        let mut pairs = Vec::new();
        for (key, value) in self.metadata {
            let (key, value) = (builder.text(key), builder.text(value));
            pairs.push(builder.table(&[(0, Slot::At(key)), (1, Slot::At(value))]));
        }
        let pairs = builder.vector(&pairs);
        builder.table(&[(1, Slot::At(fields)), (2, Slot::At(pairs))])
    }

    /// The header and body of a record batch.
    fn batch(&self, rows: std::ops::Range<usize>, values: &mut dyn Read) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let count = rows.len();
        let (mut nodes, mut buffers, mut body) = (Vec::new(), Vec::new(), Vec::new());
        for column in self.texts {
            nodes.push([count as i64, 0]);
            buffers.push([body.len() as i64, 0]); // nothing is null
            let texts = || rows.clone().map(|row| (column.value)(row));
            let total: usize = texts().map(str::len).sum();
            i32::try_from(total).map_err(|_| io::Error::other("2 GiB of texts in one batch"))?;
            let mut ends = vec![0i32];
            ends.extend(texts().scan(0, |end, text| {
                *end += text.len() as i32;
                Some(*end)
            }));
            let offsets: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
            append(&mut body, &mut buffers, |body| body.extend_from_slice(&offsets));
            append(&mut body, &mut buffers, |body| texts().for_each(|text| body.extend_from_slice(text.as_bytes())));
        }
        let mut length = count;
        for size in self.shape {
            nodes.push([length as i64, 0]);
            buffers.push([body.len() as i64, 0]);
            length *= size;
        }
        nodes.push([length as i64, 0]);
        buffers.push([body.len() as i64, 0]);
        let mut read = Ok(());
        append(&mut body, &mut buffers, |body| read = read_values(values, length, body));
        read?;
        let mut builder = Builder::default();
        let nodes = builder.structures(&nodes);
        let buffers = builder.structures(&buffers);
        let slots = [(0, Slot::I64(count as i64)), (1, Slot::At(nodes)), (2, Slot::At(buffers))];
        let batch = builder.table(&slots);
        Ok((message(builder, RECORD_BATCH, batch, body.len()), body))
    }
}

/// Adds a buffer and its place; the body is padded behind it.
fn append(body: &mut Vec<u8>, buffers: &mut Vec<[i64; 2]>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = body.len();
    write(body);
    buffers.push([start as i64, (body.len() - start) as i64]);
    body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
}

/// A field without nulls; its type is a member of the union and its table.
fn field(builder: &mut Builder, name: &str, of: (u8, usize), children: &[usize]) -> usize {
    let name = builder.text(name);
    let children = builder.vector(children);
    let slots =
        [(0, Slot::At(name)), (3, Slot::At(of.1)), (5, Slot::At(children)), (1, Slot::U8(0)), (2, Slot::U8(of.0))];
    builder.table(&slots)
}

/// Wraps a header: a mark, the length, the message.
fn message(mut builder: Builder, kind: u8, header: usize, body_length: usize) -> Vec<u8> {
    let slots =
        [(3, Slot::I64(body_length as i64)), (2, Slot::At(header)), (0, Slot::I16(VERSION)), (1, Slot::U8(kind))];
    let root = builder.table(&slots);
    let message = builder.finish(root);
    let length = (message.len() as u32).to_le_bytes();
    [&CONTINUATION[..], &length, &message].concat()
}

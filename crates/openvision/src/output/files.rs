//! The final files, written from a journal.

use super::journal::{Entry, Meta};
use crate::Error;
use openvision_io::atomic::write_atomic;
use openvision_io::data::vectors::{TextColumn, VectorTable};
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

/// A format of a file of vectors, by its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One float32 array, [N, ...]; names and fingerprints go into `FILE.json` beside it.
    Npy,
    /// `embeddings`, `inputs`, `kinds`, `fingerprints`.
    Npz,
    /// One JSON object a line.
    Jsonl,
    /// `input`, `kind`, and `embedding` as lists of a fixed size.
    Parquet,
    /// The same columns in Arrow's file format (Feather version 2).
    Arrow,
}

impl Format {
    /// The format that a path's ending asks for.
    ///
    /// # Errors
    /// The ending is not known.
    pub fn of(path: &Path) -> Result<Self, Error> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("npy") => Ok(Format::Npy),
            Some("npz") => Ok(Format::Npz),
            Some("jsonl") => Ok(Format::Jsonl),
            Some("parquet") => Ok(Format::Parquet),
            Some("arrow" | "feather") => Ok(Format::Arrow),
            _ => {
                let known = ".npy, .npz, .jsonl, .parquet, .arrow or .feather";
                Err(Error::Usage(format!("{}: --out takes a name that ends in {known}", path.display())))
            }
        }
    }

    /// Writes the file: whole under its name, or not at all.
    pub(super) fn write(self, path: &Path, meta: &Meta, entries: &[Entry], rows: File) -> Result<(), Error> {
        match self {
            Format::Npy => {
                // The names first: a file of vectors without them would be of no use.
                let about = json!({ "inputs": entries, "meta": meta });
                write_atomic(&beside(path), |file| file.write_all(about.to_string().as_bytes()))?;
                write_atomic(path, |file| {
                    let mut out = BufWriter::new(file);
                    npy_floats(&mut out, meta, entries.len(), rows)?;
                    out.flush()
                })?;
            }
            Format::Npz => write_atomic(path, |file| npz(file, meta, entries, rows))?,
            Format::Jsonl => write_atomic(path, |file| jsonl(file, meta, entries, rows))?,
            Format::Parquet | Format::Arrow => write_atomic(path, |file| self.table(file, meta, entries, rows))?,
        }
        Ok(())
    }
}

impl Format {
    fn table(self, file: &mut File, meta: &Meta, entries: &[Entry], rows: File) -> io::Result<()> {
        let (input, kind) = (|row: usize| entries[row].input.as_str(), |row: usize| entries[row].kind.as_str());
        let table = VectorTable {
            texts: &[TextColumn { name: "input", value: &input }, TextColumn { name: "kind", value: &kind }],
            vector: "embedding",
            shape: &meta.shape,
            rows: entries.len(),
            metadata: &meta.pairs(),
        };
        let (mut out, mut rows) = (BufWriter::new(file), BufReader::new(rows));
        match self {
            Format::Arrow => table.write_arrow(&mut out, &mut rows)?,
            _ => table.write_parquet(&mut out, &mut rows)?,
        }
        out.flush()
    }
}

/// `FILE.json` beside a `.npy` file.
fn beside(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// One result as a JSON object.
pub fn json_line(entry: &Entry, meta: &Meta, values: &[f32]) -> String {
    let embedding = match meta.shape[..] {
        [_] => json!(values),
        _ => json!(values.chunks(meta.shape[meta.shape.len() - 1]).collect::<Vec<_>>()),
    };
    json!({
        "input": entry.input,
        "kind": entry.kind,
        "embedding": embedding,
        "fingerprint": meta.fingerprint(&entry.kind),
    })
    .to_string()
}

/// The head of a version 1.0 `.npy` file (numpy's `lib/format.py`): padded so that the data begin at a multiple of 64.
fn npy_head(out: &mut impl Write, descr: &str, shape: &[usize]) -> io::Result<()> {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", sizes.join(", "));
    let length = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(length as u16).to_le_bytes())?;
    writeln!(out, "{dict:width$}", width = length - 1)
}

fn npy_floats(out: &mut impl Write, meta: &Meta, count: usize, rows: File) -> io::Result<()> {
    let shape: Vec<usize> = std::iter::once(count).chain(meta.shape.iter().copied()).collect();
    npy_head(out, "<f4", &shape)?;
    let bytes = shape.iter().product::<usize>() as u64 * 4;
    let copied = io::copy(&mut BufReader::new(rows).take(bytes), out)?;
    if copied == bytes { Ok(()) } else { Err(io::Error::other("the journal of results is too short")) }
}

/// Texts as numpy's fixed-width UTF-32 strings, which load without pickle.
fn npy_texts(out: &mut impl Write, texts: &[&str]) -> io::Result<()> {
    let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
    npy_head(out, &format!("<U{width}"), &[texts.len()])?;
    for text in texts {
        let mut written = 0;
        for character in text.chars() {
            out.write_all(&u32::from(character).to_le_bytes())?;
            written += 1;
        }
        for _ in written..width {
            out.write_all(&[0; 4])?;
        }
    }
    Ok(())
}

fn npz(file: &mut File, meta: &Meta, entries: &[Entry], rows: File) -> io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::new(file));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    zip.start_file("embeddings.npy", options)?;
    npy_floats(&mut zip, meta, entries.len(), rows)?;
    let columns: [(&str, Vec<&str>); 3] = [
        ("inputs.npy", entries.iter().map(|e| e.input.as_str()).collect()),
        ("kinds.npy", entries.iter().map(|e| e.kind.as_str()).collect()),
        ("fingerprints.npy", entries.iter().map(|e| meta.fingerprint(&e.kind)).collect()),
    ];
    for (name, texts) in columns {
        zip.start_file(name, options)?;
        npy_texts(&mut zip, &texts)?;
    }
    zip.finish()?.flush()
}

fn jsonl(file: &mut File, meta: &Meta, entries: &[Entry], rows: File) -> io::Result<()> {
    let (mut out, mut rows) = (BufWriter::new(file), BufReader::new(rows));
    let mut bytes = vec![0; meta.row_length() * 4];
    for entry in entries {
        rows.read_exact(&mut bytes)?;
        let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        writeln!(out, "{}", json_line(entry, meta, &values))?;
    }
    out.flush()
}

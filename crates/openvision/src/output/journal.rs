//! Results of a run as they come: two files that only grow, in a folder beside the final name.
//!
//! Whatever ends the run (Ctrl-C, a full disk, kill -9), what was appended stays, and `--resume` goes on from it. A
//! half-written last entry is cut off when the journal is opened again.

use super::Format;
use crate::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Version of the journal's files.
const VERSION: u32 = 1;

/// What a run's vectors are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the journal.
    pub version: u32,
    /// Shape of one result: `[D]` or [tokens, D].
    pub shape: Vec<usize>,
    /// Whether vectors are scaled to unit length, raw, or a layer's tokens.
    pub content: String,
    /// Fingerprint by kind of input. What differs here must not be mixed.
    pub fingerprints: BTreeMap<String, String>,
    /// The model's name. It says nothing about the values; the fingerprints do.
    #[serde(default)]
    pub model: String,
    /// Arithmetic of the forward pass.
    #[serde(default)]
    pub precision: String,
}

impl Meta {
    /// A description in the current version.
    pub fn new(shape: Vec<usize>, content: String, fingerprints: BTreeMap<String, String>) -> Self {
        Self { version: VERSION, shape, content, fingerprints, model: String::new(), precision: "f32".into() }
    }

    /// Whether results may stand in one file.
    fn fits(&self, other: &Self) -> bool {
        let facts = |meta: &Self| (meta.version, meta.shape.clone(), meta.content.clone(), meta.fingerprints.clone());
        facts(self) == facts(other)
    }

    /// Keys and values for files that hold such.
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = vec![
            ("openvision.model".to_owned(), self.model.clone()),
            ("openvision.precision".to_owned(), self.precision.clone()),
            ("openvision.content".to_owned(), self.content.clone()),
        ];
        let of_kind = |(kind, value): (&String, &String)| (format!("openvision.fingerprint.{kind}"), value.clone());
        pairs.extend(self.fingerprints.iter().map(of_kind));
        pairs
    }

    /// Values of one result.
    pub fn row_length(&self) -> usize {
        self.shape.iter().product()
    }

    /// Fingerprint of a kind of input.
    pub fn fingerprint(&self, kind: &str) -> &str {
        self.fingerprints.get(kind).map_or("", String::as_str)
    }
}

/// One finished input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// `image` or `text`.
    pub kind: String,
    /// Path or text.
    pub input: String,
}

/// The results so far.
#[derive(Debug)]
pub struct Journal {
    target: PathBuf,
    format: Format,
    folder: PathBuf,
    meta: Meta,
    rows: File,
    inputs: File,
    entries: Vec<Entry>,
}

impl Journal {
    /// Opens the journal of `target`: a new one, or with `resume` the one that an interrupted run left.
    ///
    /// # Errors
    /// A journal is there and `resume` was not said, it belongs to other weights or options, or files cannot be opened.
    pub fn open(target: &Path, meta: Meta, resume: bool) -> Result<Self, Error> {
        let format = Format::of(target)?;
        let mut name = target.as_os_str().to_owned();
        name.push(".partial");
        let folder = PathBuf::from(name);
        if folder.exists() && !resume {
            let problem = "an interrupted run left results here: add --resume to go on, or remove the folder".into();
            return Err(Error::Journal { path: folder, problem });
        }
        if !folder.exists() {
            create(&folder, &meta)?;
        }
        let found = read_meta(&folder)?;
        if !found.fits(&meta) {
            let problem = format!(
                "belongs to a run with another model or other options ({} {:?}, fingerprints {:?}); use another --out",
                found.content, found.shape, found.fingerprints
            );
            return Err(Error::Journal { path: folder, problem });
        }
        Self::continue_from(target, format, folder, meta)
    }

    fn continue_from(target: &Path, format: Format, folder: PathBuf, meta: Meta) -> Result<Self, Error> {
        let open = |name: &str| {
            let path = folder.join(name);
            let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
            file.map_err(Error::file(path))
        };
        let (rows, inputs) = (open("rows.f32")?, open("inputs.jsonl")?);
        let failed = |source| Error::File { path: folder.clone(), source };
        let row_bytes = (meta.row_length() * 4) as u64;
        let whole_rows = rows.metadata().map_err(failed)?.len() / row_bytes;
        let mut entries = Vec::new();
        let mut length = 0;
        let mut lines = BufReader::new(&inputs);
        let mut line = Vec::new();
        // An entry counts once its row and its whole line are there.
        while (entries.len() as u64) < whole_rows {
            line.clear();
            let read = lines.read_until(b'\n', &mut line).map_err(failed)?;
            match serde_json::from_slice(&line) {
                Ok(entry) if line.ends_with(b"\n") => entries.push(entry),
                _ => break,
            }
            length += read as u64;
        }
        rows.set_len(entries.len() as u64 * row_bytes).map_err(failed)?;
        inputs.set_len(length).map_err(failed)?;
        Ok(Self { target: target.into(), format, folder, meta, rows, inputs, entries })
    }

    /// What is finished.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds a result. The row goes first: an entry without a row cannot be.
    ///
    /// # Errors
    /// The disk is full, say; what was there before stays.
    pub fn push(&mut self, entry: Entry, values: &[f32]) -> Result<(), Error> {
        assert_eq!(values.len(), self.meta.row_length(), "every result has one shape");
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.rows.write_all(&bytes).map_err(Error::file(self.folder.join("rows.f32")))?;
        let mut line = serde_json::to_vec(&entry).expect("texts are always JSON");
        line.push(b'\n');
        self.inputs.write_all(&line).map_err(Error::file(self.folder.join("inputs.jsonl")))?;
        self.entries.push(entry);
        Ok(())
    }

    /// Writes the final file and removes the journal. Returns how many results it holds.
    ///
    /// # Errors
    /// The file cannot be written; the journal stays, and `--resume` tries again.
    pub fn finish(self) -> Result<usize, Error> {
        let path = self.folder.join("rows.f32");
        let rows = File::open(&path).map_err(Error::file(path))?;
        self.format.write(&self.target, &self.meta, &self.entries, rows)?;
        std::fs::remove_dir_all(&self.folder).map_err(Error::file(&self.folder))?;
        Ok(self.entries.len())
    }
}

/// A new journal appears with its description or not at all.
fn create(folder: &Path, meta: &Meta) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let text = serde_json::to_vec_pretty(meta).expect("a description is always JSON");
    openvision_io::atomic::write_atomic(&folder.join("meta.json"), |file| file.write_all(&text))?;
    Ok(())
}

fn read_meta(folder: &Path) -> Result<Meta, Error> {
    let path = folder.join("meta.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(Error::File { path, source }),
    };
    serde_json::from_slice(&bytes).map_err(|error| Error::Journal {
        path: folder.into(),
        problem: format!("meta.json cannot be read ({error}); remove the folder to start over"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta::new(vec![2], "unit".into(), BTreeMap::from([("image".into(), "f1".into())]))
    }

    fn entry(name: &str) -> Entry {
        Entry { kind: "image".into(), input: name.into() }
    }

    #[test]
    fn goes_on_after_a_cut_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("v.jsonl");
        let partial = folder.path().join("v.jsonl.partial");
        let mut journal = Journal::open(&target, meta(), false).unwrap();
        for i in 0..3u8 {
            journal.push(entry(&format!("{i}.jpg")), &[f32::from(i), 1.0]).unwrap();
        }
        drop(journal);
        let (rows, inputs) =
            (std::fs::read(partial.join("rows.f32")).unwrap(), std::fs::read(partial.join("inputs.jsonl")).unwrap());
        for cut in 0..=rows.len() {
            std::fs::write(partial.join("rows.f32"), &rows[..cut]).unwrap();
            std::fs::write(partial.join("inputs.jsonl"), &inputs).unwrap();
            assert_eq!(Journal::open(&target, meta(), true).unwrap().entries().len(), cut / 8);
        }
        for cut in 0..=inputs.len() {
            std::fs::write(partial.join("rows.f32"), &rows).unwrap();
            std::fs::write(partial.join("inputs.jsonl"), &inputs[..cut]).unwrap();
            let journal = Journal::open(&target, meta(), true).unwrap();
            assert_eq!(journal.entries().len(), inputs[..cut].iter().filter(|b| **b == b'\n').count());
            let kept = std::fs::metadata(partial.join("rows.f32")).unwrap().len() as usize;
            assert_eq!(kept, journal.entries().len() * 8);
        }
    }

    #[test]
    fn refuses_silent_restarts_and_other_models() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("v.npz");
        drop(Journal::open(&target, meta(), false).unwrap());
        let again = Journal::open(&target, meta(), false).unwrap_err().to_string();
        assert!(again.contains("--resume"), "{again}");
        let mut other = meta();
        other.fingerprints.insert("image".into(), "f2".into());
        let mixed = Journal::open(&target, other, true).unwrap_err().to_string();
        assert!(mixed.contains("another model"), "{mixed}");
    }
}

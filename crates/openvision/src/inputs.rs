//! From arguments to a list of pictures: files, folders, patterns, lists on standard input, entries of shards.

use crate::Error;
use crate::pictures::ItemError;
use openvision_io::data::parquet::{Column, Pictures, Table};
use openvision_io::data::tar::Tar;
use openvision_io::image::{self, ImageError, Limits, Picture, ScaleOf};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Endings of pictures in folders and shards; files named one by one are always taken.
const PICTURE_ENDINGS: [&str; 12] =
    ["jpg", "jpeg", "jpe", "png", "webp", "bmp", "gif", "tif", "tiff", "heic", "heif", "avif"];

/// Longest list on standard input.
const LONGEST_LIST: u64 = 1 << 30;

/// One picture to read. Its name is what results, errors and journals call it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// An entry of a tar archive.
    Entry {
        /// The archive.
        tar: Arc<Tar>,
        /// The entry.
        index: usize,
        /// How many entries of this name come before it: a second one is another input.
        earlier: u32,
    },
    /// A row of a Parquet table.
    Row {
        /// The table.
        table: Arc<Pictures>,
        /// The row, from 0.
        row: u64,
    },
    /// What could not be opened, or what an archive lost; it takes part so that it is reported in its place.
    Broken {
        /// What it would have been called.
        name: String,
        /// What is wrong with it.
        error: ItemError,
    },
}

impl Input {
    /// `FILE`, `SHARD.tar/ENTRY`, `TABLE.parquet#ROW` or `TABLE.parquet#ROW:LABEL` where the table has labels.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Input::File(path) => path.to_string_lossy(),
            Input::Entry { tar, index, earlier } => {
                let entry = tar.entry(*index);
                let name = format!("{}/{}", tar.path().display(), printable(&entry.name));
                Cow::Owned(if *earlier == 0 { name } else { format!("{name}#{}", earlier + 1) })
            }
            Input::Row { table, row } => {
                let label = table.label(*row).map(|label| format!(":{}", printable(&label))).unwrap_or_default();
                Cow::Owned(format!("{}#{row}{label}", table.path().display()))
            }
            Input::Broken { name, .. } => name.into(),
        }
    }

    /// Reads and decodes the picture, at the scale that `scale` chooses where it is a JPEG.
    ///
    /// # Errors
    /// It cannot be read, or is no picture. The message has the name.
    pub fn read(&self, limits: &Limits, scale: ScaleOf) -> Result<Picture, ItemError> {
        let named = |source| ImageError::File { path: self.name().as_ref().into(), source: Box::new(source) };
        let decoded = match self {
            Input::File(path) => return Ok(image::read_scaled(path, limits, scale)?),
            Input::Entry { tar, index, .. } => {
                image::decode_scaled(&tar.read(*index, limits.max_bytes)?, limits, scale)
            }
            Input::Row { table, row } => {
                image::decode_scaled(table.get(*row, limits.max_bytes)?.bytes().unwrap_or_default(), limits, scale)
            }
            Input::Broken { error, .. } => return Err(error.clone()),
        };
        Ok(decoded.map_err(named)?)
    }
}

/// A name from inside a foreign file goes to terminals and logs: no control characters.
fn printable(name: &str) -> Cow<'_, str> {
    if name.contains(char::is_control) { name.replace(char::is_control, "\u{fffd}").into() } else { name.into() }
}

/// How arguments are read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The list on standard input is separated by NUL, not by lines.
    pub nul_separated: bool,
    /// Column of Parquet tables that holds the pictures; found by name or type where it is not said.
    pub column: Option<String>,
}

/// Expands arguments, in order. A folder gives its pictures, recursively and sorted by path; `-` reads a list of
/// paths, one a line or separated by NUL; a `.tar` file gives the
/// pictures in it, a `.parquet` file its rows. What does not exist stays in the list,
/// so that it is reported like any other broken input.
///
/// # Errors
/// Standard input cannot be read, a folder cannot be listed, or nothing at all was found.
pub fn expand(arguments: &[String], options: &Options) -> Result<Vec<Input>, Error> {
    let mut files = Vec::new();
    for argument in arguments {
        if argument == "-" {
            for path in standard_input(options.nul_separated)? {
                one(&path, options, &mut files)?;
            }
        } else {
            one(argument, options, &mut files)?;
        }
    }
    if files.is_empty() {
        let looked = if arguments.is_empty() { "no inputs were given".into() } else { arguments.join(", ") };
        return Err(Error::Usage(format!("no pictures found: {looked}")));
    }
    Ok(files)
}

/// The arguments as paths: patterns expanded, `-` read from standard input, folders and shards as they are.
///
/// # Errors
/// Standard input cannot be read, a pattern is malformed, or nothing at all was found.
pub fn paths(arguments: &[String], nul_separated: bool) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "-" => found.extend(standard_input(nul_separated)?.into_iter().map(PathBuf::from)),
            _ => found.extend(matching(argument)?),
        }
    }
    if found.is_empty() {
        return Err(Error::Usage(format!("nothing found: {}", arguments.join(", "))));
    }
    Ok(found)
}

/// The files that a pattern names, or the argument itself where it is none.
fn matching(argument: &str) -> Result<Vec<PathBuf>, Error> {
    let path = Path::new(argument);
    if path.exists() || !argument.contains(['*', '?', '[']) {
        return Ok(vec![path.to_path_buf()]);
    }
    let pattern = glob::glob(argument).map_err(|e| Error::Usage(format!("pattern '{argument}': {e}")))?;
    pattern.map(|found| found.map_err(|e| Error::File { path: e.path().into(), source: e.into() })).collect()
}

fn standard_input(nul_separated: bool) -> Result<Vec<String>, Error> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(LONGEST_LIST).read_to_end(&mut bytes).map_err(Error::Stdin)?;
    let separator = if nul_separated { 0 } else { b'\n' };
    let text = |part: &[u8]| String::from_utf8_lossy(part.strip_suffix(b"\r").unwrap_or(part)).into_owned();
    Ok(bytes.split(|b| *b == separator).filter(|part| !part.is_empty()).map(text).collect())
}

fn one(argument: &str, options: &Options, files: &mut Vec<Input>) -> Result<(), Error> {
    for path in matching(argument)? {
        if path.is_dir() { folder(&path, files)? } else { file(path, options, files) }
    }
    Ok(())
}

fn ending(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).unwrap_or_default()
}

/// Whether a name ends as pictures do.
pub(crate) fn is_picture(path: &Path) -> bool {
    PICTURE_ENDINGS.contains(&ending(path).as_str())
}

/// A named file: a shard or a table gives what is in it, everything else is taken for a picture.
fn file(path: PathBuf, options: &Options, files: &mut Vec<Input>) {
    let name = path.to_string_lossy().to_ascii_lowercase();
    if [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz"].iter().any(|end| name.ends_with(end)) {
        shard(&path, files);
    } else if name.ends_with(".parquet") {
        table(&path, options.column.as_deref(), files);
    } else {
        files.push(Input::File(path));
    }
}

/// The pictures of a tar archive, and at the end what is wrong with it. Files that macOS puts beside the real ones
/// (`._NAME`) are no pictures.
fn shard(path: &Path, files: &mut Vec<Input>) {
    let mut tar = match Tar::open(path) {
        Ok(tar) => tar,
        Err(error) => return files.push(Input::Broken { name: path.display().to_string(), error: error.into() }),
    };
    let defects = tar.take_defects();
    let tar = Arc::new(tar);
    let mut seen: HashMap<Cow<str>, u32> = HashMap::new();
    for (index, entry) in tar.entries().enumerate() {
        let inside = Path::new(entry.name.as_ref());
        let hidden = inside.file_name().is_some_and(|name| name.to_string_lossy().starts_with("._"));
        if is_picture(inside) && !hidden {
            let count = seen.entry(entry.name).or_default();
            files.push(Input::Entry { tar: Arc::clone(&tar), index, earlier: *count });
            *count += 1;
        }
    }
    let broken = |error: openvision_io::data::tar::TarError| Input::Broken {
        name: path.display().to_string(),
        error: error.into(),
    };
    files.extend(defects.into_iter().map(broken));
}

/// The rows of a table.
fn table(path: &Path, column: Option<&str>, files: &mut Vec<Input>) {
    match Pictures::open(path, column) {
        Ok(table) => {
            let table = Arc::new(table);
            files.extend((0..table.len()).map(|row| Input::Row { table: Arc::clone(&table), row }));
        }
        Err(error) => files.push(Input::Broken { name: path.display().to_string(), error: error.into() }),
    }
}

fn folder(path: &Path, files: &mut Vec<Input>) -> Result<(), Error> {
    for entry in walkdir::WalkDir::new(path).follow_links(true).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_picture(entry.path()) => {
                files.push(Input::File(entry.into_path()))
            }
            Ok(_) => {}
            // A loop of links or a folder without permission: named, and the rest goes on.
            Err(error) => {
                eprintln!("warning: {error}");
            }
        }
    }
    Ok(())
}

/// Lines of a file (or of standard input for `-`), empty ones left out.
///
/// # Errors
/// It cannot be read or is not UTF-8.
pub fn lines(path: &str) -> Result<Vec<String>, Error> {
    let mut bytes = Vec::new();
    let name = if path == "-" {
        std::io::stdin().lock().take(LONGEST_LIST + 1).read_to_end(&mut bytes).map_err(Error::Stdin)?;
        "standard input"
    } else {
        let file = std::fs::File::open(path).map_err(Error::file(path))?;
        file.take(LONGEST_LIST + 1).read_to_end(&mut bytes).map_err(Error::file(path))?;
        path
    };
    let unfit = |problem: String| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, problem);
        Error::File { path: name.into(), source }
    };
    if bytes.len() as u64 > LONGEST_LIST {
        return Err(unfit("more than 1 GiB of lines; split it".into()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let end = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count() + 1;
        unfit(format!("line {line} is not UTF-8; save it as UTF-8 text"))
    })?;
    Ok(text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Texts of a file: a column of a Parquet table (empty and missing ones left out), or lines.
///
/// # Errors
/// It cannot be read, or the table has no such column.
pub fn texts(path: &str, column: &str) -> Result<Vec<String>, Error> {
    if !path.to_ascii_lowercase().ends_with(".parquet") {
        return lines(path);
    }
    let column = Column::named(Arc::new(Table::open(path.as_ref())?), column)?;
    let mut texts = Vec::new();
    for row in 0..column.table().rows() {
        texts.extend(column.get(row)?.map(|cell| cell.text()).filter(|text| !text.is_empty()));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_patterns_and_named_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        for name in ["b.JPG", "a.png", "notes.txt", "sub/c.webp"] {
            std::fs::write(at(name), b"x").unwrap();
        }
        let names = |arguments: &[String]| -> Vec<String> {
            let files = expand(arguments, &Options::default()).unwrap();
            let root = format!("{}/", folder.path().display());
            files.iter().map(|f| f.name().strip_prefix(&root).unwrap().to_owned()).collect()
        };
        let root = folder.path().display().to_string();
        assert_eq!(names(std::slice::from_ref(&root)), ["a.png", "b.JPG", "sub/c.webp"]);
        assert_eq!(names(&[format!("{root}/*.txt"), format!("{root}/missing.jpg")]), ["notes.txt", "missing.jpg"]);
        assert!(expand(&[format!("{root}/*.gif")], &Options::default()).is_err());
    }
}

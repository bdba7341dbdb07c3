//! The footer: columns, row groups, and where their bytes are.

use super::thrift::{self, Value};
use super::{Defect, ParquetError};
use crate::positioned::Positioned;
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"PAR1";

/// Longest footer: real ones have kilobytes, some hundred thousand column chunks need this.
const LONGEST_FOOTER: u64 = 64 << 20;

/// Deepest nesting of a schema.
const DEEPEST: usize = 32;

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Physical {
    /// Bytes of any length.
    Bytes,
    /// 32-bit numbers.
    Int32,
    /// 64-bit numbers.
    Int64,
    /// Something that is not read here.
    Other,
}

/// A column of values; a structure has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Names from the top, joined by dots: `image.bytes`.
    pub path: String,
    /// How its values are stored.
    pub physical: Physical,
    /// Whether its bytes are said to be a text.
    pub is_text: bool,
    /// Whether its bytes have some other meaning (decimal, ...).
    pub is_annotated: bool,
    /// Whether a row may have several values.
    pub is_repeated: bool,
    /// Levels of optional structures above a value, itself included.
    pub(super) max_definition: u32,
}

/// One column of one row group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) codec: i64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

#[derive(Debug)]
pub(super) struct Group {
    /// Number of the first row.
    pub(super) first: u64,
    pub(super) rows: u64,
    /// By leaf.
    pub(super) chunks: Vec<Chunk>,
}

/// A table: its file and what the footer says.
#[derive(Debug)]
pub struct Table {
    pub(super) source: Positioned,
    pub(super) path: PathBuf,
    pub(super) leaves: Vec<Leaf>,
    pub(super) groups: Vec<Group>,
    rows: u64,
    metadata: Vec<(String, String)>,
}

impl Table {
    /// Opens a table and reads its footer.
    ///
    /// # Errors
    /// It cannot be opened, is no Parquet file, or its footer is broken.
    pub fn open(path: &Path) -> Result<Self, ParquetError> {
        let source = Positioned::open(path).map_err(|source| ParquetError::Open { path: path.into(), source })?;
        Self::read(source, path)
    }

    /// A table in memory; `path` is for messages.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, ParquetError> {
        Self::read(Positioned::from_bytes(bytes), path)
    }

    fn read(source: Positioned, path: &Path) -> Result<Self, ParquetError> {
        let not = |what| Err(ParquetError::NotParquet { path: path.into(), what });
        let read = |offset: u64, wanted: u64| {
            let read = source.read_vec(offset, wanted);
            read.map_err(|source| ParquetError::Read { path: path.into(), offset, wanted, source })
        };
        let at = |defect: Defect| defect.at(path, "its footer".into());
        // Magic, at least one byte of footer, its length, magic.
        if source.len() < 13 || read(0, 4)? != MAGIC {
            return not("is not a Parquet file: it does not begin with PAR1");
        }
        let end = read(source.len() - 8, 8)?;
        match &end[4..] {
            MAGIC => {}
            b"PARE" => return not("is an encrypted Parquet file, which is not supported; write it without encryption"),
            _ => return not("does not end with PAR1: the file was cut off, copy it again"),
        }
        let length = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
        if length > source.len() - 12 {
            return Err(at(Defect::corrupt(format!("it is said to have {length} bytes, more than the file has"))));
        }
        if length > LONGEST_FOOTER {
            return Err(at(Defect::TooLong { bytes: length, limit: LONGEST_FOOTER }));
        }
        let bytes = read(source.len() - 8 - length, length)?;
        let footer = match thrift::read(&bytes) {
            Ok((footer, _)) => footer,
            Err(thrift::Defect::Short) => return Err(at(Defect::corrupt("it ends too early"))),
            Err(thrift::Defect::Malformed(what)) => return Err(at(Defect::corrupt(what))),
        };
        drop(bytes);
        let leaves = leaves(&footer).map_err(at)?;
        let (groups, rows) = groups(&footer, &leaves, source.len()).map_err(at)?;
        let text = |value: &Value, id| value.bytes(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let metadata = footer.list(5).iter().filter_map(|pair| Some((text(pair, 1)?, text(pair, 2)?))).collect();
        Ok(Self { source, path: path.into(), leaves, groups, rows, metadata })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Columns of values, in the order of the schema.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Keys and values of the file.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }
}

/// Walks the schema, which is a tree written depth first.
fn leaves(footer: &Value) -> Result<Vec<Leaf>, Defect> {
    let elements = footer.list(2);
    let root = elements.first().ok_or_else(|| Defect::corrupt("there is no schema"))?;
    let mut walk = Walk { elements, next: 1, leaves: Vec::new() };
    let above = Above { path: String::new(), definition: 0, repeated: false, depth: 0 };
    walk.children(root.count(5).unwrap_or(0), &above)?;
    if walk.next != elements.len() {
        return Err(Defect::corrupt("its schema has columns that belong to nothing"));
    }
    Ok(walk.leaves)
}

struct Walk<'a> {
    elements: &'a [Value],
    next: usize,
    leaves: Vec<Leaf>,
}

#[derive(Clone)]
struct Above {
    path: String,
    definition: u32,
    repeated: bool,
    depth: usize,
}

impl Walk<'_> {
    fn children(&mut self, count: u64, above: &Above) -> Result<(), Defect> {
        if above.depth > DEEPEST {
            return Err(Defect::corrupt("its schema is nested too deep"));
        }
        for _ in 0..count {
            let element = self.elements.get(self.next).ok_or_else(|| Defect::corrupt("its schema ends too early"))?;
            self.next += 1;
            let name = element.bytes(4).map(String::from_utf8_lossy);
            let name = name.ok_or_else(|| Defect::corrupt("a column has no name"))?;
            let path = if above.path.is_empty() { name.into_owned() } else { format!("{}.{name}", above.path) };
            let repetition = element.int(3).unwrap_or(0);
            let definition = above.definition + u32::from(repetition != 0);
            let repeated = above.repeated || repetition == 2;
            match element.count(5) {
                Some(count) if count > 0 || element.int(1).is_none() => {
                    self.children(count, &Above { path, definition, repeated, depth: above.depth + 1 })?;
                }
                _ => self.leaves.push(leaf(element, path, definition, repeated)),
            }
        }
        Ok(())
    }
}

fn leaf(element: &Value, path: String, max_definition: u32, is_repeated: bool) -> Leaf {
    let physical = match element.int(1) {
        Some(1) => Physical::Int32,
        Some(2) => Physical::Int64,
        Some(6) => Physical::Bytes,
        _ => Physical::Other,
    };
    // Converted types UTF8, ENUM, JSON; logical types STRING, ENUM, JSON.
    let logical = |id| element.field(10).is_some_and(|logical| logical.field(id).is_some());
    let is_text = matches!(element.int(6), Some(0 | 4 | 19)) || [1, 4, 12].into_iter().any(logical);
    let is_annotated = element.int(6).is_some() || element.field(10).is_some();
    Leaf { path, physical, is_text, is_annotated, is_repeated, max_definition }
}

fn groups(footer: &Value, leaves: &[Leaf], file_length: u64) -> Result<(Vec<Group>, u64), Defect> {
    let mut rows = 0u64;
    let mut groups = Vec::new();
    for group in footer.list(4) {
        let first = rows;
        let count = group.count(3).ok_or_else(|| Defect::corrupt("a row group does not say its rows"))?;
        rows = rows.checked_add(count).ok_or_else(|| Defect::corrupt("the rows cannot be counted"))?;
        let columns = group.list(1);
        if columns.len() != leaves.len() {
            return Err(Defect::corrupt(format!("a row group has {} columns of {}", columns.len(), leaves.len())));
        }
        let chunks = columns.iter().map(|column| chunk(column, file_length)).collect::<Result<Vec<Chunk>, _>>()?;
        groups.push(Group { first, rows: count, chunks });
    }
    if footer.count(3) != Some(rows) {
        return Err(Defect::corrupt("its row groups do not have the rows that it says"));
    }
    // Whoever lists rows must be safe from a count that is a lie; no table of pictures has rows of less than a byte.
    if rows > file_length {
        return Err(Defect::Unsupported(format!("{rows} rows in {file_length} bytes: rows of pictures are longer")));
    }
    Ok((groups, rows))
}

fn chunk(column: &Value, file_length: u64) -> Result<Chunk, Defect> {
    if column.bytes(1).is_some_and(|path| !path.is_empty()) {
        return Err(Defect::Unsupported("its columns are in other files; join them first".into()));
    }
    let facts =
        column.field(3).ok_or_else(|| Defect::Unsupported("an encrypted column; write it in the clear".into()))?;
    let missing = || Defect::corrupt("a column does not say where its bytes are");
    let data = facts.count(9).ok_or_else(missing)?;
    // Some old writers say 0 for no dictionary.
    let offset = facts.count(11).filter(|at| *at > 0).map_or(data, |dictionary| dictionary.min(data));
    let length = facts.count(7).ok_or_else(missing)?;
    if offset.checked_add(length).is_none_or(|end| end > file_length) {
        return Err(Defect::corrupt("a column goes beyond the end of the file"));
    }
    Ok(Chunk { codec: facts.int(4).unwrap_or(-1), offset, length })
}

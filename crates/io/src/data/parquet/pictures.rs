//! A table with a column of pictures, as Hugging Face's `datasets` and others write them: a column of bytes, or a
//! structure of `bytes` and `path`.

use super::{Cell, Column, Leaf, ParquetError, Physical, Table};
use std::path::Path;
use std::sync::Arc;

/// Names of columns of pictures, the usual first.
const PICTURES: [&str; 8] = ["image", "jpg", "picture", "img", "png", "jpeg", "webp", "photo"];

/// Names of columns that tell rows apart.
const LABELS: [&str; 9] = ["__key__", "key", "id", "image_id", "uid", "file_name", "filename", "path", "name"];

/// The pictures of a table.
#[derive(Debug)]
pub struct Pictures {
    pictures: Column,
    labels: Option<Column>,
}

impl Pictures {
    /// Opens a table and finds its column of pictures: the named one, or one of a usual name, or the only column of
    /// bytes.
    ///
    /// # Errors
    /// The table cannot be read, or there is no such column.
    pub fn open(path: &Path, column: Option<&str>) -> Result<Self, ParquetError> {
        Self::of(Table::open(path)?, column)
    }

    /// The pictures of an open table.
    ///
    /// # Errors
    /// As [`Pictures::open`].
    pub fn of(table: Table, column: Option<&str>) -> Result<Self, ParquetError> {
        let leaf = find(&table, column)?;
        let table = Arc::new(table);
        let labels = label(&table, leaf).and_then(|leaf| Column::new(Arc::clone(&table), leaf).ok());
        Ok(Self { pictures: Column::new(table, leaf)?, labels })
    }

    /// Rows.
    pub fn len(&self) -> u64 {
        self.pictures.table().rows()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.pictures.table().path()
    }

    /// What the table calls a row, where it has a path, a key or a number for it that can be read.
    pub fn label(&self, row: u64) -> Option<String> {
        let label = self.labels.as_ref()?.get(row).ok()??.text();
        (!label.is_empty()).then_some(label)
    }

    /// The bytes of a row's picture are in this cell.
    ///
    /// # Errors
    /// The row has no picture, it is longer than `limit`, or its page is broken.
    ///
    /// # Panics
    /// The table has no such row.
    pub fn get(&self, row: u64, limit: u64) -> Result<Cell, ParquetError> {
        let path = || self.path().to_owned();
        let Some(cell) = self.pictures.get(row)? else {
            return Err(ParquetError::NoValue { path: path(), row, what: "the row has no picture in it" });
        };
        let bytes = cell.bytes().map_or(0, |bytes| bytes.len() as u64);
        if bytes > limit {
            return Err(ParquetError::TooLong {
                path: path(),
                place: format!("the picture of row {row}"),
                bytes,
                limit,
            });
        }
        Ok(cell)
    }
}

/// Bytes that nobody calls a text, once a row.
fn is_binary(leaf: &Leaf) -> bool {
    leaf.physical == Physical::Bytes && !leaf.is_annotated && !leaf.is_repeated
}

fn find(table: &Table, column: Option<&str>) -> Result<usize, ParquetError> {
    let leaves = table.leaves();
    let named = |name: &str| {
        let is = |leaf: &Leaf| {
            leaf.path.eq_ignore_ascii_case(name) || leaf.path.eq_ignore_ascii_case(&format!("{name}.bytes"))
        };
        leaves.iter().position(is)
    };
    let binary: Vec<usize> = (0..leaves.len()).filter(|leaf| is_binary(&leaves[*leaf])).collect();
    let error = |what| Err(ParquetError::NoColumn { path: table.path().into(), what });
    let there = |which: &[usize]| {
        let names: Vec<&str> = which.iter().map(|leaf| leaves[*leaf].path.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    if let Some(column) = column {
        return match named(column) {
            Some(leaf) if is_binary(&leaves[leaf]) => Ok(leaf),
            Some(_) => error(format!(
                "column '{column}' does not hold the bytes of a picture a row; columns that do: {}",
                there(&binary)
            )),
            None => error(format!("there is no column '{column}'; columns of bytes: {}", there(&binary))),
        };
    }
    if let Some(leaf) = PICTURES.iter().filter_map(|name| named(name)).find(|leaf| binary.contains(leaf)) {
        return Ok(leaf);
    }
    match binary[..] {
        [only] => Ok(only),
        [] => error("there is no column of pictures: none holds bytes".into()),
        _ => error(format!("which column holds the pictures? Say --column NAME: {}", there(&binary))),
    }
}

/// The path beside the bytes, else a column that tells rows apart.
fn label(table: &Table, picture: usize) -> Option<usize> {
    let leaves = table.leaves();
    let fits =
        |leaf: &Leaf| !leaf.is_repeated && (leaf.is_text || matches!(leaf.physical, Physical::Int32 | Physical::Int64));
    let named = |name: &str| leaves.iter().position(|leaf| leaf.path.eq_ignore_ascii_case(name) && fits(leaf));
    let beside = leaves[picture].path.strip_suffix(".bytes").and_then(|above| named(&format!("{above}.path")));
    beside.or_else(|| LABELS.iter().find_map(|name| named(name)))
}

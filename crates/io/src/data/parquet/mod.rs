//! Parquet tables, read by position a page at a time and written a row group at a time.
//!
//! Flat columns of bytes, texts and whole numbers are read, in every encoding and in the compressions that need no C
//! compiler (Snappy, gzip, zstd, LZ4). Own code rather than the `parquet` crate: that reserves memory by declared
//! counts, and brings 21 packages (67 with Arrow's) where this needs three.

mod column;
mod encoding;
mod metadata;
mod page;
mod pictures;
mod thrift;
mod write;

pub use column::{Cell, Column};
pub use metadata::{Leaf, Physical, Table};
pub use pictures::Pictures;

use std::io;
use std::path::{Path, PathBuf};

/// What is wrong with a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParquetError {
    /// It cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's message.
        source: io::Error,
    },
    /// A part of it cannot be read.
    #[error("{}: cannot read {wanted} bytes at byte {offset}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How many.
        wanted: u64,
        /// The system's message.
        source: io::Error,
    },
    /// No Parquet file, or one that lost its end.
    #[error("{}: {what}", path.display())]
    NotParquet {
        /// The file.
        path: PathBuf,
        /// What it is and what to do.
        what: &'static str,
    },
    /// The contents contradict the format.
    #[error("{}: broken Parquet file: {place}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Footer, or column and row group.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Valid, but not read here.
    #[error("{}: {place}: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Footer, or column and row group.
        place: String,
        /// What it is and what to do.
        what: String,
    },
    /// Larger than what is taken.
    #[error("{}: {place} has {bytes} bytes, the limit is {limit}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// What is too long.
        place: String,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// No column as wanted.
    #[error("{}: {what}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// What was looked for and what there is.
        what: String,
    },
    /// A row without a value.
    #[error("{}#{row}: {what}", path.display())]
    NoValue {
        /// The file.
        path: PathBuf,
        /// The row, from 0.
        row: u64,
        /// What is there instead.
        what: &'static str,
    },
}

impl ParquetError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            ParquetError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => "not_found",
            ParquetError::Open { .. } | ParquetError::Read { .. } => "unreadable",
            ParquetError::NotParquet { .. } | ParquetError::Unsupported { .. } => "unsupported",
            ParquetError::Corrupt { .. } => "corrupt",
            ParquetError::TooLong { .. } => "too_large",
            ParquetError::NoColumn { .. } => "no_column",
            ParquetError::NoValue { .. } => "no_value",
        }
    }
}

/// What a decoder says; the caller knows file, column and row group.
#[derive(Debug, PartialEq, Eq)]
enum Defect {
    Corrupt(String),
    Unsupported(String),
    TooLong { bytes: u64, limit: u64 },
}

impl Defect {
    fn corrupt(what: impl Into<String>) -> Self {
        Defect::Corrupt(what.into())
    }

    fn at(self, path: &Path, place: String) -> ParquetError {
        let path = path.to_owned();
        match self {
            Defect::Corrupt(what) => ParquetError::Corrupt { path, place, what },
            Defect::Unsupported(what) => ParquetError::Unsupported { path, place, what },
            Defect::TooLong { bytes, limit } => ParquetError::TooLong { path, place, bytes, limit },
        }
    }
}

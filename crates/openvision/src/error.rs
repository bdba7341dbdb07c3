//! Errors that end a command. What concerns one input only is an [`crate::pictures::ItemError`].

use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model.
    #[error(transparent)]
    Model(#[from] openvision_model::ModelError),
    /// A model could not be fetched.
    #[cfg(feature = "fetch")]
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// A Parquet table of texts.
    #[error(transparent)]
    Table(#[from] openvision_io::data::parquet::ParquetError),
    /// A file of results could not be written.
    #[error(transparent)]
    Write(#[from] openvision_io::atomic::WriteError),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// Standard output is closed or full.
    #[error("standard output: {0}")]
    Stdout(std::io::Error),
    /// Standard input could not be read.
    #[error("standard input: {0}")]
    Stdin(std::io::Error),
    /// A shard cannot be read, or captions cannot be written into it; other shards can.
    #[error("{0}; nothing was written")]
    Shard(String),
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// Results of an interrupted run are in the way, or do not fit this one.
    #[error("{path}: {problem}")]
    Journal {
        /// The folder of the interrupted run.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl Error {
    /// Names the file that an error of the system belongs to.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

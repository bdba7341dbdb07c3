//! The ways in which a picture file can be wrong.

use super::Format;
use std::path::PathBuf;

/// Why a picture could not be decoded. Each message says what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Wraps every error of [`super::read`].
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<ImageError>,
    },
    /// The operating system refused.
    #[error("cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// A folder where a file is wanted.
    #[error("is a folder, not a picture")]
    IsFolder,
    /// Zero bytes.
    #[error("the file is empty")]
    Empty,
    /// Longer than [`super::Limits::max_bytes`].
    #[error("the file has {bytes} bytes, the limit is {limit}")]
    FileTooLong {
        /// Length of the file.
        bytes: u64,
        /// Limit in force.
        limit: u64,
    },
    /// Not a picture, or a kind of picture nobody here knows.
    #[error("not a picture in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF): it begins with {beginning}")]
    Unrecognized {
        /// First bytes, printable.
        beginning: String,
    },
    /// Recognized by its first bytes, but not something we decode.
    #[error("this is {what}, which is not supported; {advice}")]
    UnsupportedFormat {
        /// Name of the format, with its article.
        what: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// Width or height is zero.
    #[error("the header says {width}x{height} pixels: nothing to decode")]
    NoPixels {
        /// Declared width.
        width: u64,
        /// Declared height.
        height: u64,
    },
    /// More pixels than [`super::Limits::max_pixels`].
    #[error(
        "{width}x{height} is more than the limit of {limit} pixels (a decompression bomb?); shrink the picture or raise the limit"
    )]
    TooManyPixels {
        /// Declared width.
        width: u64,
        /// Declared height.
        height: u64,
        /// Limit in force.
        limit: u64,
    },
    /// Decoding would need more than [`super::Limits::max_memory`].
    #[error("decoding would need {bytes} bytes of memory, the limit is {limit}; shrink the picture or raise the limit")]
    TooMuchMemory {
        /// Estimate.
        bytes: u64,
        /// Limit in force.
        limit: u64,
    },
    /// The file ends too early.
    #[error("the {format} file is cut off: {what}")]
    Truncated {
        /// Container.
        format: Format,
        /// What is missing.
        what: String,
    },
    /// The contents contradict the format.
    #[error("broken {format} file: {what}")]
    Corrupt {
        /// Container.
        format: Format,
        /// What is wrong.
        what: String,
    },
    /// Valid, but a variant that we (and mostly Pillow too) do not decode.
    #[error("{format} file of an unsupported kind: {what}; save it as PNG or baseline JPEG")]
    Unsupported {
        /// Container.
        format: Format,
        /// The variant.
        what: String,
    },
}

impl ImageError {
    /// A stable name of the kind of error, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            ImageError::File { source, .. } => source.code(),
            ImageError::Read(error) if error.kind() == std::io::ErrorKind::NotFound => "not_found",
            ImageError::Read(_) | ImageError::IsFolder => "unreadable",
            ImageError::FileTooLong { .. } | ImageError::TooManyPixels { .. } | ImageError::TooMuchMemory { .. } => {
                "too_large"
            }
            ImageError::Unrecognized { .. } | ImageError::UnsupportedFormat { .. } | ImageError::Unsupported { .. } => {
                "unsupported"
            }
            ImageError::Empty | ImageError::Truncated { .. } => "truncated",
            ImageError::NoPixels { .. } | ImageError::Corrupt { .. } => "corrupt",
        }
    }

    pub(super) fn corrupt(format: Format, what: impl ToString) -> Self {
        ImageError::Corrupt { format, what: what.to_string() }
    }

    pub(super) fn truncated(format: Format, what: impl ToString) -> Self {
        ImageError::Truncated { format, what: what.to_string() }
    }

    pub(super) fn unsupported(format: Format, what: impl ToString) -> Self {
        ImageError::Unsupported { format, what: what.to_string() }
    }
}

//! What can go wrong between a name on the command line and a loaded model.

use crate::load::Problem;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A field of a configuration cannot be.
    #[error("{place}: field `{field}`: {problem}")]
    Config {
        /// File or source of the configuration.
        place: String,
        /// The field.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A configuration is not JSON.
    #[error("{path}: not valid JSON: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        source: serde_json::Error,
    },
    /// A file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// The checkpoint's container is broken.
    #[error(transparent)]
    Weights(#[from] openvision_io::weights::WeightsError),
    /// The preprocessing description cannot be.
    #[error("{place}: {source}")]
    Preprocess {
        /// File or source of the description.
        place: String,
        /// What is wrong.
        source: openvision_io::preprocess::PreprocessError,
    },
    /// The tokenizer could not be made.
    #[error(transparent)]
    Token(#[from] openvision_io::token::TokenError),
    /// Tensors are missing, unexpected or have the wrong shape.
    #[error("{place}: the tensors do not fit the configuration:\n{}", list(.problems))]
    Tensors {
        /// The checkpoint.
        place: String,
        /// Every problem, by tensor name.
        problems: Vec<Problem>,
    },
    /// The layout of a checkpoint is not one that can be read.
    #[error("{place}: {problem}")]
    Layout {
        /// The checkpoint.
        place: String,
        /// What was found, and what could be read instead.
        problem: String,
    },
    /// A model was named that nothing is known of.
    #[error("no model '{name}': {hint}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Near names, or what to do.
        hint: String,
    },
    /// The model lacks a tower.
    #[error("the model has no {0} tower")]
    NoTower(&'static str),
    /// The model has no texts at all.
    #[error("this model has no text tower: it reads pictures only")]
    NoText,
    /// The model cannot write captions.
    #[error(
        "this model has no caption decoder: OpenVision 2 has one, in caption_decoder.safetensors beside the weights"
    )]
    NoDecoder,
    /// The model's pooled vector means nothing.
    #[error(
        "OpenVision 2 gives patch tokens only, its pooled vector was never trained: use `embed --tokens -1`, or `caption`"
    )]
    PatchTokensOnly,
    /// An input does not fit the model.
    #[error("{0}")]
    Input(String),
    /// The instruction set asked for is not there.
    #[error(transparent)]
    Isa(#[from] openvision_kernels::isa::UnknownIsa),
}

impl ModelError {
    /// An impossible configuration field.
    pub(crate) fn config(place: &str, field: &str, problem: impl Into<String>) -> Self {
        Self::Config { place: place.to_owned(), field: field.to_owned(), problem: problem.into() }
    }
}

/// Problems, one a line; long lists keep every name, since a user needs them all at once.
fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

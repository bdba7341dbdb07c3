//! Vision encoders in one program: pictures and texts to vectors, zero-shot classification, ranking.
//!
//! This crate holds the use cases; the command line and later the server and the Python module only translate to
//! them. Models, kernels and file formats live in the crates below.
//!
//! ```no_run
//! use openvision::{LoadOptions, Model, pool};
//! let model = Model::load("models/tiny".as_ref(), &LoadOptions::default(), pool(2))?;
//! let (vectors, _) = model.encode_texts(&["a red bicycle"])?;
//! assert_eq!(vectors.len(), model.config.embed_dim);
//! # Ok::<(), openvision::ModelError>(())
//! ```
#![forbid(unsafe_code)]

pub mod bench;
pub mod caption;
pub mod classify;
pub mod drift;
pub mod embed;
mod error;
pub mod evaluate;
#[cfg(feature = "fetch")]
pub mod hub;
pub mod inputs;
pub mod interrupt;
pub mod output;
pub mod pictures;
pub mod rank;
pub mod resolve;
pub mod verify;

pub use error::Error;
pub use openvision_kernels::Isa;
pub use openvision_model::{LoadOptions, Model, ModelError};

use openvision_kernels::pool::Pool;
use std::sync::Arc;

/// A pool of this many threads, for [`Model::load`].
pub fn pool(threads: usize) -> Arc<Pool> {
    Arc::new(Pool::new(threads))
}

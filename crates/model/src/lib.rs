//! Model descriptions, the two towers, the names that files give their tensors, loading and encoding.
//!
//! A family is data: a [`config::ModelConfig`], a name map in `presets/namemaps` and entries in `presets/models`.
#![forbid(unsafe_code)]

pub mod caption;
pub mod config;
mod decoder;
mod encoder;
mod error;
mod fingerprint;
pub mod import;
pub mod init;
mod load;
mod model;
pub mod onnx;
pub mod positions;
mod profile;
mod quantized;
mod random;
pub mod registry;
mod rounded;
pub mod tower;

pub use decoder::Decoder;
pub use encoder::{Encoder, Fill, Item, Observe, Pass};
pub use error::ModelError;
pub use load::{LoadOptions, Named, Problem, Tensors};
pub use model::Model;
pub use openvision_tensor::Tap;
pub use profile::{OperationTime, Profile};
pub use quantized::Arithmetic;

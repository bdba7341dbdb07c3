//! Foreign bytes in, plain values out: pictures, texts and checkpoints. Knows no model and no tensor operation.
#![forbid(unsafe_code)]

pub mod atomic;
pub mod data;
pub mod image;
mod positioned;
pub mod preprocess;
pub mod token;
pub mod weights;

//! Files of vectors: `.npy`, `.npz`, `.jsonl`, `.parquet`, `.arrow`. A run keeps its results in a journal until the file appears whole.

mod files;
mod journal;

pub use files::{Format, json_line};
pub use journal::{Entry, Journal, Meta};

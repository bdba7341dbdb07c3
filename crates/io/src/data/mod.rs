//! Files that hold many items: WebDataset shards (`.tar`), Parquet tables, Arrow files. What is inside is read by
//! position, never unpacked.

mod arrow;
mod flatbuffer;
pub mod parquet;
pub mod shard;
pub mod tar;
pub mod vectors;

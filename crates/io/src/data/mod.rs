//! Files that hold many items: WebDataset shards (`.tar`). What is inside is read by position, never unpacked.

pub mod positioned;
pub mod shard;
pub mod tar;

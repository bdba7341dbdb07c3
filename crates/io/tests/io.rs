//! Integration tests of the crate: one binary, a module for each kind of foreign bytes.
#![allow(clippy::unwrap_used)] // helpers outside #[test] functions unwrap too

mod data;
mod images;
mod tokens;
mod weights;

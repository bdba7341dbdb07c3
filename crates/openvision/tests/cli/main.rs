//! Tests of the real program on real files: each in a folder of its own, named by what a user would do.
#![allow(clippy::unwrap_used)] // helpers outside #[test] functions unwrap too

mod archives;
mod bench;
mod caption;
mod containers;
mod docs;
mod embed;
mod eval;
#[cfg(feature = "fetch")]
mod fetch;
mod hostile;
#[cfg(feature = "fetch")]
mod hub;
mod int8;
mod models;
mod photos;
mod sorting;
mod support;

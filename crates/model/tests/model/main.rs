//! Integration tests of the model crate: parity with recorded outputs of the peers, counts, independence of threads.
#![allow(clippy::unwrap_used)] // helpers outside #[test] functions unwrap too

mod caption;
mod counts;
mod fullsize;
mod independence;
mod jax;
mod quantized;
mod small;
mod support;

//! Integration tests of the crate, one binary.
#![allow(clippy::unwrap_used)] // helpers of tests are outside of what clippy.toml exempts
mod tokens;

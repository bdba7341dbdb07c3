//! The checks behind `cargo xtask tidy`, as a library so that they are tested like any code. No dependencies.
#![forbid(unsafe_code)]

mod source;
pub mod tidy;

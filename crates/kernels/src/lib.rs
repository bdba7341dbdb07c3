//! Numeric loops over slices, written once and compiled for every instruction set. The only crate with `unsafe`.
//!
//! Every operation gives the same bits on every instruction set: sums run in one fixed order over sixteen lanes
//! (`isa::Simd`), and each element of a matrix product is one chain of fused multiply-adds over `k`, whatever
//! the tile shape, the number of rows in a call or the number of threads.
//!
//! Glossary of shape letters: `N` rows or tokens, `D` width, `K` inner dimension, `H` heads, `P` patch side.

pub mod act;
pub mod attention;
pub mod buffer;
mod bytes;
pub mod embed;
pub mod gemm;
#[cfg(feature = "heif")]
pub mod heif;
pub mod isa;
pub mod merge;
pub mod norm;
pub mod patch;
pub mod peak;
pub mod pool;
pub mod resize;
mod transpose;
pub mod vector;

pub use buffer::Buffer;
pub use isa::{DotUnit, Isa};

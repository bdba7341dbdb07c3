//! Parameter plans, stored parameters and the executor interface that models are wired over.
//!
//! A model holds sizes and parameter ids, no numbers; an executor owns the numbers. [`CpuExec`] computes and keeps
//! nothing, the training crate's tape records. Neither knows what a model is.
#![forbid(unsafe_code)]

mod cached;
mod cpu;
mod exec;
mod plan;
mod store;
mod timed;

pub use cached::{CacheShape, CachedExec, KeyValueCache, NewRows, Place};
pub use cpu::{Arena, CpuExec, CpuInput, TapSink};
pub use exec::{Blocks, Exec, Heads, Patches, Pooling, Slot, Tap, Tokens};
pub use plan::{Layout, LinearId, LinearSpec, NormId, NormSpec, ParamPlan, Role, TableId, TableSpec, TensorSpec};
pub use store::{CpuStore, Weights};
pub use timed::{Operation, Timed, Times};

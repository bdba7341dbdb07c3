//! The tape against the inference executor, recorded gradients of the peers, finite differences and itself.

#![allow(clippy::unwrap_used)] // a test may fail by panicking

mod checkpointing;
mod differences;
mod forward;
mod gradients;
mod loss;
mod speed;
mod support;

//! Checkpoints: goldens of every container, hostile files under a memory limit, round trips, the writer's promises.

mod gguf;
mod goldens;
mod hostile;
mod npz;
mod support;
mod torch;
mod writing;

//! Training: the models' own wiring run on a tape that records, with gradients of every parameter.
//!
//! [`Tape`] is the second executor of `openvision_tensor::Exec`; it knows no model. A step is: a tape for each tower,
//! their embeddings into [`contrastive`], its gradients back through [`Tape::backward`]. What changes the parameters
//! (optimisers, schedules, data) is not here.
#![forbid(unsafe_code)]

mod arena;
mod backward;
mod error;
mod loss;
mod params;
mod tape;

pub use arena::{TapeArena, TapeMemory};
pub use error::TrainError;
pub use loss::{Contrastive, contrastive};
pub use params::{ParamGradients, ParamValues};
pub use tape::{Keep, Tape};

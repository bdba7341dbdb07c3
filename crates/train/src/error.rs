//! What can go wrong on the way into a training run.

use openvision_io::weights::WeightsError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The model needs a tensor that the file does not have.
    #[error("missing tensor: {name} {shape:?}; is this a checkpoint of the same model?")]
    Missing {
        /// Its name.
        name: String,
        /// The shape that it would have.
        shape: Vec<usize>,
    },
    /// A tensor has another shape than the model says.
    #[error("tensor {name} is {found:?}, the model says {expected:?}; load it by the configuration it was saved with")]
    Shape {
        /// Its name.
        name: String,
        /// By the model.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A value is not a finite number.
    #[error("tensor {name} is not a finite number at index {index}; the checkpoint is of a run that diverged")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Index of the first such value.
        index: usize,
    },
    /// A tensor cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

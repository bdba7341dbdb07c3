//! `eval drift`: how far the embeddings of a model move by options that change its numbers, against the same model
//! without them.

use crate::inputs::Input;
use crate::interrupt::Interrupt;
use crate::pictures::{ItemError, Run, Want};
use crate::{Error, Model};
use openvision_io::image::Limits;
use serde::Serialize;

/// Cosines between the embeddings of the same pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Pictures that both gave a vector of.
    pub pictures: usize,
    /// Pictures that could not be read.
    pub failed: usize,
    /// Mean cosine.
    pub mean: f64,
    /// Smallest cosine.
    pub minimum: f64,
    /// The picture that has it.
    pub worst: String,
}

/// Pictures and how they are read.
pub struct Pictures<'a> {
    /// The pictures.
    pub inputs: &'a [Input],
    /// Limits of decoding.
    pub limits: Limits,
    /// Stops the run; what was not embedded counts nowhere.
    pub interrupt: &'a Interrupt,
}

/// Hears of each picture as it is done; an error ends the run.
pub type Hear<'a> = &'a mut (dyn FnMut(usize, Option<&ItemError>) -> Result<(), Error> + Send);

impl Pictures<'_> {
    /// The unit embedding of each picture, where there is one.
    ///
    /// # Errors
    /// The model has no image tower, or `hear` failed.
    pub fn embed(&self, model: &Model, hear: Hear) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let mut vectors = vec![None; self.inputs.len()];
        let run = Run { model, limits: self.limits, want: Want::Unit, interrupt: self.interrupt };
        run.files(self.inputs, &mut |index, outcome| {
            let failure = outcome.as_ref().err();
            if let Ok(vector) = &outcome {
                vectors[index] = Some(vector.to_vec());
            }
            hear(index, failure)
        })?;
        Ok(vectors)
    }

    /// Compares what two models gave.
    ///
    /// # Errors
    /// No picture has two vectors.
    pub fn compare(&self, plain: &[Option<Vec<f32>>], changed: &[Option<Vec<f32>>]) -> Result<Drift, Error> {
        let (mut pictures, mut sum, mut minimum, mut worst) = (0, 0.0, f64::INFINITY, 0);
        for (index, (plain, changed)) in std::iter::zip(plain, changed).enumerate() {
            let (Some(plain), Some(changed)) = (plain, changed) else { continue };
            let cosine = cosine(plain, changed);
            pictures += 1;
            sum += cosine;
            // What is no number is worst, and stays it.
            if cosine.is_nan() || cosine < minimum {
                (minimum, worst) = (cosine, index);
            }
        }
        if pictures == 0 {
            return Err(Error::Usage("no picture could be read".into()));
        }
        let (failed, mean) = (plain.len() - pictures, sum / pictures as f64);
        Ok(Drift { pictures, failed, mean, minimum, worst: self.inputs[worst].name().into_owned() })
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

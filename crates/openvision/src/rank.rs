//! `rank`: pictures in the order of their similarity to a text or a picture.

use crate::inputs::Input;
use crate::interrupt::Interrupt;
use crate::pictures::{ItemError, Run, Want};
use crate::{Error, Model};
use openvision_io::image::Limits;
use openvision_kernels::vector::Rows;
use std::path::Path;

/// What pictures are compared with.
pub enum Query<'a> {
    /// A text.
    Text(&'a str),
    /// A picture.
    Picture(&'a Path),
}

/// A picture and its similarity to the query.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// The picture.
    pub input: Input,
    /// Cosine.
    pub score: f32,
}

impl Query<'_> {
    /// The query's unit embedding.
    ///
    /// # Errors
    /// The tower is missing, or the picture cannot be read.
    pub fn embedding(&self, model: &Model, limits: Limits) -> Result<Vec<f32>, Error> {
        match self {
            Query::Text(text) => Ok(model.encode_texts(&[text])?.0),
            Query::Picture(path) => {
                let mut found = Err(Error::Usage("the query picture gave nothing".into()));
                let interrupt = Interrupt::default();
                let run = Run { model, limits, want: Want::Unit, interrupt: &interrupt };
                run.files(&[Input::File(path.to_path_buf())], &mut |_, outcome| {
                    found = outcome.map_err(|error| Error::Usage(format!("--image: {error}")));
                    Ok(())
                })?;
                found
            }
        }
    }
}

/// Hears of each input as it is done, with what went wrong if something did; an error ends the run.
pub type Hear<'a> = &'a mut (dyn FnMut(usize, Option<&ItemError>) -> Result<(), Error> + Send);

/// Ranks pictures, best first; `report` hears of each input as it is done.
///
/// # Errors
/// The query cannot be embedded, or `report` failed. Broken pictures are reported and left out.
pub fn rank(run: &Run, query: &Query, files: &[Input], top: usize, report: Hear) -> Result<Vec<Ranked>, Error> {
    let query = query.embedding(run.model, run.limits)?;
    let (mut rows, mut kept) = (Vec::new(), Vec::new());
    run.files(files, &mut |index, outcome| {
        if let Ok(embedding) = &outcome {
            rows.extend_from_slice(embedding);
            kept.push(index);
        }
        report(index, outcome.as_ref().err())
    })?;
    let hits = openvision_index::nearest(run.model.isa(), Rows::new(&rows, kept.len(), query.len()), &query, top);
    Ok(hits.into_iter().map(|hit| Ranked { input: files[kept[hit.row]].clone(), score: hit.score }).collect())
}

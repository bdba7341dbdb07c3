//! Zero-shot classification: a class is the mean of its prompts' text embeddings.

use crate::{Error, Model};
use openvision_io::token::prompts;
use openvision_kernels::vector::{Rows, normalize};

/// A label with its probability.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Prediction {
    /// The label, as it was given.
    pub label: String,
    /// Softmax over all labels of the model's logit scale times the cosine. Of a SigLIP model, σ(scale cos + bias): how
    /// probable this label is by itself, whatever the others are.
    pub probability: f32,
    /// Of a SigLIP model: the softmax over all labels, for those who want the labels to compete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f32>,
    /// Cosine of picture and class.
    pub score: f32,
}

/// Text embeddings of all classes.
pub struct Classifier {
    labels: Vec<String>,
    /// [classes × embed_dim], unit rows.
    classes: Vec<f32>,
    width: usize,
    scale: f32,
    bias: Option<f32>,
    isa: openvision_kernels::Isa,
}

/// How labels become prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// Each label in each template; `{}` or `{c}` is the label's place.
    Templates(Vec<String>),
    /// OpenVision's evaluation: canonicalised, names split into aliases, 81 templates (openvision.md 2.4).
    OpenVision,
}

impl Prompts {
    /// A built-in set by name, or templates from a file for `@FILE`, one a line.
    ///
    /// # Errors
    /// The set is unknown, or the file cannot be read or has a template without a place for the label.
    pub fn named(name: &str) -> Result<Self, Error> {
        if name == "openvision81" {
            return Ok(Prompts::OpenVision);
        }
        let templates = match name.strip_prefix('@') {
            Some(file) => crate::inputs::lines(file)?,
            None => prompts::templates(name).ok_or_else(|| {
                let known = prompts::template_sets().join(", ");
                Error::Usage(format!("--templates: no set '{name}'; known: {known}, or @FILE"))
            })?,
        };
        if let Some(bad) = templates.iter().find(|t| !(t.contains("{}") || t.contains("{c}"))) {
            return Err(Error::Usage(format!("--templates: '{bad}' has no {{}} where the label goes")));
        }
        Ok(Prompts::Templates(templates))
    }

    fn of(&self, label: &str) -> Vec<String> {
        match self {
            Prompts::Templates(templates) => templates.iter().map(|t| prompts::fill(t, label)).collect(),
            Prompts::OpenVision => prompts::openvision_prompts(label),
        }
    }
}

/// Labels from `a,b,c`, from `@FILE` (one a line), or from a built-in list (`@imagenet1k`, `@cifar10`, ...).
///
/// # Errors
/// The file cannot be read, or there are no labels.
pub fn labels(argument: &str) -> Result<Vec<String>, Error> {
    let labels = match argument.strip_prefix('@') {
        Some(name) if !std::path::Path::new(name).exists() => match prompts::class_names(name) {
            Some(names) => names,
            None => crate::inputs::lines(name)?,
        },
        Some(file) => crate::inputs::lines(file)?,
        None => argument.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()).collect(),
    };
    if labels.is_empty() {
        return Err(Error::Usage("--labels: no label was given".into()));
    }
    Ok(labels)
}

fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + f64::from(-x).exp())) as f32
}

impl Classifier {
    /// Embeds the classes. As CLIP_benchmark does: unit prompts, their mean, scaled to unit length again.
    ///
    /// # Errors
    /// The text tower was not loaded, or a label gives no prompt.
    pub fn new(model: &Model, labels: Vec<String>, prompts: &Prompts) -> Result<Self, Error> {
        let per_label: Vec<Vec<String>> = labels.iter().map(|label| prompts.of(label)).collect();
        if let Some(empty) = per_label.iter().position(Vec::is_empty) {
            return Err(Error::Usage(format!("label '{}' gives no prompt", labels[empty])));
        }
        let all: Vec<&String> = per_label.iter().flatten().collect();
        let (embeddings, _) = model.encode_texts(&all)?;
        let width = model.config.embed_dim;
        let mut classes = Vec::with_capacity(labels.len() * width);
        let mut rows = embeddings.chunks_exact(width);
        for prompts in &per_label {
            let mut class = vec![0.0; width];
            for row in rows.by_ref().take(prompts.len()) {
                class.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
            }
            class.iter_mut().for_each(|v| *v /= prompts.len() as f32);
            normalize(model.isa(), &mut class);
            classes.extend(class);
        }
        let (scale, bias) = (model.logit_scale(), model.logit_bias());
        Ok(Self { labels, classes, width, scale, bias, isa: model.isa() })
    }

    /// The `top` nearest classes of a unit image embedding, by their index.
    pub fn best(&self, embedding: &[f32], top: usize) -> Vec<usize> {
        let rows = Rows::new(&self.classes, self.labels.len(), self.width);
        openvision_index::nearest(self.isa, rows, embedding, top).iter().map(|hit| hit.row).collect()
    }

    /// The `top` most probable labels of a unit image embedding.
    pub fn classify(&self, embedding: &[f32], top: usize) -> Vec<Prediction> {
        let rows = Rows::new(&self.classes, self.labels.len(), self.width);
        let hits = openvision_index::nearest(self.isa, rows, embedding, self.labels.len());
        let largest = hits.first().map_or(0.0, |hit| hit.score);
        let weight = |score: f32| f64::from((score - largest) * self.scale).exp();
        let sum: f64 = hits.iter().map(|hit| weight(hit.score)).sum();
        hits.iter()
            .take(top)
            .map(|hit| {
                let (label, score) = (self.labels[hit.row].clone(), hit.score);
                let softmax = (weight(score) / sum) as f32;
                match self.bias {
                    None => Prediction { label, probability: softmax, share: None, score },
                    Some(bias) => {
                        let probability = sigmoid(self.scale * score + bias);
                        Prediction { label, probability, share: Some(softmax), score }
                    }
                }
            })
            .collect()
    }
}

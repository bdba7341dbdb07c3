//! `models verify`: loads a model, checks every tensor, runs a self-test; a report that a user can send.

use crate::{LoadOptions, Model};
use openvision_io::weights::{Checkpoint, Container, GgufValue, TensorInfo};
use openvision_kernels::Isa;
use openvision_kernels::pool::Pool;
use openvision_model::import::{Found, describe};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What was looked at and is right, and what a user should know.
    pub checked: Vec<String>,
}

/// Verifies a file or folder.
pub fn verify(path: &Path, options: &LoadOptions, pool: &Arc<Pool>) -> Report {
    let mut report = Report::default();
    if let Err(problem) = examine(path, options, pool, &mut report) {
        report.problems.extend(problem.lines().map(str::to_owned));
    }
    report.ok = report.problems.is_empty();
    report
}

fn examine(path: &Path, options: &LoadOptions, pool: &Arc<Pool>, report: &mut Report) -> Result<(), String> {
    let text = |error: openvision_model::ModelError| error.to_string();
    let description = match describe(path, options.as_published) {
        Ok(description) => description,
        Err(error) => {
            let checkpoint = Checkpoint::open(path).ok().filter(|checkpoint| checkpoint.container() == Container::Gguf);
            return checkpoint.map_or(Err(error.to_string()), |gguf| language_model(&gguf, error.to_string(), report));
        }
    };
    let container = description.checkpoint.container();
    report.checked.push(format!(
        "{}: {} tensors in {} file(s), named as {}",
        container.name(),
        description.checkpoint.tensors().len(),
        description.checkpoint.files().len(),
        description.layout.describe(),
    ));
    report.checked.push(format!("configuration: {}", found_name(description.found)));
    report.checked.extend(description.notes.clone());
    let counts = description.config.parameters();
    report.checked.push(format!("{} parameters (image {}, text {})", counts.total, counts.image, counts.text));
    drop(description);
    let model = Model::load(path, options, Arc::clone(pool)).map_err(text)?;
    report.checked.push("every tensor is there, has its shape and holds finite numbers".into());
    if counts.decoder > 0 {
        model.captioner().map_err(text)?;
        report
            .checked
            .push(format!("caption decoder: {} parameters, every tensor holds finite numbers", counts.decoder));
    }
    let scale = model.logit_scale();
    if !(scale.is_finite() && (0.1..=1e4).contains(&scale)) {
        report.problems.push(format!("the logit scale is {scale}; 14 to 100 is usual"));
    }
    let best = outputs(&model).map_err(text)?;
    check_outputs(&best, report);
    // The same pass on one thread, and with the plainest instruction set that is quick enough, must give the same bits.
    let one = Arc::new(Pool::new(1));
    for isa in Isa::present().into_iter().filter(|isa| isa.name() != "portable") {
        let options = LoadOptions { isa: Some(isa), ..options.clone() };
        let again = Model::load(path, &options, Arc::clone(&one)).and_then(|model| outputs(&model)).map_err(text)?;
        if again == best {
            report.checked.push(format!("self-test: the same bits on one thread with {}", isa.name()));
        } else {
            report.problems.push(format!("self-test: other results on one thread with {}", isa.name()));
        }
    }
    Ok(())
}

/// A GGUF file: every tensor is read and all blocks are there, but nothing is run. `reading` says what the file is.
fn language_model(gguf: &Checkpoint, reading: String, report: &mut Report) -> Result<(), String> {
    let metadata = gguf.gguf_metadata();
    let architecture = metadata.get("general.architecture").and_then(GgufValue::as_text).filter(|name| *name != "clip");
    let Some(architecture) = architecture else { return Err(reading) };
    let values: usize = gguf.tensors().iter().map(TensorInfo::elements).sum();
    report.checked.push(format!("{}: {} tensors, {values} values", gguf.container().name(), gguf.tensors().len()));
    let blocks = metadata.get(&format!("{architecture}.block_count")).and_then(GgufValue::as_u64);
    let has_block = |i: u64| gguf.tensors().iter().any(|tensor| tensor.name.starts_with(&format!("blk.{i}.")));
    match blocks {
        // A hostile count ends at the first block that is missing.
        Some(blocks) => match (0..blocks).find(|i| !has_block(*i)) {
            Some(missing) => report.problems.push(format!("block {missing} of {blocks} has no tensor")),
            None => report.checked.push(format!("all {blocks} blocks have tensors")),
        },
        None => report.problems.push("the number of blocks is not in the metadata".into()),
    }
    let mut buffer = vec![0.0; 1 << 16];
    for tensor in gguf.tensors() {
        let mut at = 0;
        while at < tensor.elements() {
            let part = &mut buffer[..(tensor.elements() - at).min(1 << 16)];
            gguf.read_f32_part(&tensor.name, at, part).map_err(|error| error.to_string())?;
            if let Some(i) = part.iter().position(|value| !value.is_finite()) {
                report.problems.push(format!(
                    "not a finite number: {} at index {}",
                    tensor.name.escape_debug(),
                    at + i
                ));
                break;
            }
            at += part.len();
        }
    }
    if report.problems.is_empty() {
        report.checked.push("every tensor is read and holds finite numbers".into());
    }
    report.checked.push(reading);
    Ok(())
}

/// Embeddings of a made-up picture and, where there is a text tower, of a text.
type Outputs = (Vec<f32>, Option<Vec<f32>>);

fn outputs(model: &Model) -> Result<Outputs, openvision_model::ModelError> {
    let image = &model.config.image;
    let pixels: Vec<f32> =
        (0..3 * image.height * image.width).map(|i| ((i * 7919 % 2003) as f32 / 1001.0 - 1.0) * 1.5).collect();
    let text = match model.config.text {
        Some(_) => Some(model.encode_texts(&["a photo of a red bicycle"])?.0),
        None => None,
    };
    Ok((model.encode_pixels(&pixels)?, text))
}

fn check_outputs((image, text): &Outputs, report: &mut Report) {
    for (name, values) in std::iter::once(("picture", image)).chain(text.iter().map(|text| ("text", text))) {
        if values.iter().any(|v| !v.is_finite()) {
            report.problems.push(format!("self-test: the embedding of a {name} is not finite"));
        } else if values.iter().all(|v| *v == 0.0) {
            report.problems.push(format!("self-test: the embedding of a {name} is zero"));
        } else {
            report.checked.push(format!("self-test: a {name} gives {} finite values", values.len()));
        }
    }
}

fn found_name(found: Found) -> &'static str {
    match found {
        Found::Ours => "config.json of this program",
        Found::OpenClip => "open_clip_config.json",
        Found::HuggingFace => "config.json of Hugging Face",
        Found::Shapes => "none; derived from the tensors' shapes",
    }
}

//! A new model with seeded weights, by the initialisation that its family trains from.

use crate::ModelError;
use crate::config::{Family, ModelConfig, Positions, TransformerConfig};
use crate::decoder::Decoder;
use crate::import::decoder::WEIGHTS_FILE;
use crate::import::export::write_config;
use crate::positions::sin_cos_2d;
use crate::random::Stream;
use crate::tower::plans;
use openvision_io::weights::{DType, SafeTensorsWriter, TensorInfo};
use openvision_tensor::{ParamPlan, TensorSpec};
use std::collections::BTreeMap;
use std::path::Path;

/// A distribution of initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    Constant(f32),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Normal, redrawn beyond two standard deviations, with this standard deviation before the cut.
    Truncated(f64),
    /// Uniform within ± this.
    Uniform(f64),
}

/// The next value of a distribution.
fn draw(stream: &mut Stream, values: Values) -> f32 {
    match values {
        Values::Constant(value) => value,
        Values::Normal(deviation) => (stream.normal() * deviation) as f32,
        Values::Truncated(deviation) => loop {
            let z = stream.normal();
            if z.abs() <= 2.0 {
                return (z * deviation) as f32;
            }
        },
        Values::Uniform(limit) => ((2.0 * stream.unit() - 1.0) * limit) as f32,
    }
}

/// OpenVision's initialisation (`vit.py`, `text_transformer.py`; openvision.md 3.4). CLIP's towers both start as its text tower.
fn distribution(config: &ModelConfig, tower: &TransformerConfig, name: &str) -> Values {
    let image = name.starts_with("visual.");
    let width = tower.width as f64;
    let openvision = image && matches!(config.family, Family::Openvision | Family::Openvision2);
    let layers = if openvision { 12.0 } else { tower.layers as f64 };
    let residual = width.powf(-0.5) * (2.0 * layers).powf(-0.5);
    match name {
        "logit_scale" if config.family == Family::Siglip => Values::Constant(10.0f32.ln()),
        "logit_scale" => Values::Constant((1.0f32 / 0.07).ln()),
        "logit_bias" => Values::Constant(-10.0),
        "token_embedding.weight" => Values::Normal(0.02),
        "positional_embedding" => Values::Normal(0.01),
        "text_projection" => Values::Normal(width.powf(-0.5)),
        "visual.class_embedding" if openvision => Values::Normal(1e-6),
        "visual.proj" if openvision => Values::Normal(0.02),
        "visual.class_embedding" | "visual.positional_embedding" | "visual.proj" => Values::Normal(width.powf(-0.5)),
        // Kaiming uniform: √(6 / fan in).
        "visual.conv1.weight" => Values::Uniform((6.0 / (3 * config.image.patch * config.image.patch) as f64).sqrt()),
        _ if name.ends_with("bias") => Values::Constant(0.0),
        _ if name.contains("ln_") => Values::Constant(1.0),
        // Variance scaling 0.3072 by fan out; 0.8796 is the deviation of a normal cut at 2.
        _ if openvision && name.ends_with("c_proj.weight") => {
            Values::Truncated((0.3072 / width).sqrt() / 0.879_625_661_034_239_8)
        }
        _ if openvision => Values::Normal(0.02),
        _ if name.ends_with("out_proj.weight") || name.ends_with("c_proj.weight") => Values::Normal(residual),
        _ if name.ends_with("c_fc.weight") => Values::Normal((2.0 * width).powf(-0.5)),
        _ => Values::Normal(width.powf(-0.5)),
    }
}

/// Writes a model folder with weights drawn from `seed`. The same seed gives the same bytes.
///
/// # Errors
/// The description cannot be, or the files cannot be written; nothing is left under the final names then.
pub fn write(config: &ModelConfig, seed: u64, folder: &Path) -> Result<(), ModelError> {
    config.check("the description")?;
    let scalar = |name: &str| TensorSpec { name: name.to_owned(), shape: vec![] };
    let mut specs: Vec<TensorSpec> = plans(config).iter().flat_map(ParamPlan::tensors).collect();
    if config.text.is_some() {
        specs.push(scalar("logit_scale"));
    }
    if config.family == Family::Siglip {
        specs.push(scalar("logit_bias"));
    }
    std::fs::create_dir_all(folder).map_err(|source| ModelError::Read { path: folder.into(), source })?;
    let drawn = |tower: &TransformerConfig, name: &str, count: usize| -> Vec<f32> {
        let (values, mut stream) = (distribution(config, tower, name), Stream::new(seed, name));
        (0..count).map(|_| draw(&mut stream, values)).collect()
    };
    let weights = write_tensors(&folder.join("model.safetensors"), specs, |name, count| match name {
        "visual.positional_embedding" if config.image.positions == Positions::SinCos2d => {
            sin_cos_2d(config.image.grid(), config.image.transformer.width)
        }
        _ => match &config.text {
            Some(text) if !name.starts_with("visual.") => drawn(&text.transformer, name, count),
            _ => drawn(&config.image.transformer, name, count),
        },
    })?;
    if let Some(decoder) = &config.decoder {
        let specs = Decoder::new(decoder).plan.tensors();
        let path = folder.join(WEIGHTS_FILE);
        write_tensors(&path, specs, |name, count| drawn(&decoder.transformer, name, count))?.finish()?;
    }
    let mut config = config.clone();
    config.provenance = Some(format!("seeded weights (seed {seed}), not trained"));
    config.licence = None;
    write_config(&config, folder)?;
    weights.finish()?;
    Ok(())
}

/// Writes f32 tensors; the file appears under its name when the writer is finished.
fn write_tensors(
    path: &Path,
    specs: Vec<TensorSpec>,
    values: impl Fn(&str, usize) -> Vec<f32>,
) -> Result<SafeTensorsWriter, ModelError> {
    let info = |spec: TensorSpec| TensorInfo { name: spec.name, dtype: DType::F32, shape: spec.shape };
    let infos: Vec<TensorInfo> = specs.into_iter().map(info).collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut writer = SafeTensorsWriter::create(path, &metadata, &infos)?;
    for info in &infos {
        let bytes: Vec<u8> = values(&info.name, info.elements()).iter().flat_map(|v| v.to_le_bytes()).collect();
        writer.write(&info.name, &bytes)?;
    }
    Ok(writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_the_wanted_moments_and_are_independent() {
        let draw = |values, seed, name: &str| {
            let mut stream = Stream::new(seed, name);
            (0..40_000).map(|_| f64::from(draw(&mut stream, values))).collect::<Vec<f64>>()
        };
        let deviation = |v: &[f64]| (v.iter().map(|x| x * x).sum::<f64>() / v.len() as f64).sqrt();
        let normal = draw(Values::Normal(0.5), 1, "a");
        assert!((deviation(&normal) - 0.5).abs() < 0.01);
        assert!(normal.iter().sum::<f64>().abs() / 40_000.0 < 0.01);
        let cut = draw(Values::Truncated(1.0), 1, "a");
        assert!(cut.iter().all(|v| v.abs() <= 2.0) && (deviation(&cut) - 0.8796).abs() < 0.01);
        assert!((deviation(&draw(Values::Uniform(1.0), 1, "a")) - (1.0f64 / 3.0).sqrt()).abs() < 0.01);
        assert_ne!(draw(Values::Normal(1.0), 2, "a")[..4], draw(Values::Normal(1.0), 1, "a")[..4]);
        assert_ne!(draw(Values::Normal(1.0), 1, "b")[..4], draw(Values::Normal(1.0), 1, "a")[..4]);
    }
}

//! A new model with seeded weights, by the initialisation that its family trains from.

use crate::ModelError;
use crate::config::{Family, ModelConfig, Positions};
use crate::import::export::write_config;
use crate::positions::sin_cos_2d;
use crate::tower::{ImageTower, TextTower};
use openvision_io::weights::{DType, SafeTensorsWriter, TensorInfo};
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

/// One stream of numbers: splitmix64 from a seed and a tensor's name, so that no tensor depends on another.
struct Stream(u64);

impl Stream {
    fn new(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Self(hash ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Uniform in (0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn value(&mut self, values: Values) -> f32 {
        match values {
            Values::Constant(value) => value,
            Values::Normal(deviation) => (self.normal() * deviation) as f32,
            Values::Truncated(deviation) => loop {
                let z = self.normal();
                if z.abs() <= 2.0 {
                    return (z * deviation) as f32;
                }
            },
            Values::Uniform(limit) => ((2.0 * self.unit() - 1.0) * limit) as f32,
        }
    }
}

/// OpenVision's initialisation (`vit.py`, `text_transformer.py`; openvision.md 3.4). CLIP's towers both start as its text tower.
fn distribution(config: &ModelConfig, name: &str) -> Values {
    let image = name.starts_with("visual.");
    let tower = if image { &config.image.transformer } else { &config.text.transformer };
    let width = tower.width as f64;
    let openvision = image && config.family == Family::Openvision;
    let layers = if openvision { 12.0 } else { tower.layers as f64 };
    let residual = width.powf(-0.5) * (2.0 * layers).powf(-0.5);
    match name {
        "logit_scale" => Values::Constant((1.0f32 / 0.07).ln()),
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
    let image = ImageTower::new(&config.image, config.embed_dim).plan;
    let text = TextTower::new(&config.text, config.embed_dim).plan;
    let mut infos: Vec<TensorInfo> = image
        .tensors()
        .into_iter()
        .chain(text.tensors())
        .map(|spec| TensorInfo { name: spec.name, dtype: DType::F32, shape: spec.shape })
        .collect();
    infos.push(TensorInfo { name: "logit_scale".into(), dtype: DType::F32, shape: vec![] });
    std::fs::create_dir_all(folder).map_err(|source| ModelError::Read { path: folder.into(), source })?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut writer = SafeTensorsWriter::create(&folder.join("model.safetensors"), &metadata, &infos)?;
    for info in &infos {
        let computed = config.image.positions == Positions::SinCos2d && info.name == "visual.positional_embedding";
        let values: Vec<f32> = if computed {
            sin_cos_2d(config.image.grid(), config.image.transformer.width)
        } else {
            let (values, mut stream) = (distribution(config, &info.name), Stream::new(seed, &info.name));
            (0..info.elements()).map(|_| stream.value(values)).collect()
        };
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        writer.write(&info.name, &bytes)?;
    }
    let mut config = config.clone();
    config.provenance = Some(format!("seeded weights (seed {seed}), not trained"));
    config.licence = None;
    write_config(&config, folder)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_the_wanted_moments_and_are_independent() {
        let draw = |values, seed, name: &str| {
            let mut stream = Stream::new(seed, name);
            (0..40_000).map(|_| f64::from(stream.value(values))).collect::<Vec<f64>>()
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

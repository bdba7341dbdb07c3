//! From a path to a described checkpoint: which container, which layout, which configuration.

use super::names::NameLayout;
use super::{decoder, hugging_face, jax, open_clip};
use crate::ModelError;
use crate::config::{
    ActivationName, DecoderConfig, FORMAT_VERSION, Family, ImageConfig, ImagePooling, ModelConfig, Positions,
    TextConfig, TextLayout, TextPooling, TransformerConfig,
};
use crate::positions::is_sin_cos_2d;
use openvision_io::preprocess::Preprocess;
use openvision_io::weights::{Checkpoint, Container, DType, GgufValue};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Where a configuration came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Our own `config.json`.
    Ours,
    /// `open_clip_config.json`.
    OpenClip,
    /// Hugging Face's `config.json`.
    HuggingFace,
    /// Nothing but the tensors' shapes.
    Shapes,
}

/// A checkpoint with its description.
pub struct Description {
    /// The open checkpoint.
    pub checkpoint: Checkpoint,
    /// What the model is.
    pub config: ModelConfig,
    /// How the tensors are named.
    pub layout: NameLayout,
    /// Where the configuration came from.
    pub found: Found,
    /// The folder of the files, for tokenizer files.
    pub folder: PathBuf,
    /// What a user should know about how it was read.
    pub notes: Vec<String>,
}

fn read_json(path: &Path) -> Result<Option<Value>, ModelError> {
    /// Configurations are a few kilobytes; more is a mistake or an attack.
    const LARGEST: u64 = 4 << 20;
    let size = match std::fs::metadata(path) {
        Ok(data) => data.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ModelError::Read { path: path.into(), source }),
    };
    if size > LARGEST {
        return Err(ModelError::config(&path.display().to_string(), "size", "a configuration of over 4 MiB"));
    }
    let bytes = std::fs::read(path).map_err(|source| ModelError::Read { path: path.into(), source })?;
    serde_json::from_slice(&bytes).map(Some).map_err(|source| ModelError::Json { path: path.into(), source })
}

/// Opens a file or folder and finds out what model it is. `literal` follows published configurations to the letter.
///
/// # Errors
/// Broken containers and configurations, unknown layouts.
pub fn describe(path: &Path, literal: bool) -> Result<Description, ModelError> {
    let checkpoint = Checkpoint::open(path)?;
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) }.to_path_buf();
    let place = path.display().to_string();
    let layout = detect(&checkpoint).map_err(|problem| ModelError::Layout { place: place.clone(), problem })?;
    let has_text = checkpoint.get(layout.source("token_embedding.weight").names()[0]).is_some();
    let reading =
        open_clip::Reading { openvision: shows_openvision(&checkpoint, layout)?, vision_only: !has_text, literal };
    let mut notes = Vec::new();
    let (mut config, found) = configuration(&folder, &place, (&checkpoint, layout), reading, &mut notes)?;
    if config.decoder.is_none() {
        config.decoder = caption_decoder(&folder)?;
        config.check(&place)?;
    }
    if config.family == Family::Siglip {
        notes.push(choose_gelu(&mut config, layout, literal));
    }
    if config.family == Family::Openvision {
        note_reading(&config, (found, layout), &mut notes);
    }
    let has_decoder = checkpoint.tensors().iter().any(|tensor| tensor.name.starts_with("txt_decoder/"));
    if layout == NameLayout::OpenvisionJax && has_decoder {
        notes.push("the tree's caption decoder (txt_decoder) is left aside".into());
    }
    Ok(Description { checkpoint, config, layout, found, folder, notes })
}

/// How the tensors are named; a GGUF file says itself what it is.
fn detect(checkpoint: &Checkpoint) -> Result<NameLayout, String> {
    if checkpoint.container() == Container::Gguf {
        let metadata = checkpoint.gguf_metadata();
        return Err(match metadata.get("general.architecture").and_then(GgufValue::as_text) {
            Some("clip") => "this is an image tower in llama.cpp's layout (mmproj), which cannot be read yet".into(),
            Some(name) => {
                let name: String = name.chars().take(40).flat_map(char::escape_debug).collect();
                format!("this is a language model (architecture {name}), not an encoder of pictures and texts")
            }
            None => "a GGUF file that does not say its general.architecture".into(),
        });
    }
    NameLayout::detect(checkpoint.tensors().iter().map(|tensor| tensor.name.as_str()))
}

/// The caption decoder beside an image tower of OpenVision 2, if there is one.
fn caption_decoder(folder: &Path) -> Result<Option<DecoderConfig>, ModelError> {
    let path = folder.join(decoder::CONFIG_FILE);
    match read_json(&path)? {
        Some(json) if folder.join(decoder::WEIGHTS_FILE).is_file() => {
            decoder::config(&path.display().to_string(), &json).map(Some)
        }
        _ => Ok(None),
    }
}

/// The peers disagree on the GELU of the same SigLIP weights (clip-peers.md 1.5): a file is read as its layout's library
/// reads it, or as the authors trained it, with the tanh form.
fn choose_gelu(config: &mut ModelConfig, layout: NameLayout, literal: bool) -> String {
    if literal && layout == NameLayout::OpenClipSiglip {
        config.set_activation(ActivationName::GeluTanh);
    }
    let name = |activation: ActivationName| match activation {
        ActivationName::GeluErf => "exact (erf)",
        ActivationName::GeluTanh => "tanh",
        ActivationName::QuickGelu => "quick",
    };
    let image = name(config.image.transformer.activation);
    let text = config.text.map_or(image, |text| name(text.transformer.activation));
    format!(
        "SigLIP with the {image} GELU in the image tower and the {text} GELU in the text tower, read from {}; the \
         authors trained with tanh; --gelu erf or --gelu tanh sets both",
        layout.describe()
    )
}

fn note_reading(config: &ModelConfig, (found, layout): (Found, NameLayout), notes: &mut Vec<String>) {
    let recognised = match layout {
        NameLayout::OpenvisionJax => "recognised as OpenVision by the names of its JAX tree",
        _ => "recognised as OpenVision by its position table and text tower",
    };
    notes.push(match (config.text.map(|text| text.layout), found) {
        (Some(TextLayout::Openvision), Found::OpenClip) => format!(
            "{recognised}: texts are laid out [bos] ... [eos] ... [CLS], whatever tokenizer the configuration names"
        ),
        (Some(TextLayout::Openvision), _) => format!("{recognised}: texts are laid out [bos] ... [eos] ... [CLS]"),
        _ => format!(
            "{recognised}, but read to the letter of its configuration: texts carry [CLS] first and a padding position \
             is pooled, as open_clip does; text vectors are not the trained ones"
        ),
    });
}

/// Whether the image tower's stored positions are OpenVision's table: evidence that no folder name can fake.
fn shows_openvision(checkpoint: &Checkpoint, layout: NameLayout) -> Result<bool, ModelError> {
    if layout == NameLayout::OpenvisionJax {
        return Ok(true);
    }
    let stored = |name: &str| layout.source(name).names()[0].to_owned();
    let name = &stored("visual.positional_embedding");
    if layout == NameLayout::HuggingFace || checkpoint.get(&stored("visual.ln_pre.weight")).is_some() {
        return Ok(false);
    }
    let Some([rows, width]) = checkpoint.get(name).map(|tensor| &tensor.shape[..]) else { return Ok(false) };
    let side = rows.saturating_sub(1).isqrt();
    if side * side + 1 != *rows || rows.saturating_mul(*width) > 1 << 26 {
        return Ok(false);
    }
    let mut table = vec![0.0; rows * width];
    checkpoint.read_f32(name, &mut table)?;
    Ok(is_sin_cos_2d(&table, (side, side), *width))
}

fn configuration(
    folder: &Path,
    place: &str,
    (checkpoint, layout): (&Checkpoint, NameLayout),
    reading: open_clip::Reading,
    notes: &mut Vec<String>,
) -> Result<(ModelConfig, Found), ModelError> {
    let path = folder.join("open_clip_config.json");
    let open_clip_json = if layout == NameLayout::HuggingFace { None } else { read_json(&path)? };
    if let Some(json) = open_clip_json {
        let place = path.display().to_string();
        let model = json.get("model_cfg").unwrap_or(&json);
        let source = open_clip::Source { place: &place, model, preprocess: json.get("preprocess_cfg") };
        return Ok((open_clip::config(&source, reading)?, Found::OpenClip));
    }
    let path = folder.join("config.json");
    if let Some(json) = read_json(&path)? {
        let place = path.display().to_string();
        if json.get("format_version").is_some() {
            let config: ModelConfig =
                serde_json::from_value(json).map_err(|source| ModelError::Json { path, source })?;
            config.check(&place)?;
            return Ok((config, Found::Ours));
        }
        let preprocessor = read_json(&folder.join("preprocessor_config.json"))?;
        return Ok((hugging_face::config(&place, &json, preprocessor.as_ref())?, Found::HuggingFace));
    }
    let config = match (jax::Tree { checkpoint, layout, place }).config(notes)? {
        Some(config) => config,
        None => from_shapes(checkpoint, place, reading)?,
    };
    notes.push(format!(
        "no configuration beside the weights: read by the tensors' shapes as {} with {} activation",
        config.family.name(),
        hugging_face::activation_name(config.image.transformer.activation)
    ));
    Ok((config, Found::Shapes))
}

/// OpenAI's rule (`build_model_from_openai_state_dict`): every size is in a shape, heads are 64 wide.
///
/// The activation is in no shape. OpenAI's archives (three integer scalars) are QuickGELU, OpenVision's table says
/// OpenVision; anything else is refused, since a wrong guess gives plausible, wrong vectors.
fn from_shapes(checkpoint: &Checkpoint, place: &str, reading: open_clip::Reading) -> Result<ModelConfig, ModelError> {
    let shape = |name: &str| -> Result<Vec<usize>, ModelError> {
        let tensor = checkpoint.get(name).ok_or_else(|| ModelError::Layout {
            place: place.to_owned(),
            problem: format!("there is no configuration beside it and no tensor `{name}` to derive one from"),
        })?;
        Ok(tensor.shape.clone())
    };
    let axis = |name: &str, axis: usize| -> Result<usize, ModelError> {
        shape(name)?.get(axis).copied().ok_or_else(|| ModelError::config(place, name, "has too few axes"))
    };
    let layers = |prefix: &str| {
        let is_block = |name: &&str| name.starts_with(prefix) && name.ends_with(".attn.in_proj_weight");
        checkpoint.tensors().iter().map(|tensor| tensor.name.as_str()).filter(is_block).count()
    };
    let openai = ["input_resolution", "context_length", "vocab_size"]
        .iter()
        .all(|name| checkpoint.get(name).is_some_and(|tensor| tensor.dtype == DType::I64));
    if !(openai || reading.openvision) {
        return Err(ModelError::Layout {
            place: place.to_owned(),
            problem: "no open_clip_config.json or config.json beside it, and the tensors do not say which activation \
                      the model was trained with; put the configuration into the same folder"
                .into(),
        });
    }
    let (width, patch) = (axis("visual.conv1.weight", 0)?, axis("visual.conv1.weight", 3)?);
    let side = axis("visual.positional_embedding", 0)?.saturating_sub(1).isqrt().saturating_mul(patch);
    let text_width = axis("ln_final.weight", 0)?;
    let tower = |width: usize, prefix: &str, tanh: bool| -> Result<TransformerConfig, ModelError> {
        Ok(TransformerConfig {
            width,
            layers: layers(prefix),
            heads: width / 64,
            mlp_width: axis(&format!("{prefix}0.mlp.c_fc.weight"), 0)?,
            activation: match (openai, tanh) {
                (true, _) => ActivationName::QuickGelu,
                (false, true) => ActivationName::GeluTanh,
                (false, false) => ActivationName::GeluErf,
            },
            epsilon: if openai { 1e-5 } else { 1e-6 },
        })
    };
    let normalize = if openai {
        json!({})
    } else {
        json!({ "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear", "resize_mode": "squash" })
    };
    let config = ModelConfig {
        format_version: FORMAT_VERSION,
        family: if openai { Family::Clip } else { Family::Openvision },
        name: None,
        embed_dim: axis("text_projection", 1)?,
        image: ImageConfig {
            height: side,
            width: side,
            patch,
            transformer: tower(width, "visual.transformer.resblocks.", false)?,
            pre_norm: openai,
            positions: if openai { Positions::Learned } else { Positions::SinCos2d },
            pooling: if openai { ImagePooling::Class } else { ImagePooling::MeanThenNorm },
            class_token: true,
            patch_bias: false,
            projected: true,
        },
        text: Some(TextConfig {
            context: axis("positional_embedding", 0)?,
            vocabulary: axis("token_embedding.weight", 0)?,
            transformer: tower(text_width, "transformer.resblocks.", true)?,
            causal: openai,
            pooling: if openai { TextPooling::LargestId } else { TextPooling::Last },
            layout: if openai { TextLayout::Clip } else { TextLayout::Openvision },
            projection_bias: false,
        }),
        preprocess: Preprocess::from_open_clip(&normalize, (side, side))
            .map_err(|source| ModelError::Preprocess { place: place.to_owned(), source })?,
        decoder: None,
        licence: None,
        precision: None,
        provenance: None,
    };
    config.check(place)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    #[test]
    fn siglip_follows_its_layout_or_its_authors() {
        let mut published = registry::find("siglip/base-16-224").unwrap().config.clone();
        published.set_activation(ActivationName::GeluErf);
        for (layout, literal, want) in [
            (NameLayout::OpenClipSiglip, false, ActivationName::GeluErf),
            (NameLayout::OpenClipSiglip, true, ActivationName::GeluTanh),
            (NameLayout::HuggingFaceSiglip, true, ActivationName::GeluErf),
        ] {
            let mut config = published.clone();
            let note = choose_gelu(&mut config, layout, literal);
            assert_eq!(config.image.transformer.activation, want, "{layout:?}");
            assert_eq!(note.contains("exact (erf)"), want == ActivationName::GeluErf, "{note}");
        }
    }
}

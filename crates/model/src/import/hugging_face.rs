//! Hugging Face's `config.json` of a `CLIPModel`.

use super::Fields;
use crate::ModelError;
use crate::config::{
    ActivationName, FORMAT_VERSION, Family, ImageConfig, ImagePooling, ModelConfig, Positions, TextConfig, TextLayout,
    TextPooling, TransformerConfig,
};
use openvision_io::preprocess::Preprocess;
use serde_json::{Value, json};

/// Reads a configuration and, where there is one, `preprocessor_config.json`.
///
/// Missing fields take transformers' defaults. The projection width is the outer `projection_dim`; the nested ones
/// may say something else and are not used by the peer either.
///
/// # Errors
/// Another model type, a field of the wrong type or out of bounds.
pub fn config(place: &str, json: &Value, preprocessor: Option<&Value>) -> Result<ModelConfig, ModelError> {
    let top = Fields { place, path: "", value: json };
    match top.text("model_type")? {
        Some("clip") | None => {}
        Some("siglip") => return siglip(&top, preprocessor),
        Some(other) => {
            let problem = format!("'{other}' models cannot be read yet; 'clip' and 'siglip' can");
            return Err(ModelError::config(place, "model_type", problem));
        }
    }
    let vision = overridden(&top, "vision_config", "vision_config_dict");
    let text = overridden(&top, "text_config", "text_config_dict");
    let vision = Fields { place, path: "vision_config.", value: &vision };
    let text = Fields { place, path: "text_config.", value: &text };
    let side = vision.size("image_size", 224)?;
    let default = json!({ "size": { "shortest_edge": side }, "crop_size": { "height": side, "width": side } });
    let preprocess = Preprocess::from_hugging_face(preprocessor.unwrap_or(&default))
        .map_err(|error| ModelError::Preprocess { place: place.to_owned(), source: error })?;
    let end = text.size("eos_token_id", 49_407)?;
    let config = ModelConfig {
        format_version: FORMAT_VERSION,
        family: Family::Clip,
        name: None,
        embed_dim: top.size("projection_dim", 512)?,
        image: ImageConfig {
            height: side,
            width: side,
            patch: vision.size("patch_size", 32)?,
            transformer: transformer(&vision, 768, CLIP)?,
            pre_norm: true,
            positions: Positions::Learned,
            pooling: ImagePooling::Class,
            class_token: true,
            patch_bias: false,
            projected: true,
        },
        text: Some(TextConfig {
            context: text.size("max_position_embeddings", 77)?,
            vocabulary: text.size("vocab_size", 49_408)?,
            transformer: transformer(&text, 512, CLIP)?,
            causal: true,
            // Old files say 2 by mistake; transformers then takes the largest id (modeling_clip.py).
            pooling: if end == 2 { TextPooling::LargestId } else { TextPooling::FirstOf(end as u32) },
            layout: TextLayout::ClipHuggingFace,
            projection_bias: false,
        }),
        preprocess,
        decoder: None,
        licence: None,
        precision: None,
        provenance: None,
    };
    config.check(place)?;
    Ok(config)
}

/// Reads a `SiglipModel` (SigLIP, and SigLIP 2 at a fixed resolution).
fn siglip(top: &Fields, preprocessor: Option<&Value>) -> Result<ModelConfig, ModelError> {
    let place = top.place;
    let vision = overridden(top, "vision_config", "vision_config_dict");
    let text = overridden(top, "text_config", "text_config_dict");
    let vision = Fields { place, path: "vision_config.", value: &vision };
    let text = Fields { place, path: "text_config.", value: &text };
    if vision.value.get("vision_use_head") == Some(&Value::Bool(false)) {
        return Err(ModelError::config(
            place,
            "vision_config.vision_use_head",
            "a tower without its head is not built",
        ));
    }
    let side = vision.size("image_size", 224)?;
    let default = json!({
        "image_processor_type": "SiglipImageProcessor", "resample": 3, "size": { "height": side, "width": side },
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_center_crop": false,
    });
    let preprocess = Preprocess::from_hugging_face(preprocessor.unwrap_or(&default))
        .map_err(|error| ModelError::Preprocess { place: place.to_owned(), source: error })?;
    let image = transformer(&vision, 768, SIGLIP)?;
    let words = transformer(&text, 768, SIGLIP)?;
    let config = ModelConfig {
        format_version: FORMAT_VERSION,
        family: Family::Siglip,
        name: None,
        embed_dim: text.size("projection_size", words.width)?,
        image: ImageConfig {
            height: side,
            width: side,
            patch: vision.size("patch_size", 16)?,
            transformer: image,
            pre_norm: false,
            positions: Positions::Learned,
            pooling: ImagePooling::AttentionHead,
            class_token: false,
            patch_bias: true,
            projected: false,
        },
        text: Some(TextConfig {
            context: text.size("max_position_embeddings", 64)?,
            vocabulary: text.size("vocab_size", 32_000)?,
            transformer: words,
            causal: false,
            pooling: TextPooling::Last,
            layout: TextLayout::Folder,
            projection_bias: true,
        }),
        preprocess,
        decoder: None,
        licence: None,
        precision: None,
        provenance: None,
    };
    config.check(place)?;
    Ok(config)
}

/// What transformers takes where a field is missing: activation and epsilon.
type Defaults = (&'static str, f64);
const CLIP: Defaults = ("quick_gelu", 1e-5);
const SIGLIP: Defaults = ("gelu_pytorch_tanh", 1e-6);

/// A nested configuration; old files keep another copy under `..._dict`, which wins.
fn overridden(top: &Fields, field: &str, dict: &str) -> Value {
    let mut fields = top.value.get(field).cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    if let (Some(fields), Some(winning)) = (fields.as_object_mut(), top.value.get(dict).and_then(Value::as_object)) {
        fields.extend(winning.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    fields
}

fn transformer(tower: &Fields, width: usize, default: Defaults) -> Result<TransformerConfig, ModelError> {
    let activation = match tower.text("hidden_act")?.unwrap_or(default.0) {
        "quick_gelu" => ActivationName::QuickGelu,
        "gelu" => ActivationName::GeluErf,
        "gelu_pytorch_tanh" | "gelu_new" => ActivationName::GeluTanh,
        other => {
            let problem = format!("'{other}' is not `quick_gelu`, `gelu`, `gelu_new` or `gelu_pytorch_tanh`");
            return Err(ModelError::config(tower.place, &format!("{}hidden_act", tower.path), problem));
        }
    };
    Ok(TransformerConfig {
        width: tower.size("hidden_size", width)?,
        layers: tower.size("num_hidden_layers", 12)?,
        heads: tower.size("num_attention_heads", width / 64)?,
        mlp_width: tower.size("intermediate_size", 4 * width)?,
        activation,
        epsilon: tower.number("layer_norm_eps", default.1)? as f32,
    })
}

/// The `hidden_act` of an activation.
pub(crate) fn activation_name(activation: ActivationName) -> &'static str {
    match activation {
        ActivationName::QuickGelu => "quick_gelu",
        ActivationName::GeluErf => "gelu",
        ActivationName::GeluTanh => "gelu_pytorch_tanh",
    }
}

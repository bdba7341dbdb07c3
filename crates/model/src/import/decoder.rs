//! OpenVision 2's `text_decoder_config.json`.

use super::Fields;
use crate::ModelError;
use crate::config::{ActivationName, DecoderConfig, TransformerConfig};
use serde_json::{Value, json};

/// Name of the configuration in a folder.
pub(crate) const CONFIG_FILE: &str = "text_decoder_config.json";
/// Name of the weights in a folder, in the authors' layout and in ours.
pub const WEIGHTS_FILE: &str = "caption_decoder.safetensors";

/// Reads a configuration.
///
/// # Errors
/// A field has the wrong type or is out of bounds, or patch tokens are not put before the text.
pub(crate) fn config(place: &str, json: &Value) -> Result<DecoderConfig, ModelError> {
    let fields = Fields { place, path: "", value: json };
    if let Some(style) = fields.text("fusion_style")?.filter(|style| *style != "concat") {
        return Err(ModelError::config(place, "fusion_style", format!("'{style}' is not `concat`")));
    }
    let id = |field: &str, default: usize| {
        let id = fields.size(field, default)?;
        u32::try_from(id).map_err(|_| ModelError::config(place, field, format!("{id} is no token id")))
    };
    let config = DecoderConfig {
        transformer: TransformerConfig {
            width: fields.size("width", 0)?,
            layers: fields.size("depth", 0)?,
            heads: fields.size("num_heads", 0)?,
            mlp_width: fields.size("mlp_dim", 0)?,
            activation: ActivationName::GeluTanh,
            epsilon: 1e-6,
        },
        vision_width: fields.size("vision_width", 0)?,
        vocabulary: fields.size("vocab_size", 32_000)?,
        begin: id("bos_id", 1)?,
        end: id("eos_id", 2)?,
    };
    config.check(place)?;
    Ok(config)
}

/// The configuration as the authors write it.
pub(crate) fn to_json(config: &DecoderConfig) -> Value {
    let t = &config.transformer;
    json!({
        "architecture": "OpenVision2TextDecoder", "fusion_style": "concat", "width": t.width, "depth": t.layers,
        "num_heads": t.heads, "mlp_dim": t.mlp_width, "vocab_size": config.vocabulary,
        "vision_width": config.vision_width, "pad_id": 0, "bos_id": config.begin, "eos_id": config.end,
    })
}

//! open_clip's configurations (`open_clip_config.json`), among them the 26 published OpenVision ones.
//!
//! Those name `bert-base-uncased` with `strip_sep_token` and no `tokenizer_mode`, which leads open_clip to put the
//! class token first and to pool a padding position: plausible, wrong vectors. A model that its tensors and
//! configuration show to be OpenVision is therefore read with OpenVision's layout, unless the literal reading is
//! asked for.

use super::{Fields, mlp_width, timm};
use crate::ModelError;
use crate::config::{
    ActivationName, FORMAT_VERSION, Family, ImageConfig, ImagePooling, ModelConfig, Positions, TextConfig, TextLayout,
    TextPooling, TransformerConfig,
};
use openvision_io::preprocess::Preprocess;
use serde_json::{Value, json};

/// The two parts of a configuration.
pub struct Source<'a> {
    /// Named in messages.
    pub place: &'a str,
    /// `model_cfg`.
    pub model: &'a Value,
    /// `preprocess_cfg`.
    pub preprocess: Option<&'a Value>,
}

/// What is known beyond the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The tensors show OpenVision's position table (or a preset says so).
    pub openvision: bool,
    /// There is no text tower: what the configuration says of one means nothing.
    pub vision_only: bool,
    /// Follow the configuration to the letter, as open_clip would (`--as-published`).
    pub literal: bool,
}

/// Reads a configuration.
///
/// # Errors
/// A field has the wrong type, asks for a feature that is not built, or is out of bounds.
pub fn config(source: &Source, reading: Reading) -> Result<ModelConfig, ModelError> {
    let model = Fields { place: source.place, path: "model_cfg.", value: source.model };
    let vision = model.object("vision_cfg", "vision_cfg.")?;
    let text = model.object("text_cfg", "text_cfg.")?;
    refuse_unbuilt(&model, &vision, &text)?;
    let quick = model.flag("quick_gelu")?;
    let siglip = vision.text("timm_model_name")?;
    let image = match siglip {
        Some(name) => siglip_image(&vision, name)?,
        None => image_config(&vision, quick, reading)?,
    };
    let text = if reading.vision_only { None } else { Some(text_config(&text, quick, reading)?) };
    image.check(source.place)?;
    let size = (image.height, image.width);
    let family = match siglip {
        Some(_) => Family::Siglip,
        None if reading.openvision && reading.vision_only => Family::Openvision2,
        None if reading.openvision => Family::Openvision,
        None => Family::OpenClip,
    };
    let preprocess = match (source.preprocess, family) {
        (None, Family::Openvision2) => Preprocess::openvision2(size),
        (fields, _) => Preprocess::from_open_clip(fields.unwrap_or(&json!({})), size)
            .map_err(|error| ModelError::Preprocess { place: source.place.to_owned(), source: error })?,
    };
    let config = ModelConfig {
        format_version: FORMAT_VERSION,
        family,
        name: None,
        embed_dim: model.size("embed_dim", 0)?,
        image,
        text,
        preprocess,
        decoder: None,
        licence: None,
        precision: None,
        provenance: None,
    };
    config.check(source.place)?;
    Ok(config)
}

fn refuse_unbuilt(model: &Fields, vision: &Fields, text: &Fields) -> Result<(), ModelError> {
    vision.refuse("attentional_pool", "attentional pooling (CoCa) is not built yet")?;
    vision.refuse("ls_init_value", "LayerScale is not built yet")?;
    vision.refuse("input_patchnorm", "patch normalisation is not built")?;
    vision
        .refuse("in_channels", "only RGB pictures are built")
        .or_else(|e| if vision.size("in_channels", 3)? == 3 { Ok(()) } else { Err(e) })?;
    text.refuse("hf_model_name", "text towers of Hugging Face models are not built yet")?;
    text.refuse("embed_cls", "a class embedding in the text tower (CoCa) is not built yet")?;
    text.refuse("ls_init_value", "LayerScale is not built yet")?;
    model.refuse("multimodal_cfg", "caption decoders (CoCa) are not built yet")?;
    if vision.value.get("layers").is_some_and(Value::is_array) {
        return Err(ModelError::config(vision.place, "vision_cfg.layers", "residual networks (RN50...) are not built"));
    }
    Ok(())
}

fn activation(tower: &Fields, quick: bool) -> Result<ActivationName, ModelError> {
    let kwargs = tower.object("act_kwargs", "act_kwargs.")?;
    match (kwargs.text("approximate")?, quick) {
        (_, true) => Ok(ActivationName::QuickGelu),
        (Some("tanh"), _) => Ok(ActivationName::GeluTanh),
        (None | Some("none"), _) => Ok(ActivationName::GeluErf),
        (Some(other), _) => {
            Err(ModelError::config(tower.place, "act_kwargs.approximate", format!("'{other}' is not `tanh` or `none`")))
        }
    }
}

fn epsilon(tower: &Fields) -> Result<f32, ModelError> {
    Ok(tower.object("norm_kwargs", "norm_kwargs.")?.number("eps", 1e-5)? as f32)
}

/// A size that may be one number or a [height, width] pair.
fn image_size(vision: &Fields) -> Result<(usize, usize), ModelError> {
    let Some(pair) = vision.value.get("image_size").and_then(Value::as_array) else {
        let side = vision.size("image_size", 224)?;
        return Ok((side, side));
    };
    let sides: Vec<usize> = pair.iter().filter_map(Value::as_u64).map(|v| v as usize).collect();
    match sides[..] {
        [height, width] if pair.len() == 2 => Ok((height, width)),
        _ => Err(ModelError::config(vision.place, "vision_cfg.image_size", "not a number or a [height, width] pair")),
    }
}

/// SigLIP's image tower by its name in timm; explicit fields win over the table.
fn siglip_image(vision: &Fields, name: &str) -> Result<ImageConfig, ModelError> {
    let tower = timm::find(name).ok_or_else(|| {
        let problem = format!("'{name}' is not known; known: {}", timm::names());
        ModelError::config(vision.place, "vision_cfg.timm_model_name", problem)
    })?;
    for (field, wanted) in [("timm_pool", "map"), ("timm_proj", "none")] {
        if !matches!(vision.text(field)?.unwrap_or(wanted), found if found == wanted || found.is_empty()) {
            let problem = format!("only '{wanted}' is built");
            return Err(ModelError::config(vision.place, &format!("vision_cfg.{field}"), problem));
        }
    }
    let (height, width) = match vision.value.get("image_size") {
        Some(_) => image_size(vision)?,
        None => (tower.image_size, tower.image_size),
    };
    Ok(ImageConfig {
        height,
        width,
        patch: tower.patch,
        transformer: TransformerConfig {
            width: tower.width,
            layers: tower.layers,
            heads: tower.heads,
            mlp_width: tower.mlp_width,
            activation: match vision.value.get("act_kwargs") {
                Some(_) => activation(vision, false)?,
                None => tower.activation,
            },
            epsilon: 1e-6,
        },
        pre_norm: false,
        positions: Positions::Learned,
        pooling: ImagePooling::AttentionHead,
        class_token: false,
        patch_bias: true,
        projected: false,
    })
}

fn image_config(vision: &Fields, quick: bool, reading: Reading) -> Result<ImageConfig, ModelError> {
    let width = vision.size("width", 768)?;
    let head_width = vision.size("head_width", 64)?;
    if head_width == 0 || !width.is_multiple_of(head_width) {
        let problem = format!("heads of {head_width} do not divide the width {width}");
        return Err(ModelError::config(vision.place, "vision_cfg.head_width", problem));
    }
    let (height, image_width) = image_size(vision)?;
    let normed_after = vision.flag("final_ln_after_pool")?;
    let pooling = match vision.text("pool_type")?.unwrap_or("tok") {
        "tok" => ImagePooling::Class,
        "avg" if normed_after => ImagePooling::MeanThenNorm,
        "avg" => ImagePooling::NormThenMean,
        other => {
            let problem = format!("'{other}' is not `tok` or `avg`");
            return Err(ModelError::config(vision.place, "vision_cfg.pool_type", problem));
        }
    };
    Ok(ImageConfig {
        height,
        width: image_width,
        patch: vision.size("patch_size", 16)?,
        transformer: TransformerConfig {
            width,
            layers: vision.size("layers", 12)?,
            heads: width / head_width,
            mlp_width: mlp_width(width, vision.number("mlp_ratio", 4.0)?),
            activation: activation(vision, quick)?,
            epsilon: epsilon(vision)?,
        },
        pre_norm: !vision.flag("no_ln_pre")?,
        positions: if reading.openvision && !reading.literal { Positions::SinCos2d } else { Positions::Learned },
        pooling,
        class_token: true,
        patch_bias: false,
        projected: true,
    })
}

fn text_config(text: &Fields, quick: bool, reading: Reading) -> Result<TextConfig, ModelError> {
    let width = text.size("width", 512)?;
    let causal = !text.flag("no_causal_mask")?;
    let pool = text.text("pool_type")?.unwrap_or("argmax");
    let pooling = match pool {
        "argmax" => TextPooling::LargestId,
        "last" => TextPooling::Last,
        "first" => TextPooling::First,
        "eos" => TextPooling::FirstOf(text.size("eos_id", 2)? as u32),
        other => {
            let problem = format!("'{other}' is not `argmax`, `last`, `first` or `eos`");
            return Err(ModelError::config(text.place, "text_cfg.pool_type", problem));
        }
    };
    Ok(TextConfig {
        context: text.size("context_length", 77)?,
        vocabulary: text.size("vocab_size", 49_408)?,
        transformer: TransformerConfig {
            width,
            layers: text.size("layers", 12)?,
            heads: text.size("heads", 8)?,
            mlp_width: mlp_width(width, text.number("mlp_ratio", 4.0)?),
            activation: activation(text, quick)?,
            epsilon: epsilon(text)?,
        },
        causal,
        pooling,
        layout: layout(text, !causal && pool == "last", reading)?,
        projection_bias: text.flag("proj_bias")?,
    })
}

/// A tokenizer of the folder, cleaned as `tokenizer_kwargs` says.
fn folder_layout(text: &Fields) -> Result<TextLayout, ModelError> {
    match text.object("tokenizer_kwargs", "text_cfg.tokenizer_kwargs.")?.text("clean")? {
        None | Some("whitespace") => Ok(TextLayout::FolderWhitespace),
        Some("lower") => Ok(TextLayout::FolderLower),
        Some("canonicalize") => Ok(TextLayout::FolderCanonicalize),
        Some(other) => {
            let problem = format!("'{other}' is not `whitespace`, `lower` or `canonicalize`");
            Err(ModelError::config(text.place, "text_cfg.tokenizer_kwargs.clean", problem))
        }
    }
}

/// The text layout: by the tokenizer's name, corrected where the model is OpenVision.
fn layout(text: &Fields, class_pooled: bool, reading: Reading) -> Result<TextLayout, ModelError> {
    let named = text.text("hf_tokenizer_name")?;
    let mode = text.text("tokenizer_mode")?;
    if mode == Some("clips") {
        return Ok(TextLayout::Openvision);
    }
    let recognised = reading.openvision && class_pooled;
    if text.flag("proj_bias")? {
        return folder_layout(text);
    }
    Ok(match named {
        _ if recognised && !reading.literal => TextLayout::Openvision,
        Some(name) if name.ends_with("bert-base-uncased") => TextLayout::BertClassFirst,
        None => TextLayout::Clip,
        Some(_) => folder_layout(text)?,
    })
}

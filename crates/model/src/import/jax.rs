//! Descriptions of JAX trees, which carry no configuration: every size that is in a shape, and by family what is not.

use super::names::NameLayout;
use crate::ModelError;
use crate::config::{
    ActivationName, FORMAT_VERSION, Family, ImageConfig, ImagePooling, ModelConfig, Positions, TextConfig, TextLayout,
    TextPooling, TransformerConfig,
};
use openvision_io::preprocess::Preprocess;
use openvision_io::weights::Checkpoint;
use serde_json::json;

/// OpenVision's sizes share this one; the tree does not tell which it was trained at last.
const OPENVISION_SIDE: usize = 224;

/// A tree whose layout is known.
pub(super) struct Tree<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) layout: NameLayout,
    /// For messages.
    pub(super) place: &'a str,
}

impl Tree<'_> {
    /// The description, or None where the layout is not one of a JAX tree. What was assumed goes to the notes.
    pub(super) fn config(&self, notes: &mut Vec<String>) -> Result<Option<ModelConfig>, ModelError> {
        let config = match self.layout {
            NameLayout::OpenvisionJax => self.openvision(notes)?,
            NameLayout::BigVisionSiglip { .. } => self.siglip(notes)?,
            _ => return Ok(None),
        };
        config.check(self.place)?;
        Ok(Some(config))
    }

    fn openvision(&self, notes: &mut Vec<String>) -> Result<ModelConfig, ModelError> {
        let patch = self.size("img/embedding/kernel", 4, 0)?;
        let side = match self.grid("img/pos_embedding")? {
            Some(grid) => grid.saturating_mul(patch),
            None => {
                notes.push(format!(
                    "a JAX tree does not tell the picture's size: {OPENVISION_SIDE} is taken; --image-size says \
                     another, or a configuration beside the file"
                ));
                OPENVISION_SIDE
            }
        };
        let learned = self.checkpoint.get("img/pos_embedding").is_some();
        let image = self.transformer("img/Transformer", ActivationName::GeluErf)?;
        let normalize = json!({ "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
            "interpolation": "bilinear", "resize_mode": "squash" });
        Ok(ModelConfig {
            format_version: FORMAT_VERSION,
            family: Family::Openvision,
            name: None,
            embed_dim: self.size("img/head/kernel", 2, 1)?,
            image: ImageConfig {
                height: side,
                width: side,
                patch,
                transformer: image,
                pre_norm: false,
                positions: if learned { Positions::Learned } else { Positions::SinCos2d },
                pooling: ImagePooling::MeanThenNorm,
                class_token: true,
                patch_bias: false,
                projected: true,
            },
            text: Some(TextConfig {
                context: self.size("txt/pos_embedding", 3, 1)?,
                vocabulary: self.size("txt/Embed_0/embedding", 2, 0)?,
                transformer: self.transformer("txt/Transformer", ActivationName::GeluTanh)?,
                causal: false,
                pooling: TextPooling::Last,
                layout: TextLayout::Openvision,
                projection_bias: false,
            }),
            preprocess: self.preprocess(&normalize, side)?,
            decoder: None,
            licence: None,
            precision: None,
            provenance: None,
        })
    }

    /// SigLIP as big_vision's `configs/proj/image_text` has it: no class token, attention pooling, tanh GELU
    /// (`nn.gelu`), texts pooled at their last position. Pictures are resized as both PyTorch peers do.
    fn siglip(&self, notes: &mut Vec<String>) -> Result<ModelConfig, ModelError> {
        let patch = self.size("img/embedding/kernel", 4, 0)?;
        let problem = "the position table is not that of a square grid";
        let grid = self
            .grid("img/pos_embedding")?
            .ok_or_else(|| ModelError::config(self.place, "img/pos_embedding", problem))?;
        // Patches of 14 do not divide 384: the last pixels are left out, and the grid is that of 378.
        let side = if (patch, grid) == (14, 27) { 384 } else { grid.saturating_mul(patch) };
        if side == 384 && patch == 14 {
            notes.push("27 x 27 patches of 14: pictures of 384 pixels, as published".into());
        }
        let image = self.transformer("img/Transformer", ActivationName::GeluTanh)?;
        let normalize = json!({ "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic", "resize_mode": "squash" });
        Ok(ModelConfig {
            format_version: FORMAT_VERSION,
            family: Family::Siglip,
            name: None,
            embed_dim: self.size("txt/head/kernel", 2, 1)?,
            image: ImageConfig {
                height: side,
                width: side,
                patch,
                transformer: image,
                pre_norm: false,
                positions: Positions::Learned,
                pooling: ImagePooling::AttentionHead,
                class_token: false,
                patch_bias: true,
                projected: false,
            },
            text: Some(TextConfig {
                context: self.size("txt/pos_embedding", 3, 1)?,
                vocabulary: self.size("txt/Embed_0/embedding", 2, 0)?,
                transformer: self.transformer("txt/Encoder_0", ActivationName::GeluTanh)?,
                causal: false,
                pooling: TextPooling::Last,
                layout: TextLayout::Folder,
                projection_bias: true,
            }),
            preprocess: self.preprocess(&normalize, side)?,
            decoder: None,
            licence: None,
            precision: None,
            provenance: None,
        })
    }

    fn preprocess(&self, fields: &serde_json::Value, side: usize) -> Result<Preprocess, ModelError> {
        let wrap = |source| ModelError::Preprocess { place: self.place.to_owned(), source };
        Preprocess::from_open_clip(fields, (side, side)).map_err(wrap)
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.checkpoint.get(name).map(|tensor| &tensor.shape[..])
    }

    /// The size of an axis of a tensor that must be there and have so many axes.
    fn size(&self, name: &str, axes: usize, axis: usize) -> Result<usize, ModelError> {
        let wrong = |problem: String| ModelError::Layout { place: self.place.to_owned(), problem };
        match self.shape(name) {
            None => Err(wrong(format!("a JAX tree without `{name}`"))),
            Some(shape) if shape.len() == axes => Ok(shape[axis]),
            Some(shape) => Err(wrong(format!("`{name}` is {shape:?}, which is not {axes} axes"))),
        }
    }

    /// Side of a stored grid of positions, [1, side², width].
    fn grid(&self, name: &str) -> Result<Option<usize>, ModelError> {
        if self.shape(name).is_none() {
            return Ok(None);
        }
        let rows = self.size(name, 3, 1)?;
        let side = rows.isqrt();
        Ok(Some(side).filter(|side| side * side == rows))
    }

    /// The transformer under a name, its blocks apart (`encoderblock_7`) or stacked (`encoderblock`).
    fn transformer(&self, name: &str, activation: ActivationName) -> Result<TransformerConfig, ModelError> {
        let stacked = format!("{name}/encoderblock");
        let (first, outer, layers) = match self.shape(&format!("{stacked}/LayerNorm_0/scale")) {
            Some(shape) => (stacked, 1, shape.first().copied().unwrap_or(0)),
            None => {
                let prefix = format!("{name}/encoderblock_");
                let tensors = self.checkpoint.tensors().iter();
                let norms = tensors.filter(|t| t.name.starts_with(&prefix) && t.name.ends_with("/LayerNorm_0/scale"));
                (format!("{prefix}0"), 0, norms.count())
            }
        };
        let width = self.size(&format!("{first}/LayerNorm_0/scale"), outer + 1, outer)?;
        let mlp_width = self.size(&format!("{first}/MlpBlock_0/Dense_0/kernel"), outer + 2, outer + 1)?;
        let query = self.shape(&format!("{first}/MultiHeadDotProductAttention_0/query/kernel"));
        let heads = match query {
            Some(shape) if shape.len() == outer + 3 => shape[outer + 1],
            _ => width / head_width(width),
        };
        Ok(TransformerConfig { width, layers, heads, mlp_width, activation, epsilon: 1e-6 })
    }
}

/// Of the published towers, where the tree's matrices do not show the heads.
fn head_width(width: usize) -> usize {
    match width {
        1152 => 72,
        1280 => 80,
        1408 => 88,
        _ => 64,
    }
}

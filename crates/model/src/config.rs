//! The description of a model: two towers, preprocessing, text layout. Our `config.json` is this, serialised.

use crate::ModelError;
use openvision_io::preprocess::Preprocess;
use openvision_kernels::act::Activation;
use openvision_kernels::attention::Mask;
use serde::{Deserialize, Serialize};

/// Version of the `config.json` that this program writes.
pub const FORMAT_VERSION: u32 = 1;

/// A whole model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Version of this file format.
    pub format_version: u32,
    /// `openvision`, `clip` or `open_clip`: which family's conventions the model follows.
    pub family: Family,
    /// Name, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Width of the shared embedding space.
    pub embed_dim: usize,
    /// Image tower.
    pub image: ImageConfig,
    /// Text tower; OpenVision 2 has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextConfig>,
    /// From a decoded picture to pixels.
    pub preprocess: Preprocess,
    /// Caption decoder, of models that have one; its weights lie in a file of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderConfig>,
    /// Licence of the weights, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// How the weights are stored, where they are not floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<StoredPrecision>,
    /// Where the weights came from: source, seed, training run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<String>,
}

/// A way of storing weights other than as floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredPrecision {
    /// The blocks' matrices as bytes, with a scale an output.
    Int8,
}

/// Whose conventions a model follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// UC Santa Cruz' OpenVision.
    Openvision,
    /// OpenVision 2: an image tower of which only the patch tokens are trained, and a caption decoder.
    Openvision2,
    /// OpenAI's CLIP.
    Clip,
    /// Models trained with open_clip.
    OpenClip,
    /// Google's SigLIP and SigLIP 2 at a fixed resolution: sigmoid loss, attention pooling.
    Siglip,
}

impl Family {
    /// The name used in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Family::Openvision => "openvision",
            Family::Openvision2 => "openvision2",
            Family::Clip => "clip",
            Family::OpenClip => "open_clip",
            Family::Siglip => "siglip",
        }
    }
}

/// The activation of an MLP, by its name in configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationName {
    /// Exact GELU.
    GeluErf,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// x σ(1.702 x).
    QuickGelu,
}

impl From<ActivationName> for Activation {
    fn from(name: ActivationName) -> Self {
        match name {
            ActivationName::GeluErf => Activation::GeluErf,
            ActivationName::GeluTanh => Activation::GeluTanh,
            ActivationName::QuickGelu => Activation::QuickGelu,
        }
    }
}

/// The transformer inside a tower.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// Width D of the residual stream.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads; they divide the width.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub mlp_width: usize,
    /// Activation of the MLP.
    pub activation: ActivationName,
    /// Epsilon of every layer norm.
    pub epsilon: f32,
}

/// How an image tower's positions come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// OpenVision's fixed 2-D sine-cosine table, recomputed for every grid.
    SinCos2d,
    /// A trained table, resampled for another grid.
    Learned,
}

/// How an image tower's tokens become one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImagePooling {
    /// The class token, after the final norm.
    Class,
    /// The mean of the patch tokens, then the final norm (OpenVision, CLIPA).
    MeanThenNorm,
    /// The final norm of every token, then the mean of the patch tokens.
    NormThenMean,
    /// The final norm of every token, then a learned query attends to them, and an MLP with a residual (SigLIP).
    AttentionHead,
}

/// An image tower.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Height of the input in pixels.
    pub height: usize,
    /// Width of the input in pixels.
    pub width: usize,
    /// Side of a patch.
    pub patch: usize,
    /// The transformer.
    pub transformer: TransformerConfig,
    /// Whether a layer norm follows the embedding (`ln_pre`).
    pub pre_norm: bool,
    /// Positions.
    pub positions: Positions,
    /// Pooling.
    pub pooling: ImagePooling,
    /// Whether a class token stands before the patches.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub class_token: bool,
    /// Whether the patch convolution has a bias.
    #[serde(default, skip_serializing_if = "is_false")]
    pub patch_bias: bool,
    /// Whether a projection follows the pooling; without one the embedding is as wide as the tower.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub projected: bool,
}

fn yes() -> bool {
    true
}

// serde hands references to these.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_true(flag: &bool) -> bool {
    *flag
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// How the tokens of a text become one row, after the final norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextPooling {
    /// The last position.
    Last,
    /// The first position.
    First,
    /// The position of the largest id (OpenAI's rule: the end token has the largest).
    LargestId,
    /// The first position that holds this id.
    FirstOf(u32),
}

/// How a text becomes token ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextLayout {
    /// OpenVision: `[bos] pieces [eos] pad... [CLS]`, the class token last, texts cleaned as its PyTorch tokenizer does.
    Openvision,
    /// The same layout with the text normalisation of the JAX training pipeline.
    OpenvisionJax,
    /// bert-base-uncased with `[SEP]` blanked (CLIPA), `[CLS]` first: for OpenVision's weights this is the wrong
    /// reading that their published configurations lead to.
    BertClassFirst,
    /// CLIP's byte-pair encoding as open_clip reads it, zero-padded.
    Clip,
    /// CLIP's byte-pair encoding as Hugging Face reads it: no repair of broken text, padded with the end token.
    ClipHuggingFace,
    /// The tokenizer files in the model's folder, with the cleaning of their class in transformers.
    Folder,
    /// The tokenizer files in the model's folder; texts repaired, white space collapsed (open_clip's default).
    FolderWhitespace,
    /// The tokenizer files in the model's folder; texts repaired and lower-cased.
    FolderLower,
    /// The tokenizer files in the model's folder; texts repaired, lower-cased and without punctuation.
    FolderCanonicalize,
}

/// A text tower.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Positions of a text.
    pub context: usize,
    /// Rows of the token embedding.
    pub vocabulary: usize,
    /// The transformer.
    pub transformer: TransformerConfig,
    /// Whether tokens see only what comes before.
    pub causal: bool,
    /// Pooling.
    pub pooling: TextPooling,
    /// From text to token ids.
    pub layout: TextLayout,
    /// Whether the projection has a bias (and lies as [out, in] in files).
    #[serde(default, skip_serializing_if = "is_false")]
    pub projection_bias: bool,
}

/// OpenVision 2's caption decoder: a causal transformer over projected patch tokens and the words so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// The transformer.
    pub transformer: TransformerConfig,
    /// Width of the patch tokens that it reads.
    pub vision_width: usize,
    /// Rows of the token embedding.
    pub vocabulary: usize,
    /// The id that a caption begins with.
    pub begin: u32,
    /// The id that ends a caption.
    pub end: u32,
}

/// Bounds that no known model comes near; they keep a hostile file from asking for the whole memory.
const LARGEST_WIDTH: usize = 16_384;
const MOST_LAYERS: usize = 256;
const LARGEST_SIDE: usize = 8_192;
const MOST_TOKENS: usize = 1 << 16;
const LARGEST_VOCABULARY: usize = 4_000_000;

impl TransformerConfig {
    /// Width of a head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    fn check(&self, place: &str, tower: &str) -> Result<(), ModelError> {
        let bounds = [
            ("width", self.width, LARGEST_WIDTH),
            ("layers", self.layers, MOST_LAYERS),
            ("heads", self.heads, self.width.max(1)),
            ("mlp_width", self.mlp_width, 8 * LARGEST_WIDTH),
        ];
        for (field, value, largest) in bounds {
            in_bounds(place, &format!("{tower}.{field}"), value, largest)?;
        }
        if !self.width.is_multiple_of(self.heads) {
            let problem = format!("{} heads do not divide the width {}", self.heads, self.width);
            return Err(ModelError::config(place, &format!("{tower}.heads"), problem));
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0 && self.epsilon < 1.0) {
            let problem = format!("{} is no epsilon of a layer norm", self.epsilon);
            return Err(ModelError::config(place, &format!("{tower}.epsilon"), problem));
        }
        Ok(())
    }
}

fn in_bounds(place: &str, field: &str, value: usize, largest: usize) -> Result<(), ModelError> {
    if value == 0 || value > largest {
        return Err(ModelError::config(place, field, format!("{value} is not between 1 and {largest}")));
    }
    Ok(())
}

impl ImageConfig {
    /// Rows and columns of patches.
    pub fn grid(&self) -> (usize, usize) {
        (self.height / self.patch, self.width / self.patch)
    }

    /// Tokens of a picture, the class token included.
    pub fn tokens(&self) -> usize {
        let (rows, columns) = self.grid();
        rows * columns + usize::from(self.class_token)
    }

    /// Tokens before the patches.
    pub fn leading(&self) -> usize {
        usize::from(self.class_token)
    }

    pub(crate) fn check(&self, place: &str) -> Result<(), ModelError> {
        in_bounds(place, "image.height", self.height, LARGEST_SIDE)?;
        in_bounds(place, "image.width", self.width, LARGEST_SIDE)?;
        in_bounds(place, "image.patch", self.patch, self.height.min(self.width))?;
        in_bounds(place, "image tokens", self.tokens(), MOST_TOKENS)?;
        if self.positions == Positions::SinCos2d
            && (!self.transformer.width.is_multiple_of(4) || self.transformer.width < 8)
        {
            return Err(ModelError::config(
                place,
                "image.width",
                "sine-cosine positions need a multiple of 4, 8 at least",
            ));
        }
        self.transformer.check(place, "image")
    }
}

impl TextConfig {
    /// The attention mask of this tower.
    pub fn mask(&self) -> Mask {
        if self.causal { Mask::Causal } else { Mask::None }
    }

    fn parameters(&self, embed_dim: usize) -> usize {
        let width = self.transformer.width;
        let bias = if self.projection_bias { embed_dim } else { 0 };
        (self.vocabulary + self.context + embed_dim + 2) * width + self.transformer.parameters() + bias
    }

    fn check(&self, place: &str) -> Result<(), ModelError> {
        in_bounds(place, "text.context", self.context, MOST_TOKENS)?;
        in_bounds(place, "text.vocabulary", self.vocabulary, LARGEST_VOCABULARY)?;
        self.transformer.check(place, "text")
    }
}

impl DecoderConfig {
    /// Embedding and head, the image projection, the blocks and the final norm.
    fn parameters(&self) -> usize {
        let width = self.transformer.width;
        (2 * self.vocabulary + self.vision_width + 2) * width + self.transformer.parameters()
    }

    pub(crate) fn check(&self, place: &str) -> Result<(), ModelError> {
        in_bounds(place, "decoder.vision_width", self.vision_width, LARGEST_WIDTH)?;
        in_bounds(place, "decoder.vocabulary", self.vocabulary, LARGEST_VOCABULARY)?;
        for (field, id) in [("decoder.begin", self.begin), ("decoder.end", self.end)] {
            if id as usize >= self.vocabulary {
                let problem = format!("{id} is not in the vocabulary of {}", self.vocabulary);
                return Err(ModelError::config(place, field, problem));
            }
        }
        self.transformer.check(place, "decoder")
    }
}

impl ModelConfig {
    /// The text tower's description.
    ///
    /// # Errors
    /// There is none.
    pub fn text(&self) -> Result<&TextConfig, ModelError> {
        self.text.as_ref().ok_or(ModelError::NoText)
    }

    /// Refuses models whose pooled picture embedding means nothing.
    ///
    /// # Errors
    /// OpenVision 2 is trained through its patch tokens alone.
    pub fn check_pooled(&self) -> Result<(), ModelError> {
        if self.family == Family::Openvision2 { Err(ModelError::PatchTokensOnly) } else { Ok(()) }
    }

    /// Refuses sizes that cannot be. `place` names the source in messages.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn check(&self, place: &str) -> Result<(), ModelError> {
        if self.format_version == 0 || self.format_version > FORMAT_VERSION {
            let problem = format!("version {} is newer than this program ({FORMAT_VERSION})", self.format_version);
            return Err(ModelError::config(place, "format_version", problem));
        }
        in_bounds(place, "embed_dim", self.embed_dim, LARGEST_WIDTH)?;
        self.image.check(place)?;
        if let Some(text) = &self.text {
            text.check(place)?;
        }
        if let Some(decoder) = &self.decoder {
            decoder.check(place)?;
            if decoder.vision_width != self.image.transformer.width {
                let problem =
                    format!("{}; the image tower gives {}", decoder.vision_width, self.image.transformer.width);
                return Err(ModelError::config(place, "decoder.vision_width", problem));
            }
        }
        if !self.image.projected && self.embed_dim != self.image.transformer.width {
            let problem = format!("{} without a projection from {}", self.embed_dim, self.image.transformer.width);
            return Err(ModelError::config(place, "embed_dim", problem));
        }
        if self.image.pooling == ImagePooling::Class && !self.image.class_token {
            return Err(ModelError::config(place, "image.pooling", "there is no class token to pool"));
        }
        Ok(())
    }

    /// Sets the activation of all towers.
    pub fn set_activation(&mut self, activation: ActivationName) {
        self.image.transformer.activation = activation;
        if let Some(text) = &mut self.text {
            text.transformer.activation = activation;
        }
    }

    /// The same model at another input size.
    pub fn with_image_size(mut self, (height, width): (usize, usize)) -> Self {
        self.image.height = height;
        self.image.width = width;
        self.preprocess.size = (height, width);
        self.preprocess.shortest_edge = None;
        self
    }
}

/// Exact parameter counts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterCounts {
    /// Image tower without positions and projection.
    pub image: usize,
    /// The image tower's position table.
    pub position: usize,
    /// The image projection.
    pub projection: usize,
    /// Text tower, projection included.
    pub text: usize,
    /// Caption decoder.
    pub decoder: usize,
    /// Everything, the logit scale included.
    pub total: usize,
}

/// Forward cost of one item in floating-point operations (2 a multiply-add; projections and attention only).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Flops {
    /// One picture.
    pub image: u64,
    /// One text.
    pub text: u64,
}

impl TransformerConfig {
    /// Parameters of all blocks: 4 D² + 4 D attention, 2 D M + M + D MLP, 4 D norms each.
    pub fn parameters(&self) -> usize {
        let (w, m) = (self.width, self.mlp_width);
        self.layers * (4 * w * w + 4 * w + 2 * w * m + m + w + 4 * w)
    }

    /// Operations of all blocks over `tokens` rows.
    pub fn flops(&self, tokens: usize) -> u64 {
        let (n, w, m) = (tokens as u64, self.width as u64, self.mlp_width as u64);
        self.layers as u64 * (n * (8 * w * w + 4 * w * m) + 4 * n * n * w)
    }
}

impl ModelConfig {
    /// Exact parameter counts, from the sizes alone.
    pub fn parameters(&self) -> ParameterCounts {
        let image = &self.image;
        let w = image.transformer.width;
        let norms = if image.pre_norm { 4 * w } else { 2 * w };
        let head = match image.pooling {
            ImagePooling::AttentionHead => {
                let m = image.transformer.mlp_width;
                w + 4 * w * w + 4 * w + 2 * w + 2 * w * m + m + w
            }
            _ => 0,
        };
        let embedding = 3 * image.patch * image.patch * w + (image.leading() + usize::from(image.patch_bias)) * w;
        let trunk = embedding + image.transformer.parameters() + norms + head;
        let position = image.tokens() * w;
        let projection = if image.projected { w * self.embed_dim } else { 0 };
        let text = self.text.map_or(0, |text| text.parameters(self.embed_dim));
        let decoder = self.decoder.map_or(0, |decoder| decoder.parameters());
        // The logit scale, and the bias that goes with the sigmoid loss.
        let scalars = match (self.text, self.family) {
            (None, _) => 0,
            (Some(_), Family::Siglip) => 2,
            (Some(_), _) => 1,
        };
        let total = trunk + position + projection + text + decoder + scalars;
        ParameterCounts { image: trunk, position, projection, text, decoder, total }
    }

    /// Operations of one picture and of one text.
    pub fn flops(&self) -> Flops {
        let w = self.image.transformer.width as u64;
        let patches = (self.image.tokens() - self.image.leading()) as u64;
        let embedding = 2 * patches * 3 * (self.image.patch * self.image.patch) as u64 * w;
        let project = |width: usize| 2 * (width * self.embed_dim) as u64;
        // One query a picture over the keys and values of all tokens, then an MLP of one row.
        let head = match self.image.pooling {
            ImagePooling::AttentionHead => {
                let (n, m) = (self.image.tokens() as u64, self.image.transformer.mlp_width as u64);
                n * (4 * w * w + 4 * w) + 4 * w * w + 4 * w * m
            }
            _ => 0,
        };
        let projection = if self.image.projected { project(self.image.transformer.width) } else { 0 };
        Flops {
            image: embedding + self.image.transformer.flops(self.image.tokens()) + head + projection,
            text: self.text.map_or(0, |t| t.transformer.flops(t.context) + project(t.transformer.width)),
        }
    }
}

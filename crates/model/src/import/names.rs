//! From our tensor names (open_clip's flat ones) to those of other layouts, by the tables in `presets/namemaps`.

use serde::Deserialize;
use std::sync::OnceLock;

/// How a file names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameLayout {
    /// open_clip's flat layout, which is also ours and OpenAI's.
    OpenClip,
    /// open_clip with the text tower under `text.`.
    OpenClipCustomText,
    /// An image tower alone, without the prefix `visual.` (OpenVision 2).
    VisionOnly,
    /// transformers' `CLIPModel`.
    HuggingFace,
    /// transformers' `SiglipModel`.
    HuggingFaceSiglip,
    /// open_clip's SigLIP: an image tower of timm.
    OpenClipSiglip,
    /// OpenVision's own tree, as its JAX code trains it.
    OpenvisionJax,
    /// big_vision's SigLIP tree.
    BigVisionSiglip {
        /// Whether all blocks of the image tower are in one tensor (`nn.scan`).
        image_stacked: bool,
        /// Whether those of the text tower are.
        text_stacked: bool,
    },
}

/// Where a tensor of ours lies in a file: tensors, one below the other along our first axis, all seen the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSource {
    names: Vec<String>,
    /// How each of them is seen.
    pub view: View,
    /// The block whose part of a tensor over all blocks is meant.
    pub block: Option<usize>,
}

/// How a tensor of a file is seen as one of ours, or as some rows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The file's axis at each place of ours: [1, 0] for a transposed matrix. Empty where the order is ours.
    pub order: Vec<usize>,
    /// Ours are some of the equal parts of the file's rows: from, to, of how many.
    pub part: Option<[usize; 3]>,
    /// Leading axes of length 1 that ours lacks.
    pub axes: usize,
    /// Whether the file may cut an axis into several: width into heads.
    pub cut: bool,
}

impl TensorSource {
    /// The names in the file; one at least.
    pub fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// Whether elements lie in the file as they lie in ours, those of several tensors one after the other.
    pub(crate) fn in_order(&self) -> bool {
        self.view.order.is_empty() && self.view.part.is_none() && self.block.is_none()
    }

    /// The part of our shape that each of the file's tensors is.
    pub(crate) fn shape_of_one(&self, ours: &[usize]) -> Vec<usize> {
        let mut shape = ours.to_vec();
        if let Some(rows) = shape.first_mut() {
            *rows /= self.names.len();
        }
        shape
    }

    /// The shape of each of the file's tensors, without an axis over all blocks.
    pub(crate) fn stored_shape(&self, ours: &[usize]) -> Vec<usize> {
        let mut shape = self.shape_of_one(ours);
        if let Some([from, to, of]) = self.view.part {
            shape[0] = shape[0] / (to - from) * of;
        }
        let ordered = shape.clone();
        for (place, axis) in self.view.order.iter().enumerate() {
            shape[*axis] = ordered[place];
        }
        shape.splice(0..0, vec![1; self.view.axes]);
        shape
    }
}

/// For each element of a tensor of this shape, its place in the one whose axis `order[i]` is our axis i.
pub(crate) fn places(ours: &[usize], order: &[usize]) -> impl Iterator<Item = usize> + use<> {
    let mut sizes = vec![1; ours.len()];
    for (axis, size) in order.iter().zip(ours) {
        sizes[*axis] = *size;
    }
    let step = |axis: &usize| sizes[axis + 1..].iter().product::<usize>();
    let axes: Vec<(usize, usize)> = ours.iter().copied().zip(order.iter().map(step)).collect();
    let (mut index, mut at) = (vec![0; ours.len()], 0);
    (0..ours.iter().product()).map(move |_| {
        let place = at;
        for (position, (size, step)) in index.iter_mut().zip(&axes).rev() {
            *position += 1;
            at += step;
            if *position < *size {
                break;
            }
            at -= size * step;
            *position = 0;
        }
        place
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    #[serde(rename = "about")]
    _about: String,
    ignored: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    ours: String,
    theirs: Vec<String>,
    #[serde(default)]
    order: Vec<usize>,
    #[serde(default)]
    part: Option<[usize; 3]>,
    #[serde(default)]
    axes: usize,
    #[serde(default)]
    cut: bool,
}

/// The block number where `name` is `pattern` with a number for `{i}`; an empty number where there is no `{i}`.
fn matches<'n>(pattern: &str, name: &'n str) -> Option<&'n str> {
    let Some((before, after)) = pattern.split_once("{i}") else {
        return (pattern == name).then_some("");
    };
    let number = name.strip_prefix(before)?.strip_suffix(after)?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(number)
}

/// Whether `name` is this one, or lies under it where it ends with a slash.
fn under(ignored: &str, name: &str) -> bool {
    ignored == name || (ignored.ends_with('/') && name.starts_with(ignored))
}

impl NameLayout {
    /// Its name for people.
    pub fn describe(self) -> &'static str {
        match self {
            NameLayout::OpenClip => "open_clip",
            NameLayout::OpenClipCustomText => "open_clip (text tower under `text.`)",
            NameLayout::VisionOnly => "open_clip (image tower alone)",
            NameLayout::HuggingFace => "Hugging Face CLIPModel",
            NameLayout::HuggingFaceSiglip => "Hugging Face SiglipModel",
            NameLayout::OpenClipSiglip => "open_clip SigLIP (image tower of timm)",
            NameLayout::OpenvisionJax => "OpenVision's JAX tree",
            NameLayout::BigVisionSiglip { .. } => "big_vision's SigLIP (a JAX tree)",
        }
    }

    fn map(self) -> Option<&'static Map> {
        static CUSTOM_TEXT: OnceLock<Map> = OnceLock::new();
        static VISION_ONLY: OnceLock<Map> = OnceLock::new();
        static HUGGING_FACE: OnceLock<Map> = OnceLock::new();
        static HUGGING_FACE_SIGLIP: OnceLock<Map> = OnceLock::new();
        static OPEN_CLIP_SIGLIP: OnceLock<Map> = OnceLock::new();
        static OPENVISION_JAX: OnceLock<Map> = OnceLock::new();
        static BIG_VISION_SIGLIP: OnceLock<Map> = OnceLock::new();
        let (cell, text) = match self {
            NameLayout::OpenClip => return None,
            NameLayout::OpenClipCustomText => {
                (&CUSTOM_TEXT, include_str!("../../../../presets/namemaps/open_clip_custom_text.json"))
            }
            NameLayout::VisionOnly => (&VISION_ONLY, include_str!("../../../../presets/namemaps/vision_only.json")),
            NameLayout::HuggingFace => {
                (&HUGGING_FACE, include_str!("../../../../presets/namemaps/hugging_face_clip.json"))
            }
            NameLayout::HuggingFaceSiglip => {
                (&HUGGING_FACE_SIGLIP, include_str!("../../../../presets/namemaps/hugging_face_siglip.json"))
            }
            NameLayout::OpenClipSiglip => {
                (&OPEN_CLIP_SIGLIP, include_str!("../../../../presets/namemaps/open_clip_siglip.json"))
            }
            NameLayout::OpenvisionJax => {
                (&OPENVISION_JAX, include_str!("../../../../presets/namemaps/openvision_jax.json"))
            }
            NameLayout::BigVisionSiglip { .. } => {
                (&BIG_VISION_SIGLIP, include_str!("../../../../presets/namemaps/big_vision_siglip.json"))
            }
        };
        Some(cell.get_or_init(|| serde_json::from_str(text).expect("a test reads every name map")))
    }

    fn rule(self, name: &str) -> Option<(&'static Rule, &str)> {
        self.map()?.rules.iter().find_map(|rule| matches(&rule.ours, name).map(|number| (rule, number)))
    }

    /// Where our tensor `name` lies in a file of this layout.
    pub fn source(self, name: &str) -> TensorSource {
        let Some((rule, number)) = self.rule(name) else {
            return TensorSource { names: vec![name.to_owned()], view: View::default(), block: None };
        };
        let stacked = match self {
            NameLayout::BigVisionSiglip { image_stacked, text_stacked } => {
                if name.starts_with("visual.") {
                    image_stacked
                } else {
                    text_stacked
                }
            }
            _ => false,
        };
        // `encoderblock_{i}` is `encoderblock` where the blocks are stacked.
        let named = |pattern: &String| match stacked {
            true => pattern.replace("_{i}", ""),
            false => pattern.replace("{i}", number),
        };
        let block = number.parse().ok().filter(|_| stacked);
        let view = View { order: rule.order.clone(), part: rule.part, axes: rule.axes, cut: rule.cut };
        TensorSource { names: rule.theirs.iter().map(named).collect(), view, block }
    }

    /// Whether a file may hold this tensor although no tower needs it: buffers of old versions, OpenAI's scalars, the
    /// caption decoder of OpenVision's JAX tree.
    pub fn ignores(self, name: &str) -> bool {
        const BUFFERS: [&str; 4] = ["attn_mask", "input_resolution", "context_length", "vocab_size"];
        BUFFERS.contains(&name) || self.map().is_some_and(|map| map.ignored.iter().any(|ignored| under(ignored, name)))
    }

    /// The layout whose first tensors the names show, or what to say of an unknown one.
    ///
    /// # Errors
    /// A text for people that names what was recognised.
    pub fn detect<'n>(names: impl Iterator<Item = &'n str> + Clone) -> Result<Self, String> {
        let any = |wanted: &str| names.clone().any(|name| name.starts_with(wanted));
        if any("vision_model.head.probe") {
            return Ok(NameLayout::HuggingFaceSiglip);
        }
        if any("visual.trunk.attn_pool.latent") {
            return Ok(NameLayout::OpenClipSiglip);
        }
        if any("vision_model.embeddings.class_embedding") {
            return Ok(NameLayout::HuggingFace);
        }
        // SigLIP in our own folder.
        if any("visual.attn_pool.probe") {
            return Ok(Self::OpenClip);
        }
        if any("visual.class_embedding") {
            return Ok(if any("text.token_embedding") { Self::OpenClipCustomText } else { Self::OpenClip });
        }
        if any("conv1.weight") && any("positional_embedding") {
            return Ok(Self::VisionOnly);
        }
        if any("img/MAPHead_0/probe") {
            let stacked = |tower: &str| any(&format!("{tower}/encoderblock/"));
            let (image_stacked, text_stacked) = (stacked("img/Transformer"), stacked("txt/Encoder_0"));
            return Ok(Self::BigVisionSiglip { image_stacked, text_stacked });
        }
        if any("img/cls") && any("img/encoder_norm/") {
            return Ok(Self::OpenvisionJax);
        }
        let known = [
            ("visual.trunk.", "a tower of timm other than SigLIP's"),
            ("visual.layer1.", "a residual network (RN50 and others)"),
            ("visual.attnpool.", "a residual network (RN50 and others)"),
            ("conv1.weight", "a residual network (RN50 and others)"),
            ("img/", "a JAX tree other than OpenVision's and SigLIP's"),
            ("Transformer/encoderblock", "a JAX tree of one tower"),
            ("token_embd.weight", "a language model, not an encoder"),
            ("v.blk.", "an image tower for llama.cpp (mmproj)"),
        ];
        let found = known.iter().find(|(prefix, _)| any(prefix)).map(|(_, what)| *what);
        let first: Vec<String> = names.clone().take(5).map(|name| name.escape_debug().to_string()).collect();
        Err(match found {
            Some(what) => format!("this is {what}, which cannot be read yet"),
            None => format!("no known layout; its first tensors are {}", first.join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_read_and_name_every_tensor_of_a_model() {
        let entry = crate::registry::find("clip/vit-b-32").unwrap();
        let image = crate::tower::ImageTower::new(&entry.config.image, entry.config.embed_dim);
        let text = crate::tower::TextTower::new(entry.config.text().unwrap(), entry.config.embed_dim);
        for spec in image.plan.tensors().iter().chain(&text.plan.tensors()) {
            let source = NameLayout::HuggingFace.source(&spec.name);
            assert!(
                source.names().iter().all(|name| name.contains("model.") || name.contains("projection")),
                "{source:?}"
            );
        }
        assert_eq!(
            NameLayout::HuggingFace.source("transformer.resblocks.11.attn.in_proj_bias"),
            TensorSource {
                names: ["q", "k", "v"]
                    .map(|p| format!("text_model.encoder.layers.11.self_attn.{p}_proj.bias"))
                    .to_vec(),
                view: View::default(),
                block: None,
            }
        );
        let names = |layout: NameLayout, name: &str| layout.source(name).names;
        assert_eq!(
            names(NameLayout::OpenClipCustomText, "transformer.resblocks.3.ln_1.bias"),
            ["text.transformer.resblocks.3.ln_1.bias"]
        );
        assert_eq!(names(NameLayout::OpenClipCustomText, "visual.proj"), ["visual.proj"]);
    }

    #[test]
    fn jax_trees_are_told_apart_and_stacked_blocks_are_found() {
        let one = ["img/cls", "img/encoder_norm/bias"];
        assert_eq!(NameLayout::detect(one.into_iter()), Ok(NameLayout::OpenvisionJax));
        let siglip = ["img/MAPHead_0/probe", "img/Transformer/encoderblock/LayerNorm_0/bias"];
        let layout = NameLayout::BigVisionSiglip { image_stacked: true, text_stacked: false };
        assert_eq!(NameLayout::detect(siglip.into_iter()), Ok(layout));
        let source = layout.source("visual.transformer.resblocks.7.mlp.c_fc.weight");
        assert_eq!(
            (source.names(), source.block),
            (vec!["img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel"], Some(7))
        );
        let source = layout.source("transformer.resblocks.7.mlp.c_fc.weight");
        let name = "txt/Encoder_0/encoderblock_7/MlpBlock_0/Dense_0/kernel";
        assert_eq!((source.names(), source.block), (vec![name], None));
        assert!(NameLayout::OpenvisionJax.ignores("txt_decoder/head/kernel"));
        assert!(!NameLayout::OpenvisionJax.ignores("txt_decoder2"));
    }

    /// A [2, 3, 4] tensor of ours whose file has its axes as [4, 2, 3]: the plain definition.
    #[test]
    fn places_are_those_of_the_reordered_tensor() {
        let order = [1, 2, 0];
        let got: Vec<usize> = places(&[2, 3, 4], &order).collect();
        let mut want = Vec::new();
        for a in 0..2 {
            for b in 0..3 {
                for c in 0..4 {
                    want.push((c * 2 + a) * 3 + b);
                }
            }
        }
        assert_eq!(got, want);
        let source = NameLayout::OpenvisionJax.source("visual.conv1.weight");
        assert_eq!(source.stored_shape(&[64, 3, 16, 8]), [16, 8, 3, 64]);
        assert_eq!(places(&[], &[]).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn unknown_layouts_are_named() {
        let error = NameLayout::detect(["visual.trunk.blocks.0.norm1.weight"].into_iter()).unwrap_err();
        assert!(error.contains("timm"), "{error}");
        let names = ["vision_model.head.probe", "vision_model.post_layernorm.bias"];
        assert_eq!(NameLayout::detect(names.into_iter()), Ok(NameLayout::HuggingFaceSiglip));
        assert!(NameLayout::detect(["a", "b"].into_iter()).unwrap_err().contains("a, b"));
    }
}

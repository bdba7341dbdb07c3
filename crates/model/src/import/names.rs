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
}

/// Where a tensor of ours lies in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorSource {
    /// Under one name, as it is.
    Copy(String),
    /// As several tensors, one below the other along the first axis.
    Rows(Vec<String>),
    /// Under one name, with the two axes exchanged.
    Transposed(String),
    /// As some of the equal parts of another tensor's rows: from, to, of how many.
    Part(String, [usize; 3]),
}

impl TensorSource {
    /// The names in the file.
    pub fn names(&self) -> Vec<&str> {
        match self {
            TensorSource::Copy(name) | TensorSource::Transposed(name) | TensorSource::Part(name, _) => vec![name],
            TensorSource::Rows(names) => names.iter().map(String::as_str).collect(),
        }
    }
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
    transposed: bool,
    #[serde(default)]
    part: Option<[usize; 3]>,
    /// Leading axes of length 1 that ours lacks.
    #[serde(default)]
    axes: usize,
}

/// The block number where `name` is `pattern` with a number for `{i}`; an empty number where there is no `{i}`.
fn matches<'n>(pattern: &str, name: &'n str) -> Option<&'n str> {
    let Some((before, after)) = pattern.split_once("{i}") else {
        return (pattern == name).then_some("");
    };
    let number = name.strip_prefix(before)?.strip_suffix(after)?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(number)
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
        }
    }

    fn map(self) -> Option<&'static Map> {
        static CUSTOM_TEXT: OnceLock<Map> = OnceLock::new();
        static VISION_ONLY: OnceLock<Map> = OnceLock::new();
        static HUGGING_FACE: OnceLock<Map> = OnceLock::new();
        static HUGGING_FACE_SIGLIP: OnceLock<Map> = OnceLock::new();
        static OPEN_CLIP_SIGLIP: OnceLock<Map> = OnceLock::new();
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
        };
        Some(cell.get_or_init(|| serde_json::from_str(text).expect("a test reads every name map")))
    }

    fn rule(self, name: &str) -> Option<(&'static Rule, &str)> {
        self.map()?.rules.iter().find_map(|rule| matches(&rule.ours, name).map(|number| (rule, number)))
    }

    /// Leading axes of length 1 that our tensor `name` has in a file of this layout.
    pub fn leading_axes(self, name: &str) -> usize {
        self.rule(name).map_or(0, |(rule, _)| rule.axes)
    }

    /// Where our tensor `name` lies in a file of this layout.
    pub fn source(self, name: &str) -> TensorSource {
        let Some((rule, number)) = self.rule(name) else { return TensorSource::Copy(name.to_owned()) };
        let mut theirs: Vec<String> = rule.theirs.iter().map(|pattern| pattern.replace("{i}", number)).collect();
        match (theirs.len(), rule.transposed, rule.part) {
            (1, _, Some(part)) => TensorSource::Part(theirs.remove(0), part),
            (1, false, None) => TensorSource::Copy(theirs.remove(0)),
            (1, true, None) => TensorSource::Transposed(theirs.remove(0)),
            _ => TensorSource::Rows(theirs),
        }
    }

    /// Whether a file may hold this tensor although no model needs it: buffers of old versions, OpenAI's scalars.
    pub fn ignores(self, name: &str) -> bool {
        const BUFFERS: [&str; 4] = ["attn_mask", "input_resolution", "context_length", "vocab_size"];
        BUFFERS.contains(&name) || self.map().is_some_and(|map| map.ignored.iter().any(|ignored| ignored == name))
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
        let known = [
            ("visual.trunk.", "a tower of timm other than SigLIP's"),
            ("visual.layer1.", "a residual network (RN50 and others)"),
            ("visual.attnpool.", "a residual network (RN50 and others)"),
            ("conv1.weight", "a residual network (RN50 and others)"),
            ("img/", "OpenVision's JAX names"),
            ("params/img/", "OpenVision's JAX names"),
        ];
        let found = known.iter().find(|(prefix, _)| any(prefix)).map(|(_, what)| *what);
        let first: Vec<&str> = names.clone().take(5).collect();
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
            TensorSource::Rows(
                ["q", "k", "v"].map(|p| format!("text_model.encoder.layers.11.self_attn.{p}_proj.bias")).to_vec()
            )
        );
        assert_eq!(
            NameLayout::OpenClipCustomText.source("transformer.resblocks.3.ln_1.bias"),
            TensorSource::Copy("text.transformer.resblocks.3.ln_1.bias".into())
        );
        assert_eq!(NameLayout::OpenClipCustomText.source("visual.proj"), TensorSource::Copy("visual.proj".into()));
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

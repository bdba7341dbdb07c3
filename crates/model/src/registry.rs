//! The models known by name: presets compiled in, one file a family.

use crate::ModelError;
use crate::config::{Family, ModelConfig, TextLayout};
use crate::import::{decoder, open_clip};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

const FILES: [(&str, &str); 5] = [
    ("presets/models/openvision.json", include_str!("../../../presets/models/openvision.json")),
    ("presets/models/openvision2.json", include_str!("../../../presets/models/openvision2.json")),
    ("presets/models/clip.json", include_str!("../../../presets/models/clip.json")),
    ("presets/models/open_clip.json", include_str!("../../../presets/models/open_clip.json")),
    ("presets/models/siglip.json", include_str!("../../../presets/models/siglip.json")),
];

/// A known model.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Short name, `family/size-patch-resolution`.
    pub name: String,
    /// Where its authors publish it.
    pub hub_id: Option<String>,
    /// Licence of the published weights.
    pub licence: String,
    /// Its description.
    pub config: ModelConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetFile {
    family: Family,
    licence: String,
    preprocess_cfg: Option<Value>,
    sizes: BTreeMap<String, Value>,
    /// Caption decoders by size, in the words of `text_decoder_config.json`.
    #[serde(default)]
    decoders: BTreeMap<String, Value>,
    models: Vec<PresetModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetModel {
    name: String,
    hub_id: Option<String>,
    size: String,
    /// Of towers that open_clip builds itself.
    patch_size: Option<usize>,
    /// Name of the image tower in timm, which says the patch size too.
    timm: Option<String>,
    image_size: usize,
    preprocess_cfg: Option<Value>,
}

fn read(place: &str, text: &str) -> Result<Vec<Entry>, ModelError> {
    let json = |source| ModelError::Json { path: place.into(), source };
    let file: PresetFile = serde_json::from_str(text).map_err(json)?;
    file.models
        .iter()
        .map(|model| {
            let mut fields = file
                .sizes
                .get(&model.size)
                .cloned()
                .ok_or_else(|| ModelError::config(place, "size", format!("no size '{}'", model.size)))?;
            if let Some(patch_size) = model.patch_size {
                fields["vision_cfg"]["patch_size"] = patch_size.into();
            }
            if let Some(timm) = &model.timm {
                fields["vision_cfg"]["timm_model_name"] = timm.as_str().into();
            }
            fields["vision_cfg"]["image_size"] = model.image_size.into();
            let preprocess = model.preprocess_cfg.as_ref().or(file.preprocess_cfg.as_ref());
            let source = open_clip::Source { place, model: &fields, preprocess };
            let vision_only = file.family == Family::Openvision2;
            let openvision = vision_only || file.family == Family::Openvision;
            let recognised = open_clip::Reading { openvision, vision_only, literal: false };
            let mut config = open_clip::config(&source, recognised)?;
            // What is published under these ids are folders of transformers.
            if let (Family::Siglip, Some(text)) = (file.family, &mut config.text) {
                text.layout = TextLayout::Folder;
            }
            config.decoder = file.decoders.get(&model.size).map(|fields| decoder::config(place, fields)).transpose()?;
            config.family = file.family;
            config.name = Some(model.name.clone());
            config.licence = Some(file.licence.clone());
            Ok(Entry { name: model.name.clone(), hub_id: model.hub_id.clone(), licence: file.licence.clone(), config })
        })
        .collect()
}

/// All known models, by family and size.
pub fn all() -> &'static [Entry] {
    static ALL: OnceLock<Vec<Entry>> = OnceLock::new();
    ALL.get_or_init(|| {
        FILES.iter().flat_map(|(place, text)| read(place, text).expect("a test reads every preset")).collect()
    })
}

/// The model with this short name or hub id.
pub fn find(name: &str) -> Option<&'static Entry> {
    let hub_name = name.rsplit_once('/').map_or(name, |(_, last)| last);
    all().iter().find(|entry| entry.name == name || entry.hub_id.as_deref() == Some(name)).or_else(|| {
        all().iter().find(|entry| entry.hub_id.as_deref().is_some_and(|id| id.rsplit('/').next() == Some(hub_name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_read_and_names_are_found() {
        for (place, text) in FILES {
            assert!(!read(place, text).unwrap().is_empty(), "{place}");
        }
        for entry in all() {
            entry.config.check(&entry.name).unwrap();
            assert_eq!(find(&entry.name).unwrap().name, entry.name);
            if let Some(hub_id) = &entry.hub_id {
                assert_eq!(find(hub_id).unwrap().name, entry.name);
            }
        }
        assert!(find("openvision/gigantic-1").is_none());
        assert_eq!(find("openvision-vit-tiny-patch16-160").unwrap().name, "openvision/tiny-16-160");
    }
}

//! SigLIP image towers by their names in timm: open_clip's configurations give the name and nothing else.

use crate::config::{ActivationName, ImageConfig};
use serde::Deserialize;
use std::sync::OnceLock;

/// A tower of timm.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tower {
    pub(crate) name: String,
    pub(crate) width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) mlp_width: usize,
    pub(crate) patch: usize,
    pub(crate) image_size: usize,
    /// timm's default is exact GELU where the published model was trained with the tanh form (clip-peers.md 1.5).
    pub(crate) activation: ActivationName,
}

fn towers() -> &'static [Tower] {
    static ALL: OnceLock<Vec<Tower>> = OnceLock::new();
    ALL.get_or_init(|| {
        let text = include_str!("../../../../presets/models/timm_siglip.json");
        serde_json::from_str(text).expect("a test reads the table")
    })
}

/// The tower of this name.
pub(crate) fn find(name: &str) -> Option<&'static Tower> {
    towers().iter().find(|tower| tower.name == name)
}

/// All names, for messages.
pub(crate) fn names() -> String {
    towers().iter().map(|tower| tower.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// A tower of these sizes, with the same activation where timm has one.
pub(crate) fn like(image: &ImageConfig) -> Option<&'static Tower> {
    let t = &image.transformer;
    let fits = |tower: &&Tower| {
        (tower.width, tower.layers, tower.heads, tower.mlp_width) == (t.width, t.layers, t.heads, t.mlp_width)
            && (tower.patch, tower.image_size) == (image.patch, image.height)
    };
    let same = towers().iter().filter(fits).find(|tower| tower.activation == t.activation);
    same.or_else(|| towers().iter().find(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads() {
        assert_eq!(find("vit_so400m_patch14_siglip_384").unwrap().heads, 16);
        assert!(find("vit_base_patch16_224").is_none());
        assert!(names().contains("vit_large_patch16_siglip_256"));
        // The published weights have the tanh form in one layout and the exact one in the other.
        let image = crate::registry::find("siglip/base-16-224").unwrap().config.image;
        assert_eq!(image.transformer.activation, ActivationName::GeluTanh);
        let found = like(&image).unwrap();
        assert_eq!((found.name.as_str(), found.activation), ("vit_base_patch16_siglip_224", ActivationName::GeluErf));
    }
}

//! The 26 published OpenVision models: exact parameter and tensor counts (openvision.md 1.2).

use openvision_model::registry;
use openvision_model::tower::{ImageTower, TextTower};

/// Name, trunk, position table, projection, text, total, tensors.
const PUBLISHED: [(&str, usize, usize, usize, usize, usize, usize); 26] = [
    // tidy: table
    ("openvision-vit-tiny-patch16-160", 5_486_400, 19_392, 36_864, 11_534_976, 17_077_633, 300),
    ("openvision-vit-tiny-patch16-224", 5_486_400, 37_824, 36_864, 11_534_976, 17_096_065, 300),
    ("openvision-vit-tiny-patch16-384", 5_486_400, 110_784, 36_864, 11_534_976, 17_169_025, 300),
    ("openvision-vit-tiny-patch8-160", 5_375_808, 76_992, 36_864, 11_534_976, 17_024_641, 300),
    ("openvision-vit-tiny-patch8-224", 5_375_808, 150_720, 36_864, 11_534_976, 17_098_369, 300),
    ("openvision-vit-tiny-patch8-384", 5_375_808, 442_560, 36_864, 11_534_976, 17_390_209, 300),
    ("openvision-vit-small-patch16-160", 21_589_632, 38_784, 147_456, 33_760_512, 55_536_385, 300),
    ("openvision-vit-small-patch16-224", 21_589_632, 75_648, 147_456, 33_760_512, 55_573_249, 300),
    ("openvision-vit-small-patch16-384", 21_589_632, 221_568, 147_456, 33_760_512, 55_719_169, 300),
    ("openvision-vit-small-patch8-160", 21_368_448, 153_984, 147_456, 33_760_512, 55_430_401, 300),
    ("openvision-vit-small-patch8-224", 21_368_448, 301_440, 147_456, 33_760_512, 55_577_857, 300),
    ("openvision-vit-small-patch8-384", 21_368_448, 885_120, 147_456, 33_760_512, 56_161_537, 300),
    ("openvision-vit-base-patch16-160", 85_646_592, 77_568, 393_216, 54_516_736, 140_634_113, 300),
    ("openvision-vit-base-patch16-224", 85_646_592, 151_296, 393_216, 54_516_736, 140_707_841, 300),
    ("openvision-vit-base-patch16-384", 85_646_592, 443_136, 393_216, 54_516_736, 140_999_681, 300),
    ("openvision-vit-base-patch8-160", 85_204_224, 307_968, 393_216, 54_516_736, 140_422_145, 300),
    ("openvision-vit-base-patch8-224", 85_204_224, 602_880, 393_216, 54_516_736, 140_717_057, 300),
    ("openvision-vit-base-patch8-384", 85_204_224, 1_770_240, 393_216, 54_516_736, 141_884_417, 300),
    ("openvision-vit-large-patch14-84", 302_914_560, 37_888, 786_432, 110_283_264, 414_022_145, 444),
    ("openvision-vit-large-patch14-224", 302_914_560, 263_168, 786_432, 110_283_264, 414_247_425, 444),
    ("openvision-vit-large-patch14-336", 302_914_560, 590_848, 786_432, 110_283_264, 414_575_105, 444),
    ("openvision-vit-so400m-patch14-84", 412_147_440, 42_624, 1_327_104, 449_752_176, 863_269_345, 660),
    ("openvision-vit-so400m-patch14-224", 412_147_440, 296_064, 1_327_104, 449_752_176, 863_522_785, 660),
    ("openvision-vit-so400m-patch14-384", 412_147_440, 840_960, 1_327_104, 449_752_176, 864_067_681, 660),
    ("openvision-vit-huge-patch14-84", 630_434_560, 47_360, 1_310_720, 336_209_920, 968_002_561, 684),
    ("openvision-vit-huge-patch14-224", 630_434_560, 328_960, 1_310_720, 336_209_920, 968_284_161, 684),
];

#[test]
fn parameter_and_tensor_counts_of_all_26_models() {
    let known = registry::all().iter().filter(|entry| entry.name.starts_with("openvision/"));
    assert_eq!(known.count(), PUBLISHED.len());
    for (hub_name, image, position, projection, text, total, tensors) in PUBLISHED {
        let entry = registry::find(&format!("UCSC-VLAA/{hub_name}")).unwrap_or_else(|| panic!("{hub_name}"));
        let counts = entry.config.parameters();
        assert_eq!(counts.image, image, "{hub_name} image");
        assert_eq!(counts.position, position, "{hub_name} position table");
        assert_eq!(counts.projection, projection, "{hub_name} projection");
        assert_eq!(counts.text, text, "{hub_name} text");
        assert_eq!(counts.total, total, "{hub_name} total");
        let plans = [
            ImageTower::new(&entry.config.image, entry.config.embed_dim).plan,
            TextTower::new(entry.config.text().unwrap(), entry.config.embed_dim).plan,
        ];
        let named: usize = plans.iter().map(|plan| plan.tensors().len()).sum();
        assert_eq!(named + 1, tensors, "{hub_name} tensors (and logit_scale)");
        let parameters: usize = plans.iter().map(|plan| plan.parameters()).sum();
        assert_eq!(parameters + 1, total, "{hub_name} parameters of the plans");
    }
}

/// clip-peers.md 1.2: totals and image towers of the SigLIP configurations.
#[test]
fn parameter_counts_of_the_siglip_configurations() {
    let published = [
        ("siglip/base-16-224", 203_155_970, 92_884_224),
        ("siglip/base-16-256", 203_202_050, 92_930_304),
        ("siglip/large-16-256", 652_150_786, 315_956_224),
        ("siglip/so400m-14-384", 877_960_498, 428_225_600),
        ("siglip2/base-16-224", 375_187_970, 92_884_224),
        ("siglip2/so400m-16-256", 1_135_670_962, 427_888_064),
        ("siglip2/giant-opt-16-256", 1_871_393_906, 1_163_168_256),
    ];
    for (name, total, image) in published {
        let counts = registry::find(name).unwrap_or_else(|| panic!("{name}")).config.parameters();
        assert_eq!(counts.total, total, "{name}");
        assert_eq!(counts.image + counts.position + counts.projection, image, "{name}");
    }
}

/// clip-peers.md 1.2: totals and image towers of the OpenAI and OpenCLIP configurations.
#[test]
fn parameter_counts_of_the_clip_configurations() {
    let published = [
        ("open_clip/vit-s-16", 62_257_537, 21_813_504),
        ("open_clip/vit-b-32", 151_277_313, 87_849_216),
        ("open_clip/vit-b-32-256", 151_288_833, 87_860_736),
        ("open_clip/vit-b-16", 149_620_737, 86_192_640),
        ("open_clip/vit-b-16-plus-240", 208_377_345, 117_213_824),
        ("open_clip/vit-l-16", 427_739_393, 304_089_088),
        ("open_clip/vit-l-14", 427_616_513, 303_966_208),
        ("open_clip/vit-l-14-336", 427_944_193, 304_293_888),
        ("open_clip/vit-h-14", 986_109_441, 632_076_800),
        ("open_clip/vit-g-14", 1_366_678_273, 1_012_645_632),
        ("open_clip/vit-bigg-14", 2_539_567_105, 1_844_907_264),
        ("clip/vit-b-32", 151_277_313, 87_849_216),
        ("clip/vit-b-16", 149_620_737, 86_192_640),
        ("clip/vit-l-14", 427_616_513, 303_966_208),
        ("clip/vit-l-14-336", 427_944_193, 304_293_888),
    ];
    for (name, total, image) in published {
        let counts = registry::find(name).unwrap_or_else(|| panic!("{name}")).config.parameters();
        assert_eq!(counts.total, total, "{name}");
        assert_eq!(counts.image + counts.position + counts.projection, image, "{name}");
    }
}

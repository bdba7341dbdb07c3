//! Small models with recorded outputs of open_clip, OpenAI's loader and transformers: every tap, embedding and logit.

use crate::support::{Golden, assert_tap, assert_unit, goldens, pool, taps, unit};
use openvision_model::config::Family;
use openvision_model::{Fill, LoadOptions, Model};
use openvision_tensor::Tap;

struct Case {
    folder: &'static str,
    file: &'static str,
    /// Golden names of the embedded tokens, the normed tokens and the pooled row, where they were recorded.
    names: &'static [(&'static str, Side, Tap)],
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Image,
    Text,
}

const OPEN_CLIP: [(&str, Side, Tap); 3] = [
    ("image.ln_pre", Side::Image, Tap::Embedded),
    ("image.ln_post", Side::Image, Tap::FinalNorm),
    ("text.ln_final", Side::Text, Tap::FinalNorm),
];

fn cases() -> Vec<Case> {
    vec![
        Case {
            folder: "openvision-tiny",
            file: "",
            names: &[
                ("image.ln_pre", Side::Image, Tap::Embedded),
                ("image.ln_post", Side::Image, Tap::Pooled),
                ("text.ln_final", Side::Text, Tap::FinalNorm),
            ],
        },
        Case { folder: "open_clip-gelu", file: "", names: &OPEN_CLIP },
        Case { folder: "openai-quickgelu", file: "model.pt", names: &OPEN_CLIP },
        Case {
            folder: "hf-clip",
            file: "",
            names: &[
                ("image.pre_layrnorm", Side::Image, Tap::Embedded),
                ("image.post_layernorm", Side::Image, Tap::Pooled),
                ("image.pooled", Side::Image, Tap::Pooled),
                ("text.pooled", Side::Text, Tap::Pooled),
            ],
        },
        Case { folder: "hf-clip", file: "sharded", names: &[] },
        Case {
            folder: "hf-siglip",
            file: "",
            names: &[
                ("image.embeddings", Side::Image, Tap::Embedded),
                ("image.post_layernorm", Side::Image, Tap::FinalNorm),
                ("image.map_head", Side::Image, Tap::Pooled),
                ("text.final_layer_norm", Side::Text, Tap::FinalNorm),
            ],
        },
    ]
}

fn load(case: &Case, threads: usize) -> Model {
    let path = goldens().join(case.folder).join(case.file);
    // The shards lie in a folder of their own, with the configuration copied beside them by their maker.
    Model::load(&path, &LoadOptions::default(), pool(threads)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_tap_embedding_and_logit_of_the_small_models() {
    for case in cases() {
        for threads in [1, 2] {
            check(&case, &load(&case, threads));
        }
    }
}

fn check(case: &Case, model: &Model) {
    let inputs = Golden::open(&format!("{}/inputs.safetensors", case.folder));
    let outputs = Golden::open(&format!("{}/outputs.safetensors", case.folder));
    let (pixels, ids) = (inputs.values("pixels"), inputs.ids("token_ids"));
    let label = |name: &str| format!("{}/{} {name}", case.folder, case.file);
    let one = 3 * model.config.image.height * model.config.image.width;
    let image_taps = taps(model.image().unwrap(), model.pool(), pixels.len() / one, &|i, item| {
        item.pixels.copy_from_slice(&pixels[i * one..][..one]);
        Fill::Ready
    });
    let text_taps = taps(model.text().unwrap(), model.pool(), ids.len(), &|i, item| {
        item.ids.copy_from_slice(&ids[i]);
        *item.mark = model.mark(&ids[i]).unwrap();
        Fill::Ready
    });
    for (side, taps) in [(Side::Image, &image_taps), (Side::Text, &text_taps)] {
        let prefix = if side == Side::Image { "image" } else { "text" };
        let layers = taps.keys().filter(|tap| matches!(tap, Tap::Block(_))).count();
        assert!(layers >= 2);
        for i in 0..layers {
            let name = format!("{prefix}.block.{i}");
            let (got, want) = (&taps[&Tap::Block(i)], outputs.values(&name));
            if side == Side::Text && inputs.has("attention_mask") {
                let mask = inputs.values("attention_mask");
                assert_tap(&label(&name), &visible(got, &mask), &visible(&want, &mask));
            } else {
                assert_tap(&label(&name), got, &want);
            }
        }
        for (name, _, tap) in case.names.iter().filter(|(_, of, _)| *of == side) {
            // Where a model has no such norm the recorded value is the embedding itself.
            assert_tap(&label(name), &taps[tap], &outputs.values(name));
        }
    }
    let width = model.config.embed_dim;
    let image = model.encode_pixels(&pixels).unwrap();
    let text = model.encode_ids(&ids).unwrap();
    assert_tap(&label("image.embed"), &image, &outputs.values("image.embed"));
    assert_tap(&label("text.embed"), &text, &outputs.values("text.embed"));
    let (image, text) = (unit(&image, width), unit(&text, width));
    assert_unit(&label("image.unit"), &image, &outputs.values("image.unit"), width);
    assert_unit(&label("text.unit"), &text, &outputs.values("text.unit"), width);
    logits(&label("logits"), model, (&image, &text), &outputs.values("logits_per_image"));
}

/// Rows of the tokens that the peer's attention mask keeps. What stands at masked positions is the peer's accident:
/// transformers lets them see no padding, and nothing that is used reads them.
fn visible(rows: &[f32], mask: &[f32]) -> Vec<f32> {
    let width = rows.len() / mask.len();
    rows.chunks(width).zip(mask).filter(|(_, keep)| **keep == 1.0).flat_map(|(row, _)| row.to_vec()).collect()
}

/// Logits are cosines times a scale of up to 100, and probabilities have to hold to 1e-4.
fn logits(name: &str, model: &Model, (image, text): (&[f32], &[f32]), want: &[f32]) {
    let width = model.config.embed_dim;
    let texts = text.len() / width;
    let softmax = |row: Vec<f64>| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|v| (v - largest).exp()).sum();
        row.iter().map(|v| (v - largest).exp() / sum).collect::<Vec<f64>>()
    };
    for (i, picture) in image.chunks(width).enumerate() {
        let got: Vec<f64> = text
            .chunks(width)
            .map(|t| {
                let cosine: f64 = picture.iter().zip(t).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                cosine * f64::from(model.logit_scale()) + f64::from(model.logit_bias().unwrap_or(0.0))
            })
            .collect();
        let want: Vec<f64> = want[i * texts..][..texts].iter().map(|v| f64::from(*v)).collect();
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() < 1e-4, "{name}: {got} {want}");
        }
        for (got, want) in softmax(got).iter().zip(softmax(want)) {
            assert!((got - want).abs() < 1e-4, "{name}: probability {got} {want}");
        }
    }
}

/// The same weights in open_clip's layout. The golden's tower has a name that only its maker knew, so the description is
/// that of the Hugging Face folder.
#[test]
fn siglip_in_the_layout_of_timm() {
    use openvision_model::Named;
    use openvision_model::import::names::NameLayout;
    let path = goldens().join("open_clip-siglip");
    let checkpoint = openvision_io::weights::Checkpoint::open(&path).unwrap();
    let names = checkpoint.tensors().iter().map(|tensor| tensor.name.as_str());
    assert_eq!(NameLayout::detect(names), Ok(NameLayout::OpenClipSiglip));
    let described = openvision_model::import::describe(&goldens().join("hf-siglip"), false).unwrap();
    let named = Named { tensors: &checkpoint, layout: NameLayout::OpenClipSiglip };
    let model = Model::from_tensors(described.config, named, &LoadOptions::default(), pool(2)).unwrap();
    let names = [
        ("image.norm", Side::Image, Tap::FinalNorm),
        ("image.attn_pool", Side::Image, Tap::Pooled),
        ("text.ln_final", Side::Text, Tap::FinalNorm),
    ];
    check(&Case { folder: "open_clip-siglip", file: "", names: Box::leak(Box::new(names)) }, &model);
    let error = Model::load(&path, &LoadOptions::default(), pool(1)).err().unwrap().to_string();
    assert!(error.contains("vit_base_patch16_siglip_224"), "{error}");
}

#[test]
fn padding_after_the_end_token_changes_nothing() {
    let case = &cases()[3];
    let model = load(case, 1);
    let inputs = Golden::open("hf-clip/inputs.safetensors");
    let padded = model.encode_ids(&inputs.ids("token_ids")).unwrap();
    let zeros = model.encode_ids(&inputs.ids("token_ids_zero_padded")).unwrap();
    assert_eq!(padded, zeros);
}

#[test]
fn learned_positions_are_resampled_for_other_sizes() {
    let inputs = Golden::open("open_clip-gelu/inputs.safetensors");
    let outputs = Golden::open("open_clip-gelu/outputs.safetensors");
    for side in [42, 21] {
        let options = LoadOptions { image_size: Some((side, side)), ..LoadOptions::default() };
        let model = Model::load(&goldens().join("open_clip-gelu"), &options, pool(2)).unwrap();
        let got = model.encode_pixels(&inputs.values(&format!("pixels{side}"))).unwrap();
        let name = format!("resized{side}.image.embed");
        assert_tap(&name, &got, &outputs.values(&name));
        let stored = Golden::open("open_clip-gelu/open_clip_pytorch_model.bin").values("visual.positional_embedding");
        let table = openvision_model::positions::resample_image(&stored, (1, 64), (side / 7, side / 7)).unwrap();
        let want = outputs.values(&format!("resized{side}.positional_embedding"));
        for (got, want) in table.iter().zip(&want) {
            assert!((got - want).abs() < 1e-6, "{side}: {got} {want}");
        }
    }
}

#[test]
fn openvision_is_recognised_by_its_tensors_and_recomputes_positions() {
    let path = goldens().join("openvision-tiny");
    let model = Model::load(&path, &LoadOptions::default(), pool(1)).unwrap();
    assert_eq!(model.config.family, Family::Openvision);
    assert!(model.notes.iter().any(|note| note.contains("recognised as OpenVision")), "{:?}", model.notes);
    let options = LoadOptions { image_size: Some((24, 40)), ..LoadOptions::default() };
    let wide = Model::load(&path, &options, pool(1)).unwrap();
    assert_eq!(wide.config.image.grid(), (3, 5));
    assert_eq!(wide.encode_pixels(&vec![0.5; 3 * 24 * 40]).unwrap().len(), 48);
    let published = LoadOptions { as_published: true, ..LoadOptions::default() };
    let literal = Model::load(&path, &published, pool(1)).unwrap();
    assert_eq!(
        literal.config.text().unwrap().layout,
        openvision_model::config::TextLayout::Clip,
        "no tokenizer is named here"
    );
}

#[test]
fn every_missing_unexpected_and_misshapen_tensor_is_reported_at_once() {
    use openvision_model::{ModelError, Named, Problem};
    let entry = openvision_model::registry::find("openvision/tiny-16-160").unwrap();
    let golden = openvision_io::weights::Checkpoint::open(&goldens().join("openvision-tiny")).unwrap();
    let named = Named { tensors: &golden, layout: openvision_model::import::names::NameLayout::OpenClip };
    let error = Model::from_tensors(entry.config.clone(), named, &LoadOptions::default(), pool(1)).err().unwrap();
    let ModelError::Tensors { problems, .. } = &error else { panic!("{error}") };
    let count = |f: fn(&Problem) -> bool| problems.iter().filter(|p| f(p)).count();
    // Image blocks 3..12 and text blocks 2..12 are missing, all others have other widths.
    assert_eq!(count(|p| matches!(p, Problem::Missing { .. })), (9 + 10) * 12);
    assert!(count(|p| matches!(p, Problem::Shape { .. })) > 60);
    assert!(error.to_string().contains("missing: visual.transformer.resblocks.11.mlp.c_proj.weight [192, 768]"));
}

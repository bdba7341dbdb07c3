//! Full-size models with weights by formula: the peers' embeddings, logits and first positions of every block.

use crate::support::{Formula, Golden, assert_tap, assert_unit, formula_model, hashed, pool, taps, uniform, unit};
use openvision_io::weights::{DType, TensorInfo, WeightsError};
use openvision_model::import::names::NameLayout;
use openvision_model::{Fill, LoadOptions, Model, Named, Tensors};
use openvision_tensor::Tap;

/// The first `positions` rows of every item.
fn first_rows(tap: &[f32], items: usize, width: usize, positions: &[Vec<usize>]) -> Vec<f32> {
    let one = tap.len() / items;
    (0..items)
        .flat_map(|i| positions[i].iter().flat_map(move |p| tap[i * one + p * width..][..width].to_vec()))
        .collect()
}

fn check(name: &str) {
    let golden = Golden::open(&format!("fullsize/{name}.safetensors"));
    let model = formula_model(name, pool(2), &LoadOptions::default());
    let side = model.config.image.height;
    let mut pixels = vec![0.0; 2 * 3 * side * side];
    uniform(&format!("{name}/pixels"), &mut pixels);
    pixels.iter_mut().for_each(|v| *v *= 1.5);
    let ids = golden.ids("token_ids");
    let one = pixels.len() / 2;
    let image = taps(model.image().unwrap(), model.pool(), 2, &|i, item| {
        item.pixels.copy_from_slice(&pixels[i * one..][..one]);
        Fill::Ready
    });
    let text = taps(model.text().unwrap(), model.pool(), 2, &|i, item| {
        item.ids.copy_from_slice(&ids[i]);
        *item.mark = model.mark(&ids[i]).unwrap();
        Fill::Ready
    });
    let first = vec![vec![0, 1, 2]; 2];
    let mut compared = 0;
    for (prefix, taps, config) in
        [("image", &image, &model.config.image.transformer), ("text", &text, &model.config.text().unwrap().transformer)]
    {
        for i in 0..config.layers {
            let block = format!("{prefix}.block.{i}");
            if golden.has(&block) {
                let rows = first_rows(&taps[&Tap::Block(i)], 2, config.width, &first);
                assert_tap(&format!("{name} {block}"), &rows, &golden.values(&block));
                compared += 1;
            }
        }
    }
    assert!(compared >= 5, "{name}: {compared} blocks were recorded");
    let width = model.config.embed_dim;
    let (image, text) = (model.encode_pixels(&pixels).unwrap(), model.encode_ids(&ids).unwrap());
    assert_tap(&format!("{name} image.embed"), &image, &golden.values("image.embed"));
    assert_tap(&format!("{name} text.embed"), &text, &golden.values("text.embed"));
    let (image, text) = (unit(&image, width), unit(&text, width));
    assert_unit(&format!("{name} image"), &image, &golden.values("image.unit"), width);
    assert_unit(&format!("{name} text"), &text, &golden.values("text.unit"), width);
    for (i, want) in golden.values("logits_per_image").iter().enumerate() {
        let (a, b) = (&image[i / 2 * width..][..width], &text[i % 2 * width..][..width]);
        let cosine: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((cosine * f64::from(model.logit_scale()) - f64::from(*want)).abs() < 1e-4, "{name} logit {i}");
    }
}

#[test]
fn openvision_tiny_16_160() {
    check("openvision-tiny-p16-160");
}

#[test]
fn openvision_base_16_224() {
    check("openvision-base-p16-224");
}

#[test]
fn openvision_large_14_224() {
    check("openvision-large-p14-224");
}

#[test]
fn vit_b_32_with_both_activations() {
    check("vit-b-32");
    check("vit-b-32-quickgelu");
}

/// goldens/text-states: real texts, the recorded positions of every text block.
#[test]
fn text_hidden_states_of_every_block() {
    for name in ["openvision-tiny-p16-160", "vit-b-32-quickgelu"] {
        let golden = Golden::open(&format!("text-states/{name}.safetensors"));
        let options = LoadOptions { image: false, ..LoadOptions::default() };
        let model = formula_model(name, pool(2), &options);
        let ids = golden.ids("token_ids");
        let positions: Vec<Vec<usize>> =
            golden.ids("positions").into_iter().map(|row| row.into_iter().map(|p| p as usize).collect()).collect();
        let text = std::fs::read_to_string(crate::support::goldens().join("text-states/texts.json")).unwrap();
        let texts: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (text, ids) in texts["texts"].as_array().or(texts.as_array()).unwrap().iter().zip(&ids) {
            let text = text["text"].as_str().or(text.as_str()).unwrap();
            assert_eq!(&model.tokenizer().unwrap().encode(text).ids, ids, "{name} {text:?}");
        }
        let taps = taps(model.text().unwrap(), model.pool(), ids.len(), &|i, item| {
            item.ids.copy_from_slice(&ids[i]);
            *item.mark = model.mark(&ids[i]).unwrap();
            Fill::Ready
        });
        let config = &model.config.text().unwrap().transformer;
        for i in 0..config.layers {
            let rows = first_rows(&taps[&Tap::Block(i)], ids.len(), config.width, &positions);
            assert_tap(&format!("{name} text.block.{i}"), &rows, &golden.values(&format!("text.block.{i}")));
        }
        let embed = model.encode_ids(&ids).unwrap();
        assert_tap(&format!("{name} text.embed"), &embed, &golden.values("text.embed"));
        let width = model.config.embed_dim;
        assert_unit(&format!("{name} text.unit"), &unit(&embed, width), &golden.values("text.unit"), width);
    }
}

/// The synthetic weights of openvision.md 1.4 (open_clip 3.3.0 in f64).
struct Hashed(Vec<TensorInfo>);

impl Tensors for Hashed {
    fn tensors(&self) -> &[TensorInfo] {
        &self.0
    }
    fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.0.iter().find(|info| info.name == name)
    }
    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
        match name {
            "logit_scale" => out[0] = 4.0,
            "visual.positional_embedding" => {
                out.copy_from_slice(&openvision_model::positions::sin_cos_2d((10, 10), 192));
            }
            _ => {
                let stream = self.0.iter().position(|info| info.name == name).unwrap() as u32 + 1;
                let norm = name.contains("ln_") && name.ends_with("weight");
                let count = out.len();
                for (value, u) in out.iter_mut().zip(hashed(stream, count)) {
                    *value = if norm { 1.0 + 0.2 * u } else { 0.1 * u } as f32;
                }
            }
        }
        Ok(())
    }
}

#[track_caller]
fn near(name: &str, got: &[f32], want: &[f64]) {
    for (got, want) in got.iter().zip(want) {
        assert!((f64::from(*got) - want).abs() < 2e-5 * want.abs().max(1.0), "{name}: {got} {want}");
    }
}

#[test]
fn golden_numbers_of_the_reference_for_a_loader() {
    let config = openvision_model::registry::find("openvision/tiny-16-160").unwrap().config.clone();
    let image = openvision_model::tower::ImageTower::new(&config.image, config.embed_dim).plan;
    let text = openvision_model::tower::TextTower::new(config.text().unwrap(), config.embed_dim).plan;
    let mut infos: Vec<TensorInfo> = image
        .tensors()
        .into_iter()
        .chain(text.tensors())
        .map(|t| TensorInfo { name: t.name, dtype: DType::F32, shape: t.shape })
        .collect();
    infos.push(TensorInfo { name: "logit_scale".into(), dtype: DType::F32, shape: vec![] });
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(infos.len(), 300);
    assert_eq!(infos[155].name, "visual.proj");
    let tensors = Hashed(infos);
    let named = Named { tensors: &tensors, layout: NameLayout::OpenClip };
    let model = Model::from_tensors(config, named, &LoadOptions::default(), pool(2)).unwrap();
    let pixels: Vec<f32> = hashed(1000, 3 * 160 * 160).map(|u| (4.0 * u) as f32).collect();
    near("pixels", &pixels, &[1.932036, 1.803672, 1.452575, -0.41274]);
    let embedding = model.encode_pixels(&pixels).unwrap();
    let want = [0.476460, 0.614124, -0.254604, -0.136978, 0.549804, -0.137901, -0.206582, 0.385021];
    near("image", &embedding, &want);
    let norm = embedding.iter().map(|v| v * v).sum::<f32>().sqrt();
    near("norm and sum", &[norm, embedding.iter().sum()], &[5.3283252, 10.4321697]);
    let taps = taps(model.image().unwrap(), model.pool(), 1, &|_, item| {
        item.pixels.copy_from_slice(&pixels);
        Fill::Ready
    });
    let last = &taps[&Tap::Block(11)];
    near("patch 0", &last[192..], &[2.392276, 0.065704, -0.217774, -0.383218, 0.525478, 0.665052]);
    near("patch 99", &last[100 * 192..], &[4.071401, 0.795322, -0.780706, 0.880332, -2.597878, -0.856763]);
    let mean = last[192..].iter().map(|v| f64::from(*v)).sum::<f64>() / (100.0 * 192.0);
    near("mean of patches", &[mean as f32], &[0.4613315]);
    let inner = &taps[&Tap::Block(10)];
    near("layer -2", &inner[192..], &[2.675172, -0.026179, 0.012420, -0.480342, 0.517450, 0.564539]);
    texts(&model, &embedding);
}

fn texts(model: &Model, image: &[f32]) {
    let (_, dropped) = model.encode_texts(&["a dog"]).unwrap();
    assert_eq!(dropped, [0]);
    let tokenizer = model.tokenizer().unwrap();
    let ids: Vec<Vec<u32>> = ["a dog", "a photo of a dog."].map(|t| tokenizer.encode(t).ids).to_vec();
    assert_eq!(&ids[0][..5], &[1, 1037, 3899, 2, 0]);
    assert_eq!(ids[0][79], 101);
    let texts = model.encode_ids(&ids).unwrap();
    let want = [-0.504064, 0.629118, 0.105697, 0.685027, -0.154060, 0.481453, 0.486366, 0.148900];
    near("a dog", &texts, &want);
    let norm = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>().sqrt();
    near("norms", &[norm(&texts[..192]), norm(&texts[192..])], &[5.9015395, 5.9153514]);
    let (image, texts) = (unit(image, 192), unit(&texts, 192));
    let logit = |t: &[f32]| image.iter().zip(t).map(|(a, b)| a * b).sum::<f32>() * model.logit_scale();
    near("logits", &[logit(&texts[..192]), logit(&texts[192..])], &[3.1781673, 3.2154074]);
    let mut wrong = vec![0; 80];
    wrong[..3].copy_from_slice(&[101, 1037, 3899]);
    let wrong = model.encode_ids(&[wrong]).unwrap();
    near("the wrong reading", &wrong, &[-0.491631, 0.695848, 0.010402, 0.701241]);
}

/// Keeps the formula type in use where only some tests are run.
#[test]
fn formula_is_the_documented_one() {
    let mut first = [0.0; 2];
    uniform("openvision-tiny-p16-160/pixels", &mut first);
    assert!(first.iter().all(|v| (-1.0..1.0).contains(v)) && first[0] != first[1]);
    let _: fn(&Formula) -> &[TensorInfo] = |formula| formula.tensors();
}

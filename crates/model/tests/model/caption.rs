//! OpenVision 2: the caption decoder against its reference (tools/peers/openvision2_decoder.py) and the golden numbers of
//! openvision.md 1.4; vision-only towers.

use crate::support::{Golden, goldens, hashed, pool};
use openvision_io::weights::{DType, TensorInfo, WeightsError};
use openvision_kernels::Isa;
use openvision_model::caption::{Captioner, Generated, Picture, Strategy};
use openvision_model::config::{ActivationName, DecoderConfig, TransformerConfig};
use openvision_model::{Decoder, LoadOptions, ModelError, Tensors, registry};
use serde_json::Value;

/// Weights by the formula of openvision.md 1.4: a tensor's stream is its place among the sorted names.
struct Formula {
    infos: Vec<TensorInfo>,
    scale: f32,
    /// The head's row of the end is that of this word, enlarged.
    end_like: Option<usize>,
}

impl Formula {
    fn new(config: &DecoderConfig, scale: f32, end_like: Option<usize>) -> Self {
        let named = Decoder::new(config).plan.tensors();
        let mut infos: Vec<TensorInfo> = named
            .into_iter()
            .map(|spec| TensorInfo { name: spec.name, dtype: DType::F32, shape: spec.shape })
            .collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        Self { infos, scale, end_like }
    }
}

impl Tensors for Formula {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }
    fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.infos.iter().find(|info| info.name == name)
    }
    fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
        let place = self.infos.iter().position(|info| info.name == name).unwrap();
        let norm = name.contains("ln_") && name.ends_with("weight");
        for (value, u) in out.iter_mut().zip(hashed(place as u32 + 1, self.infos[place].elements())) {
            *value = (if norm { 1.0 + 0.2 * u } else { f64::from(self.scale) * u }) as f32;
        }
        if let (Some(word), "lm_head.weight") = (self.end_like, name) {
            let width = self.infos[place].shape[1];
            let row: Vec<f32> = out[word * width..][..width].iter().map(|v| v * 1.0625).collect();
            out[2 * width..][..width].copy_from_slice(&row);
        }
        Ok(())
    }
}

fn on(isa: Isa) -> LoadOptions {
    LoadOptions { isa: Some(isa), ..LoadOptions::default() }
}

fn config(json: &Value) -> DecoderConfig {
    let size = |field: &str| json[field].as_u64().unwrap() as usize;
    DecoderConfig {
        transformer: TransformerConfig {
            width: size("width"),
            layers: size("depth"),
            heads: size("num_heads"),
            mlp_width: size("mlp_dim"),
            activation: ActivationName::GeluTanh,
            epsilon: 1e-6,
        },
        vision_width: size("vision_width"),
        vocabulary: size("vocab_size"),
        begin: 1,
        end: 2,
    }
}

#[test]
fn scores_equal_the_golden_numbers() {
    let config = config(&serde_json::json!({
        "width": 32, "depth": 2, "num_heads": 4, "mlp_dim": 128, "vocab_size": 50, "vision_width": 24
    }));
    let tokens: Vec<f32> = hashed(1000, 5 * 24).map(|u| (4.0 * u) as f32).collect();
    for isa in Isa::present() {
        let weights = Formula::new(&config, 0.5, None);
        let captioner = Captioner::from_tensors(&weights, config, &on(isa), pool(2)).unwrap();
        let picture = Picture { name: "golden", tokens: &tokens };
        let scores = captioner.scores(picture, &[7, 9, 2]).unwrap();
        let rows: Vec<&[f32]> = scores.chunks(50).collect();
        assert_eq!(rows.len(), 4);
        let want = [
            (0, [0.660_120, 0.384_233, -0.274_926, 0.968_078, -0.472_200]),
            (3, [0.293_563, 0.275_595, -0.699_784, 0.241_856, -0.157_801]),
        ];
        for (row, want) in want {
            for (got, want) in rows[row].iter().zip(want) {
                assert!((got - want).abs() < 2e-6, "{} row {row}: {got} {want}", isa.name());
            }
        }
        let sum: f64 = scores.iter().map(|v| f64::from(*v)).sum();
        assert!((sum - -10.244_874_7).abs() < 2e-5, "{} {sum}", isa.name());
        let largest = |row: &&[f32]| (0..50).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        assert_eq!(rows.iter().map(largest).collect::<Vec<_>>(), [40, 37, 37, 29], "{}", isa.name());
    }
}

/// The reference's captions, and the patch tokens of four pictures.
fn recorded() -> (DecoderConfig, Vec<Value>, Vec<Vec<f32>>) {
    let text = std::fs::read_to_string(goldens().join("openvision2-tiny/captions.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let block = "image.block.2";
    let golden = Golden::open("openvision-tiny/outputs.safetensors");
    let (values, shape) = (golden.values(block), golden.shape(block));
    // The class token is no patch.
    let pictures = values.chunks(shape[1] * shape[2]).map(|one| one[shape[2]..].to_vec()).collect();
    (config(&json["config"]), json["captions"].as_array().unwrap().clone(), pictures)
}

fn captioner(config: DecoderConfig, threads: usize, isa: Isa) -> Captioner {
    let weights = Formula::new(&config, 0.5, Some(16_982));
    Captioner::from_tensors(&weights, config, &on(isa), pool(threads)).unwrap()
}

fn pictures<'a>(names: &'a [String], tokens: &'a [Vec<f32>]) -> Vec<Picture<'a>> {
    names.iter().zip(tokens).map(|(name, tokens)| Picture { name, tokens }).collect()
}

fn ids(json: &Value) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn captions_equal_the_reference_token_by_token() {
    let (config, captions, tokens) = recorded();
    let names: Vec<String> = (0..tokens.len()).map(|i| i.to_string()).collect();
    let all = pictures(&names, &tokens);
    for isa in Isa::present() {
        let captioner = captioner(config, 2, isa);
        for (number, got) in captioner.generate(&all, &Strategy::Greedy, 12).unwrap().iter().enumerate() {
            assert_eq!(got.ids, ids(&captions[number]["greedy"]), "{} greedy {number}", isa.name());
            assert_eq!(got.ended, captions[number]["greedy_ended"].as_bool().unwrap(), "greedy {number}");
        }
        for (name, length_penalty) in [("0.0", 0.0), ("1.0", 1.0)] {
            let strategy = Strategy::Beam { width: 4, length_penalty };
            for (number, got) in captioner.generate(&all, &strategy, 12).unwrap().iter().enumerate() {
                let want = &captions[number]["beam"][name];
                assert_eq!(got.ids, ids(&want["ids"]), "{} beam {name} {number}", isa.name());
                assert_eq!(got.ended, want["ended"].as_bool().unwrap(), "beam {name} {number}");
            }
        }
    }
}

#[test]
fn a_caption_depends_on_its_picture_alone() {
    let (config, _, tokens) = recorded();
    let names: Vec<String> = (0..tokens.len()).map(|i| format!("picture {i}")).collect();
    let strategies = [
        Strategy::Greedy,
        Strategy::Beam { width: 3, length_penalty: 0.5 },
        Strategy::Sample { temperature: 1.5, top_k: 50, top_p: 0.95, seed: 7 },
    ];
    for strategy in strategies {
        let together = captioner(config, 2, Isa::best()).generate(&pictures(&names, &tokens), &strategy, 10).unwrap();
        let alone = captioner(config, 1, Isa::best());
        let single: Vec<Generated> = pictures(&names, &tokens)
            .iter()
            .map(|picture| alone.generate(&[*picture], &strategy, 10).unwrap().remove(0))
            .collect();
        assert_eq!(together, single, "{strategy:?}");
    }
    let draw = |seed| {
        let strategy = Strategy::Sample { temperature: 1.5, top_k: 0, top_p: 1.0, seed };
        captioner(config, 2, Isa::best()).generate(&pictures(&names, &tokens), &strategy, 10).unwrap()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (config, _, tokens) = recorded();
    let captioner = captioner(config, 1, Isa::best());
    let refused = |tokens: &[f32], strategy: &Strategy| {
        let picture = Picture { name: "a.jpg", tokens };
        matches!(captioner.generate(&[picture], strategy, 5), Err(ModelError::Input(_)))
    };
    assert!(refused(&tokens[0][..63], &Strategy::Greedy));
    assert!(refused(&[], &Strategy::Greedy));
    assert!(refused(&tokens[0], &Strategy::Beam { width: 0, length_penalty: 1.0 }));
    assert!(refused(&tokens[0], &Strategy::Sample { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 1 }));
    assert!(refused(&tokens[0], &Strategy::Sample { temperature: 1.0, top_k: 0, top_p: 1.5, seed: 1 }));
    assert!(captioner.scores(Picture { name: "a", tokens: &tokens[0] }, &[99_999]).is_err());
    assert!(captioner.generate(&[], &Strategy::Greedy, 5).unwrap().is_empty());
}

/// openvision.md 1.2: trunk and position table, with the stored projection, and the decoder.
#[test]
fn parameter_counts_of_the_seven_models() {
    let published = [
        ("large-14-224", 303_177_728, 304_226_304, 134_994_432),
        ("large-14-336", 303_505_408, 304_553_984, 134_994_432),
        ("so400m-14-384", 412_988_400, 414_315_504, 486_524_016),
        ("huge-14-224", 630_763_520, 632_401_920, 369_158_144),
        ("huge-14-336", 631_173_120, 632_811_520, 369_158_144),
        ("huge-14-448", 631_746_560, 633_384_960, 369_158_144),
        ("giant-14-224", 1_011_201_024, 1_013_183_488, 369_289_216),
    ];
    assert_eq!(registry::all().iter().filter(|e| e.name.starts_with("openvision2/")).count(), published.len());
    for (name, table, projected, decoder) in published {
        let entry = registry::find(&format!("openvision2/{name}")).unwrap();
        let counts = entry.config.parameters();
        assert_eq!(counts.image + counts.position, table, "{name}");
        assert_eq!(counts.image + counts.position + counts.projection, projected, "{name}");
        assert_eq!(counts.decoder, decoder, "{name}");
        assert_eq!(counts.total, projected + decoder, "{name}");
    }
}

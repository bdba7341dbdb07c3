//! `openvision caption`: the reference's words for real pictures, shards with captions written back.

use crate::support::{openvision, photo, small_model, testdata};
use openvision_io::data::shard::ShardWriter;
use openvision_io::data::tar::Tar;
use openvision_io::weights::{Checkpoint, DType, TensorData, write_safetensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

/// u of openvision.md 1.4, from -0.5 to 0.5, for stream `t`.
fn formula(t: u32, count: usize) -> impl Iterator<Item = f64> {
    (0..count as u32).map(move |i| {
        let mut h = i.wrapping_add(t.wrapping_mul(0x9E37_79B9));
        h ^= h >> 16;
        h = h.wrapping_mul(0x7feb_352d);
        h ^= h >> 15;
        h = h.wrapping_mul(0x846c_a68b);
        h ^= h >> 16;
        f64::from(h) / 4_294_967_296.0 - 0.5
    })
}

/// The tensors of tools/peers/openvision2_decoder.py's tiny decoder.
fn shapes(config: &Value) -> BTreeMap<String, Vec<usize>> {
    let size = |field: &str| config[field].as_u64().unwrap() as usize;
    let (w, m, v, d) = (size("width"), size("mlp_dim"), size("vocab_size"), size("vision_width"));
    let mut all: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| all.insert(name, shape.to_vec());
    add("token_embedding.weight".into(), &[v, w]);
    add("lm_head.weight".into(), &[v, w]);
    add("image_projection.weight".into(), &[w, d]);
    let norms = (0..size("depth")).flat_map(|i| [format!("blocks.{i}.ln_1"), format!("blocks.{i}.ln_2")]);
    for norm in norms.chain(["ln_final".to_owned()]) {
        add(format!("{norm}.weight"), &[w]);
        add(format!("{norm}.bias"), &[w]);
    }
    for i in 0..size("depth") {
        let tensors: [(&str, &[usize]); 8] = [
            ("attn.in_proj_weight", &[3 * w, w]),
            ("attn.in_proj_bias", &[3 * w]),
            ("attn.out_proj.weight", &[w, w]),
            ("attn.out_proj.bias", &[w]),
            ("mlp.c_fc.weight", &[m, w]),
            ("mlp.c_fc.bias", &[m]),
            ("mlp.c_proj.weight", &[w, m]),
            ("mlp.c_proj.bias", &[w]),
        ];
        for (name, shape) in tensors {
            add(format!("blocks.{i}.{name}"), shape);
        }
    }
    all
}

fn write_decoder(config: &Value, folder: &Path) {
    let shapes = shapes(config);
    let mut bytes: Vec<Vec<u8>> = Vec::new();
    for (place, (name, shape)) in shapes.iter().enumerate() {
        let norm = name.contains("ln_") && name.ends_with("weight");
        let value = |u: f64| (if norm { 1.0 + 0.2 * u } else { 0.5 * u }) as f32;
        let mut values: Vec<f32> = formula(place as u32 + 1, shape.iter().product()).map(value).collect();
        if name == "lm_head.weight" {
            let width = shape[1];
            let end: Vec<f32> = values[16_982 * width..][..width].iter().map(|v| v * 1.0625).collect();
            values[2 * width..][..width].copy_from_slice(&end);
        }
        bytes.push(values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }
    let tensors: Vec<TensorData> = std::iter::zip(&shapes, &bytes)
        .map(|((name, shape), data)| TensorData { name, dtype: DType::F32, shape, bytes: data.into() })
        .collect();
    write_safetensors(&folder.join("caption_decoder.safetensors"), &BTreeMap::new(), &tensors).unwrap();
    std::fs::write(folder.join("text_decoder_config.json"), config.to_string()).unwrap();
}

/// A folder as the authors publish OpenVision 2: the image tower of the openvision-tiny golden without its prefix, a
/// text configuration that means nothing, and the decoder.
fn captioner() -> String {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let golden = testdata().join("goldens/openvision-tiny");
        let checkpoint = Checkpoint::open(&golden.join("open_clip_model.safetensors")).unwrap();
        let vision: Vec<_> = checkpoint.tensors().iter().filter(|t| t.name.starts_with("visual.")).collect();
        // The stored projection is square.
        let data: Vec<Vec<u8>> = vision
            .iter()
            .map(|t| match t.name.as_str() {
                "visual.proj" => {
                    (0..64 * 64).flat_map(|i| (if i % 65 == 0 { 1.0f32 } else { 0.0 }).to_le_bytes()).collect()
                }
                name => checkpoint.read_bytes(name).unwrap(),
            })
            .collect();
        let tensors: Vec<TensorData> = std::iter::zip(&vision, &data)
            .map(|(t, data)| TensorData {
                name: t.name.strip_prefix("visual.").unwrap(),
                dtype: t.dtype,
                shape: if t.name == "visual.proj" { &[64, 64] } else { &t.shape },
                bytes: data.into(),
            })
            .collect();
        let path = folder.path();
        write_safetensors(&path.join("open_clip_model.safetensors"), &BTreeMap::new(), &tensors).unwrap();
        let text = std::fs::read_to_string(golden.join("open_clip_config.json")).unwrap();
        let mut model = serde_json::from_str::<Value>(&text).unwrap()["model_cfg"].take();
        model["embed_dim"] = json!(64);
        model["text_cfg"] =
            json!({ "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12 });
        std::fs::write(path.join("open_clip_config.json"), json!({ "model_cfg": model }).to_string()).unwrap();
        let text = std::fs::read_to_string(testdata().join("goldens/openvision2-tiny/captions.json")).unwrap();
        write_decoder(&serde_json::from_str::<Value>(&text).unwrap()["config"], path);
        folder
    });
    folder.path().display().to_string()
}

/// What `tools/peers/openvision2_decoder.py words` says of these pictures: greedy, beam of 4.
const RECORDED: [(&str, &str, &str); 2] = [
    (
        "china.jpg",
        "compose deformation automatically [unused647]lite compose compose compose cartridge deformation automatically \
         compose",
        "compose deformation automatically [unused647]lite composelite composelite compose cartridge deformation",
    ),
    (
        "flower.jpg",
        "exotic exotic comet exotic comet exotic comet exotic comet exotic comet exotic",
        "exotic exotic comet exotic comet exotic comet exotic comet exotic comet exotic",
    ),
];

#[test]
fn captions_are_the_references_words() {
    let pictures = RECORDED.map(|(name, ..)| photo(name));
    let run = |extra: &[&str]| {
        let mut arguments = vec!["caption", "--json", "--max-tokens", "12"];
        let model = captioner();
        arguments.extend(["-m", &model]);
        arguments.extend(pictures.iter().map(String::as_str));
        openvision(&[&arguments[..], extra].concat()).expect(0).json_lines()
    };
    for batch in ["1", "2"] {
        let (greedy, beam) = (run(&["--batch", batch]), run(&["--beam", "4", "--batch", batch]));
        for (i, (name, want, want_beam)) in RECORDED.iter().enumerate() {
            assert_eq!(greedy[i]["text"], *want, "{name}");
            assert_eq!(beam[i]["text"], *want_beam, "{name} beam");
            assert!(greedy[i]["input"].as_str().unwrap().ends_with(name));
        }
    }
    let sample = ["--sample", "--temperature", "2", "--top-k", "100", "--top-p", "0.9", "--seed", "5"];
    assert_eq!(run(&sample), run(&[&sample[..], &["--batch", "1", "-j", "1"]].concat()));
    assert_ne!(run(&sample), run(&[&sample[..7], &["--seed", "6"]].concat()));
}

#[test]
fn a_vision_only_model_gives_patch_tokens_and_no_vectors() {
    let (model, picture) = (captioner(), photo("china.jpg"));
    let shown = openvision(&["models", "show", "-m", &model, "--json"]).expect(0).json_lines().remove(0);
    assert_eq!((&shown["family"], &shown["config"]["text"]), (&json!("openvision2"), &Value::Null));
    assert_eq!(shown["config"]["decoder"]["transformer"]["layers"], 3);
    assert_eq!(shown["config"]["preprocess"]["resize"], "shortest");
    openvision(&["models", "verify", &model]).expect(0);
    let tokens = openvision(&["embed", "-m", &model, &picture, "--tokens", "-1", "--json"]).expect(0).json_lines();
    assert_eq!(tokens[0]["embedding"].as_array().unwrap().len(), 16);
    for refused in [
        vec!["embed", "-m", &model, &picture],
        vec!["classify", "-m", &model, &picture, "--labels", "a,b"],
        vec!["rank", "-m", &model, "a dog", &picture],
        vec!["rank", "-m", &model, "--image", &picture, &picture],
    ] {
        let ran = openvision(&refused).expect(1);
        assert!(ran.stderr.contains("patch tokens only") || ran.stderr.contains("no text tower"), "{}", ran.stderr);
    }
    let ran = openvision(&["caption", "-m", &small_model(), &picture]).expect(1);
    assert!(ran.stderr.contains("caption_decoder.safetensors"), "{}", ran.stderr);
}

#[test]
fn conversions_keep_the_decoder_and_the_captions() {
    let (model, picture) = (captioner(), photo("flower.jpg"));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let caption = |model: &str| openvision(&["caption", "-m", model, &picture]).expect(0).stdout;
    openvision(&["models", "convert", &model, &at("ours"), "--to", "openvision"]).expect(0);
    openvision(&["models", "convert", &at("ours"), &at("theirs"), "--to", "open_clip"]).expect(0);
    assert_eq!(caption(&at("ours")), caption(&model));
    assert_eq!(caption(&at("theirs")), caption(&model));
    let bytes = |folder: &str| std::fs::read(Path::new(folder).join("open_clip_model.safetensors")).unwrap();
    let (first, second) =
        (Checkpoint::from_bytes(bytes(&model)).unwrap(), Checkpoint::from_bytes(bytes(&at("theirs"))).unwrap());
    assert_eq!(first.tensors(), second.tensors());
    for tensor in first.tensors() {
        assert_eq!(
            first.read_bytes(&tensor.name).unwrap(),
            second.read_bytes(&tensor.name).unwrap(),
            "{}",
            tensor.name
        );
    }
    let ran = openvision(&["models", "convert", &model, &at("hf"), "--to", "hf"]).expect(1);
    assert!(ran.stderr.contains("no text tower"), "{}", ran.stderr);
}

#[test]
fn captions_go_back_into_shards() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (china, flower) = (std::fs::read(photo("china.jpg")).unwrap(), std::fs::read(photo("flower.jpg")).unwrap());
    let mut writer = ShardWriter::create(at("a.tar").as_ref()).unwrap();
    writer.write_sample("x/1", &[("jpg", &china), ("txt", b"alt text"), ("json", b"{\"id\": 1}")]).unwrap();
    writer.write_sample("x/2", &[("txt", b"no picture")]).unwrap();
    writer.write_sample("x/3", &[("jpg", &flower[..1000])]).unwrap();
    writer.write_sample("x/4", &[("jpg", &flower)]).unwrap();
    writer.finish().unwrap();
    let (model, shard, out) = (captioner(), at("a.tar"), at("out"));
    let arguments = ["caption", "-m", &model, &shard, "--write-key", "synthetic", "--out", &out, "--max-tokens", "12"];
    let ran = openvision(&arguments).expect(3);
    assert!(ran.stderr.contains("2 captions") && ran.stderr.contains("2 input(s) failed"), "{}", ran.stderr);
    let tar = Tar::open(&folder.path().join("out/a.tar")).unwrap();
    let samples: Vec<_> = tar.samples().collect();
    let fields: Vec<Vec<&str>> =
        samples.iter().map(|s| s.fields.iter().map(|f| f.extension.as_str()).collect()).collect();
    assert_eq!(
        fields,
        [vec!["jpg", "txt", "json", "synthetic.txt"], vec!["txt"], vec!["jpg"], vec!["jpg", "synthetic.txt"]]
    );
    let read = |sample: usize, field: &str| tar.read(samples[sample].field(field).unwrap().entry, 1 << 20).unwrap();
    assert_eq!(read(0, "jpg"), china);
    assert_eq!(String::from_utf8(read(0, "synthetic.txt")).unwrap(), RECORDED[0].1);
    assert_eq!(String::from_utf8(read(3, "synthetic.txt")).unwrap(), RECORDED[1].1);
    // A second run is refused, goes on with --resume, and the same shard gives the same bytes.
    openvision(&arguments).expect(2);
    let first = std::fs::read(folder.path().join("out/a.tar")).unwrap();
    openvision(&[&arguments[..], &["--resume"]].concat()).expect(0);
    std::fs::remove_file(folder.path().join("out/a.tar")).unwrap();
    openvision(&[&arguments[..], &["--resume"]].concat()).expect(3);
    assert_eq!(std::fs::read(folder.path().join("out/a.tar")).unwrap(), first);
    for key in ["", ".a", "a.", "a..b", "a/b", "a\nb", "../a"] {
        let ran = openvision(&["caption", "-m", &model, &shard, "--write-key", key, "--out", &at("keys")]).expect(2);
        assert!(ran.stderr.contains("letters, digits"), "{key:?}: {}", ran.stderr);
    }
    // A shard that has the field already, one that is cut, and a picture file are refused whole.
    std::fs::write(at("cut.tar"), &first[..first.len() / 2]).unwrap();
    for (input, key, message, code) in [
        (at("out/a.tar"), "synthetic", "has this field already", 3),
        (at("cut.tar"), "k", "cut off", 3),
        (photo("china.jpg"), "k", "takes .tar shards", 2),
    ] {
        let other = at("other");
        let ran = openvision(&["caption", "-m", &model, &input, "--write-key", key, "--out", &other]).expect(code);
        assert!(ran.stderr.contains(message), "{message}: {}", ran.stderr);
        assert!(!folder.path().join("other/a.tar").exists() && !folder.path().join("other/cut.tar").exists());
    }
    // A broken shard does not keep the others from being done.
    let (cut, other) = (at("cut.tar"), at("other"));
    openvision(&["caption", "-m", &model, &cut, &shard, "--write-key", "k", "--out", &other]).expect(3);
    assert!(folder.path().join("other/a.tar").exists());
}

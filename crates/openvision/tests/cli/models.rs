//! `openvision models`, `doctor`, `completions`, help.

use crate::support::{Ran, command, openvision, photo, small_model, testdata, tiny_model};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;

#[test]
fn list_has_all_models_with_exact_counts() {
    let lines = openvision(&["models", "list", "--json", "--family", "openvision"]).expect(0).json_lines();
    assert_eq!(lines.len(), 26);
    let base = lines.iter().find(|line| line["hub_id"] == "UCSC-VLAA/openvision-vit-base-patch16-224").unwrap();
    assert_eq!(base["params"]["total"], 140_707_841);
    assert_eq!(base["cached"], false);
    assert!(openvision(&["models", "list"]).expect(0).stdout.lines().count() > 40);
    openvision(&["models", "list", "--family", "resnet"]).expect(2);
}

#[test]
fn a_reader_that_has_enough_ends_a_command_quietly() {
    for arguments in [&["models", "list"][..], &["models", "show", &tiny_model()]] {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::from(child.wait_with_output().unwrap()).expect(0);
        assert_eq!(ran.stderr, "");
    }
}

/// The graphs that tools/peers/onnx_check.py ran in onnxruntime 1.32, every output within 3e-7 of the peers', byte for byte.
#[test]
fn onnx_graphs_are_those_that_onnxruntime_was_shown_to_run_right() {
    let recorded = [
        ("openvision-tiny", "d6b477dffddebaf5", "c8c9587bd4f1f0a2"),
        ("open_clip-gelu", "3832bf3b625963f1", "a70f717df9b33c07"),
        ("openai-quickgelu/model.pt", "ceb28b8abe420e07", "9450ff88f9c31697"),
        ("hf-clip", "cb5e6c80a13ccef9", "ce4d33b95b5f3394"),
        ("hf-siglip", "d9de111b44c2920a", "dd0ece5b4138c916"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let fnv = |path: PathBuf| {
        let fold = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        format!("{:016x}", std::fs::read(path).unwrap().iter().fold(0xcbf2_9ce4_8422_2325, fold))
    };
    for (name, image, text) in recorded {
        let model = testdata().join("goldens").join(name).display().to_string();
        let out = folder.path().join(name.replace('/', "-"));
        openvision(&["models", "convert", &model, &out.display().to_string(), "--to", "onnx"]).expect(0);
        assert_eq!([fnv(out.join("image.onnx")), fnv(out.join("text.onnx"))], [image, text], "{name}");
        assert!(out.join("config.json").is_file());
    }
    let half = folder.path().join("half").display().to_string();
    openvision(&["models", "convert", &small_model(), &half, "--to", "onnx", "--precision", "bf16"]).expect(0);
    let size = |folder: &str| std::fs::metadata(Path::new(folder).join("image.onnx")).unwrap().len();
    assert!(size(&half) < size(&folder.path().join("openvision-tiny").display().to_string()) * 6 / 10);
}

/// A SigLIP folder with a tokenizer: texts, sigmoid probabilities, and conversions that keep both.
#[test]
fn siglip_reads_texts_by_its_folder_and_keeps_them_in_conversions() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(at("siglip")).unwrap();
    for name in ["config.json", "model.safetensors", "preprocessor_config.json"] {
        std::fs::copy(testdata().join("goldens/hf-siglip").join(name), at("siglip") + "/" + name).unwrap();
    }
    let texts = at("texts.txt");
    std::fs::write(&texts, "a photo of a cat\nsnake_case, Punctuation!\n").unwrap();
    let embed = |model: &str, texts: &str| openvision(&["embed", "-m", model, "--texts", texts, "--json"]);
    let missing = embed(&at("siglip"), &texts).expect(1);
    assert!(missing.stderr.contains("tokenizer.json") && missing.stderr.contains("spiece.model"), "{}", missing.stderr);
    std::fs::copy(testdata().join("goldens/tokens/model/siglip.model"), at("siglip/spiece.model")).unwrap();
    let config = "{\"tokenizer_class\": \"SiglipTokenizer\", \"pad_token\": \"</s>\"}";
    std::fs::write(at("siglip/tokenizer_config.json"), config).unwrap();
    let vectors = embed(&at("siglip"), &texts).expect(0).stdout;
    assert_eq!(vectors.lines().count(), 2);
    for (from, to, layout) in [("siglip", "ours", "openvision"), ("ours", "hf", "hf")] {
        openvision(&["models", "convert", &at(from), &at(to), "--to", layout]).expect(0);
        assert_eq!(embed(&at(to), &texts).expect(0).stdout, vectors, "{to}");
    }
    let picture = photo("china.jpg");
    let labels = ["classify", "-m", &at("siglip"), &picture, "--labels", "cat,dog,tower", "--top", "3", "--json"];
    let top = openvision(&labels).expect(0).json_lines().remove(0)["top"].take();
    let shown = openvision(&["models", "show", &at("siglip"), "--json"]).expect(0).json_lines().remove(0);
    let number = |value: &Value| value.as_f64().unwrap();
    let (scale, bias) = (number(&shown["logit_scale"]), number(&shown["logit_bias"]));
    for label in top.as_array().unwrap() {
        let sigmoid = 1.0 / (1.0 + (-(scale * number(&label["score"]) + bias)).exp());
        assert!((number(&label["probability"]) - sigmoid).abs() < 1e-6, "{label}");
    }
    let shares: f64 = top.as_array().unwrap().iter().map(|label| number(&label["share"])).sum();
    assert!((shares - 1.0).abs() < 1e-6);
}

#[test]
fn siglips_gelu_can_be_chosen() {
    let model = testdata().join("goldens/hf-siglip").display().to_string();
    let embed = |extra: &[&str]| {
        let picture = photo("china.jpg");
        openvision(&[&["embed", "-m", &model, &picture, "--json"][..], extra].concat()).expect(0).stdout
    };
    assert_eq!(embed(&[]), embed(&["--gelu", "tanh"]));
    let (got, other) = (embed(&["--gelu", "erf"]), embed(&[]));
    let fingerprint = |line: &str| serde_json::from_str::<Value>(line).unwrap()["fingerprint"].clone();
    assert_ne!(fingerprint(&got), fingerprint(&other));
    let shown = openvision(&["models", "show", &model]).expect(0).stdout;
    assert!(shown.contains("tanh GELU in the image tower"), "{shown}");
    let other = openvision(&["embed", "-m", &small_model(), &photo("china.jpg"), "--gelu", "erf"]).expect(2);
    assert!(other.stderr.contains("SigLIP"), "{}", other.stderr);
}

#[test]
fn show_tells_what_a_model_is_and_how_its_texts_are_read() {
    let shown = openvision(&["models", "show", &tiny_model(), "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(shown["tensors"].as_array().unwrap().len(), 300);
    assert_eq!(shown["config"]["text"]["layout"], "openvision");
    assert!(shown["notes"][0].as_str().unwrap().contains("recognised as OpenVision"));
    assert_eq!(shown["fingerprint"]["image"].as_str().unwrap().len(), 32);
    assert!(openvision(&["models", "show", &tiny_model()]).expect(0).stdout.contains("visual.conv1.weight"));
    // A known model that is not on this machine still has a description.
    let known = openvision(&["models", "show", "clip/vit-l-14", "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(known["params"]["total"], 427_616_513);
}

/// The known trap: a published configuration in a folder of any name.
#[test]
fn published_configurations_are_read_rightly_and_to_the_letter_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("some-renamed-folder").display().to_string();
    openvision(&["models", "convert", &tiny_model(), &out, "--to", "open_clip"]).expect(0);
    // What the 26 published files say: the tokenizer's name, and no `tokenizer_mode`.
    let path = format!("{out}/open_clip_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(config["model_cfg"]["text_cfg"]["tokenizer_mode"], "clips");
    config["model_cfg"]["text_cfg"].as_object_mut().unwrap().remove("tokenizer_mode");
    std::fs::write(&path, config.to_string()).unwrap();
    let text = folder.path().join("t.txt");
    std::fs::write(&text, "a dog\n").unwrap();
    let text = text.display().to_string();
    let embed = |model: &str, extra: &[&str]| {
        let all = [&["embed", "-m", model, "--texts", &text, "--json"][..], extra].concat();
        openvision(&all).expect(0).json_lines().remove(0)
    };
    let ours = embed(&tiny_model(), &[]);
    assert_eq!(embed(&out, &[])["embedding"], ours["embedding"]);
    assert_eq!(embed(&out, &[])["fingerprint"], ours["fingerprint"]);
    assert_ne!(embed(&out, &["--as-published"])["embedding"], ours["embedding"]);
    let verified = openvision(&["models", "verify", &out]).expect(0);
    assert!(verified.stdout.contains("recognised as OpenVision"), "{}", verified.stdout);
    let literal = openvision(&["models", "show", &out, "--as-published", "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(literal["config"]["text"]["layout"], "bert_class_first");
    assert!(literal["notes"][0].as_str().unwrap().contains("not the trained ones"));
    // Even without a configuration the tensors are enough.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(embed(&out, &[])["embedding"], ours["embedding"]);
}

#[test]
fn verify_reports_every_problem_at_once() {
    assert!(openvision(&["models", "verify", &tiny_model()]).expect(0).stdout.contains("the model is fine"));
    // The small golden has a vocabulary of 300, which the text layout's ids do not fit: that is said, too.
    let small = openvision(&["models", "verify", &small_model()]).expect(1);
    assert!(small.stdout.contains("outside the vocabulary of 300"), "{}", small.stdout);
    let folder = tempfile::tempdir().unwrap();
    let golden = testdata().join("goldens/openvision-tiny");
    let weights = std::fs::read(golden.join("open_clip_model.safetensors")).unwrap();
    std::fs::write(folder.path().join("open_clip_model.safetensors"), weights).unwrap();
    let text = std::fs::read_to_string(golden.join("open_clip_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["model_cfg"]["vision_cfg"]["layers"] = 4.into();
    config["model_cfg"]["text_cfg"]["layers"] = 1.into();
    config["model_cfg"]["embed_dim"] = 50.into();
    std::fs::write(folder.path().join("open_clip_config.json"), config.to_string()).unwrap();
    let ran = openvision(&["models", "verify", &folder.path().display().to_string(), "--json"]).expect(1);
    let problems = ran.json_lines()[0]["problems"].to_string();
    for part in
        ["missing: visual.transformer.resblocks.3.", "unexpected: transformer.resblocks.1.", "wrong shape: visual.proj"]
    {
        assert!(problems.contains(part), "{part}: {problems}");
    }
}

/// ours -> open_clip -> ours and CLIP through Hugging Face: tensors bit for bit, embeddings too.
#[test]
fn conversions_there_and_back_are_bit_exact() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let golden = |name: &str| testdata().join("goldens").join(name).display().to_string();
    let convert = |from: &str, to: &str, layout: &str| {
        openvision(&["models", "convert", from, to, "--to", layout]).expect(0);
    };
    // A square picture: open_clip and Hugging Face round the offset of a crop differently, in one of four sizes.
    let embedding = |model: &str| {
        let line =
            openvision(&["embed", "-m", model, &photo("astronaut.jpg"), "--json"]).expect(0).json_lines().remove(0);
        line["embedding"].clone()
    };
    for (name, layouts) in [
        ("openvision-tiny", &["openvision", "open_clip", "openvision"][..]),
        ("open_clip-gelu", &["openvision", "hf", "openvision", "open_clip", "openvision"]),
        ("hf-clip", &["openvision", "open_clip", "hf", "openvision"]),
        ("openai-quickgelu/model.pt", &["openvision", "hf", "openvision"]),
        ("hf-siglip", &["openvision", "hf", "openvision"]),
    ] {
        let mut from = golden(name);
        let wanted = embedding(&from);
        let mut ours = Vec::new();
        for (i, layout) in layouts.iter().enumerate() {
            let to = at(&format!("{}-{i}", name.replace('/', "-")));
            convert(&from, &to, layout);
            if *layout == "openvision" {
                ours.push(std::fs::read(format!("{to}/model.safetensors")).unwrap());
            }
            assert_eq!(embedding(&to), wanted, "{name} as {layout}");
            from = to;
        }
        assert!(ours.windows(2).all(|pair| pair[0] == pair[1]), "{name}: tensors changed on the way");
    }
    let ran = openvision(&["models", "convert", &golden("openvision-tiny"), &at("no"), "--to", "hf"]).expect(1);
    assert!(ran.stderr.contains("pre-norm"), "{}", ran.stderr);
    let ran = openvision(&["models", "convert", &golden("hf-siglip"), &at("no"), "--to", "open_clip"]).expect(1);
    assert!(ran.stderr.contains("timm has no SigLIP tower of this size"), "{}", ran.stderr);
    // What is missing is said, and the rest is shown.
    let shown = openvision(&["models", "show", &golden("hf-siglip"), "--json"]).expect(0).json_lines().remove(0);
    assert!(shown["tokenizer"].as_str().unwrap().contains("spiece.model"), "{}", shown["tokenizer"]);
}

#[test]
fn rounded_weights_are_half_the_size_and_load() {
    let folder = tempfile::tempdir().unwrap();
    let full = std::fs::metadata(format!("{}/model.safetensors", tiny_model())).unwrap().len();
    for precision in ["f16", "bf16"] {
        let out = folder.path().join(precision).display().to_string();
        openvision(&["models", "convert", &tiny_model(), &out, "--to", "openvision", "--precision", precision])
            .expect(0);
        let half = std::fs::metadata(format!("{out}/model.safetensors")).unwrap().len();
        assert!(half < full * 6 / 10, "{half} of {full}");
        openvision(&["models", "verify", &out]).expect(0);
    }
}

/// A model is not overwritten by its own conversion, however its folder is named.
#[test]
fn a_conversion_into_the_models_own_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own").display().to_string();
    openvision(&["models", "convert", &small_model(), &own, "--to", "openvision"]).expect(0);
    let weights = format!("{own}/model.safetensors");
    let before = std::fs::read(&weights).unwrap();
    for (from, out) in [(own.clone(), own.clone()), (weights.clone(), format!("{own}/../own/"))] {
        for to in ["openvision", "open_clip", "onnx"] {
            let ran = openvision(&["models", "convert", &from, &out, "--to", to, "--precision", "bf16"]).expect(2);
            assert!(ran.stderr.contains("another folder"), "{}", ran.stderr);
        }
    }
    assert_eq!(std::fs::read(&weights).unwrap(), before);
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 2);
    // Nor is a folder that holds another model: the two would be read as one.
    let out = folder.path().join("taken").display().to_string();
    openvision(&["models", "convert", &small_model(), &out, "--to", "openvision"]).expect(0);
    for again in [
        vec!["models", "convert", &tiny_model(), &out, "--to", "open_clip"],
        vec!["models", "init", "openvision/tiny-16-160", &out],
    ] {
        let ran = openvision(&again).expect(2);
        assert!(ran.stderr.contains("holds a model already (config.json)"), "{}", ran.stderr);
    }
}

#[test]
fn init_is_reproducible_and_refuses_nonsense() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let config = format!("{}/config.json", tiny_model());
    for (out, seed) in [("a", "7"), ("b", "7"), ("c", "8")] {
        openvision(&["models", "init", &config, &at(out), "--seed", seed]).expect(0);
    }
    let weights = |name: &str| std::fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    assert_eq!(weights("a"), weights("b"));
    assert_ne!(weights("a"), weights("c"));
    let text = std::fs::read_to_string(&config).unwrap().replace("\"heads\": 3", "\"heads\": 5");
    std::fs::write(at("bad.json"), text).unwrap();
    let ran = openvision(&["models", "init", &at("bad.json"), &at("d")]).expect(1);
    assert!(ran.stderr.contains("heads"), "{}", ran.stderr);
    assert!(!folder.path().join("d").exists());
}

#[test]
fn help_doctor_and_completions() {
    let help = openvision(&["--help"]).expect(0).stdout;
    for name in ["models", "embed", "classify", "rank", "doctor", "completions"] {
        assert!(help.contains(name), "{name}");
        if name != "completions" {
            openvision(&[name, "--help"]).expect(0);
        }
    }
    let doctor = openvision(&["doctor", "--json"]).expect(0).json_lines().remove(0);
    assert!(doctor["instruction_sets"].as_array().unwrap().iter().any(|s| s == "portable"));
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(openvision(&["completions", shell]).expect(0).stdout.contains("openvision"), "{shell}");
    }
    assert_eq!(openvision(&["frobnicate"]).code, 2);
}

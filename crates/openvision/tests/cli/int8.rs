//! int8: as an option, as a folder, and what it does to embeddings.

use crate::support::{Ran, command, floats, openvision, photo_count, photos, tiny_model};
use std::path::Path;

/// Embeddings of the photographs, [pictures][D].
fn embed(model: &str, more: &[&str]) -> Vec<Vec<f32>> {
    let ran = openvision(&[&["embed", "-m", model, &photos(), "--json"], more].concat());
    ran.json_lines().iter().filter(|line| line["embedding"].is_array()).map(|line| floats(&line["embedding"])).collect()
}

#[test]
fn int8_at_load_and_stored_give_the_same_vectors_near_those_of_floats() {
    let folder = tempfile::tempdir().unwrap();
    let int8 = folder.path().join("int8").display().to_string();
    openvision(&["models", "convert", &tiny_model(), &int8, "--to", "openvision", "--precision", "int8"]).expect(0);
    let size = |model: &str| std::fs::metadata(Path::new(model).join("model.safetensors")).unwrap().len();
    // The table of words, which stays as it is, is a third of this model.
    assert!(size(&int8) * 10 < size(&tiny_model()) * 6, "{} of {}", size(&int8), size(&tiny_model()));
    let at_load = embed(&tiny_model(), &["--precision", "int8"]);
    assert_eq!(at_load.len(), photo_count());
    assert_eq!(at_load, embed(&int8, &[]), "stored and quantised at load");
    assert_eq!(at_load, embed(&int8, &["--threads", "1"]));
    let plain = embed(&tiny_model(), &[]);
    assert_ne!(at_load, plain);
    for (a, b) in at_load.iter().zip(&plain) {
        let cosine: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!(cosine > 0.999, "{cosine}");
    }
    openvision(&["models", "verify", &int8]).expect(0);
    let show = |arguments: &[&str]| {
        openvision(&[&["models", "show", "--json"], arguments].concat()).expect(0).json_lines().remove(0)
    };
    let shown = show(&[&int8]);
    assert_eq!(shown["config"]["precision"], "int8");
    assert!(shown["tensors"].as_array().unwrap().iter().any(|tensor| tensor["dtype"] == "I8"));
    let asked = show(&[&tiny_model(), "--precision", "int8"]);
    assert_eq!(shown["fingerprint"], asked["fingerprint"]);
    assert_ne!(shown["fingerprint"], show(&[&tiny_model()])["fingerprint"]);
    assert!(shown["memory_bytes"]["image"].as_u64() < show(&[&tiny_model()])["memory_bytes"]["image"].as_u64());
}

#[test]
fn bf16_dot_runs_where_the_processor_can_and_says_what_is_missing_elsewhere() {
    let ran = openvision(&["eval", "drift", "-m", &tiny_model(), "--precision", "bf16-dot", &photos(), "--json"]);
    if ran.stderr.contains("avx512_bf16") {
        ran.expect(1);
    } else {
        let found = ran.expect(0).json_lines().remove(0);
        let least = found["minimum"].as_f64().unwrap();
        assert!(found["precision"] == "bf16-dot" && least > 0.999 && least < 1.0 - 1e-9, "{found}");
    }
    let mut forced = command(&["embed", "-m", &tiny_model(), "--precision", "bf16-dot", &photos()]);
    let forced: Ran = forced.env("OPENVISION_ISA", "portable").output().unwrap().into();
    assert!(forced.expect(1).stderr.contains("bf16-dot needs AVX-512 with BF16 (avx512_bf16), which portable is not"));
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    let ran = openvision(&["models", "convert", &tiny_model(), &out, "--to", "openvision", "--precision", "bf16-dot"]);
    assert!(ran.expect(2).stderr.contains("--precision"), "bf16-dot is no way to store weights");
}

#[test]
fn int8_folders_become_floats_only_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let convert =
        |from: &str, to: &str, more: &[&str]| openvision(&[&["models", "convert", from, to, "--to"], more].concat());
    convert(&tiny_model(), &at("int8"), &["openvision", "--precision", "int8"]).expect(0);
    for layout in ["open_clip", "hf", "onnx"] {
        let ran = convert(&at("int8"), &at("no"), &[layout]).expect(1);
        assert!(ran.stderr.contains("--precision f32"), "{}", ran.stderr);
        let ran = convert(&tiny_model(), &at("no"), &[layout, "--precision", "int8"]).expect(1);
        assert!(ran.stderr.contains("--precision f32"), "{}", ran.stderr);
    }
    convert(&at("int8"), &at("f32"), &["openvision", "--precision", "f32"]).expect(0);
    assert_eq!(embed(&at("f32"), &[]), embed(&at("int8"), &["--precision", "f32"]));
}

#[test]
fn drift_is_measured_against_the_same_model() {
    let drift = |more: &[&str]| {
        let ran = openvision(&[&["eval", "drift", "-m", &tiny_model(), &photos(), "--json"], more].concat());
        ran.json_lines().pop().unwrap()
    };
    let int8 = drift(&["--precision", "int8"]);
    assert_eq!(int8["pictures"], photo_count());
    assert!(int8["mean"].as_f64().unwrap() > 0.999 && int8["minimum"].as_f64().unwrap() > 0.99, "{int8}");
    assert!(int8["mean"].as_f64().unwrap() < 0.999_999_9, "{int8}");
    assert_eq!(int8["float_maps"], serde_json::json!(["visual.conv1.weight", "visual.proj"]));
    let none = drift(&[]);
    assert!(none["minimum"].as_f64().unwrap() > 0.999_999_9, "{none}");
}

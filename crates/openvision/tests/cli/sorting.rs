//! `openvision classify`, `openvision rank`.

use crate::support::{openvision, photo, photo_count, photos, small_model, testdata, tiny_model};
use std::io::Write;

#[test]
fn classify_gives_probabilities_over_the_labels() {
    let labels = "dog,cat,a red bicycle";
    let ran = openvision(&["classify", "-m", &tiny_model(), &photos(), "--labels", labels, "--top", "3", "--json"]);
    let lines = ran.expect(0).json_lines();
    assert_eq!(lines.len(), photo_count());
    for line in lines {
        let top = line["top"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        let probabilities: Vec<f64> = top.iter().map(|p| p["probability"].as_f64().unwrap()).collect();
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5);
        assert!(probabilities.is_sorted_by(|a, b| a >= b));
        assert!(top.iter().all(|p| p["score"].as_f64().unwrap().abs() <= 1.0));
    }
}

#[test]
fn labels_and_templates_from_files_and_built_in_sets() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        format!("@{}", path.display())
    };
    let labels = file("labels.txt", "dog\ncat\n");
    let templates = file("templates.txt", "a photo of a {}.\n{c} in the wild\n");
    let run = |labels: &str, templates: &str| {
        let china = photo("china.jpg");
        openvision(&["classify", "-m", &tiny_model(), &china, "-l", labels, "-t", templates, "-k", "1000", "--json"])
    };
    let named = run(&labels, &templates).expect(0).json_lines();
    assert_eq!(named[0]["top"].as_array().unwrap().len(), 2);
    assert_eq!(run("dog,cat", &templates).expect(0).json_lines(), named);
    assert_eq!(run("@cifar10", "openai7").expect(0).json_lines()[0]["top"].as_array().unwrap().len(), 10);
    for set in ["simple", "imagenet80", "openvision81"] {
        assert_ne!(run("dog,cat", set).expect(0).json_lines(), named, "{set}");
    }
    let no_hole = file("bad.txt", "a photo\n");
    assert!(run("dog", &no_hole).expect(2).stderr.contains("has no {}"));
    assert!(run("dog", "imagenet81").expect(2).stderr.contains("imagenet80"));
    assert!(run(" , ", "simple").expect(2).stderr.contains("no label"));
}

/// The golden's picture-text logits come out of `classify` when its own ids would; here: the text side is what `embed`
/// gives, and scores are the dot products of what `embed` gives.
#[test]
fn scores_are_the_cosines_of_the_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("t.txt");
    std::fs::write(&texts, "a dog\n").unwrap();
    let (model, china, texts) = (tiny_model(), photo("china.jpg"), texts.display().to_string());
    let lines = openvision(&["embed", "-m", &model, &china, "--texts", &texts, "--json"]).expect(0).json_lines();
    let vector = |i: usize| crate::support::floats(&lines[i]["embedding"]);
    let cosine: f32 = vector(0).iter().zip(vector(1)).map(|(a, b)| a * b).sum();
    let plain = folder.path().join("p.txt");
    std::fs::write(&plain, "{}\n").unwrap();
    let plain = format!("@{}", plain.display());
    let ran = openvision(&["classify", "-m", &model, &china, "-l", "a dog", "-t", &plain, "--json"]).expect(0);
    let score = ran.json_lines()[0]["top"][0]["score"].as_f64().unwrap() as f32;
    assert!((score - cosine).abs() < 1e-6, "{score} {cosine}");
    let ran = openvision(&["rank", "-m", &model, "a dog", &china, "--json"]).expect(0);
    let score = ran.json_lines()[0]["score"].as_f64().unwrap() as f32;
    assert!((score - cosine).abs() < 1e-6, "{score} {cosine}");
}

#[test]
fn rank_by_text_and_by_picture() {
    let ran = openvision(&["rank", "-m", &tiny_model(), "two dogs", &photos(), "--json"]).expect(0);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), photo_count());
    assert!(lines.iter().enumerate().all(|(i, line)| line["rank"] == i + 1));
    let scores: Vec<f64> = lines.iter().map(|line| line["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b));
    let ran =
        openvision(&["rank", "-m", &tiny_model(), "--image", &photo("coffee.jpg"), &photos(), "-k", "2", "--json"]);
    let lines = ran.expect(0).json_lines();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["input"].as_str().unwrap().ends_with("coffee.jpg"));
    assert!((lines[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    assert!(openvision(&["rank", "-m", &tiny_model()]).expect(2).stderr.contains("a text first"));
    openvision(&["rank", "-m", &tiny_model(), "--image", "missing.jpg", &photos()]).expect(2);
}

/// Orientation is applied by default and left out as the peers do on request.
#[test]
fn exif_orientation_counts_unless_read_as_published() {
    let exif = testdata().join("goldens/preprocess/images/exif6_48x32.jpg").display().to_string();
    let run = |extra: &[&str]| {
        let model = small_model();
        let all = [&["embed", "-m", &model, &exif, "--json"][..], extra].concat();
        openvision(&all).expect(0).json_lines().remove(0)
    };
    let (upright, published) = (run(&[]), run(&["--as-published"]));
    assert_ne!(upright["embedding"], published["embedding"]);
    assert_ne!(upright["fingerprint"], published["fingerprint"]);
}

//! `openvision eval`: metrics on labelled folders, and the sweep.

use crate::support::{openvision, photo, tiny_model};
use serde_json::Value;
use std::path::Path;

/// Pictures in folders that name them.
fn labelled(folder: &Path, classes: &[(&str, &[&str])]) {
    for (class, pictures) in classes {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for picture in *pictures {
            std::fs::copy(photo(picture), folder.join(class).join(picture)).unwrap();
        }
    }
}

const CLASSES: [(&str, &[&str]); 3] = [
    ("a_building", &["china.jpg", "astronaut.jpg"]),
    ("flower", &["flower.jpg"]),
    ("space_rocket", &["rocket.jpg", "coffee.jpg"]),
];

/// The metrics follow from what `classify` says of each picture.
#[test]
fn zero_shot_counts_what_classify_says() {
    let folder = tempfile::tempdir().unwrap();
    labelled(folder.path(), &CLASSES);
    std::fs::write(folder.path().join("flower/broken.jpg"), b"no picture").unwrap();
    let (data, model) = (folder.path().display().to_string(), tiny_model());
    let labels = "a building,flower,space rocket";
    let said = openvision(&["classify", "-m", &model, &data, "--labels", labels, "--json"]).expect(3).json_lines();
    let mut right = [(0, 0); 3];
    for line in said.iter().filter(|line| line.get("error").is_none()) {
        let input = line["input"].as_str().unwrap();
        let class = CLASSES.iter().position(|(class, _)| input.contains(&format!("/{class}/"))).unwrap();
        right[class].1 += 1;
        right[class].0 += usize::from(line["top"][0]["label"] == labels.split(',').nth(class).unwrap());
    }
    let ran = openvision(&["eval", "zero-shot", "-m", &model, &data, "--json"]).expect(3);
    let found = ran.json_lines().pop().unwrap();
    let total: usize = right.iter().map(|(right, _)| right).sum();
    let recall: f64 = right.iter().map(|(right, all)| *right as f64 / *all as f64).sum::<f64>() / 3.0;
    assert_eq!(found["pictures"], 5);
    assert_eq!(found["failed"], 1);
    assert_eq!(found["classes"], 3);
    assert_eq!(found["acc1"].as_f64().unwrap(), total as f64 / 5.0);
    assert_eq!(found["acc5"], Value::Null);
    assert!((found["mean_per_class_recall"].as_f64().unwrap() - recall).abs() < 1e-12);
    assert!(ran.stderr.contains("broken.jpg"), "{}", ran.stderr);
}

#[test]
fn names_replace_folder_names_and_one_class_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    labelled(folder.path(), &CLASSES);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (data, model, names) = (at(""), tiny_model(), at("names.tsv"));
    let score = |names: &str| {
        let arguments = ["eval", "zero-shot", "-m", &model, &data, "--json", "--names", names];
        openvision(&arguments).expect(0).json_lines().remove(0)["acc1"].clone()
    };
    std::fs::write(&names, "a_building\ta building\n").unwrap();
    let plain = openvision(&["eval", "zero-shot", "-m", &model, &data, "--json"]).expect(0).json_lines().remove(0);
    assert_eq!(score(&names), plain["acc1"]);
    std::fs::write(&names, "a building\n").unwrap();
    let ran = openvision(&["eval", "zero-shot", "-m", &model, &data, "--names", &names]).expect(2);
    assert!(ran.stderr.contains("a tab"), "{}", ran.stderr);
    let ran = openvision(&["eval", "zero-shot", "-m", &model, &at("flower")]).expect(2);
    assert!(ran.stderr.contains("one class only (flower)"), "{}", ran.stderr);
}

#[test]
fn sweep_compares_models_sizes_and_precisions() {
    let folder = tempfile::tempdir().unwrap();
    labelled(folder.path(), &CLASSES);
    let (data, model) = (folder.path().display().to_string(), tiny_model());
    let sweep = ["eval", "sweep", &data, "--models", &model, "--image-sizes", "own,96", "--precisions", "f32,bf16"];
    let lines = openvision(&[&sweep[..], &["--json"]].concat()).expect(0).json_lines();
    let key = |line: &Value| format!("{} {}", line["image_size"][0], line["precision"].as_str().unwrap());
    assert_eq!(lines.iter().map(key).collect::<Vec<_>>(), ["160 f32", "160 bf16", "96 f32", "96 bf16"]);
    for line in &lines {
        assert!(line["pictures_per_second"].as_f64().unwrap() > 0.0 && line["acc1"].as_f64().unwrap() <= 1.0);
        assert!(line["peak_memory"].as_u64().unwrap() > 10 << 20);
    }
    assert!(lines.iter().any(|line| line["best"] == true));
    assert!(lines[2]["gflops"].as_f64() < lines[0]["gflops"].as_f64());
    let table = openvision(&sweep).expect(0).stdout;
    assert!(table.lines().count() == 5 && table.contains('*') && table.contains("160x160"), "{table}");
    // A model that cannot be loaded does not end the sweep.
    let two = format!("{model},nowhere");
    let ran = openvision(&["eval", "sweep", &data, "--models", &two, "--json"]).expect(3);
    assert_eq!(ran.json_lines().len(), 1);
    assert!(ran.stderr.contains("nowhere"), "{}", ran.stderr);
    // Neither does a broken picture, and the code says that there was one.
    std::fs::write(folder.path().join(CLASSES[0].0).join("broken.jpg"), b"").unwrap();
    let ran = openvision(&["eval", "sweep", &data, "--models", &model, "--image-sizes", "96", "--json"]).expect(3);
    assert_eq!(ran.json_lines()[0]["failed"], 1);
}

/// Rounding at load gives what a converted folder gives.
#[test]
fn precisions_are_those_of_converted_folders() {
    let folder = tempfile::tempdir().unwrap();
    let (model, picture) = (tiny_model(), photo("china.jpg"));
    let embed = |model: &str, precision: &str| {
        openvision(&["embed", "-m", model, &picture, "--json", "--precision", precision]).expect(0).stdout
    };
    for precision in ["f16", "bf16"] {
        let out = folder.path().join(precision).display().to_string();
        openvision(&["models", "convert", &model, &out, "--to", "openvision", "--precision", precision]).expect(0);
        assert_eq!(embed(&model, precision), embed(&out, "f32"), "{precision}");
        assert_ne!(embed(&model, precision), embed(&model, "f32"), "{precision}");
    }
}

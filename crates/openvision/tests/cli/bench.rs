//! `openvision bench`.

use crate::support::{command, openvision, small_model};
use std::io::Write;
use std::process::Stdio;

#[test]
fn bench_reports_each_batch_of_each_tower() {
    for tower in ["image", "text"] {
        let model = small_model();
        let arguments = ["bench", "-m", &model, "--batch", "1,3", "--seconds", "0.01", "--tower", tower];
        let rows = openvision(&[&arguments[..], &["--json"]].concat()).expect(0).json_lines();
        assert_eq!(rows.len(), 2, "{tower}");
        for (row, batch) in rows.iter().zip([1, 3]) {
            assert_eq!((row["batch"].as_u64(), row["tower"].as_str()), (Some(batch), Some(tower)));
            let number = |name: &str| row[name].as_f64().unwrap();
            assert!(number("median_per_second") > 0.0 && number("median_per_second") <= number("best_per_second"));
            assert!(number("gflops") > 0.0 && number("peak_gflops") > 0.0 && number("peak_share") > 0.0);
            assert!(row["passes"].as_u64().unwrap() >= 3);
        }
        assert_eq!(openvision(&arguments).expect(0).stdout.lines().count(), 4, "{tower}");
    }
}

#[test]
fn bench_tells_where_the_time_goes() {
    for (tower, batch) in [("image", "1"), ("image", "4"), ("text", "1")] {
        let model = small_model();
        let arguments = ["bench", "-m", &model, "--batch", batch, "--seconds", "0.01", "--tower", tower, "-j", "2"];
        let rows = openvision(&[&arguments[..], &["--by-operation", "--json"]].concat()).expect(0).json_lines();
        let operations = rows[0]["operations"].as_array().unwrap();
        let names: Vec<_> = operations.iter().map(|row| row["operation"].as_str().unwrap()).collect();
        for name in ["norm, q k v", "attention", "output projection", "norm, mlp expand", "mlp contract", "pooling"] {
            assert!(names.contains(&name), "{tower}: no '{name}' in {names:?}");
        }
        assert_eq!(names.contains(&"patches"), tower == "image");
        let shares: f64 = operations.iter().map(|row| row["share"].as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 0.01, "{tower}: the shares add up to {shares}");
        let product = operations.iter().find(|row| row["operation"] == "mlp contract").unwrap();
        assert!(product["gflops"].as_f64().unwrap() > 0.0 && product["milliseconds"].as_f64().unwrap() > 0.0);
        let text = openvision(&[&arguments[..], &["--by-operation"]].concat()).expect(0).stdout;
        assert_eq!(text.lines().count(), 3 + operations.len(), "{text}");
    }
}

#[test]
fn bench_takes_several_models_precisions_and_a_size() {
    let model = small_model();
    let arguments =
        ["bench", &model, &model, "--precisions", "f32,bf16", "--batch", "1", "--seconds", "0.01", "--json"];
    let rows = openvision(&arguments).expect(0).json_lines();
    let precisions: Vec<_> = rows.iter().map(|row| row["precision"].as_str().unwrap()).collect();
    assert_eq!(precisions, ["f32", "bf16", "f32", "bf16"]);
    let larger = openvision(&[&arguments[..], &["--image-size", "64"]].concat()).expect(0).json_lines();
    // The work of a picture is GFLOP/s by pictures a second: more of it with more patches.
    let work = |row: &serde_json::Value| row["gflops"].as_f64().unwrap() / row["median_per_second"].as_f64().unwrap();
    assert!(work(&larger[0]) > 1.5 * work(&rows[0]), "{} {}", larger[0], rows[0]);
    openvision(&["bench", &model, "--serve-stdin"]).expect(2);
    openvision(&["bench", &model, "--precisions", "f31"]).expect(2);
    openvision(&["bench", &model, "--image-size", "33x"]).expect(2);
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let model = small_model();
    openvision(&["bench", "-m", &model, "--batch", "0"]).expect(2);
    openvision(&["bench", "-m", &model, "--seconds", "0"]).expect(2);
    openvision(&["bench", "-m", &model, "--seconds", "nan"]).expect(2);
}

#[test]
fn bench_answers_the_peers_script_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let pixels = folder.path().join("pixels.f32");
    let shown = openvision(&["models", "show", &small_model(), "--json"]).expect(0).json_lines().remove(0);
    let side = |i: usize| shown["image_size"][i].as_u64().unwrap() as usize;
    let one = 3 * side(0) * side(1);
    let bytes: Vec<u8> = (0..2 * one).flat_map(|i| ((i % 7) as f32 * 0.1).to_le_bytes()).collect();
    std::fs::write(&pixels, &bytes).unwrap();
    let broken = folder.path().join("broken.f32");
    std::fs::write(&broken, &bytes[..bytes.len() - 1]).unwrap();
    let mut bench = command(&["bench", "--serve-stdin", "-m", &small_model()]);
    let mut bench = bench.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let requests =
        format!("input {}\nembed\nrun 2 3\ninput {}\nrun 2\nfly\nrun 1 1\nabout\n", pixels.display(), broken.display());
    bench.stdin.take().unwrap().write_all(requests.as_bytes()).unwrap();
    let answers = crate::support::Ran::from(bench.wait_with_output().unwrap()).expect(0).json_lines();
    assert_eq!(answers.len(), 8);
    assert_eq!(answers[0]["inputs"], 2);
    let width = shown["embed_dim"].as_u64().unwrap() as usize;
    assert_eq!(answers[1]["embeddings"].as_array().unwrap().len(), 2 * width);
    assert_eq!(answers[2]["seconds"].as_array().unwrap().len(), 3);
    for bad in &answers[3..6] {
        assert!(bad["error"].is_string(), "{bad}");
    }
    assert_eq!(answers[6]["seconds"].as_array().unwrap().len(), 1);
    assert_eq!((answers[7]["tower"].as_str(), answers[7]["precision"].as_str()), (Some("image"), Some("f32")));
}

#[test]
fn bench_takes_ids_for_a_text_tower() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ids.u32");
    let config = std::fs::read(std::path::Path::new(&small_model()).join("open_clip_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let config = &config["model_cfg"];
    let context = config["text_cfg"]["context_length"].as_u64().unwrap() as usize;
    let bytes: Vec<u8> = (0..2 * context).flat_map(|i| (1 + i as u32 % 7).to_le_bytes()).collect();
    std::fs::write(&file, &bytes).unwrap();
    let mut bench = command(&["bench", "--serve-stdin", "--tower", "text", "-m", &small_model()]);
    let mut bench = bench.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    bench.stdin.take().unwrap().write_all(format!("input {}\nembed\nrun 2 1\n", file.display()).as_bytes()).unwrap();
    let answers = crate::support::Ran::from(bench.wait_with_output().unwrap()).expect(0).json_lines();
    assert_eq!(answers[0]["inputs"], 2);
    assert_eq!(answers[1]["embeddings"].as_array().unwrap().len(), 2 * config["embed_dim"].as_u64().unwrap() as usize);
    assert_eq!(answers[2]["seconds"].as_array().unwrap().len(), 1);
}

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
        format!("input {}\nembed\nrun 2 3\ninput {}\nrun 2\nfly\nrun 1 1\n", pixels.display(), broken.display());
    bench.stdin.take().unwrap().write_all(requests.as_bytes()).unwrap();
    let answers = crate::support::Ran::from(bench.wait_with_output().unwrap()).expect(0).json_lines();
    assert_eq!(answers.len(), 7);
    assert_eq!(answers[0]["inputs"], 2);
    let width = shown["embed_dim"].as_u64().unwrap() as usize;
    assert_eq!(answers[1]["embeddings"].as_array().unwrap().len(), 2 * width);
    assert_eq!(answers[2]["seconds"].as_array().unwrap().len(), 3);
    for bad in &answers[3..6] {
        assert!(bad["error"].is_string(), "{bad}");
    }
    assert_eq!(answers[6]["seconds"].as_array().unwrap().len(), 1);
}

//! `openvision embed`.

use crate::support::{command, floats, npy, openvision, photo, photo_count, photos, small_model, testdata, tiny_model};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

#[test]
fn a_folder_gives_one_unit_vector_a_picture_in_order() {
    let ran = openvision(&["embed", "-m", &small_model(), &photos(), "--json"]).expect(0);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), photo_count());
    let names: Vec<&str> = lines.iter().map(|line| line["input"].as_str().unwrap()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(names, sorted);
    for line in &lines {
        assert_eq!(line["kind"], "image");
        assert_eq!(line["fingerprint"].as_str().unwrap().len(), 32);
        let vector = floats(&line["embedding"]);
        assert_eq!(vector.len(), 48);
        assert!((vector.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn results_do_not_depend_on_threads_or_neighbours_or_set() {
    let alone = openvision(&["embed", "-m", &small_model(), &photo("china.jpg"), "--json"]).expect(0);
    for extra in [["--threads", "1"], ["--threads", "3"]] {
        let many = openvision(&[&["embed", "-m", &small_model(), &photos(), "--json"][..], &extra].concat()).expect(0);
        assert!(many.stdout.contains(alone.stdout.trim_end()), "{extra:?}");
    }
    for isa in openvision_kernels::Isa::present() {
        let mut command = command(&["embed", "-m", &small_model(), &photo("china.jpg"), "--json"]);
        let ran = crate::support::Ran::from(command.env("OPENVISION_ISA", isa.name()).output().unwrap()).expect(0);
        assert_eq!(ran.stdout, alone.stdout, "{}", isa.name());
    }
    let mut command = command(&["embed", "-m", &small_model(), &photo("china.jpg")]);
    let ran = crate::support::Ran::from(command.env("OPENVISION_ISA", "mmx").output().unwrap()).expect(1);
    assert!(ran.stderr.contains("'mmx' is not available here"), "{}", ran.stderr);
}

#[test]
fn lists_on_standard_input_patterns_and_single_files() {
    let (china, coffee) = (photo("china.jpg"), photo("coffee.jpg"));
    let wanted = openvision(&["embed", "-m", &small_model(), &china, &coffee, "--json"]).expect(0).stdout;
    for (list, null) in [(format!("{china}\n{coffee}\n"), None), (format!("{china}\0{coffee}\0"), Some("-0"))] {
        let model = small_model();
        let arguments: Vec<&str> = [&["embed", "-m", &model, "-", "--json"][..], null.as_slice()].concat();
        let mut child =
            command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
        let ran = crate::support::Ran::from(child.wait_with_output().unwrap()).expect(0);
        assert_eq!(ran.stdout, wanted);
    }
    let pattern = photo("c[ho]*.jpg");
    let ran = openvision(&["embed", "-m", &small_model(), &pattern, "--json"]).expect(0);
    assert!(ran.stdout.contains("china.jpg") && ran.stdout.contains("coffee.jpg") && !ran.stdout.contains("rocket"));
}

#[test]
fn files_in_every_format_hold_the_same_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let lines = openvision(&["embed", "-m", &small_model(), &photos(), "--json"]).expect(0).json_lines();
    let wanted: Vec<f32> = lines.iter().flat_map(|line| floats(&line["embedding"])).collect();
    for name in ["v.npy", "v.npz", "v.jsonl"] {
        let out = at(name).display().to_string();
        openvision(&["embed", "-m", &small_model(), &photos(), "--out", &out]).expect(0);
    }
    let (shape, values) = npy(&std::fs::read(at("v.npy")).unwrap());
    assert_eq!((shape, &values), (vec![lines.len(), 48], &wanted));
    let about: Value = serde_json::from_slice(&std::fs::read(at("v.npy.json")).unwrap()).unwrap();
    assert_eq!(about["inputs"][0]["input"], lines[0]["input"]);
    assert_eq!(about["meta"]["fingerprints"]["image"], lines[0]["fingerprint"]);
    let mut zip = zip::ZipArchive::new(std::fs::File::open(at("v.npz")).unwrap()).unwrap();
    let mut bytes = Vec::new();
    std::io::copy(&mut zip.by_name("embeddings.npy").unwrap(), &mut bytes).unwrap();
    assert_eq!(npy(&bytes).1, wanted);
    for column in ["inputs.npy", "kinds.npy", "fingerprints.npy"] {
        let mut bytes = Vec::new();
        std::io::copy(&mut zip.by_name(column).unwrap(), &mut bytes).unwrap();
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00") && String::from_utf8_lossy(&bytes[..128]).contains("'<U"));
    }
    let text = std::fs::read_to_string(at("v.jsonl")).unwrap();
    let stored: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(stored, lines);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "no journal or temporary file is left");
}

#[test]
fn broken_inputs_are_named_and_the_rest_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.jpg");
    std::fs::write(&broken, b"not a picture").unwrap();
    let (broken, missing) = (broken.display().to_string(), folder.path().join("missing.png").display().to_string());
    let out = folder.path().join("v.npz").display().to_string();
    let ran = openvision(&["embed", "-m", &small_model(), &broken, &photo("china.jpg"), &missing, "--json"]).expect(3);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["error"]["code"], "unsupported");
    assert_eq!(floats(&lines[1]["embedding"]).len(), 48);
    assert_eq!(lines[2]["error"]["code"], "not_found");
    assert!(ran.stderr.contains("broken.jpg") && ran.stderr.contains("missing.png"), "{}", ran.stderr);
    openvision(&["embed", "-m", &small_model(), &broken, &photo("china.jpg"), "--out", &out]).expect(3);
    assert!(std::path::Path::new(&out).exists());
}

#[test]
fn merged_tokens_and_scaled_decoding_are_close_and_told_apart() {
    let embed = |options: &[&str]| {
        let model = small_model();
        openvision(&[&["embed", "-m", &model, &photo("china.jpg"), "--json"], options].concat()).expect(0).json_lines()
    };
    let plain = embed(&[]);
    for options in [&["--merge-tokens", "2"][..], &["--scaled-decode=1"], &["--scaled-decode"]] {
        let other = embed(options);
        assert_ne!(other[0]["fingerprint"], plain[0]["fingerprint"], "{options:?}");
        let (a, b) = (floats(&plain[0]["embedding"]), floats(&other[0]["embedding"]));
        let cosine: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        assert!(a != b && cosine > 0.9, "{options:?} {cosine}");
    }
    let tokens = ["embed", "-m", &small_model(), &photo("china.jpg"), "--merge-tokens", "2", "--tokens", "-1"];
    let refused = openvision(&tokens).expect(2);
    assert!(refused.stderr.contains("for embeddings only"), "{}", refused.stderr);
    openvision(&["embed", "-m", &small_model(), &photo("china.jpg"), "--scaled-decode=9"]).expect(2);
}

#[test]
fn equal_texts_give_equal_rows_in_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("texts.txt");
    std::fs::write(&list, "a dog\na cat\na dog\na bird\na bird\na cat\n").unwrap();
    let list = list.display().to_string();
    let lines = openvision(&["embed", "-m", &tiny_model(), "--texts", &list, "--json"]).expect(0).json_lines();
    let inputs: Vec<&str> = lines.iter().map(|line| line["input"].as_str().unwrap()).collect();
    assert_eq!(inputs, ["a dog", "a cat", "a dog", "a bird", "a bird", "a cat"]);
    for (row, original) in [(2, 0), (4, 3), (5, 1)] {
        assert_eq!(lines[row]["embedding"], lines[original]["embedding"]);
    }
    assert_ne!(lines[0]["embedding"], lines[1]["embedding"]);
}

#[test]
fn usage_errors_say_what_to_do() {
    let (model, china) = (small_model(), photo("china.jpg"));
    let cases: [(&[&str], i32, &str); 7] = [
        (&["embed", &china], 2, "OPENVISION_MODEL"),
        (&["embed", "-m", &model], 2, "no inputs"),
        (&["embed", "-m", &model, &china, "--out", "v.csv"], 2, ".npy, .npz, .jsonl, .parquet, .arrow or .feather"),
        (&["embed", "-m", &model, &china, "--threads", "0"], 2, "--threads 0"),
        (&["embed", "-m", &model, &china, "--tokens", "9"], 2, "layers 0 to 2"),
        (&["embed", "-m", "openvison/tiny-16", &china], 1, "openvision/tiny-16-160"),
        (&["embed", "-m", "clip/vit-b-32", &china], 1, "not on this machine"),
    ];
    for (arguments, code, part) in cases {
        let ran = openvision(arguments).expect(code);
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn texts_from_a_file_and_from_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts.txt");
    std::fs::write(&file, format!("a dog\n\na red bicycle\n{}\n", "very ".repeat(200))).unwrap();
    let path = file.display().to_string();
    let ran = openvision(&["embed", "-m", &tiny_model(), "--texts", &path, "--json"]).expect(0);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["input"], &lines[0]["kind"]), (&"a dog".into(), &"text".into()));
    assert!(ran.stderr.contains("1 text(s) were longer"), "{}", ran.stderr);
    let stdin = std::fs::File::open(&file).unwrap();
    let piped = command(&["embed", "-m", &tiny_model(), "--texts", "-", "--json"]).stdin(stdin).output().unwrap();
    assert_eq!(crate::support::Ran::from(piped).expect(0).stdout, ran.stdout);
    // Pictures and texts may share a file; the JAX reading of a text is another fingerprint.
    let both = openvision(&["embed", "-m", &tiny_model(), &photo("china.jpg"), "--texts", &path, "--json"]).expect(0);
    assert_eq!(both.json_lines().len(), 4);
    let jax = openvision(&["embed", "-m", &tiny_model(), "--texts", &path, "--jax-texts", "--json"]).expect(0);
    assert_eq!(jax.json_lines()[0]["embedding"], lines[0]["embedding"], "plain ASCII is read alike");
    assert_ne!(jax.json_lines()[0]["fingerprint"], lines[0]["fingerprint"]);
}

/// A SigLIP folder whose tokenizer is beside the weights: the golden model and a sentencepiece model of 300 pieces.
#[test]
fn siglip_texts_by_the_tokenizer_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["config.json", "model.safetensors", "preprocessor_config.json"] {
        std::fs::copy(testdata().join("goldens/hf-siglip").join(name), at(name)).unwrap();
    }
    std::fs::write(at("texts.txt"), "A photo of a cat!\na photo of a_cat\n  a PHOTO of a   cat\na dog\n").unwrap();
    let (model, texts) = (folder.path().display().to_string(), at("texts.txt").display().to_string());
    let embed = || openvision(&["embed", "-m", &model, "--texts", &texts, "--json"]);
    let ran = embed().expect(1);
    for name in ["tokenizer.json", "spiece.model", "tokenizer.model"] {
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
    }

    let goldens = testdata().join("goldens/tokens");
    std::fs::copy(goldens.join("model/siglip.model"), at("spiece.model")).unwrap();
    let lines = embed().expect(0).json_lines();
    assert_eq!(lines[0]["embedding"].as_array().unwrap().len(), 64);
    // Case and punctuation do not count; "_" is dropped, not made a space; another text is another vector.
    assert_ne!(lines[1]["embedding"], lines[0]["embedding"]);
    assert_ne!(lines[3]["embedding"], lines[0]["embedding"]);
    let shown = openvision(&["models", "show", &model, "--json"]).expect(0).json_lines().remove(0);
    let tokenizer = shown["tokenizer"].as_str().unwrap();
    assert!(tokenizer.contains("sentencepiece unigram of 300"), "{tokenizer}");

    // The fingerprint covers the tokenizer.
    std::fs::write(
        at("tokenizer_config.json"),
        r#"{"tokenizer_class": "Siglip2Tokenizer", "eos_token": "</s>", "pad_token": "<pad>"}"#,
    )
    .unwrap();
    let other = embed().expect(0).json_lines();
    assert_ne!(other[0]["fingerprint"], lines[0]["fingerprint"]);
    std::fs::write(at("spiece.model"), "damaged").unwrap();
    let ran = embed().expect(1);
    assert!(ran.stderr.contains("spiece.model: not a sentencepiece model"), "{}", ran.stderr);
}

#[test]
fn tokens_of_a_layer_and_raw_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("t.npy").display().to_string();
    let china = photo("china.jpg");
    let read = |extra: &[&str]| {
        let _ = std::fs::remove_file(&out);
        openvision(&[&["embed", "-m", &small_model(), &china, "--out", &out][..], extra].concat()).expect(0);
        npy(&std::fs::read(&out).unwrap())
    };
    let (shape, last) = read(&["--tokens", "-1"]);
    assert_eq!(shape, [1, 16, 64]);
    assert_eq!(read(&["--tokens", "2"]).1, last);
    assert_ne!(read(&["--tokens", "-2"]).1, last);
    let (_, normed) = read(&["--tokens", "-1", "--final-norm"]);
    // The golden's final norm has gains and shifts, so rows are not of unit variance, but they differ from before.
    assert_ne!(normed, last);
    assert_eq!(read(&["--tokens", "-1", "--threads", "1"]).1, last);
    let raw = read(&["--raw"]).1;
    let unit = read(&[]).1;
    let norm = raw.iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!(raw.iter().zip(&unit).all(|(raw, unit)| (raw / norm - unit).abs() < 1e-6) && (norm - 1.0).abs() > 0.01);
}

#[test]
fn another_size_recomputes_positions() {
    for size in ["48", "24x40"] {
        let ran = openvision(&["embed", "-m", &small_model(), &photo("china.jpg"), "--image-size", size, "--json"]);
        assert_eq!(floats(&ran.expect(0).json_lines()[0]["embedding"]).len(), 48);
    }
    openvision(&["embed", "-m", &small_model(), &photo("china.jpg"), "--image-size", "7"]).expect(1);
    openvision(&["embed", "-m", &small_model(), &photo("china.jpg"), "--image-size", "big"]).expect(2);
}

/// Ctrl-C in the middle of a run: code 130, nothing under the final name, `--resume` gives what an uninterrupted run does.
#[cfg(unix)]
#[test]
fn ctrl_c_keeps_finished_work_and_resume_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("many");
    std::fs::create_dir(&pictures).unwrap();
    for i in 0..400 {
        let name = if i % 2 == 0 { "chelsea.png" } else { "coffee.jpg" };
        std::fs::copy(photo(name), pictures.join(format!("{i:03}.png"))).unwrap();
    }
    let pictures = pictures.display().to_string();
    let (whole, cut) = (folder.path().join("whole.npy"), folder.path().join("cut.npy"));
    let model = small_model();
    let arguments = |out: &std::path::Path| {
        let out = out.display().to_string();
        ["embed", "-m", &model, &pictures, "--out", &out].map(str::to_owned).to_vec()
    };
    let run = |out: &std::path::Path, extra: &[&str]| {
        let all: Vec<String> = arguments(out).into_iter().chain(extra.iter().map(|e| (*e).to_owned())).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut command = command(&all);
        command.stderr(Stdio::piped());
        command
    };
    for signal in ["-INT", "-KILL"] {
        let child = run(&cut, if signal == "-INT" { &[] } else { &["--resume"] }).spawn().unwrap();
        let rows = folder.path().join("cut.npy.partial/rows.f32");
        let before = std::fs::metadata(&rows).map_or(0, |m| m.len());
        while std::fs::metadata(&rows).map_or(0, |m| m.len()) <= before {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert!(std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        if signal == "-INT" {
            assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(String::from_utf8_lossy(&output.stderr).contains("--resume"));
        }
        assert!(!cut.exists(), "nothing under the final name after {signal}");
    }
    let silent = crate::support::Ran::from(run(&cut, &[]).output().unwrap()).expect(1);
    assert!(silent.stderr.contains("--resume"), "{}", silent.stderr);
    let resumed = crate::support::Ran::from(run(&cut, &["--resume"]).output().unwrap()).expect(0);
    assert!(resumed.stderr.contains("from an earlier run"), "{}", resumed.stderr);
    crate::support::Ran::from(run(&whole, &[]).output().unwrap()).expect(0);
    assert_eq!(std::fs::read(&cut).unwrap(), std::fs::read(&whole).unwrap());
    let inputs = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(inputs("cut.npy.json") == inputs("whole.npy.json"), "the order of the inputs");
    assert!(!folder.path().join("cut.npy.partial").exists());
}

/// An input that is named twice has two rows, after an interruption between them too.
#[test]
fn resume_counts_inputs_that_are_named_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (once, twice) = (photo("china.jpg"), at("twice.npy"));
    let run = |out: &str, inputs: &[&str], extra: &[&str]| {
        let model = small_model();
        openvision(&[&["embed", "-m", &model, "--out", out], inputs, extra].concat()).expect(0)
    };
    run(&twice, &[&once, &once, &photo("coffee.jpg")], &[]);
    run(&at("first.npy"), &[&once], &[]);
    // What a run leaves that was killed after its first row.
    let ended = at("cut.npy");
    std::fs::create_dir(at("cut.npy.partial")).unwrap();
    let (_, row) = npy(&std::fs::read(at("first.npy")).unwrap());
    let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(at("cut.npy.partial/rows.f32"), bytes).unwrap();
    let entry = serde_json::json!({ "kind": "image", "input": once });
    std::fs::write(at("cut.npy.partial/inputs.jsonl"), format!("{entry}\n")).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(at("first.npy.json")).unwrap()).unwrap();
    let meta = serde_json::json!({
        "version": 1, "shape": [48], "content": "unit", "fingerprints": { "image": facts["meta"]["fingerprints"]["image"] },
    });
    std::fs::write(at("cut.npy.partial/meta.json"), meta.to_string()).unwrap();
    run(&ended, &[&once, &once, &photo("coffee.jpg")], &["--resume"]);
    assert_eq!(std::fs::read(&ended).unwrap(), std::fs::read(&twice).unwrap());
}

/// A journal of another model is refused by name.
#[test]
fn resume_refuses_another_model() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("v.npz");
    let partial = folder.path().join("v.npz.partial");
    std::fs::create_dir(&partial).unwrap();
    let meta = r#"{"version":1,"shape":[48],"content":"unit","fingerprints":{"image":"0000"}}"#;
    std::fs::write(partial.join("meta.json"), meta).unwrap();
    let out = out.display().to_string();
    let ran = openvision(&["embed", "-m", &small_model(), &photos(), "--out", &out, "--resume"]).expect(1);
    assert!(ran.stderr.contains("another model"), "{}", ran.stderr);
}

#[cfg(target_os = "linux")]
fn full() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A disk that takes no more: a clear error, and what was written stays usable.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("v.npy").display().to_string();
    let (program, model, photos) = (env!("CARGO_BIN_EXE_openvision"), small_model(), photos());
    // Files may not grow beyond 1 KiB: the fifth vector of 192 bytes does not fit any more.
    let script = format!("ulimit -f 1; trap '' XFSZ; '{program}' embed -m '{model}' '{photos}' --out '{out}'");
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let ran = crate::support::Ran::from(output).expect(1);
    assert!(ran.stderr.contains("rows.f32") || ran.stderr.contains("inputs.jsonl"), "{}", ran.stderr);
    assert!(!std::path::Path::new(&out).exists());
    for what in [&["list"][..], &["show", &small_model()], &["verify", &small_model()]] {
        let mut command = command(&[&["models"], what].concat());
        let ran = crate::support::Ran::from(command.stdout(full()).output().unwrap()).expect(1);
        assert!(ran.stderr.contains("standard output"), "{}", ran.stderr);
    }
    openvision(&["embed", "-m", &small_model(), &photos, "--out", &out, "--resume"]).expect(0);
    assert_eq!(npy(&std::fs::read(&out).unwrap()).0, [photo_count(), 48]);
}

/// `openvision ... | head` ends quietly.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    let script = format!(
        "'{}' embed -m '{}' '{}' --json | head -n 1; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_openvision"),
        small_model(),
        photos()
    );
    let ran = crate::support::Ran::from(std::process::Command::new("bash").args(["-c", &script]).output().unwrap());
    assert!(ran.expect(0).stderr.is_empty());
}

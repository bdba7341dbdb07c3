//! Hostile pictures and checkpoints through the program: verdicts, no signal, bounded memory, the batch goes on.

use crate::support::{Ran, openvision, photo, shared, small_model, testdata};
use serde_json::Value;
use std::path::Path;

fn verdicts(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("verdicts.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs the program with at most 1 GiB of address space beyond nothing: one thread, small model.
fn limited(arguments: &[&str]) -> Ran {
    let quoted: Vec<String> = arguments.iter().map(|a| format!("'{a}'")).collect();
    let script = format!("ulimit -v 1048576; exec '{}' {}", env!("CARGO_BIN_EXE_openvision"), quoted.join(" "));
    std::process::Command::new("sh").args(["-c", &script]).output().unwrap().into()
}

#[test]
fn all_hostile_pictures_in_one_batch_under_one_gibibyte() {
    let folder = match shared() {
        Some(shared) => shared.join("data/hostile"),
        None => testdata().join("images/hostile"),
    };
    let list = tempfile::NamedTempFile::new().unwrap();
    let verdicts: Vec<Value> =
        verdicts(&folder).into_iter().filter(|v| folder.join(v["file"].as_str().unwrap()).is_file()).collect();
    assert!(verdicts.len() > 100);
    let mut paths: Vec<String> =
        verdicts.iter().map(|v| folder.join(v["file"].as_str().unwrap()).display().to_string()).collect();
    // A good picture at the end shows that nothing before it ended the run.
    paths.push(photo("china.jpg"));
    std::fs::write(list.path(), paths.join("\n")).unwrap();
    let script = format!(
        "ulimit -v 1048576; exec '{}' embed -m '{}' - --json --as-published --threads 1 < '{}'",
        env!("CARGO_BIN_EXE_openvision"),
        small_model(),
        list.path().display()
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let ran = Ran::from(output).expect(3);
    let lines = ran.json_lines();
    assert_eq!(lines.len(), verdicts.len() + 1);
    for (verdict, line) in verdicts.iter().zip(&lines) {
        let (wanted, got) = (verdict["expect"].as_str().unwrap(), line.get("error").is_none());
        let also = verdict["also_ok"] == true || !matches!(verdict["also_ok"], Value::Null | Value::Bool(false));
        assert!((wanted == "decode") == got || also, "{verdict} {line}");
    }
    assert!(lines.last().unwrap().get("embedding").is_some());
}

#[test]
fn hostile_checkpoints_are_refused_by_name_and_run_nothing() {
    let folder = testdata().join("corrupt/models");
    let marker = Path::new("/tmp/openvision_hostile_pickle_ran");
    let _ = std::fs::remove_file(marker);
    let mut seen = 0;
    for verdict in verdicts(&folder) {
        let file = folder.join(verdict["file"].as_str().unwrap());
        if !file.is_file() {
            continue;
        }
        seen += 1;
        let started = std::time::Instant::now();
        let ran = limited(&["models", "verify", &file.display().to_string(), "--json", "--threads", "1"]);
        // None of them is a whole model, so none verifies; what counts is how they are refused.
        let ran = ran.expect(1);
        let report = &ran.json_lines()[0];
        assert_eq!(report["ok"], false);
        assert!(!report["problems"].as_array().unwrap().is_empty(), "{verdict}");
        assert!(started.elapsed().as_secs() < 10, "{verdict}");
    }
    assert!(seen > 50, "{seen} files");
    assert!(!marker.exists(), "a pickle ran");
}

#[test]
fn a_pickle_that_calls_the_system_is_refused_with_that_name() {
    let folder = testdata().join("corrupt/models");
    let file = folder.join("pt-os-system.pt");
    let file = if file.is_file() { file } else { find_system_call(&folder) };
    let ran = openvision(&["embed", "-m", &file.display().to_string(), &photo("china.jpg")]).expect(1);
    assert!(ran.stderr.contains("system"), "{}", ran.stderr);
}

fn find_system_call(folder: &Path) -> std::path::PathBuf {
    let verdicts = verdicts(folder);
    let found = verdicts.iter().find(|v| v["why"].as_str().is_some_and(|why| why.contains("os.system")));
    folder.join(found.unwrap()["file"].as_str().unwrap())
}

#[test]
fn hostile_configurations_are_refused_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let weights = testdata().join("goldens/openvision-tiny/open_clip_model.safetensors");
    std::fs::copy(weights, folder.path().join("open_clip_model.safetensors")).unwrap();
    let cases = [
        ("config-heads-not-dividing.json", "head"),
        ("config-image-size-huge.json", "image"),
        ("config-layers-huge.json", "layers"),
        ("config-patch-zero.json", "patch"),
        // Its mean is wrong too, and comes first.
        ("config-std-zero.json", "mean"),
        ("config-width-zero.json", "width"),
    ];
    for (file, field) in cases {
        let config = testdata().join("corrupt/models").join(file);
        let target = folder.path().join("open_clip_config.json");
        let _ = std::fs::remove_file(&target);
        std::fs::write(&target, std::fs::read(config).unwrap()).unwrap();
        let ran = limited(&["embed", "-m", &folder.path().display().to_string(), &photo("china.jpg")]).expect(1);
        assert!(ran.stderr.contains(field), "{file}: {}", ran.stderr);
    }
}

//! Pictures inside other files: `.tar` shards.

use crate::support::{Ran, openvision, photo, photos, small_model, tiny_model};
use openvision_io::data::shard::ShardWriter;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The photographs, sorted by name: path, name up to its dot, ending.
fn pictures() -> Vec<(PathBuf, String, String)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(photos()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e != "md"));
    files.sort();
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap().to_str().unwrap().to_owned();
    files.into_iter().map(|path| (path.clone(), part(path.file_stem()), part(path.extension()))).collect()
}

/// A shard of all photographs with a caption each.
fn shard(path: &Path) {
    let mut writer = ShardWriter::create(path).unwrap();
    for (file, key, ending) in pictures() {
        let picture = std::fs::read(file).unwrap();
        writer.write_sample(&key, &[(&ending, &picture), ("txt", b"a caption")]).unwrap();
    }
    writer.finish().unwrap();
}

/// What two runs must agree in: everything but the names.
fn vectors(ran: &Ran) -> Vec<(Value, Value)> {
    ran.json_lines().into_iter().map(|line| (line["embedding"].clone(), line["fingerprint"].clone())).collect()
}

#[test]
fn a_shard_gives_what_its_files_give() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photos.tar");
    shard(&path);
    let tar = path.display().to_string();
    let wanted = openvision(&["embed", "-m", &small_model(), &photos(), "--json"]).expect(0);
    let got = openvision(&["embed", "-m", &small_model(), &tar, "--json"]).expect(0);
    assert_eq!(vectors(&got), vectors(&wanted));
    let names: Vec<String> = got.json_lines().iter().map(|l| l["input"].as_str().unwrap().to_owned()).collect();
    let inside: Vec<String> = pictures().iter().map(|(_, key, ending)| format!("{tar}/{key}.{ending}")).collect();
    assert_eq!(names, inside);
    // Shards mix with files, come from patterns, and work for the other commands.
    let pattern = folder.path().join("*.tar").display().to_string();
    let mixed = openvision(&["embed", "-m", &small_model(), &photo("china.jpg"), &pattern, "--json"]).expect(0);
    assert_eq!(vectors(&mixed)[1..], vectors(&wanted)[..]);
    let labels = ["-l", "dog,cat", "--json"];
    let sorted = openvision(&[&["classify", "-m", &tiny_model(), &tar], &labels[..]].concat()).expect(0);
    assert_eq!(sorted.json_lines().len(), inside.len());
    let ranked = openvision(&["rank", "-m", &small_model(), "--image", &photo("china.jpg"), &tar, "--json"]).expect(0);
    assert_eq!(ranked.json_lines()[0]["input"], format!("{tar}/china.jpg"));
}

#[test]
fn a_broken_shard_gives_what_is_whole_and_says_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    shard(at("whole.tar").as_ref());
    let bytes = std::fs::read(at("whole.tar")).unwrap();
    std::fs::write(at("cut.tar"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(at("packed.tar.gz"), b"\x1F\x8B\x08\0").unwrap();
    std::fs::write(at("text.tar"), b"not an archive").unwrap();
    let whole = openvision(&["embed", "-m", &small_model(), &at("whole.tar"), "--json"]).expect(0).json_lines();
    let inputs = [at("cut.tar"), at("packed.tar.gz"), at("text.tar"), at("missing.tar")];
    let arguments: Vec<&str> = ["embed", "-m"]
        .into_iter()
        .chain([small_model().leak() as &str])
        .chain(inputs.iter().map(String::as_str))
        .collect();
    let ran = openvision(&[&arguments[..], &["--json"]].concat()).expect(3);
    let lines = ran.json_lines();
    let good = lines.iter().filter(|line| line.get("error").is_none()).count();
    assert!(good > 0 && good < whole.len());
    for (got, want) in lines.iter().zip(&whole).take(good) {
        assert_eq!(got["embedding"], want["embedding"]);
    }
    let errors: Vec<(&str, &str)> = lines[good..]
        .iter()
        .map(|line| (line["input"].as_str().unwrap(), line["error"]["code"].as_str().unwrap()))
        .collect();
    let codes = ["truncated", "unsupported", "unsupported", "not_found"];
    assert_eq!(errors, inputs.iter().map(String::as_str).zip(codes).collect::<Vec<_>>());
    for message in ["cut.tar: cut off at byte", "gunzip", "text.tar: is not a tar archive", "4 input(s) failed"] {
        assert!(ran.stderr.contains(message), "{message}: {}", ran.stderr);
    }
}

/// A journal names entries; what it has is not computed again.
#[test]
fn resume_goes_on_inside_a_shard() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    shard(at("p.tar").as_ref());
    let bytes = std::fs::read(at("p.tar")).unwrap();
    let embed = |out: &str, extra: &[&str]| {
        openvision(&[&["embed", "-m", &small_model(), &at("p.tar"), "--out", out][..], extra].concat())
    };
    embed(&at("whole.npz"), &[]).expect(0);
    // A run over a cut shard that cannot finish its file keeps its journal: here, the final name is a folder.
    std::fs::write(at("p.tar"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::create_dir(at("v.npz")).unwrap();
    embed(&at("v.npz"), &[]).expect(1);
    std::fs::remove_dir(at("v.npz")).unwrap();
    std::fs::write(at("p.tar"), &bytes).unwrap();
    let resumed = embed(&at("v.npz"), &["--resume"]).expect(0);
    assert!(!resumed.stderr.contains("(0 from an earlier run)"), "{}", resumed.stderr);
    assert_eq!(std::fs::read(at("v.npz")).unwrap(), std::fs::read(at("whole.npz")).unwrap());
}

/// Two entries of one name are two inputs; control characters do not reach the terminal.
#[test]
fn odd_names_are_labels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.tar");
    let mut writer = ShardWriter::create(&path).unwrap();
    let picture = std::fs::read(photo("china.jpg")).unwrap();
    for key in ["../../up", "../../up", "a\u{1b}[31m", "._up"] {
        let written = writer.write_sample(key, &[("jpg", &picture)]);
        assert_eq!(written.is_ok(), key != "._up");
    }
    writer.finish().unwrap();
    let lines =
        openvision(&["embed", "-m", &small_model(), &path.display().to_string(), "--json"]).expect(0).json_lines();
    let names: Vec<&str> =
        lines.iter().map(|l| l["input"].as_str().unwrap().rsplit("odd.tar/").next().unwrap()).collect();
    assert_eq!(names, ["../../up.jpg", "../../up.jpg#2", "a\u{fffd}[31m.jpg"]);
    assert!(!folder.path().parent().unwrap().join("up.jpg").exists());
}

/// The list of inputs may name shards, and memory does not grow with them: 200 MB of entries in 1 GiB less.
#[cfg(target_os = "linux")]
#[test]
fn a_large_shard_is_never_held_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.tar");
    let mut writer = ShardWriter::create(&path).unwrap();
    let padding = vec![0; 100 << 20];
    let picture = std::fs::read(photo("china.jpg")).unwrap();
    for key in ["1", "2", "3"] {
        writer.write_sample(key, &[("jpg", &picture), ("npy", &padding)]).unwrap();
    }
    writer.finish().unwrap();
    let script = format!(
        "echo '{}' | (ulimit -v 262144; exec '{}' embed -m '{}' - --json -j 1)",
        path.display(),
        env!("CARGO_BIN_EXE_openvision"),
        small_model()
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(Ran::from(output).expect(0).json_lines().len(), 3);
}

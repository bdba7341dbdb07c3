//! Pictures inside other files: `.tar` shards, Parquet tables; vectors as tables.

use crate::support::{Ran, floats, openvision, photo, photo_count, photos, small_model, testdata, tiny_model};
use openvision_io::data::parquet::{Column, Table};
use openvision_io::data::shard::ShardWriter;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Tables as pyarrow, DuckDB and Hugging Face's datasets write them, all of the same eleven rows; row 3 has no picture.
#[test]
fn tables_of_pictures_give_one_vector_a_row() {
    let table = |name: &str| testdata().join("formats").join(name).display().to_string();
    let mut first: Option<Vec<Value>> = None;
    for name in ["pyarrow-snappy.parquet", "pyarrow-v2-pages.parquet", "duckdb.parquet", "datasets.parquet"] {
        let file = table(name);
        let ran = openvision(&["embed", "-m", &small_model(), &file, "--json"]).expect(3);
        let lines = ran.json_lines();
        assert_eq!(lines.len(), 11, "{name}");
        for (row, line) in lines.iter().enumerate() {
            let label = if name == "datasets.parquet" { format!("{row}.png") } else { format!("{}", 100 + row) };
            let label = if name == "datasets.parquet" && row == 3 { String::new() } else { format!(":{label}") };
            assert_eq!(line["input"], format!("{file}#{row}{label}"));
        }
        assert_eq!(lines[3]["error"]["code"], "no_value");
        let vectors: Vec<Value> = lines.iter().map(|line| line["embedding"].clone()).collect();
        assert_eq!(*first.get_or_insert_with(|| vectors.clone()), vectors, "{name}");
    }
    let file = table("pyarrow-none.parquet");
    let named = openvision(&["embed", "-m", &small_model(), &file, "--column", "image", "--json"]).expect(3);
    assert_eq!(named.json_lines().len(), 11);
    let wrong = openvision(&["embed", "-m", &small_model(), &file, "--column", "caption"]).expect(3);
    assert!(wrong.stderr.contains("columns that do: image"), "{}", wrong.stderr);
    let packed = openvision(&["rank", "-m", &tiny_model(), "a dog", &table("pyarrow-brotli.parquet")]).expect(3);
    assert!(packed.stderr.contains("Brotli"), "{}", packed.stderr);
    let none = openvision(&["embed", "-m", &small_model(), "missing.parquet", "--json"]).expect(3);
    assert_eq!(none.json_lines()[0]["error"]["code"], "not_found");
}

#[test]
fn texts_come_from_a_column() {
    let table = testdata().join("formats/pyarrow-zstd.parquet").display().to_string();
    let lines = openvision(&["embed", "-m", &tiny_model(), "--texts", &table, "--json"]).expect(0).json_lines();
    let texts: Vec<&str> = lines.iter().map(|line| line["input"].as_str().unwrap()).collect();
    assert_eq!(texts, (0..11).map(|row| format!("caption {row}")).collect::<Vec<_>>());
    let wrong = openvision(&["embed", "-m", &tiny_model(), "--texts", &table, "--text-column", "text"]).expect(1);
    assert!(wrong.stderr.contains("there are: id, caption, image"), "{}", wrong.stderr);
}

/// Parquet and Arrow files hold the vectors of the other formats, after an interruption too. That pyarrow and DuckDB
/// read them so is checked by tools/peers/tables.py.
#[test]
fn tables_of_vectors_hold_what_json_says() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for extra in [&[][..], &["--tokens", "-1"]] {
        let embed = |more: &[&str]| {
            let model = small_model();
            openvision(&[&["embed", "-m", &model, &photos()], extra, more].concat()).expect(0)
        };
        let lines = embed(&["--json"]).json_lines();
        let flat = |line: &Value| match &line["embedding"][0] {
            Value::Array(_) => line["embedding"].as_array().unwrap().iter().flat_map(floats).collect(),
            _ => floats(&line["embedding"]),
        };
        let wanted: Vec<u8> = lines.iter().flat_map(flat).flat_map(f32::to_le_bytes).collect();
        for name in ["v.parquet", "v.arrow", "v.feather"] {
            let _ = std::fs::remove_file(at(name));
            embed(&["--out", &at(name)]);
            let bytes = std::fs::read(at(name)).unwrap();
            // One page, one batch: the values stand together.
            assert!(bytes.windows(wanted.len()).any(|part| part == wanted), "{name} {extra:?}");
        }
        assert_eq!(std::fs::read(at("v.arrow")).unwrap(), std::fs::read(at("v.feather")).unwrap());
        let table = Arc::new(Table::open(at("v.parquet").as_ref()).unwrap());
        assert_eq!(table.rows() as usize, photo_count());
        for (column, key) in ["input", "kind"].into_iter().enumerate() {
            let column = Column::new(Arc::clone(&table), column).unwrap();
            for (row, line) in lines.iter().enumerate() {
                assert_eq!(column.get(row as u64).unwrap().unwrap().text(), line[key]);
            }
        }
        let about: std::collections::HashMap<_, _> = table.metadata().iter().cloned().collect();
        assert_eq!(about["openvision.fingerprint.image"], lines[0]["fingerprint"]);
        assert_eq!(about["openvision.precision"], "f32");
        assert!(about["openvision.content"].starts_with(if extra.is_empty() { "unit" } else { "tokens of layer" }));
    }
}

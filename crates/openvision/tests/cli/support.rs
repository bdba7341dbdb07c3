//! Running the program.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").canonicalize().unwrap()
}

/// The folder of shared reference files beside a checkout, where there is one.
pub(crate) fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("OPENVISION_SHARED").map_or(beside, PathBuf::from);
    let there = folder.join("goldens").is_dir();
    if !there {
        println!("skipped: shared/ is not here");
    }
    there.then(|| folder.canonicalize().unwrap())
}

/// A run of the program: what it printed and how it ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            // A death by signal is a failure of the program whatever the test expects.
            code: output.status.code().unwrap_or_else(|| panic!("ended by a signal: {:?}", output.status)),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openvision"));
    command.args(arguments).env_remove("OPENVISION_MODEL").env_remove("HF_HOME").env("HF_HUB_CACHE", "/nonexistent");
    command
}

pub(crate) fn openvision(arguments: &[&str]) -> Ran {
    command(arguments).output().unwrap().into()
}

/// A small model of real structure: the recorded OpenVision golden, which encodes in a millisecond.
pub(crate) fn small_model() -> String {
    testdata().join("goldens/openvision-tiny").display().to_string()
}

/// A seeded Ti/16-160 with its own text layout, made once by the program itself.
pub(crate) fn tiny_model() -> String {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("tiny").display().to_string();
        openvision(&["models", "init", "openvision/tiny-16-160", &out, "--seed", "7"]).expect(0);
        folder
    });
    folder.path().join("tiny").display().to_string()
}

pub(crate) fn photos() -> String {
    testdata().join("images/photos").display().to_string()
}

pub(crate) fn photo(name: &str) -> String {
    testdata().join("images/photos").join(name).display().to_string()
}

/// Pictures in the folder of photographs.
pub(crate) fn photo_count() -> usize {
    std::fs::read_dir(photos()).unwrap().filter(|e| !e.as_ref().unwrap().path().ends_with("CREDITS.md")).count()
}

pub(crate) fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// Reads a float32 `.npy` of version 1.0: shape and values.
pub(crate) fn npy(bytes: &[u8]) -> (Vec<usize>, Vec<f32>) {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((10 + length) % 64, 0, "data are aligned");
    let head = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(head.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (") && head.ends_with('\n'), "{head}");
    let inner = head.split('(').nth(1).unwrap().split(')').next().unwrap();
    let shape: Vec<usize> = inner.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    let data = &bytes[10 + length..];
    let values: Vec<f32> = data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(values.len(), shape.iter().product::<usize>());
    (shape, values)
}

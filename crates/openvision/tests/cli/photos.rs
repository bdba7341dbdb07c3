//! File in, vector out: 852 real photographs against the peers' recorded embeddings (goldens/photos).
//!
//! The models have weights by formula and are written as checkpoints, so that the program itself does everything.

use crate::support::{floats, openvision, shared, testdata};
use openvision_io::weights::{Checkpoint, DType, SafeTensorsWriter, TensorInfo};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// u[i] of goldens/fullsize/README.md.
fn uniform(tag: &str, count: usize) -> impl Iterator<Item = f32> {
    let hash = tag.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (0..count as u64).map(move |i| {
        let mut z = hash.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        2.0 * ((z >> 40) as f32 / (1u64 << 24) as f32) - 1.0
    })
}

/// Writes a formula model as an open_clip folder.
fn write_formula_model(name: &str, folder: &Path, preprocess: Option<Value>) {
    let text = std::fs::read_to_string(testdata().join("goldens/fullsize/fill.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let entry = &all[name];
    let mut model = entry["model_cfg"].clone();
    model["quick_gelu"] = entry["quick_gelu"].clone();
    let mut config = json!({ "model_cfg": model });
    if let Some(preprocess) = preprocess {
        config["preprocess_cfg"] = preprocess;
    }
    std::fs::write(folder.join("open_clip_config.json"), config.to_string()).unwrap();
    let fill = entry["fill"].as_object().unwrap();
    let infos: Vec<TensorInfo> = fill
        .iter()
        .map(|(tensor, rule)| TensorInfo {
            name: tensor.clone(),
            dtype: DType::F32,
            shape: rule["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect(),
        })
        .collect();
    let path = folder.join("open_clip_model.safetensors");
    let mut writer = SafeTensorsWriter::create(&path, &BTreeMap::new(), &infos).unwrap();
    for info in &infos {
        let rule = &fill[&info.name];
        let values: Vec<f32> = if rule["sincos"] == true {
            let side = (info.shape[0] - 1).isqrt();
            openvision_model::positions::sin_cos_2d((side, side), info.shape[1])
        } else {
            let (scale, offset) = (rule["scale"].as_f64().unwrap() as f32, rule["offset"].as_f64().unwrap() as f32);
            uniform(&format!("{name}/{}", info.name), info.elements()).map(|u| offset + scale * u).collect()
        };
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        writer.write(&info.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// Recorded embeddings: keys and rows, widened to f32 and scaled to unit length again. All are in shared/, those of the
/// pictures of this repository in testdata/.
fn recorded(name: &str) -> Vec<(String, Vec<f32>)> {
    let goldens = shared().map_or_else(|| testdata().join("goldens"), |shared| shared.join("goldens"));
    let file = std::fs::File::open(goldens.join("photos").join(format!("{name}.npz"))).unwrap();
    let mut zip = zip::ZipArchive::new(file).unwrap();
    let mut read = |member: &str| {
        let mut bytes = Vec::new();
        std::io::copy(&mut zip.by_name(member).unwrap(), &mut bytes).unwrap();
        let length = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let head = String::from_utf8_lossy(&bytes[10..length]).into_owned();
        (head, bytes.split_off(length))
    };
    let (_, keys) = read("keys.npy");
    let keys: Vec<String> = keys
        .chunks_exact(96)
        .map(|key| String::from_utf8(key.iter().copied().take_while(|b| *b != 0).collect()).unwrap())
        .collect();
    let (head, unit) = read("unit.npy");
    let values: Vec<f32> = if head.contains("<f2") {
        let half = |b: &[u8]| openvision_io::weights::f16_to_f32(u16::from_le_bytes([b[0], b[1]]));
        unit.chunks_exact(2).map(half).collect()
    } else {
        unit.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let width = values.len() / keys.len();
    keys.into_iter()
        .zip(values.chunks(width))
        .map(|(key, row)| {
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            (key, row.iter().map(|v| v / norm).collect())
        })
        .collect()
}

/// References name what is in this shard by the shard, and so does the program.
const SHARD: &str = "labels/caltech101/test.tar";

/// Files by key: all that are no entries of the shard where shared/ is, else those that may be published.
fn pictures() -> HashMap<String, PathBuf> {
    let mut files = HashMap::new();
    let photos = testdata().join("images/photos");
    for entry in std::fs::read_dir(&photos).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "CREDITS.md" {
            continue;
        }
        match name.strip_prefix("coco-") {
            Some(coco) => files.insert(format!("captions/coco-val2017/images/{coco}"), path),
            None => files.insert(format!("captions/free-photos/images/{name}"), path),
        };
    }
    let Some(shared) = shared() else { return files };
    let data = shared.join("data");
    for folder in ["captions/coco-val2017/images", "captions/free-photos/images", "captions/flickr8k/dev/images"] {
        for entry in std::fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            files.insert(format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap()), path);
        }
    }
    files
}

fn check_formula(name: &str, preprocess: Option<Value>) {
    let model = tempfile::tempdir().unwrap();
    write_formula_model(name, model.path(), preprocess);
    check(name, model.path());
}

fn check(name: &str, model: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let files = pictures();
    let shard = shared().map(|shared| shared.join("data").join(SHARD));
    let name_of = |key: &str| match (key.strip_prefix(SHARD), &shard) {
        (Some(inside), Some(shard)) => Some(format!("{}{inside}", shard.display())),
        _ => files.get(key).map(|path| path.display().to_string()),
    };
    let rows: Vec<(String, Vec<f32>)> =
        recorded(name).into_iter().filter_map(|(key, row)| Some((name_of(&key)?, row))).collect();
    assert!(rows.len() == 852 || shard.is_none(), "{} of 852", rows.len());
    assert!(rows.len() >= 10, "{} pictures", rows.len());
    let list = scratch.path().join("list.txt");
    let in_files = files.values().chain(&shard).map(|path| path.display().to_string());
    std::fs::write(&list, in_files.collect::<Vec<String>>().join("\n")).unwrap();
    let out = scratch.path().join("v.jsonl").display().to_string();
    let model = model.display().to_string();
    let mut command =
        crate::support::command(&["embed", "-m", &model, "-", "--as-published", "--out", &out, "--quiet"]);
    let stdin = std::fs::File::open(&list).unwrap();
    crate::support::Ran::from(command.stdin(stdin).output().unwrap()).expect(0);
    let text = std::fs::read_to_string(&out).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let embeddings: HashMap<String, Vec<f32>> =
        lines.map(|line| (line["input"].as_str().unwrap().to_owned(), floats(&line["embedding"]))).collect();
    let mut smallest = 1.0f64;
    for (input, want) in &rows {
        let cosine: f64 = embeddings[input].iter().zip(want).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!(cosine >= 0.999_99, "{name} {input}: cosine {cosine}");
        smallest = smallest.min(cosine);
    }
    println!("{name}: {} photographs, smallest cosine {smallest:.8}", rows.len());
}

#[test]
fn openvision_tiny_16_160() {
    let preprocess = json!({ "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear", "resize_mode": "squash" });
    check_formula("openvision-tiny-p16-160", Some(preprocess));
}

#[test]
fn vit_b_32_quickgelu() {
    check_formula("vit-b-32-quickgelu", None);
}

#[test]
fn hf_siglip() {
    check("hf-siglip", &testdata().join("goldens/hf-siglip"));
}

/// The checkpoint that the formula gives is read by the program as what it is.
#[test]
fn formula_checkpoints_are_whole_models() {
    let folder = tempfile::tempdir().unwrap();
    write_formula_model("openvision-tiny-p16-160", folder.path(), None);
    assert_eq!(Checkpoint::open(folder.path()).unwrap().tensors().len(), 300);
    let ran = openvision(&["models", "verify", &folder.path().display().to_string()]).expect(0);
    assert!(ran.stdout.contains("recognised as OpenVision"));
}

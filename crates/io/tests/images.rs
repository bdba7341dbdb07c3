//! Pictures against Pillow: decoded bytes, resized bytes, pixel tensors, hostile files.

use openvision_io::image::{self, Format, ImageError, Limits, Mode, Picture, Scale};
use openvision_io::preprocess::{
    Alpha, Gray16, IMAGENET_MEAN, IMAGENET_STD, Interpolation, OPENAI_MEAN, OPENAI_STD, Order, Preprocess, ResizeMode,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Whether JPEG files are decoded with libjpeg-turbo's arithmetic.
const TURBO: bool = cfg!(feature = "jpeg-turbo");

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn testdata(path: &str) -> PathBuf {
    workspace().join("testdata").join(path)
}

/// The folder of shared references, where there is one.
fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("OPENVISION_SHARED").map_or_else(|| workspace().join("../shared"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: shared/ is not here");
    None
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("valid JSON")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Arrays of a safetensors file: name to element type, shape and bytes.
struct Arrays(BTreeMap<String, (String, Vec<usize>, Vec<u8>)>);

impl Arrays {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON header");
        let numbers = |value: &Value| -> Vec<usize> {
            value.as_array().expect("list").iter().map(|n| n.as_u64().expect("number") as usize).collect()
        };
        let entries = header.as_object().expect("object").iter().filter(|(name, _)| *name != "__metadata__");
        Self(
            entries
                .map(|(name, entry)| {
                    let offsets = numbers(&entry["data_offsets"]);
                    let data = bytes[8 + length + offsets[0]..8 + length + offsets[1]].to_vec();
                    (name.clone(), (entry["dtype"].as_str().expect("text").to_owned(), numbers(&entry["shape"]), data))
                })
                .collect(),
        )
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        self.0[name].2.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect()
    }
}

/// The recipe whose resized bytes are `Image.resize((width, height), filter)` in the picture's own mode.
fn squash(filter: &str, width: usize, height: usize) -> Preprocess {
    Preprocess {
        size: (height, width),
        resize: ResizeMode::Squash,
        shortest_edge: None,
        interpolation: match filter {
            "nearest" => Interpolation::Nearest,
            "box" => Interpolation::Box,
            "bilinear" => Interpolation::Bilinear,
            "bicubic" => Interpolation::Bicubic,
            "lanczos" => Interpolation::Lanczos,
            other => panic!("filter {other}"),
        },
        mean: OPENAI_MEAN,
        std: OPENAI_STD,
        fill_color: 0,
        order: Order::OpenClip,
        alpha: Alpha::Drop,
        orient: false,
        gray16: Gray16::Clip,
        scaled_decode: None,
    }
}

fn golden_picture(index: &Value, name: &str) -> Picture {
    let file = index["images"][name]["file"].as_str().expect("file name");
    image::read(&testdata("goldens/preprocess/images").join(file), &Limits::default()).expect("decodes")
}

#[test]
fn decoded_pictures_equal_pillow() {
    let index = json(&testdata("goldens/preprocess/index.json"));
    let decoded = Arrays::read(&testdata("goldens/preprocess/decoded.safetensors"));
    let names: Vec<&String> = index["images"].as_object().expect("images").keys().collect();
    for name in &names {
        let info = &index["images"][name.as_str()];
        let picture = golden_picture(&index, name);
        assert_eq!(picture.mode.pillow_name(), info["mode"], "{name}");
        assert_eq!(serde_json::json!([picture.width, picture.height]), info["size_wh"], "{name}");
        if !has_exact_reference(&picture) {
            continue;
        }
        let (dtype, _, want) = &decoded.0[&format!("{name}.decoded")];
        let got: Vec<u8> = match (picture.mode, dtype.as_str()) {
            (Mode::One, _) => picture.data.iter().map(|&v| v / 255).collect(),
            (Mode::I16, "I32") => picture.data.chunks_exact(2).flat_map(|v| [v[0], v[1], 0, 0]).collect(),
            _ => picture.data.clone(),
        };
        assert_eq!(&got, want, "{name}.decoded");
        assert_eq!(picture.clone().to_rgb().data, decoded.0[&format!("{name}.rgb")].2, "{name}.rgb");
        if let Some((_, shape, want)) = decoded.0.get(&format!("{name}.rgb_transposed")) {
            let turned = picture.oriented();
            assert_eq!(vec![turned.height, turned.width, 3], *shape, "{name}");
            assert_eq!(&turned.to_rgb().data, want, "{name}.rgb_transposed");
        }
    }
    assert_eq!(names.len(), 15);
}

/// SHA-256 (its first half) of the pixels that Pillow 13.0.0 gives after `draft(None, (w // s, h // s))` for s of 2, 4, 8.
const DRAFTS: [(&str, [&str; 3]); 6] = [
    ("photos/china.jpg", ["ac60e493f2593516", "7f9a6d7c8b68be00", "34e1d9eb3787b14f"]),
    ("photos/astronaut.jpg", ["f0699e55428eaf96", "73a889d0f7c48f61", "3eee8d0f7b1247d5"]),
    ("photos/coco-000000160012.jpg", ["fdfec9fe69e952ae", "d5bc246fc24d3c89", "ae9f842ea967cf5c"]),
    ("photos/coco-000000377575.jpg", ["47f90f435d736e8c", "95e297eddff00651", "ea159ad9a82ea9c0"]),
    ("caltech101/cup-image_0009.jpg", ["20414560a836df7d", "dd1bdef41fb93fb8", "20ec4285beb666ab"]),
    ("pillow/cmyk.jpg", ["c998b7ae864ed2ab", "0c9241171231d429", "9a2cb19e223a48b3"]),
];

#[test]
fn scaled_decoding_equals_pillows_draft_mode() {
    if !TURBO {
        return;
    }
    for (name, hashes) in DRAFTS {
        let path = testdata("images").join(name);
        let whole = image::read(&path, &Limits::default()).expect("decodes");
        for (scale, want) in [Scale::Half, Scale::Quarter, Scale::Eighth].into_iter().zip(hashes) {
            let picture = image::read_scaled(&path, &Limits::default(), &|width, height| {
                assert_eq!((width, height), (whole.width, whole.height));
                scale
            });
            let picture = picture.expect("decodes");
            let size = (whole.width.div_ceil(scale.divisor()), whole.height.div_ceil(scale.divisor()));
            assert_eq!((picture.width, picture.height, picture.mode), (size.0, size.1, whole.mode), "{name}");
            assert_eq!(sha256(&picture.data)[..16], *want, "{name} {scale:?}");
        }
    }
}

#[test]
fn a_scale_leaves_the_pixels_that_resizing_needs() {
    let recipe = |times| Preprocess { scaled_decode: times, ..squash("bilinear", 160, 160) };
    let cases = [
        (None, (4000, 3000), Scale::Whole),
        (Some(1), (4000, 3000), Scale::Eighth),
        (Some(2), (4000, 3000), Scale::Eighth),
        (Some(3), (4000, 3000), Scale::Quarter),
        (Some(1), (640, 319), Scale::Half), // 160 rows, rounded up
        (Some(1), (640, 318), Scale::Whole),
        (Some(1), (318, 640), Scale::Whole),
        (Some(2), (640, 480), Scale::Whole),
    ];
    for (times, (width, height), want) in cases {
        assert_eq!(recipe(times).decode_scale(width, height), want, "{times:?} {width}x{height}");
    }
    // The longer side of a crop may be cut off: the shorter one decides.
    let crop = Preprocess { resize: ResizeMode::Shortest, ..recipe(Some(2)) };
    assert_eq!(crop.decode_scale(3000, 1300), Scale::Quarter);
    assert!(recipe(Some(0)).check().is_err() && recipe(Some(9)).check().is_err());
}

#[test]
fn resized_bytes_equal_pillow_in_every_mode() {
    let index = json(&testdata("goldens/preprocess/index.json"));
    let resized = Arrays::read(&testdata("goldens/preprocess/resized_u8.safetensors"));
    let mut compared = 0;
    for (key, (_, _, want)) in &resized.0 {
        let [size, filter, name] = key.rsplitn(3, '.').collect::<Vec<_>>()[..] else { panic!("{key}") };
        let (width, height) = size.split_once('x').expect("size");
        let recipe = squash(filter, width.parse().expect("width"), height.parse().expect("height"));
        let picture = golden_picture(&index, name);
        compared += 1;
        if !has_exact_reference(&picture) {
            continue;
        }
        // The stored bytes are in the picture's own mode; ours come out as RGB: convert the reference by the same
        // rule, which `decoded_pictures_equal_pillow` pins, and compare what the conversion drops on its own.
        let reference = Picture { data: want.clone(), width: recipe.size.1, height: recipe.size.0, ..picture.clone() };
        assert_eq!(recipe.to_rgb8(&picture).expect("resizes").data, reference.clone().to_rgb().data, "{key}");
        assert_eq!(recipe.resize_in_own_mode(&picture).expect("resizes").data, *want, "{key}");
    }
    assert_eq!(compared, 143);
}

/// Recipe of a pipeline's name in final_f32.safetensors.
fn pipeline(name: &str) -> Preprocess {
    let open_clip = |mode, filter, fill: u8, size| {
        let config = serde_json::json!({"resize_mode": mode, "interpolation": filter, "fill_color": fill});
        Preprocess::from_open_clip(&config, size).expect("valid")
    };
    let clip = |size: usize| {
        let config = serde_json::json!({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": size},
            "crop_size": {"height": size, "width": size}});
        Preprocess::from_hugging_face(&config).expect("valid")
    };
    let siglip =
        serde_json::json!({"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}});
    match name {
        "oc_shortest_bicubic32" => open_clip("shortest", "bicubic", 0, (32, 32)),
        "oc_shortest_bicubic31" => open_clip("shortest", "bicubic", 0, (31, 31)),
        "oc_shortest_bicubic_24x32" => open_clip("shortest", "bicubic", 0, (24, 32)),
        "oc_squash_bilinear32" => open_clip("squash", "bilinear", 0, (32, 32)),
        "oc_squash_bicubic32" => open_clip("squash", "bicubic", 0, (32, 32)),
        "oc_longest_bicubic32" => open_clip("longest", "bicubic", 0, (32, 32)),
        "oc_longest_bicubic32_fill127" => open_clip("longest", "bicubic", 127, (32, 32)),
        "hfclip_pil32" | "hfclip_tv32" => clip(32),
        "hfclip_pil31" => clip(31),
        "hfsiglip_pil32" | "hfsiglip_tv32" => Preprocess::from_hugging_face(&siglip).expect("valid"),
        other => panic!("pipeline {other}"),
    }
    .as_published()
}

#[test]
fn pixel_tensors_equal_every_peer() {
    let index = json(&testdata("goldens/preprocess/index.json"));
    let want = Arrays::read(&testdata("goldens/preprocess/final_f32.safetensors"));
    let (mut exact, mut close, mut torchvision) = (0, 0, 0);
    let mut problems = Vec::new();
    for (key, (_, shape, _)) in &want.0 {
        let (name, pipeline_name) = key.split_once('.').expect("name.pipeline");
        let recipe = pipeline(pipeline_name);
        let want = want.f32s(key);
        let mut got = vec![0.0; 3 * recipe.size.0 * recipe.size.1];
        assert_eq!(shape[..], [3, recipe.size.0, recipe.size.1], "{key}");
        let picture = golden_picture(&index, name);
        recipe.to_tensor(&picture, &mut got).expect("preprocesses");
        let difference = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if pipeline_name.ends_with("_tv32") {
            // torchvision's resize on bytes is another method: up to 2 of 255 levels apart (data README).
            let level = 2.0 / 255.0 / recipe.std.into_iter().fold(f32::MAX, f32::min);
            if difference > level + 1e-6 {
                problems.push(format!("{key}: {difference}, two levels are {level}"));
            }
            torchvision += 1;
        } else if got == want {
            exact += 1;
        } else {
            if difference > 1e-6 && has_exact_reference(&picture) {
                problems.push(format!("{key}: {difference}"));
            }
            close += 1;
        }
    }
    println!(
        "pixel tensors: {exact} equal in every bit, {close} within 1e-6, {torchvision} torchvision within 2 levels"
    );
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert_eq!((exact + close, torchvision), (15 * 10, 15 * 2));
}

/// Where a picture of pixels.json lies: in this repository or in shared/.
fn photo(key: &str, shared: Option<&Path>) -> Option<Vec<u8>> {
    let name = key.rsplit('/').next().expect("name");
    let local = if key.starts_with("captions/free-photos") {
        testdata("images/photos").join(name)
    } else if key.starts_with("captions/coco") {
        testdata("images/photos").join(format!("coco-{name}"))
    } else {
        let class = key.rsplit('/').nth(1).expect("folder");
        testdata("images/caltech101").join(format!("{class}-{name}"))
    };
    let path = if local.exists() { local } else { shared?.join("data").join(key) };
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

#[test]
fn photographs_decode_and_resize_to_the_recorded_bytes() {
    let pixels = json(&testdata("goldens/photos/pixels.json"));
    let shared = shared();
    let open_clip =
        |config: Value, size| Preprocess::from_open_clip(&config, (size, size)).expect("valid").as_published();
    let models = [
        (
            "openvision-tiny-p16-160",
            open_clip(
                serde_json::json!({"resize_mode": "squash", "interpolation": "bilinear",
            "mean": IMAGENET_MEAN, "std": IMAGENET_STD}),
                160,
            ),
        ),
        ("vit-b-32-quickgelu", open_clip(Value::Null, 224)),
        ("hf-siglip", open_clip(serde_json::json!({"resize_mode": "squash", "mean": 0.5, "std": 0.5}), 32)),
    ];
    let mut compared = 0;
    for (key, facts) in pixels["pictures_in_detail"].as_object().expect("pictures") {
        let Some(bytes) = photo(key, shared.as_deref()) else { continue };
        assert_eq!(sha256(&bytes), facts["file_sha256"], "{key}: another file");
        let picture = image::decode(&bytes, &Limits::default()).expect(key);
        assert_eq!(picture.mode.pillow_name(), facts["mode"], "{key}");
        if !has_exact_reference(&picture) {
            assert_close_to(&picture, facts, key);
            compared += 1;
            continue;
        }
        assert_eq!(sha256(&picture.clone().to_rgb().data), facts["decoded_rgb_sha256"], "{key}: decoded");
        for (model, recipe) in &models {
            let resized = recipe.to_rgb8(&picture).expect(key);
            assert_eq!(sha256(&resized.data), facts[model]["resized_u8_sha256"], "{key}: resized for {model}");
            let mut tensor = vec![0.0; 3 * recipe.size.0 * recipe.size.1];
            recipe.to_tensor(&picture, &mut tensor).expect(key);
            for (channel, plane) in tensor.chunks_exact(tensor.len() / 3).enumerate() {
                let mean = plane.iter().map(|&v| f64::from(v)).sum::<f64>() / plane.len() as f64;
                let want = facts[model]["pixel_mean"][channel].as_f64().expect("number");
                assert!((mean - want).abs() < 2e-6, "{key} {model}: mean {mean}, recorded {want}");
            }
        }
        compared += 1;
    }
    println!("photographs: {compared} of 40 compared");
    assert_eq!(compared, if shared.is_some() { 40 } else { 23 });
}

/// What `jpeg_pure.rs` states as measured: the mean of a channel moves by less than 0.5 of 255.
fn assert_close_to(picture: &Picture, facts: &Value, key: &str) {
    let rgb = picture.clone().to_rgb().data;
    for channel in 0..3 {
        let mean = rgb.iter().skip(channel).step_by(3).map(|&v| f64::from(v)).sum::<f64>() / (rgb.len() / 3) as f64;
        let want = facts["decoded_rgb_mean"][channel].as_f64().expect("number");
        assert!((mean - want).abs() < 0.5, "{key}: mean {mean}, Pillow's {want}");
    }
}

/// The one JPEG among the goldens is exact only with libjpeg-turbo's arithmetic.
fn has_exact_reference(picture: &Picture) -> bool {
    TURBO || picture.format != Format::Jpeg
}

/// Longest that one hostile file may take; the files are small, so this is far above an honest decode.
const HOSTILE_TIME: Duration = Duration::from_secs(2);

#[test]
fn hostile_files_get_their_verdicts() {
    let folder = testdata("images/hostile");
    let verdicts = std::fs::read_to_string(folder.join("verdicts.jsonl")).expect("verdicts");
    let (mut count, mut exact, mut jpeg_exact, mut jpeg_close, mut alternative, mut oriented) = (0, 0, 0, 0, 0, 0);
    let mut problems = Vec::new();
    for line in verdicts.lines() {
        let verdict: Value = serde_json::from_str(line).expect("JSON");
        let file = verdict["file"].as_str().expect("file");
        let start = Instant::now();
        let result = image::read(&folder.join(file), &Limits::default());
        if start.elapsed() > HOSTILE_TIME {
            problems.push(format!("{file}: took {:?}", start.elapsed()));
        }
        count += 1;
        let outcome = if result.is_ok() { "decode" } else { "error" };
        if verdict["expect"] != outcome {
            if verdict["also_ok"] == outcome {
                alternative += 1;
                println!(
                    "{file}: {outcome}, which is acceptable too: {:?}",
                    result.as_ref().err().map(ToString::to_string)
                );
            } else {
                problems.push(format!("{file}: {outcome}, {:?}", result.as_ref().err().map(ToString::to_string)));
            }
        }
        let picture = match result {
            Ok(picture) => picture,
            Err(error) => {
                if !error.to_string().contains(file) {
                    problems.push(format!("{file}: the error does not name it: {error}"));
                }
                continue;
            }
        };
        if verdict["width"].is_null() {
            continue; // decoded where an error was expected and both are fine
        }
        if verdict["mode"].as_str().is_some_and(|mode| mode != picture.mode.pillow_name()) {
            problems.push(format!("{file}: mode {}, Pillow has {}", picture.mode.pillow_name(), verdict["mode"]));
        }
        let turned = picture.clone().oriented().to_rgb();
        let rgb = picture.to_rgb();
        if serde_json::json!([rgb.width, rgb.height]) != serde_json::json!([verdict["width"], verdict["height"]]) {
            problems.push(format!("{file}: {}x{}", rgb.width, rgb.height));
            continue;
        }
        let equal = verdict["sha256_rgb"] == sha256(&rgb.data);
        match verdict["tolerance"].as_str() {
            Some("exact") if equal => exact += 1,
            Some("exact") => problems.push(format!("{file}: bytes differ")),
            Some("jpeg") if equal => jpeg_exact += 1,
            Some("jpeg") => {
                jpeg_close += 1;
                println!("{file}: not byte-equal");
                for channel in 0..3 {
                    let values = rgb.data.iter().skip(channel).step_by(3);
                    let mean = values.map(|&v| f64::from(v)).sum::<f64>() / (rgb.data.len() / 3) as f64;
                    let want = verdict["mean_rgb"][channel].as_f64().expect("number");
                    if (mean - want).abs() > 2.0 {
                        problems.push(format!("{file}: mean {mean:.2}, Pillow's {want:.2}"));
                    }
                }
            }
            _ => {}
        }
        if let Some(want) = verdict["oriented"].as_object() {
            if want["width"] != turned.width || want["height"] != turned.height {
                problems.push(format!("{file}: turned to {}x{}", turned.width, turned.height));
            } else if want["sha256_rgb"] == sha256(&turned.data) {
                oriented += 1;
            } else if verdict["tolerance"] == "exact" || TURBO {
                problems.push(format!("{file}: turned bytes differ"));
            }
        }
    }
    println!(
        "hostile: {count} files, {exact} exact hashes, {jpeg_exact} lossy byte-equal and {jpeg_close} close, {oriented} oriented equal, {alternative} acceptable alternatives"
    );
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert_eq!((count, exact), (371, 237));
    // The two lossy WebP files and, with libjpeg-turbo's arithmetic, every JPEG are byte-equal too.
    if TURBO {
        assert_eq!((jpeg_exact, jpeg_close, oriented), (46, 0, 16));
    }
}

/// The verdicts again, in a process that may not map more than 1 GiB (code and test threads included).
#[test]
#[cfg(target_os = "linux")]
fn hostile_files_stay_within_a_gigabyte() {
    let test = std::env::current_exe().expect("path of this test");
    let script = "ulimit -v 1048576 && exec \"$0\" images::hostile_files_get_their_verdicts images::fuzzed_files";
    let child = std::process::Command::new("sh").arg("-c").arg(script).arg(test).output().expect("sh runs");
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && output.contains("2 passed"),
        "{output}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

/// Kinds of pictures that people have: TIFF in every compression, tiling and byte order, CMYK, palettes, 16 bits; each
/// as Pillow decodes it.
#[test]
fn pictures_of_many_kinds_equal_pillow() {
    let folder = testdata("images/pillow");
    let verdicts = std::fs::read_to_string(folder.join("verdicts.jsonl")).expect("verdicts");
    let mut equal = 0;
    let mut problems = Vec::new();
    for line in verdicts.lines() {
        let verdict: Value = serde_json::from_str(line).expect("JSON");
        let file = verdict["file"].as_str().expect("file");
        let picture = image::read(&folder.join(file), &Limits::default()).expect(file);
        let mode = picture.mode.pillow_name();
        let rgb = picture.to_rgb();
        let is_lossy = file.contains("jpeg") || file.ends_with(".jpg");
        if verdict["sha256_rgb"] == sha256(&rgb.data) {
            equal += 1;
        } else if TURBO || !is_lossy {
            problems.push(format!("{file}: {mode} {}x{}, Pillow {verdict}", rgb.width, rgb.height));
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    println!("{equal} equal");
    assert!(equal == 79 || !TURBO, "{equal}");
}

/// HEIC and AVIF by pillow-heif: decoded with the feature `heif`, named and refused without.
#[test]
fn heif_files_decode_or_say_what_is_missing() {
    let folder = testdata("images/heif");
    let verdicts = std::fs::read_to_string(folder.join("verdicts.jsonl")).expect("verdicts");
    let mut count = 0;
    for line in verdicts.lines() {
        let verdict: Value = serde_json::from_str(line).expect("JSON");
        let file = verdict["file"].as_str().expect("file");
        count += 1;
        let result = image::read(&folder.join(file), &Limits::default());
        if !cfg!(feature = "heif") {
            let error = result.expect_err(file);
            let kind = if file.ends_with("avif") { "AVIF" } else { "HEIC" };
            assert!(error.to_string().contains(kind) && error.to_string().contains("--features heif"), "{error}");
            assert_eq!(error.code(), "unsupported");
            continue;
        }
        let picture = result.expect(file);
        assert_eq!(
            (picture.mode.pillow_name(), picture.orientation),
            (verdict["mode"].as_str().expect("mode"), 1),
            "{file}"
        );
        let rgb = picture.oriented().to_rgb();
        assert_eq!(
            serde_json::json!([rgb.width, rgb.height]),
            serde_json::json!([verdict["width"], verdict["height"]]),
            "{file}"
        );
        // Another version of the library converts colors by other rounding: means of the quarters within 2 levels.
        for (quarter, want) in verdict["quarters"].as_array().expect("quarters").iter().enumerate() {
            let (left, top) = (quarter % 2 * rgb.width / 2, quarter / 2 * rgb.height / 2);
            for channel in 0..3 {
                let rows = (top..top + rgb.height / 2).flat_map(|y| (left..left + rgb.width / 2).map(move |x| (y, x)));
                let values: Vec<f64> =
                    rows.map(|(y, x)| f64::from(rgb.data[(y * rgb.width + x) * 3 + channel])).collect();
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                assert!((mean - want[channel].as_f64().expect("number")).abs() < 2.0, "{file}: {mean}, {want}");
            }
        }
        let bytes = std::fs::read(folder.join(file)).expect(file);
        let few = Limits { max_pixels: 100, ..Limits::default() };
        assert!(image::decode(&bytes, &few).is_err(), "{file}");
        for cut in (0..bytes.len()).step_by(7) {
            let _ = image::decode(&bytes[..cut], &Limits::default());
        }
    }
    assert_eq!(count, 5);
}

/// Files that fuzzing found. Each once broke something: the name says what.
#[test]
fn fuzzed_files_stay_harmless() {
    for entry in std::fs::read_dir(testdata("images/fuzzed")).expect("folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            continue;
        }
        let start = Instant::now();
        let outcome = image::read(&path, &Limits::default()).map(|picture| (picture.width, picture.height));
        println!("{}: {outcome:?}", path.display());
        assert!(start.elapsed() < HOSTILE_TIME, "{}: {:?}", path.display(), start.elapsed());
    }
}

#[test]
fn errors_name_the_file_and_the_cause() {
    let missing = image::read(Path::new("no/such/picture.jpg"), &Limits::default()).expect_err("missing");
    assert!(missing.to_string().contains("picture.jpg"), "{missing}");
    let folder = image::read(&testdata("images"), &Limits::default()).expect_err("folder");
    assert!(matches!(folder, ImageError::File { source, .. } if matches!(*source, ImageError::IsFolder)));
    let tiny = Limits { max_bytes: 10, ..Limits::default() };
    let long = image::read(&testdata("images/hostile/png-gray.png"), &tiny).expect_err("too long");
    assert!(long.to_string().contains("limit is 10"), "{long}");
    let few = Limits { max_pixels: 100, ..Limits::default() };
    for file in ["png-gray.png", "jpeg-420.jpg", "webp-lossy.webp", "gif-animated.gif", "bmp-24.bmp", "tiff-lzw.tif"] {
        let many = image::read(&testdata("images/hostile").join(file), &few).expect_err(file);
        assert!(many.to_string().contains("limit of 100 pixels"), "{many}");
    }
}

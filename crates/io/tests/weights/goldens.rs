//! Files that the peers wrote, and how files and folders are found.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use openvision_io::weights::{Checkpoint, Container, DType, SafeTensorsWriter, WeightsError, f16_to_f32};

use super::support::*;

#[test]
fn four_torch_files_hold_the_expected_values() {
    let folder = testdata("goldens/formats");
    let expected = Checkpoint::open(&folder.join("expected.safetensors")).unwrap();
    assert_eq!(expected.tensors().len(), 11);
    for (file, container) in [
        ("zip_state_dict.pt", Container::TorchZip),
        ("legacy_state_dict.pt", Container::TorchLegacy),
        ("ordered_state_dict.pt", Container::TorchZip),
        ("training_checkpoint.pt", Container::TorchZip),
    ] {
        let got = Checkpoint::open(&folder.join(file)).unwrap();
        assert_eq!(got.container(), container, "{file}");
        assert_same_tensors(&got, &expected);
    }
    let training = Checkpoint::open(&folder.join("training_checkpoint.pt")).unwrap();
    assert_eq!(training.metadata().get("epoch").map(String::as_str), Some("7"));
    assert_eq!(training.metadata().get("name").map(String::as_str), Some("run"));
    assert_eq!(training.ignored(), ["optimizer", "scaler"]);
}

#[test]
fn openai_archive_has_the_names_types_and_shapes_of_keys_json() {
    let Some(folder) = golden("openai-quickgelu") else { return };
    let checkpoint = Checkpoint::open(&folder.join("model.pt")).unwrap();
    assert_eq!(checkpoint.container(), Container::TorchScript);
    let keys: BTreeMap<String, (String, Vec<usize>)> =
        serde_json::from_slice(&fs::read(folder.join("keys.json")).unwrap()).unwrap();
    let name = |dtype| match dtype {
        DType::F16 => "float16",
        DType::F32 => "float32",
        DType::I64 => "int64",
        other => other.name(),
    };
    let got: BTreeMap<String, (String, Vec<usize>)> =
        checkpoint.tensors().iter().map(|t| (t.name.clone(), (name(t.dtype).to_owned(), t.shape.clone()))).collect();
    assert_eq!(got, keys);
    let mut scalar = [0.0];
    checkpoint.read_f32("input_resolution", &mut scalar).unwrap();
    assert_eq!(scalar, [32.0]);
    assert_eq!(checkpoint.read_bytes("context_length").unwrap(), 12i64.to_le_bytes());
    // A half tensor widens value by value.
    let bytes = checkpoint.read_bytes("visual.proj").unwrap();
    let mut values = vec![0.0; bytes.len() / 2];
    checkpoint.read_f32("visual.proj", &mut values).unwrap();
    for (pair, value) in bytes.chunks_exact(2).zip(values) {
        assert_eq!(f16_to_f32(u16::from_le_bytes([pair[0], pair[1]])), value);
    }
}

#[test]
fn small_torchscript_archive_opens() {
    let checkpoint = Checkpoint::open(&testdata("formats/torchscript-small.pt")).unwrap();
    assert_eq!(checkpoint.container(), Container::TorchScript);
    let listed: Vec<_> = checkpoint.tensors().iter().map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice())).collect();
    let want: [(&str, DType, &[usize]); 2] =
        [("input_resolution", DType::I64, &[]), ("visual.conv1.weight", DType::F16, &[3, 2])];
    assert_eq!(listed, want);
    let mut values = [0.0; 6];
    checkpoint.read_f32("visual.conv1.weight", &mut values).unwrap();
    assert_eq!(values, [1., 4., 2., 5., 3., 6.]);
}

#[test]
fn open_clip_folder_opens_its_bin() {
    let Some(folder) = golden("open_clip-gelu") else { return };
    let checkpoint = Checkpoint::open(&folder).unwrap();
    assert_eq!(checkpoint.files(), [folder.join("open_clip_pytorch_model.bin")]);
    assert_eq!((checkpoint.container(), checkpoint.tensors().len()), (Container::TorchZip, 74));
    let info = checkpoint.get("visual.conv1.weight").unwrap();
    assert_eq!((info.dtype, info.shape.len()), (DType::F32, 4));
    let mut values = vec![0.0; info.elements()];
    checkpoint.read_f32(&info.name, &mut values).unwrap();
    assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != 0.0));
}

#[test]
fn shards_equal_the_single_file() {
    let Some(folder) = golden("hf-clip") else { return };
    let single = Checkpoint::open(&folder).unwrap();
    let sharded = Checkpoint::open(&folder.join("sharded")).unwrap();
    let by_index = Checkpoint::open(&folder.join("sharded/model.safetensors.index.json")).unwrap();
    assert_eq!(single.container(), Container::SafeTensors);
    assert_eq!((sharded.container(), sharded.files().len()), (Container::ShardedSafeTensors, 5));
    assert_same_tensors(&sharded, &single);
    assert_same_tensors(&by_index, &single);
    assert_eq!(single.metadata().get("format").map(String::as_str), Some("pt"));
    assert_eq!(sharded.metadata(), single.metadata());
}

#[test]
fn every_golden_safetensors_file_is_written_back_byte_for_byte() {
    let mut files = vec![testdata("goldens/formats/expected.safetensors")];
    for folder in ["hf-clip", "openvision-tiny", "hf-siglip"] {
        let Some(folder) = golden(folder) else { continue };
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|e| e == "safetensors")));
    }
    let temp = TempFolder::new("back");
    for file in files {
        let checkpoint = Checkpoint::open(&file).unwrap();
        let copy = temp.0.join("copy.safetensors");
        let mut writer = SafeTensorsWriter::create(&copy, checkpoint.metadata(), checkpoint.tensors()).unwrap();
        for info in checkpoint.tensors() {
            writer.write(&info.name, &checkpoint.read_bytes(&info.name).unwrap()).unwrap();
        }
        writer.finish().unwrap();
        assert!(fs::read(&copy).unwrap() == fs::read(&file).unwrap(), "{}", file.display());
    }
}

#[test]
fn many_threads_read_one_checkpoint() {
    let checkpoint = Checkpoint::open(&testdata("goldens/formats/zip_state_dict.pt")).unwrap();
    let reference: Vec<Vec<u8>> =
        checkpoint.tensors().iter().map(|t| checkpoint.read_bytes(&t.name).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    for (info, want) in checkpoint.tensors().iter().zip(&reference) {
                        assert_eq!(&checkpoint.read_bytes(&info.name).unwrap(), want);
                    }
                }
            });
        }
    });
}

#[test]
fn a_file_cut_while_open_is_an_error() {
    let temp = TempFolder::new("cut");
    let path = temp.0.join("m.safetensors");
    fs::copy(testdata("goldens/formats/expected.safetensors"), &path).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(700).unwrap();
    for name in ["v.transposed", "f.bool"] {
        let info = checkpoint.get(name).unwrap();
        assert!(matches!(checkpoint.read_bytes(name), Err(WeightsError::ShortRead { .. })), "{name}");
        let mut out = vec![0.0; info.elements()];
        assert!(matches!(checkpoint.read_f32(name, &mut out), Err(WeightsError::ShortRead { .. })), "{name}");
    }
}

#[test]
fn a_wrong_name_or_buffer_is_named() {
    let checkpoint = Checkpoint::open(&testdata("goldens/formats/expected.safetensors")).unwrap();
    let error = checkpoint.read_f32("absent\u{1b}[31m", &mut []).unwrap_err().to_string();
    assert!(error.contains("no tensor \"absent\\u{1b}[31m\""), "{error}");
    let error = checkpoint.read_f32("a.weight", &mut [0.0; 5]).unwrap_err().to_string();
    assert_eq!(error, "tensor \"a.weight\" has 6 elements, the buffer for it 5");
    assert!(matches!(checkpoint.read_bytes_into("a.weight", &mut [0; 23]), Err(WeightsError::WrongLength { .. })));
}

#[test]
fn parts_of_a_tensor_equal_the_whole() {
    let folder = testdata("goldens/formats");
    let mut whole_only = 0;
    for file in ["expected.safetensors", "zip_state_dict.pt", "legacy_state_dict.pt"] {
        let checkpoint = Checkpoint::open(&folder.join(file)).unwrap();
        for info in checkpoint.tensors() {
            let elements = info.elements();
            let mut whole = vec![0.0; elements];
            checkpoint.read_f32(&info.name, &mut whole).unwrap();
            for (start, end) in [(0, elements), (elements / 3, elements / 2), (elements / 2, elements)] {
                let mut part = vec![f32::NAN; end - start];
                if checkpoint.read_f32_part(&info.name, start, &mut part).unwrap() {
                    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&part), bits(&whole[start..end]), "{file} {} {start}..{end}", info.name);
                } else {
                    whole_only += 1;
                }
            }
            for start in [1, usize::MAX] {
                let error = checkpoint.read_f32_part(&info.name, start, &mut whole).unwrap_err();
                assert!(matches!(error, WeightsError::WrongLength { .. }), "{file} {error}");
            }
        }
    }
    // The torch files hold transposed views.
    assert!(whole_only > 0);
}

#[test]
fn module_prefix_goes_only_when_every_name_has_it() {
    let names = |list: &[(&str, &[i32], &[i32])]| {
        let bytes = torch_zip(&pickle(list, 1), &[1.0], ZipKind::Plain);
        let checkpoint = Checkpoint::from_bytes(bytes).unwrap();
        checkpoint.tensors().iter().map(|t| t.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[("module.b", &[1], &[1]), ("module.a", &[1], &[1])]), ["a", "b"]);
    assert_eq!(names(&[("module.b", &[1], &[1]), ("a", &[1], &[1])]), ["a", "module.b"]);
    let twice = torch_zip(&pickle(&[("a", &[1], &[1]), ("a", &[1], &[1])], 1), &[1.0], ZipKind::Plain);
    assert!(error_of(twice).contains("DuplicateTensor"));
}

#[test]
fn files_that_are_something_else_are_called_by_their_name() {
    for (bytes, hint) in [
        (&b"<!DOCTYPE html><html>not found</html>"[..], "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}", "one array"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no known format"),
        (b"\x80\x02}q\0.   padding padding", "bare pickle"),
        (b"{\"weight_map\": {}}", "only from its folder"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02K\x01.", "protocol 1;"),
    ] {
        let message = error_of(bytes.to_vec());
        assert!(message.contains(hint), "{message}");
    }
    let temp = TempFolder::new("else");
    let missing = Checkpoint::open(&temp.0.join("absent.safetensors")).unwrap_err();
    assert!(matches!(missing, WeightsError::Open { .. }));
    assert!(matches!(Checkpoint::open(Path::new("/dev/null")), Err(WeightsError::NotAFile { .. })) || !cfg!(unix));
}

#[test]
fn folders_follow_the_order_of_preference() {
    let temp = TempFolder::new("folder");
    assert!(matches!(Checkpoint::open(&temp.0), Err(WeightsError::EmptyFolder { .. })));
    let file = safetensors("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", &[7]);
    temp.file("optimizer.bin", b"not weights");
    temp.file("model-00001-of-00002.safetensors", &file);
    assert!(matches!(Checkpoint::open(&temp.0), Err(WeightsError::ShardsWithoutIndex { .. })));
    // Each file added below is preferred to all before it.
    temp.file("other.index.json", b"{\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\"}}");
    let opened = || Checkpoint::open(&temp.0).unwrap().files()[0].file_name().unwrap().to_owned();
    assert_eq!(opened(), "model-00001-of-00002.safetensors");
    for name in [
        "a-special-name.safetensors",
        "model.pth",
        "pytorch_model.pth",
        "pytorch_model.bin",
        "model.safetensors",
        "open_clip_pytorch_model.pth",
        "open_clip_pytorch_model.bin",
        "open_clip_pytorch_model.safetensors",
        "open_clip_model.safetensors",
    ] {
        // The content decides, not the suffix.
        temp.file(name, &file);
        assert_eq!(opened(), name);
    }
}

#[test]
fn an_index_must_agree_with_its_shards() {
    let temp = TempFolder::new("index");
    let one = |name: &str| {
        safetensors(&format!("{{\"{name}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}}}"), &[7])
    };
    temp.file("s1", &one("a"));
    temp.file("s2", &one("b"));
    temp.file("s3", &one("a"));
    temp.file("s4", b"{\"weight_map\":{\"a\":\"s1\"}}");
    temp.file("s5", &torch_zip(&pickle(&[("t", &[1], &[1])], 1), &[1.0], ZipKind::Plain));
    let open = |map: &str| Checkpoint::open(&temp.file("i.index.json", format!("{{\"weight_map\":{map}}}").as_bytes()));
    let good = open("{\"a\":\"s1\",\"b\":\"s2\"}").unwrap();
    assert_eq!(good.tensors().len(), 2);
    assert_eq!(open("{\"t\":\"s5\"}").unwrap().container(), Container::ShardedTorch);
    // A tensor that only the shard knows is kept.
    assert_eq!(open("{}").unwrap().tensors().len(), 0);
    for (map, reason) in [
        ("{\"a\":\"s1\",\"b\":\"s1\"}", "MissingTensor"),
        ("{\"a\":\"s1\",\"x\":\"s9\"}", "MissingShard"),
        ("{\"a\":\"s1\",\"a\":\"s2\"}", "there twice"),
        ("{\"a\":\"s4\"}", "NestedIndex"),
        ("{\"a\":\"../s1\"}", "BadShardName"),
        ("{\"a\":\"/s1\"}", "BadShardName"),
        ("{\"a\":7}", "Json"),
        ("[]", "Json"),
    ] {
        let message = format!("{:?}", open(map).unwrap_err());
        assert!(message.contains(reason), "{map}: {message}");
    }
    temp.file("s2", &safetensors(
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
        &[1, 2],
    ));
    let message = format!("{:?}", open("{\"a\":\"s1\",\"b\":\"s2\"}").unwrap_err());
    assert!(message.contains("TensorInTwoShards"), "{message}");
    let many: Vec<String> = (0..501).map(|i| format!("\"t{i}\":\"f{i}\"")).collect();
    let message = format!("{:?}", open(&format!("{{{}}}", many.join(","))).unwrap_err());
    assert!(message.contains("TooManyShards"), "{message}");
}

//! Torch files made by hand: archives of every shape, pickles that ask for too much, legacy files.

use std::time::{Duration, Instant};

use openvision_io::weights::{Checkpoint, Container, WeightsError};

use super::support::*;

#[test]
fn zip_archives_of_every_shape_open() {
    let code = pickle(&[("w", &[2, 3], &[1, 2])], 6);
    for kind in [ZipKind::Plain, ZipKind::Zip64, ZipKind::Comment] {
        let checkpoint = Checkpoint::from_bytes(torch_zip(&code, &[1., 2., 3., 4., 5., 6.], kind)).unwrap();
        let mut out = [0.0; 6];
        checkpoint.read_f32("w", &mut out).unwrap();
        assert_eq!(out, [1., 3., 5., 2., 4., 6.]);
    }
}

#[test]
fn zip_defects_have_their_errors() {
    let code = pickle(&[("w", &[1], &[1])], 1);
    let good = torch_zip(&code, &[1.0], ZipKind::Plain);
    let directory = good.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let end = good.len() - 22;
    let patched = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        error_of(bad)
    };
    for (what, message, reason) in [
        ("signature of an entry", patched(directory, b"XX"), "BadEntry"),
        ("name longer than the directory", patched(directory + 28, &[255, 255]), "BadEntry"),
        ("method deflate", patched(directory + 10, &[8]), "Compressed"),
        ("encrypted", patched(directory + 8, &[1]), "Encrypted"),
        ("local header elsewhere", patched(directory + 42, &[1]), "BadLocalHeader"),
        ("local header outside", patched(directory + 42, &[0, 0, 0, 64]), "MemberOutside"),
        ("member longer than the file", patched(directory + 20, &[0, 0, 0, 64, 0, 0, 0, 64]), "MemberOutside"),
        ("saturated field without zip64", patched(directory + 42, &[255; 4]), "BadEntry"),
        ("directory outside", patched(end + 16, &[0, 0, 0, 64]), "DirectoryOutside"),
        ("more entries than fit", patched(end + 8, &[255, 0, 255, 0]), "TooManyMembers"),
        ("two volumes", patched(end + 4, &[1]), "SeveralVolumes"),
        ("end cut", error_of(good[..good.len() - 1].to_vec()), "NoEnd"),
        ("bytes after the end", error_of([good.as_slice(), b"x"].concat()), "NoEnd"),
    ] {
        assert!(message.contains(reason), "{what}: {message}");
    }
    let twice = zip_archive(&[("m/data.pkl", &code), ("m/data.pkl", &code)], ZipKind::Plain);
    assert!(error_of(twice).contains("DuplicateMember"));
    let two = zip_archive(&[("m/data.pkl", &code), ("n/data.pkl", &code)], ZipKind::Plain);
    assert!(error_of(two).contains("TwoPickles"));
    let big = zip_archive(&[("m/data.pkl", &code), ("m/byteorder", b"big")], ZipKind::Plain);
    assert!(error_of(big).contains("BigEndian"));
}

#[test]
fn pickles_that_ask_for_more_than_tensors_are_refused_by_name() {
    for (what, code, reason) in [
        ("unknown opcode", &b"\x80\x02\xff."[..], "UnknownOpcode"),
        ("newer protocol", b"\x80\x06N.", "Protocol"),
        ("cut", b"\x80\x02}", "Cut"),
        ("subprocess", b"csubprocess\nPopen\n.", "wants to use subprocess.Popen"),
        ("torch function", b"ctorch.hub\nload\n.", "wants to use torch.hub.load"),
        ("quantized storage", b"ctorch\nQInt8Storage\n.", "wants to use torch.QInt8Storage"),
        ("escape in a name", b"cos\x1b[2J\nsystem\n.", "wants to use os\\u{1b}[2J.system"),
        ("call of a storage class", b"ctorch\nFloatStorage\n)R.", "ForbiddenCall"),
        ("call of a script class", b"c__torch__.a\nB\n)R.", "wants to call __torch__.a.B"),
        ("call of a dict", b"})R.", "wants to call a container"),
        ("call without a tuple", b"ccollections\nOrderedDict\nNR.", "a tuple of arguments"),
        ("new object of a function", b"ctorch._utils\n_rebuild_tensor_v2\n)\x81.", "object made from torch._utils"),
        ("new object of a number", b"K\x01)\x81.", "object made from an integer"),
        ("OBJ", b"(c__torch__\nA\no.", "object made from __torch__.A"),
        ("OBJ of nothing", b"(o.", "StackUnderflow"),
        ("INST of a known class", b"(ccollections\nOrderedDict\nicollections\nOrderedDict\n.", "ForbiddenObject"),
        ("NEWOBJ_EX", b"})}\x92.", "NEWOBJ_EX"),
        ("PERSID", b"Pabc\n.", "PERSID"),
        ("state of a dict", b"}}X\x01\0\0\0aNsb.", "set the state of an OrderedDict"),
        ("state of a list", b"]}b.", "ForbiddenState"),
        ("persistent id of five numbers", b"(K\x01K\x01K\x01K\x01K\x01tQ.", "BadPersistentId"),
        ("memo never set", b"h\x05.", "NoMemo"),
        ("pop below a mark", b"N(0.", "StackUnderflow"),
        ("append below a mark", b"](Na.", "StackUnderflow"),
        ("append to a dict", b"}Na.", "a list"),
        ("set on a list", b"]NNs.", "a dict"),
        ("odd items", b"}(Nu.", "an even number"),
        ("name from numbers", b"K\x01K\x02\x93.", "the name of a global"),
        ("text that is not UTF-8", b"X\x01\0\0\0\xff.", "NotUtf8"),
        ("negative length", b"\x8b\xff\xff\xff\xff.", "BadNumber"),
        ("tensor of nothing", b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "fewer than four"),
        ("parameter of nothing", b"ctorch._utils\n_rebuild_parameter\n)R.", "not a tensor"),
        ("empty dict", b"}.", "NoTensors"),
        ("dict of numbers", b"}X\x01\0\0\0aK\x01s.", "found: \\\"a\\\""),
    ] {
        let message = error_of(zip_archive(&[("m/data.pkl", code)], ZipKind::Plain));
        assert!(message.contains(reason), "{what}: {message}");
    }
}

#[test]
fn torch_tensors_are_checked_against_their_storage() {
    let open = |shape: &[i32], strides: &[i32], declared: i32, stored: usize| {
        let code = pickle(&[("layer.w", shape, strides)], declared);
        Checkpoint::from_bytes(torch_zip(&code, &vec![1.0; stored], ZipKind::Plain))
    };
    for (what, shape, strides, declared, stored, reason) in [
        ("beyond the end", &[5][..], &[1][..], 4, 4, "OutsideStorage"),
        ("beyond by stride", &[2, 2], &[3, 1], 4, 4, "OutsideStorage"),
        ("negative size", &[-1], &[1], 4, 4, "Negative"),
        ("negative count", &[1], &[1], -4, 4, "Negative"),
        ("storage shorter than declared", &[4], &[1], 4, 3, "StorageSize"),
        ("storage longer than declared", &[4], &[1], 4, 5, "StorageSize"),
        ("nine dimensions", &[1; 9], &[1; 9], 4, 4, "at most 8"),
        ("two strides for one size", &[1], &[1, 1], 4, 4, "differ in length"),
        ("repeated beyond the limit", &[4097, 4096], &[0, 0], 4, 4, "Expanded"),
        ("overlapping beyond the limit", &[100_000, 200], &[1, 1], 100_199, 100_199, "Expanded"),
        ("overflow beside a zero", &[i32::MAX, i32::MAX, i32::MAX, 0], &[1; 4], 4, 4, "ShapeOverflow"),
    ] {
        let error = open(shape, strides, declared, stored).expect_err(what);
        let message = format!("{error} {error:?}");
        assert!(message.contains(reason), "{what}: {message}");
        if !matches!(error, WeightsError::Pickle { .. }) {
            assert!(message.contains("layer.w"), "{what} does not name the tensor: {message}");
        }
    }
    let repeated = open(&[4096, 4096], &[0, 0], 4, 4).unwrap();
    assert_eq!(repeated.get("layer.w").unwrap().elements(), 1 << 24);
}

/// A legacy file of one tensor over storage "0" with these f32, the count given separately.
fn legacy(keys: &[u8], count: i64, storage: &[f32], little_endian: bool) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    out.extend_from_slice(b"\x80\x02}X\x0d\0\0\0little_endian");
    out.extend_from_slice(&[if little_endian { 0x88 } else { 0x89 }, b's', b'.']);
    out.extend(pickle(&[("w", &[3], &[1])], 3));
    out.extend_from_slice(keys);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend(storage.iter().flat_map(|v| v.to_le_bytes()));
    out
}

#[test]
fn legacy_files_are_checked() {
    let keys = b"\x80\x02]X\x01\0\0\x000a.";
    let good = Checkpoint::from_bytes(legacy(keys, 3, &[1., 2., 3.], true)).unwrap();
    let mut out = [0.0; 3];
    good.read_f32("w", &mut out).unwrap();
    assert_eq!((good.container(), out), (Container::TorchLegacy, [1., 2., 3.]));
    for (what, bytes, reason) in [
        ("big-endian", legacy(keys, 3, &[1., 2., 3.], false), "BigEndian"),
        ("count", legacy(keys, 4, &[1., 2., 3., 4.], true), "LegacyCount"),
        ("cut storage", legacy(keys, 3, &[1., 2.], true), "ShortRead"),
        ("no storage", legacy(b"\x80\x02].", 3, &[1., 2., 3.], true), "NoStorage"),
        ("unknown key", legacy(b"\x80\x02]X\x01\0\0\x009a.", 3, &[1., 2., 3.], true), "LegacyUnknownStorage"),
        ("keys that are no list", legacy(b"\x80\x02N.", 3, &[1., 2., 3.], true), "LegacyShape"),
    ] {
        let message = error_of(bytes);
        assert!(message.contains(reason), "{what}: {message}");
    }
}

#[test]
fn script_modules_become_dotted_paths() {
    let tensor = pickle(&[("x", &[1], &[1])], 1);
    let (start, end) = (b"\x80\x02}(X\x01\0\0\0x".len(), tensor.len() - 2);
    let tensor = &tensor[start..end];
    let text = |t: &str| [&b"X"[..], &(t.len() as u32).to_le_bytes(), t.as_bytes()].concat();
    let new = b"c__torch__.m\nBox\n)\x81}(";
    // Top { training: true, "a": Box { "b": tensor } }
    let code =
        [b"\x80\x02", &new[..], &text("training"), b"\x88", &text("a"), new, &text("b"), tensor, b"ubub."].concat();
    let checkpoint = Checkpoint::from_bytes(torch_zip(&code, &[5.0], ZipKind::Plain)).unwrap();
    assert_eq!(checkpoint.container(), Container::TorchScript);
    assert_eq!(checkpoint.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a.b"]);

    // A module that holds itself, and 2^40 paths through shared modules.
    let cycle = [b"\x80\x02c__torch__\nA\n)\x81q\x00}", &text("s")[..], b"h\x00sb."].concat();
    assert!(error_of(torch_zip(&cycle, &[5.0], ZipKind::Plain)).contains("TooDeep"));
    let mut shared = b"\x80\x02c__torch__\nA\n)\x81q\x00".to_vec();
    for level in 1..40u8 {
        let (a, b) = (text("a"), text("b"));
        let get = [b'h', level - 1];
        shared.extend([b"c__torch__\nA\n)\x81}(", &a[..], &get, &b, &get, b"ubq", &[level]].concat());
    }
    shared.push(b'.');
    let start = Instant::now();
    assert!(error_of(torch_zip(&shared, &[5.0], ZipKind::Plain)).contains("TooManyModules"));
    assert!(start.elapsed() < Duration::from_secs(2));
}

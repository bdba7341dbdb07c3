//! `.npz` trees: what numpy writes, stored and deflated, and what is refused.

use openvision_io::weights::{Checkpoint, Container, DType, WeightsError};

use super::support::*;

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let mut out = vec![0.0; checkpoint.get(name).unwrap().elements()];
    checkpoint.read_f32(name, &mut out).unwrap();
    out
}

#[test]
fn what_numpy_writes_is_read() {
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let matrix = f32s(&[1., 2., 3., 4., 5., 6.]);
    let arrays = [
        ("a/kernel.npy", npy("<f4", false, "(2, 3)", &matrix)),
        ("a/turned.npy", npy("<f4", true, "(2, 3)", &matrix)),
        ("a/half.npy", npy("<f2", true, "(3, 2)", &[0x00, 0x3c, 0x00, 0xc0, 0, 0, 0, 0, 0, 0, 0xff, 0x7b])),
        ("a/brain.npy", npy("|V2", false, "(2,)", &[0x80, 0x3f, 0x00, 0xc0])),
        ("count.npy", npy("<i4", false, "()", &[7, 0, 0, 0])),
        ("empty.npy", npy("<f8", false, "(0, 5)", &[])),
        ("notes.txt", b"not an array".to_vec()),
    ];
    let members: Vec<(&str, &[u8])> = arrays.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    for kind in [ZipKind::Plain, ZipKind::Zip64, ZipKind::Deflated] {
        let checkpoint = Checkpoint::from_bytes(zip_archive(&members, kind)).unwrap();
        assert_eq!((checkpoint.container(), checkpoint.ignored()), (Container::Npz, &["notes.txt".to_owned()][..]));
        let names: Vec<&str> = checkpoint.tensors().iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a/brain", "a/half", "a/kernel", "a/turned", "count", "empty"]);
        assert_eq!(values(&checkpoint, "a/kernel"), [1., 2., 3., 4., 5., 6.]);
        assert_eq!(values(&checkpoint, "a/turned"), [1., 3., 5., 2., 4., 6.]);
        assert_eq!(values(&checkpoint, "a/half"), [1., 0., -2., 0., 0., 65504.]);
        assert_eq!(
            (checkpoint.get("a/brain").unwrap().dtype, values(&checkpoint, "a/brain")),
            (DType::BF16, vec![1., -2.])
        );
        assert_eq!(values(&checkpoint, "count"), [7.]);
        assert_eq!(checkpoint.read_bytes("a/turned").unwrap(), f32s(&[1., 3., 5., 2., 4., 6.]));
        // Parts only where they are cheap.
        let part = checkpoint.read_f32_part("a/kernel", 2, &mut [0.0; 3]).unwrap();
        assert_eq!(part, kind != ZipKind::Deflated);
    }
}

#[test]
fn the_model_is_found_beside_its_optimizer() {
    let one = npy("<f4", false, "(1,)", &[0; 4]);
    let names = |names: &[&str]| {
        let members: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, one.as_slice())).collect();
        let checkpoint = Checkpoint::from_bytes(zip_archive(&members, ZipKind::Plain)).unwrap();
        let tensors: Vec<String> = checkpoint.tensors().iter().map(|t| t.name.clone()).collect();
        (tensors, checkpoint.ignored().to_vec())
    };
    let strings = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<String>>();
    let found = names(&["params/img/cls.npy", "params/t.npy", "opt/0/mu.npy", "opt/1/nu.npy", "extra.npy"]);
    assert_eq!(found, (strings(&["img/cls", "t"]), strings(&["extra", "opt"])));
    assert_eq!(names(&["opt/target/t.npy", "opt/state.npy"]), (strings(&["t"]), strings(&["opt"])));
    assert_eq!(names(&["img/cls.npy", "t.npy"]), (strings(&["img/cls", "t"]), vec![]));
}

#[test]
fn defects_have_their_errors() {
    let good = npy("<f4", false, "(2,)", &[0; 8]);
    let archive = |array: &[u8], kind| zip_archive(&[("a.npy", array)], kind);
    let mut version = good.clone();
    version[6] = 4;
    let mut long = good.clone();
    long[8..10].copy_from_slice(&u16::MAX.to_le_bytes());
    for (what, bytes, reason) in [
        ("magic", archive(b"\x93NUMPX\x01\0\0\0", ZipKind::Plain), "Magic"),
        ("version", archive(&version, ZipKind::Plain), "Version"),
        ("header too long", archive(&long, ZipKind::Plain), "HeaderTooLong"),
        ("header cut", archive(&good[..40], ZipKind::Deflated), "Header {"),
        ("too few bytes", archive(&good[..good.len() - 1], ZipKind::Plain), "Size"),
        ("too many bytes", archive(&[&good[..], &[0]].concat(), ZipKind::Deflated), "Size"),
        ("bomb", archive(&npy("<f4", false, "(20000000,)", &vec![0; 80_000_000]), ZipKind::Deflated), "Bomb"),
        ("twice", zip_archive(&[("a.npy", &good), ("a.npy", &good)], ZipKind::Plain), "DuplicateMember"),
        ("name", zip_archive(&[("a\u{1b}[31m.npy", b"x")], ZipKind::Plain), "a\\u{1b}[31m"),
    ] {
        let message = error_of(bytes);
        assert!(message.contains(reason), "{what}: {message}");
    }
}

#[test]
fn a_stream_that_breaks_or_runs_on_is_an_error_when_read() {
    let data: Vec<u8> = (0..4000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let good = zip_archive(&[("a.npy", &npy("<f4", false, "(4000,)", &data))], ZipKind::Deflated);
    let mut broken = good.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 64].fill(0xff);
    let checkpoint = Checkpoint::from_bytes(broken).unwrap();
    let error = checkpoint.read_f32("a", &mut vec![0.0; 4000]).unwrap_err();
    assert!(matches!(error, WeightsError::Npy { .. }), "{error}");
    // The directory and the header say 3,999 elements, the stream holds 4,000.
    let shorter = npy("<f4", false, "(3999,)", &data);
    let mut lying = zip_archive(&[("a.npy", &shorter)], ZipKind::Deflated);
    let directory = lying.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    lying[directory + 24..directory + 28].copy_from_slice(&(shorter.len() as u32 - 4).to_le_bytes());
    let checkpoint = Checkpoint::from_bytes(lying).unwrap();
    assert!(checkpoint.read_bytes("a").unwrap_err().to_string().contains("inflates to more"));
}

#[test]
fn orbax_folders_are_called_by_their_name() {
    // As orbax-checkpoint 0.7, which OpenVision pins, lays out a step.
    let temp = TempFolder::new("orbax");
    let step = temp.0.join("jax_orbax_weight/checkpoint.npz/7");
    std::fs::create_dir_all(step.join("default/d")).unwrap();
    for name in ["_CHECKPOINT_METADATA", "default/_METADATA", "default/manifest.ocdbt"] {
        std::fs::write(step.join(name), b"{}").unwrap();
    }
    for folder in
        ["", "jax_orbax_weight", "jax_orbax_weight/checkpoint.npz", "jax_orbax_weight/checkpoint.npz/7/default"]
    {
        let error = Checkpoint::open(&temp.0.join(folder)).unwrap_err();
        assert!(matches!(error, WeightsError::Orbax { .. }), "{folder}: {error}");
        assert!(error.to_string().contains("numpy.savez"));
    }
}

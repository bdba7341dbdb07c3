//! What the checkpoint tests share: folders, small files made by hand.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use openvision_io::weights::Checkpoint;

pub(super) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(super) fn testdata(path: &str) -> PathBuf {
    workspace().join("testdata").join(path)
}

/// A folder of the project's shared data, or None with a line that says so.
pub(super) fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("OPENVISION_SHARED").map_or_else(|| workspace().join("../shared"), PathBuf::from);
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    println!("skipped: shared/ is not here ({path})");
    None
}

/// A golden from the repository if it was copied there, else from shared/.
pub(super) fn golden(path: &str) -> Option<PathBuf> {
    let here = testdata("goldens").join(path);
    if here.exists() { Some(here) } else { shared("goldens").map(|root| root.join(path)) }
}

/// A folder that is removed at the end of the test.
pub(super) struct TempFolder(pub(super) PathBuf);

impl TempFolder {
    pub(super) fn new(name: &str) -> TempFolder {
        let path = std::env::temp_dir().join(format!("openvision-weights-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        TempFolder(path)
    }

    pub(super) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn assert_same_tensors(got: &Checkpoint, want: &Checkpoint) {
    assert_eq!(got.tensors(), want.tensors());
    for info in want.tensors() {
        assert_eq!(got.read_bytes(&info.name).unwrap(), want.read_bytes(&info.name).unwrap(), "{}", info.name);
        let (mut a, mut b) = (vec![0.0; info.elements()], vec![0.0; info.elements()]);
        got.read_f32(&info.name, &mut a).unwrap();
        want.read_f32(&info.name, &mut b).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&a), bits(&b), "{}", info.name);
    }
}

/// A safetensors file of this header, unpadded, and data.
pub(super) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum ZipKind {
    Plain,
    /// Every size and offset in zip64 fields.
    Zip64,
    /// A comment at the end, with an end record's signature inside it.
    Comment,
    /// Members deflated.
    Deflated,
}

/// A zip archive of stored members, after APPNOTE 6.3.10.
pub(super) fn zip_archive(members: &[(&str, &[u8])], kind: ZipKind) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, plain) in members {
        let offset = out.len() as u64;
        let (wide, deflated) = (kind == ZipKind::Zip64, kind == ZipKind::Deflated);
        let data = if deflated { deflate(plain) } else { plain.to_vec() };
        let method = if deflated { 8 } else { 0 };
        let size32 = if wide { u32::MAX } else { data.len() as u32 };
        let plain32 = if wide { u32::MAX } else { plain.len() as u32 };
        out.extend_from_slice(&[b'P', b'K', 3, 4, 20, 0, 0, 0, method, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&[size32.to_le_bytes(), plain32.to_le_bytes()].concat());
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        let padding = [b'F', b'B', 5, 0, 0, 0, 0, 0, 0];
        out.extend_from_slice(&(padding.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&padding);
        out.extend_from_slice(&data);

        let len = data.len() as u64;
        let mut extra = vec![];
        if wide {
            extra =
                [&[9, 9, 2, 0, 7, 7, 1, 0, 24, 0][..], &len.to_le_bytes(), &len.to_le_bytes(), &offset.to_le_bytes()]
                    .concat();
        }
        let offset32 = if wide { u32::MAX } else { offset as u32 };
        directory.extend_from_slice(&[b'P', b'K', 1, 2, 20, 0, 20, 0, 0, 0, method, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        directory.extend_from_slice(&[size32.to_le_bytes(), plain32.to_le_bytes()].concat());
        directory.extend_from_slice(&(name.len() as u16).to_le_bytes());
        directory.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset32.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
        directory.extend_from_slice(&extra);
    }
    let (start, size) = (out.len() as u64, directory.len() as u64);
    out.extend_from_slice(&directory);
    let count = members.len() as u64;
    if kind == ZipKind::Zip64 {
        let record = out.len() as u64;
        out.extend_from_slice(b"PK\x06\x06");
        out.extend_from_slice(&44u64.to_le_bytes());
        out.extend_from_slice(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [count, count, size, start] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        out.extend_from_slice(&record.to_le_bytes());
        out.extend_from_slice(&1u32.to_le_bytes());
        out.extend_from_slice(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
        return out;
    }
    let comment: &[u8] = if kind == ZipKind::Comment { b"PK\x05\x06 is not the end\0\0\0\0\0\0\0\0\0\0" } else { b"" };
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&[(count as u16).to_le_bytes(), (count as u16).to_le_bytes()].concat());
    out.extend_from_slice(&[(size as u32).to_le_bytes(), (start as u32).to_le_bytes()].concat());
    out.extend_from_slice(&(comment.len() as u16).to_le_bytes());
    out.extend_from_slice(comment);
    out
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An array as numpy writes it.
pub(super) fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    header += &" ".repeat(63 - (header.len() + 10) % 64);
    header.push('\n');
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// `{"name": tensor, ...}` as torch pickles it, every tensor over storage 0 of `elements` f32.
pub(super) fn pickle(tensors: &[(&str, &[i32], &[i32])], elements: i32) -> Vec<u8> {
    let int = |n: i32| [&b"J"[..], &n.to_le_bytes()].concat();
    let text = |t: &str| [&b"X"[..], &(t.len() as u32).to_le_bytes(), t.as_bytes()].concat();
    let tuple = |ns: &[i32]| [&b"("[..], &ns.iter().flat_map(|n| int(*n)).collect::<Vec<_>>(), b"t"].concat();
    let mut out = b"\x80\x02}(".to_vec();
    for (name, shape, strides) in tensors {
        out.extend(text(name));
        out.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        out.extend(text("storage"));
        out.extend_from_slice(b"ctorch\nFloatStorage\n");
        out.extend(
            [text("0"), text("cpu"), int(elements), b"tQ".to_vec(), int(0), tuple(shape), tuple(strides)].concat(),
        );
        out.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend_from_slice(b"u.");
    out
}

pub(super) fn torch_zip(pickle: &[u8], storage: &[f32], kind: ZipKind) -> Vec<u8> {
    let bytes: Vec<u8> = storage.iter().flat_map(|v| v.to_le_bytes()).collect();
    zip_archive(&[("m/data.pkl", pickle), ("m/data/0", &bytes), ("m/byteorder", b"little")], kind)
}

pub(super) fn error_of(bytes: Vec<u8>) -> String {
    let error = Checkpoint::from_bytes(bytes).expect_err("must be refused");
    format!("{error} | {error:?}")
}

/// For child processes: where the files are.
pub(super) const FOLDER_VARIABLE: &str = "OPENVISION_TEST_HOSTILE";

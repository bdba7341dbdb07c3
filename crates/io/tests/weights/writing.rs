//! What is written is whole or not there, and reads back.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use openvision_io::weights::{
    Checkpoint, DType, SafeTensorsWriter, TensorData, TensorInfo, WeightsError, write_safetensors,
};

use super::support::*;

/// A small generator (xorshift64*), so that failures repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> usize {
        ((self.next() >> 11) % n) as usize
    }
}

#[test]
fn what_is_written_is_read_back() {
    let temp = TempFolder::new("round");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let characters: Vec<char> = "abc.\"\\/\n\u{0}\u{7f}é漢😀 ".chars().collect();
    for round in 0..300 {
        let mut tensors: BTreeMap<String, (DType, Vec<usize>, Vec<u8>)> = BTreeMap::new();
        for _ in 0..random.below(8) {
            let name: String = (0..random.below(12)).map(|_| characters[random.below(13)]).collect();
            let dtype = DType::PLAIN[random.below(10)];
            let shape: Vec<usize> = (0..random.below(9)).map(|_| random.below(4)).collect();
            let bytes = shape.iter().product::<usize>() * dtype.block().1;
            tensors.insert(name, (dtype, shape, (0..bytes).map(|_| random.next() as u8).collect()));
        }
        let metadata: BTreeMap<String, String> =
            (0..random.below(3)).map(|i| (format!("k{i}\""), characters.iter().collect())).collect();
        let data: Vec<TensorData> = tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| TensorData { name, dtype: *dtype, shape, bytes: bytes.into() })
            .collect();
        let path = temp.0.join("t.safetensors");
        write_safetensors(&path, &metadata, &data).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.metadata(), &metadata, "round {round}");
        assert_eq!(checkpoint.tensors().len(), tensors.len());
        for (name, (dtype, shape, bytes)) in &tensors {
            let info = checkpoint.get(name).unwrap();
            assert_eq!((info.dtype, &info.shape), (*dtype, shape), "round {round}");
            assert_eq!(&checkpoint.read_bytes(name).unwrap(), bytes, "round {round}");
        }
        // Aligned as the type wants, so that other programs can map the file.
        let text = fs::read(&path).unwrap();
        assert_eq!(u64::from_le_bytes(text[..8].try_into().unwrap()) % 8, 0);
    }
    assert_eq!(temp.names(), ["t.safetensors"]);
}

fn info(name: &str, dtype: DType, shape: &[usize]) -> TensorInfo {
    TensorInfo { name: name.to_owned(), dtype, shape: shape.to_vec() }
}

#[test]
fn an_unfinished_writer_leaves_nothing_and_keeps_the_old_file() {
    let temp = TempFolder::new("unfinished");
    let path = temp.file("m.safetensors", b"old");
    let none = BTreeMap::new();
    let infos = [info("a", DType::F32, &[2]), info("b", DType::U8, &[0])];
    {
        let mut writer = SafeTensorsWriter::create(&path, &none, &infos).unwrap();
        writer.write("a", &[0; 8]).unwrap();
        assert_eq!(temp.names().len(), 2, "a temporary beside the old file");
    }
    assert_eq!((temp.names(), fs::read(&path).unwrap()), (vec!["m.safetensors".to_owned()], b"old".to_vec()));
    let writer = SafeTensorsWriter::create(&path, &none, &infos).unwrap();
    assert!(matches!(writer.finish(), Err(WeightsError::NotWritten { .. })));
    assert_eq!((temp.names(), fs::read(&path).unwrap()), (vec!["m.safetensors".to_owned()], b"old".to_vec()));
}

#[test]
fn the_writer_refuses_what_no_reader_would_take() {
    let temp = TempFolder::new("refuse");
    let path = temp.0.join("m.safetensors");
    let none = BTreeMap::new();
    for (infos, why) in [
        (vec![info("a", DType::F32, &[1]), info("a", DType::U8, &[1])], "twice"),
        (vec![info("__metadata__", DType::F32, &[1])], "reserved"),
        (vec![info("a", DType::F32, &[1; 9])], "8 dimensions"),
        (vec![info("a", DType::F32, &[usize::MAX, 2])], "overflows"),
        (
            vec![info("a", DType::U8, &[1 << 62]), info("b", DType::U8, &[3 << 61]), info("c", DType::U8, &[3 << 61])],
            "too large",
        ),
    ] {
        let message = SafeTensorsWriter::create(&path, &none, &infos).unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    }
    let mut writer = SafeTensorsWriter::create(&path, &none, &[info("a", DType::F32, &[1])]).unwrap();
    assert!(writer.write("b", &[]).unwrap_err().to_string().contains("not announced"));
    assert!(writer.write("a", &[0; 3]).unwrap_err().to_string().contains("not as many"));
    writer.write("a", &[0; 4]).unwrap();
    assert!(writer.write("a", &[0; 4]).unwrap_err().to_string().contains("before"));
    writer.finish().unwrap();
    // A folder has the name.
    let folder = temp.0.join("folder");
    fs::create_dir(&folder).unwrap();
    let error = write_safetensors(&folder, &none, &[]).unwrap_err();
    assert!(error.to_string().contains("cannot move"), "{error}");
    let error = write_safetensors(&temp.0.join("absent/m.safetensors"), &none, &[]).unwrap_err();
    assert!(error.to_string().contains("cannot create"), "{error}");
    assert_eq!(temp.names(), ["folder", "m.safetensors"]);
}

#[test]
#[ignore = "the child process of a_failing_disk_leaves_nothing"]
fn failing_disk_child() {
    let folder = PathBuf::from(std::env::var_os(FOLDER_VARIABLE).expect("set by the parent"));
    let big = vec![1u8; 4 << 20];
    let data = TensorData { name: "a", dtype: DType::U8, shape: &[4 << 20], bytes: big.into() };
    let error = write_safetensors(&folder.join("m.safetensors"), &BTreeMap::new(), &[data]).unwrap_err();
    println!("\nRESULT\t{error}");
}

/// The limit on the size of a file stands for the end of the disk: the write fails half way.
#[test]
#[cfg(target_os = "linux")]
fn a_failing_disk_leaves_nothing() {
    let temp = TempFolder::new("disk");
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1024 || exit 99; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "weights::writing::failing_disk_child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER_VARIABLE, &temp.0)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("RESULT\tcannot write"), "{text}");
    assert!(text.contains("nothing was kept"), "{text}");
    assert_eq!(temp.names(), Vec::<String>::new());
}

#[test]
fn files_of_the_first_version_still_open_and_are_still_written_alike() {
    let file = testdata("formats/safetensors-1.safetensors");
    let checkpoint = Checkpoint::open(&file).unwrap();
    let mut values = [0.0; 3];
    checkpoint.read_f32("half", &mut values).unwrap();
    assert_eq!(values, [1.0, -2.0, 65504.0]);
    let temp = TempFolder::new("version");
    let again = temp.0.join("again.safetensors");
    let mut writer = SafeTensorsWriter::create(&again, checkpoint.metadata(), checkpoint.tensors()).unwrap();
    for info in checkpoint.tensors().iter().rev() {
        writer.write(&info.name, &checkpoint.read_bytes(&info.name).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(fs::read(again).unwrap(), fs::read(file).unwrap());
}

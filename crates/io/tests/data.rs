//! Tar archives and shards: files of Python's tarfile, what we write, archives cut and flipped at every byte.

use openvision_io::data::parquet::{Column, ParquetError, Pictures, Table};
use openvision_io::data::shard::{ShardError, ShardWriter};
use openvision_io::data::tar::{Tar, TarError};
use openvision_io::data::vectors::{TextColumn, VectorTable};
use openvision_io::image::{Limits, decode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn formats(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/formats").join(name)
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("openvision-data-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Names and contents of tools/goldens/make_archives.py.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "plain/0001.jpg",
        "plain/0001.json",
        "plain/0001.seg.png",
        "plain/.hidden.jpg",
        "plain/0002.JPG",
        "../up/0003.jpg",
        "plain/no-extension",
    ]
    .map(String::from)
    .to_vec();
    names.push(format!("{}/{}/0004.txt", "d".repeat(90), "e".repeat(60)));
    names.push(format!("{}/{}.txt", "d".repeat(60), "f".repeat(120)));
    names.push("plain/größe 5.txt".into());
    names
}

fn check(tar: &Tar, skipped: Option<usize>, whole: usize) {
    let wanted: Vec<(usize, String)> =
        names().into_iter().enumerate().filter(|(i, _)| Some(*i) != skipped).take(whole).collect();
    assert_eq!(tar.len(), wanted.len());
    for (index, (i, name)) in wanted.iter().enumerate() {
        assert_eq!(tar.entry(index).name, *name);
        assert_eq!(tar.read(index, 1 << 20).unwrap(), vec![*i as u8; i * 100], "{name}");
    }
}

#[test]
fn archives_of_tarfile_in_every_format() {
    for (file, skipped) in [("tarfile-gnu.tar", None), ("tarfile-pax.tar", None), ("tarfile-ustar.tar", Some(8))] {
        let tar = Tar::open(&formats(file)).unwrap();
        assert!(tar.defects().is_empty(), "{file}: {:?}", tar.defects());
        check(&tar, skipped, usize::MAX);
        let keys: Vec<String> = tar.samples().map(|sample| sample.key).collect();
        assert_eq!(keys[..3], ["plain/0001", "plain/0002", "../up/0003"]);
        let first = tar.samples().next().unwrap();
        assert_eq!(first.fields.iter().map(|f| f.extension.as_str()).collect::<Vec<_>>(), ["jpg", "json", "seg.png"]);
        assert!(matches!(tar.read(1, 99), Err(TarError::EntryTooLong { bytes: 100, limit: 99, .. })));
    }
}

/// Whatever is whole before the cut is used, and the cut is always noticed.
#[test]
fn archives_cut_at_every_byte() {
    for file in ["tarfile-gnu.tar", "tarfile-pax.tar"] {
        let bytes = std::fs::read(formats(file)).unwrap();
        let whole = Tar::from_bytes(bytes.clone(), Path::new(file)).unwrap();
        let ends: Vec<u64> = whole.entries().map(|entry| entry.offset + entry.length).collect();
        let content = bytes.iter().rposition(|b| *b != 0).unwrap() / 512 * 512 + 512;
        for cut in 0..bytes.len() {
            let result = Tar::from_bytes(bytes[..cut].to_vec(), Path::new(file));
            if cut < 512 {
                assert!(matches!(result, Err(TarError::NotTar { .. })), "{cut}");
                continue;
            }
            let tar = result.unwrap();
            let complete = ends.iter().filter(|end| **end <= cut as u64).count();
            assert!(tar.len() == complete || tar.len() + 1 == complete, "{cut}: {} of {complete}", tar.len());
            check(&tar, None, tar.len());
            let marked = cut >= content + 512;
            assert_eq!(tar.defects().is_empty(), marked, "{cut}");
            assert!(marked || matches!(tar.defects(), [TarError::Truncated { .. }]), "{cut}: {:?}", tar.defects());
        }
    }
}

/// A flipped bit is a defect or a changed value, never a panic or a read outside the file.
#[test]
fn archives_with_flipped_bits() {
    let bytes = std::fs::read(formats("tarfile-pax.tar")).unwrap();
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut bad = bytes.clone();
            bad[at] ^= bit;
            let Ok(tar) = Tar::from_bytes(bad, Path::new("flipped.tar")) else { continue };
            for index in 0..tar.len() {
                assert!(tar.read(index, 1 << 20).unwrap().len() <= bytes.len());
            }
            assert!(tar.samples().count() <= tar.len());
        }
    }
}

/// A header with a right checksum.
fn header(name: &[u8], kind: u8, size: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[124..124 + size.len()].copy_from_slice(size);
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn open(parts: &[&[u8]]) -> Result<Tar, TarError> {
    Tar::from_bytes(parts.concat(), Path::new("made.tar"))
}

#[test]
fn hostile_headers_have_their_defect() {
    let good = header(b"good.txt", b'0', b"0");
    let end = [0; 1024];
    let base256 = |value: u128| [&[0x80][..], &value.to_be_bytes()[5..]].concat();
    let pax = |records: &str| {
        let mut data = records.as_bytes().to_vec();
        data.resize(data.len().next_multiple_of(512), 0);
        [header(b"p", b'x', format!("{:o}", records.len()).as_bytes()), data].concat()
    };
    let record = |key: &str, value: &str| format!("{} {key}={value}\n", key.len() + value.len() + 5);
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("a size beyond the file", header(b"a.jpg", b'0', b"77777777777"), "cut off"),
        ("a size of 2^64 - 1", header(b"a.jpg", b'0', &base256(u128::from(u64::MAX))), "cut off"),
        ("a size of 2^64", header(b"a.jpg", b'0', &base256(1 << 64)), "no number"),
        ("a size that is no number", header(b"a.jpg", b'0', b"9z"), "no number"),
        (
            "a pax size beyond the file",
            [pax(&record("size", "9223372036854775807000")), good.clone()].concat(),
            "malformed",
        ),
        ("a pax size near 2^64", [pax(&record("size", "18446744073709551615")), good.clone()].concat(), "cut off"),
        ("a pax record without its length", pax("path=x\n"), "malformed"),
        ("a pax record of length 0", pax("0 path=x\n"), "malformed"),
        ("a huge pax header", header(b"p", b'x', b"40000000000"), "the limit is 1048576"),
        ("a wrong checksum", vec![b'x'; 512], "checksum"),
    ];
    for (what, bad, message) in cases {
        let tar = open(&[&good, &bad, &end]).unwrap();
        assert_eq!(tar.entries().map(|e| e.name.into_owned()).collect::<Vec<_>>(), ["good.txt"], "{what}");
        let defect = tar.defects()[0].to_string();
        assert!(defect.contains(message) && defect.contains("the 1 entries before it"), "{what}: {defect}");
    }
    // A sparse entry is named, and the ones behind it are found.
    let mut sparse = header(b"holes.jpg", b'S', b"1000");
    sparse[482] = 1;
    let sum: u32 =
        sparse.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    sparse[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let tar = open(&[&sparse, &[0; 512], &[1; 512], &good, &end]).unwrap();
    assert!(matches!(&tar.defects(), [TarError::Sparse { name, .. }] if name == "holes.jpg"));
    assert_eq!(tar.entry(0).name, "good.txt");
    let tar = open(&[&pax(&record("GNU.sparse.major", "1")), &good, &good, &end]).unwrap();
    assert_eq!((tar.len(), tar.defects().len()), (1, 1));
    // Names are labels: a NUL in a pax path, a climb out of the folder.
    let tar = open(&[&pax(&record("path", "../a\0b.jpg")), &good, &end]).unwrap();
    assert_eq!(tar.entry(0).name, "../a\0b.jpg");
    for (beginning, message) in [(&b"\x1F\x8B\x08\0"[..], "gunzip"), (b"\x28\xB5\x2F\xFD", "zstd"), (b"", "empty")] {
        assert!(open(&[beginning]).unwrap_err().to_string().contains(message));
    }
    let missing = Tar::open(Path::new("no/such.tar")).unwrap_err();
    assert_eq!(missing.code(), "not_found");
}

/// Formats that we write: tools/peers/tables.py has Python's packages read these very files. To write them anew after a
/// change of the format, delete them and run the tests.
fn same_as_stored(name: &str, bytes: &[u8]) {
    let path = formats(name);
    if !path.exists() {
        std::fs::write(&path, bytes).unwrap();
        panic!("{name} was not there and is written: check it with tools/peers/tables.py");
    }
    assert!(std::fs::read(path).unwrap() == bytes, "{name} differs");
}

#[test]
fn vectors_are_written_as_they_were_checked_by_pyarrow() {
    let inputs = ["a.jpg", "größe", ""];
    let input = |row: usize| inputs[row];
    let kind = |_: usize| "image";
    let texts = [TextColumn { name: "input", value: &input }, TextColumn { name: "kind", value: &kind }];
    let metadata = [("openvision.content".to_owned(), "unit".to_owned())];
    for (name, shape) in [("vectors-1", &[2][..]), ("tokens-1", &[2, 3])] {
        for rows in [3, 0] {
            let table = VectorTable { texts: &texts, vector: "embedding", shape, rows, metadata: &metadata };
            let count = rows * shape.iter().product::<usize>();
            let values: Vec<u8> = (0..count).flat_map(|i| (i as f32 / 4.0).to_le_bytes()).collect();
            let (mut parquet, mut arrow) = (Vec::new(), Vec::new());
            table.write_parquet(&mut parquet, &mut &values[..]).unwrap();
            table.write_arrow(&mut arrow, &mut &values[..]).unwrap();
            let empty = if rows == 0 { "-empty" } else { "" };
            same_as_stored(&format!("{name}{empty}.parquet"), &parquet);
            same_as_stored(&format!("{name}{empty}.arrow"), &arrow);
            let short = values.len().saturating_sub(1);
            let failed = rows > 0 && table.write_parquet(&mut Vec::new(), &mut &values[..short]).is_err();
            assert_eq!(failed, rows > 0);
            // What can be read back here: the texts and the metadata.
            let read = Arc::new(Table::from_bytes(parquet, Path::new("v.parquet")).unwrap());
            assert_eq!((read.rows(), &read.metadata()[0]), (rows as u64, &metadata[0]));
            let column = Column::new(Arc::clone(&read), 0).unwrap();
            for row in 0..rows {
                assert_eq!(column.get(row as u64).unwrap().unwrap().text(), inputs[row]);
            }
            assert!(Column::new(read, 2).is_err(), "lists are not read");
        }
    }
}

#[test]
fn shards_read_back_as_they_were_written() {
    let folder = folder("shards");
    let long = format!("{}/{}/0001", "d".repeat(90), "e".repeat(60));
    let longer = "k".repeat(300);
    type Fields<'a> = &'a [(&'a str, &'a [u8])];
    let samples: [(&str, Fields); 4] = [
        ("0001", &[("jpg", b"picture"), ("json", b"{}"), ("seg.png", b"")]),
        ("sub/größe", &[("jpg", &[7; 1000])]),
        (&long, &[("txt", b"a")]),
        (&longer, &[("txt", b"b"), ("synthetic", b"a caption")]),
    ];
    let write = |name: &str| {
        let path = folder.join(name);
        let mut writer = ShardWriter::create(&path).unwrap();
        for (key, fields) in samples {
            writer.write_sample(key, fields).unwrap();
        }
        assert!(!path.exists(), "nothing under the name before the end");
        writer.finish().unwrap();
        std::fs::read(path).unwrap()
    };
    let bytes = write("a.tar");
    same_as_stored("shard-1.tar", &bytes);
    assert_eq!((bytes.len() % 10240, &bytes), (0, &write("b.tar")));
    let tar = Tar::open(&folder.join("a.tar")).unwrap();
    assert!(tar.defects().is_empty());
    let read: Vec<_> = tar.samples().collect();
    assert_eq!(read.len(), samples.len());
    for (sample, (key, fields)) in read.iter().zip(samples) {
        assert_eq!(sample.key, key);
        let got: Vec<_> =
            sample.fields.iter().map(|f| (f.extension.clone(), tar.read(f.entry, 1 << 20).unwrap())).collect();
        assert_eq!(got, fields.iter().map(|(e, d)| ((*e).to_owned(), d.to_vec())).collect::<Vec<_>>());
    }
    for (key, extension) in [("a.b", "jpg"), ("", "jpg"), ("a/", "jpg"), ("a", ""), ("a", "b/c"), ("a\0b", "jpg")] {
        let mut writer = ShardWriter::create(&folder.join("c.tar")).unwrap();
        let refused = writer.write_sample(key, &[(extension, b"")]);
        assert!(matches!(refused, Err(ShardError::Sample { .. })), "{key:?} {extension:?}");
    }
    let mut writer = ShardWriter::create(&folder.join("c.tar")).unwrap();
    assert!(writer.write_sample("a", &[("jpg", b""), ("JPG", b"")]).is_err());
    drop(writer);
    let mut left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.tar", "b.tar"], "no temporary file is left");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Tables of tools/goldens/make_tables.py and what their rows are called.
const TABLES: [(&str, Option<&str>); 11] = [
    ("pyarrow-none", Some("id")),
    ("pyarrow-snappy", Some("id")),
    ("pyarrow-gzip", Some("id")),
    ("pyarrow-zstd", Some("id")),
    ("pyarrow-lz4", Some("id")),
    ("pyarrow-v2-pages", Some("id")),
    ("pyarrow-v1-plain", Some("id")),
    ("pyarrow-delta_length_byte_array", Some("id")),
    ("pyarrow-delta_byte_array", Some("id")),
    ("duckdb", Some("id")),
    ("datasets", None),
];

#[test]
fn tables_of_every_writer_give_their_pictures() {
    for (name, id) in TABLES {
        let pictures = Pictures::open(&formats(&format!("{name}.parquet")), None).unwrap();
        assert_eq!(pictures.len(), 11, "{name}");
        // Backwards, so that pages are found again after they were given up.
        for row in (0..11).rev() {
            let label = if id.is_some() { format!("{}", 100 + row) } else { format!("{row}.png") };
            let cell = match pictures.get(row, 1 << 20) {
                Ok(cell) => cell,
                Err(error) => {
                    assert!(row == 3 && matches!(error, ParquetError::NoValue { row: 3, .. }), "{name} {row}: {error}");
                    continue;
                }
            };
            assert_eq!(pictures.label(row), Some(label), "{name}");
            let picture = decode(cell.bytes().unwrap(), &Limits::default()).unwrap();
            let color = [row as u8, 2 * row as u8, 3 * row as u8];
            assert_eq!((picture.width, picture.data), (2, color.repeat(4)), "{name} {row}");
        }
        assert!(matches!(pictures.get(1, 10), Err(ParquetError::TooLong { limit: 10, .. })));
        let table = Arc::new(Table::open(&formats(&format!("{name}.parquet"))).unwrap());
        let caption = table.leaves().iter().position(|leaf| leaf.path == "caption").unwrap();
        let captions = Column::new(Arc::clone(&table), caption).unwrap();
        for row in 0..11 {
            assert_eq!(captions.get(row).unwrap().unwrap().text(), format!("caption {row}"), "{name}");
        }
    }
}

#[test]
fn tables_that_do_not_fit_say_why() {
    let message = |name: &str, column: Option<&str>| Pictures::open(&formats(name), column).unwrap_err().to_string();
    let none = "pyarrow-none.parquet";
    assert!(message(none, Some("caption")).contains("columns that do: image"));
    assert!(message(none, Some("scores")).contains("no column 'scores'"));
    assert!(message(none, Some("pixels")).contains("no column 'pixels'; columns of bytes: image"));
    assert!(message("tarfile-gnu.tar", None).contains("PAR1"));
    let brotli = Pictures::open(&formats("pyarrow-brotli.parquet"), Some("IMAGE")).unwrap();
    let refused = brotli.get(0, 1 << 20).unwrap_err();
    assert!(refused.to_string().contains("Brotli") && refused.code() == "unsupported", "{refused}");
}

/// Reads everything that can be read.
fn read_table(bytes: Vec<u8>) -> Result<usize, ParquetError> {
    let table = Arc::new(Table::from_bytes(bytes, Path::new("bad.parquet"))?);
    let mut read = 0;
    for leaf in 0..table.leaves().len() {
        let Ok(column) = Column::new(Arc::clone(&table), leaf) else { continue };
        for row in 0..table.rows() {
            read += column.get(row)?.map_or(0, |cell| cell.text().len());
        }
    }
    Ok(read)
}

#[test]
fn tables_cut_at_every_byte_and_with_flipped_bits() {
    for (name, _) in TABLES {
        let bytes = std::fs::read(formats(&format!("{name}.parquet"))).unwrap();
        for cut in 0..bytes.len() {
            assert!(read_table(bytes[..cut].to_vec()).is_err(), "{name} {cut}");
        }
        for at in 0..bytes.len() {
            for bit in [0x01, 0x10, 0x80] {
                let mut bad = bytes.clone();
                bad[at] ^= bit;
                let _ = read_table(bad);
            }
        }
    }
}

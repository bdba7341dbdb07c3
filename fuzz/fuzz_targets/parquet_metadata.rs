//! Any bytes as a Parquet table: footer, schema, column of pictures, and every value of every column that is read.
//! Seeds: testdata/formats/*.parquet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openvision_io::data::parquet::{Column, Pictures, Table};
use std::path::Path;
use std::sync::Arc;

fuzz_target!(|bytes: &[u8]| {
    let open = || Table::from_bytes(bytes.to_vec(), Path::new("fuzzed.parquet"));
    let Ok(table) = open() else { return };
    assert!(table.rows() <= bytes.len() as u64);
    let table = Arc::new(table);
    for leaf in 0..table.leaves().len() {
        let Ok(column) = Column::new(Arc::clone(&table), leaf) else { continue };
        for row in 0..table.rows() {
            match column.get(row) {
                Ok(cell) => drop(cell.map(|cell| cell.text())),
                Err(_) => break,
            }
        }
    }
    let Ok(pictures) = open().and_then(|table| Pictures::of(table, None)) else { return };
    for row in 0..pictures.len().min(16) {
        let _ = pictures.label(row);
        if let Ok(cell) = pictures.get(row, 1 << 20) {
            assert!(cell.bytes().expect("a column of bytes").len() <= 1 << 20);
        }
    }
});

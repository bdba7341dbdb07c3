//! Any bytes as a tar archive: scan, samples, every entry. Seeds: testdata/formats/*.tar.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openvision_io::data::tar::Tar;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tar) = Tar::from_bytes(bytes.to_vec(), Path::new("fuzzed.tar")) else { return };
    assert!(tar.len() <= bytes.len() / 512);
    let mut fields = 0;
    for sample in tar.samples() {
        assert!(!sample.key.is_empty() && !sample.fields.is_empty());
        fields += sample.fields.len();
    }
    assert!(fields <= tar.len());
    for (index, entry) in tar.entries().enumerate() {
        assert_eq!(tar.read(index, 1 << 30).expect("it lies within the archive").len() as u64, entry.length);
    }
    for defect in tar.defects() {
        let _ = defect.to_string();
    }
});

//! Any bytes behind a TIFF signature as a picture. Seeds: the TIFF files of testdata/images.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openvision_io::image::{Format, Limits, decode};

fuzz_target!(|bytes: &[u8]| {
    let is_tiff = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| bytes.starts_with(*magic));
    if !is_tiff {
        return;
    }
    // Small limits keep one run short; that they hold is part of what is tested.
    let limits = Limits { max_bytes: 1 << 20, max_pixels: 1 << 20, max_memory: 32 << 20 };
    let Ok(picture) = decode(bytes, &limits) else { return };
    assert_eq!(picture.format, Format::Tiff);
    assert!((picture.width * picture.height) as u64 <= limits.max_pixels);
    assert_eq!(picture.data.len(), picture.width * picture.height * picture.mode.bytes_per_pixel());
    assert_eq!(picture.orientation, 1, "TIFF files come turned");
});

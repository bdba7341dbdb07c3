//! Any bytes as a picture file, through both orders of preprocessing. Seeds: testdata/images, testdata/goldens/preprocess.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openvision_io::image::{Limits, decode};
use openvision_io::preprocess::Preprocess;

fuzz_target!(|bytes: &[u8]| {
    // Small limits keep one run short; that they hold is part of what is tested.
    let limits = Limits { max_bytes: 1 << 20, max_pixels: 1 << 20, max_memory: 32 << 20 };
    let Ok(picture) = decode(bytes, &limits) else { return };
    assert!((picture.width * picture.height) as u64 <= limits.max_pixels);
    assert_eq!(picture.data.len(), picture.width * picture.height * picture.mode.bytes_per_pixel());
    let open_clip = Preprocess::from_open_clip(&serde_json::Value::Null, (24, 24)).expect("defaults");
    let hugging_face = Preprocess::from_hugging_face(&serde_json::json!({"size": 24, "crop_size": 24})).expect("valid");
    let mut tensor = vec![f32::NAN; 3 * 24 * 24];
    for recipe in [open_clip.clone(), open_clip.as_published(), hugging_face] {
        recipe.to_tensor(&picture, &mut tensor).expect("a decoded picture can be preprocessed");
        assert!(tensor.iter().all(|value| value.is_finite()));
    }
});

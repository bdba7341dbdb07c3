//! safetensors headers: what opens reads completely, and the tensors cover the file exactly.
//! Seeds: testdata/goldens/formats, testdata/corrupt/models, testdata/formats.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openvision_io::weights::{Checkpoint, Container};

fuzz_target!(|data: &[u8]| {
    // The other containers have their own target.
    if data.starts_with(b"PK") || data.starts_with(b"GGUF") {
        return;
    }
    let checkpoint = match Checkpoint::from_bytes(data.to_vec()) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            // Every message is short and has no control character, whatever the file holds.
            let message = error.to_string();
            assert!(message.len() < 4096 && !message.contains(char::is_control), "{message:?}");
            return;
        }
    };
    let mut total = 0;
    for info in checkpoint.tensors() {
        if checkpoint.container() != Container::SafeTensors && info.elements() > 1 << 16 {
            return;
        }
        let bytes = checkpoint.read_bytes(&info.name).expect("an opened tensor is inside its file");
        total += bytes.len();
        let mut values = vec![0.0; info.elements()];
        checkpoint.read_f32(&info.name, &mut values).expect("an opened tensor is inside its file");
    }
    if checkpoint.container() == Container::SafeTensors {
        let mut length = [0; 8];
        length.copy_from_slice(&data[..8]);
        assert_eq!(8 + u64::from_le_bytes(length) + total as u64, data.len() as u64);
    }
});

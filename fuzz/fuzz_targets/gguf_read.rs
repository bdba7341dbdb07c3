//! GGUF files: metadata, tensor table, every block format. Seeds: testdata/corrupt/models/gguf-*, testdata/goldens/gguf.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openvision_io::weights::{Checkpoint, Container};

fuzz_target!(|data: &[u8]| {
    // The other containers have their own target.
    if !data.starts_with(b"GGUF") {
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
    assert_eq!(checkpoint.container(), Container::Gguf);
    assert_eq!(checkpoint.metadata().len(), checkpoint.gguf_metadata().len());
    let mut total = 0;
    for info in checkpoint.tensors() {
        let bytes = checkpoint.read_bytes(&info.name).expect("an opened tensor is inside its file");
        total += bytes.len();
        let mut values = vec![0.0; info.elements()];
        checkpoint.read_f32(&info.name, &mut values).expect("an opened tensor is inside its file");
        let start = info.elements() / 3;
        let mut part = vec![0.0; info.elements() / 2];
        assert!(checkpoint.read_f32_part(&info.name, start, &mut part).expect("inside the tensor"));
        let same = part.iter().zip(&values[start..]).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "a part differs");
    }
    // Tensors do not overlap.
    assert!(total <= data.len());
});

//! `.npz` archives: zip directory, deflate streams, `.npy` headers, Fortran order. Seeds: testdata/corrupt/models/npz-*,
//! testdata/formats.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openvision_io::weights::{Checkpoint, Container};

fuzz_target!(|data: &[u8]| {
    let checkpoint = match Checkpoint::from_bytes(data.to_vec()) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            // Every message is short and has no control character, whatever the file holds.
            let message = error.to_string();
            assert!(message.len() < 4096 && !message.contains(char::is_control), "{message:?}");
            return;
        }
    };
    // The other containers have their own target.
    if checkpoint.container() != Container::Npz {
        return;
    }
    for info in checkpoint.tensors() {
        // An array of 64 MiB may be deflated to any size: legal, and only slow.
        if info.elements() > 1 << 16 {
            continue;
        }
        let mut values = vec![0.0; info.elements()];
        let read = checkpoint.read_f32(&info.name, &mut values);
        // A deflate stream shows its defects only now.
        let bytes = checkpoint.read_bytes(&info.name);
        assert_eq!(read.is_ok(), bytes.is_ok());
        let Ok(bytes) = bytes else { continue };
        assert_eq!(bytes.len(), info.bytes());
        let half = info.elements() / 2;
        let mut part = vec![0.0; half];
        if checkpoint.read_f32_part(&info.name, half / 2, &mut part).expect("the whole was read") {
            let same = part.iter().zip(&values[half / 2..]).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "a part differs");
        }
    }
});

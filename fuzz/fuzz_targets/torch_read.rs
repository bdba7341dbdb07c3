//! Torch files: zip directory, pickle machine, strided reads. Seeds: testdata/goldens/formats,
//! testdata/corrupt/models, testdata/formats.
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
    // The other container in zip archives has its own target: a deflate stream shows its defects only when read.
    if checkpoint.container() == Container::Npz {
        return;
    }
    for info in checkpoint.tensors() {
        // An expanded tensor may have 2^24 elements: legal, and only slow.
        if info.elements() > 1 << 16 {
            continue;
        }
        let bytes = checkpoint.read_bytes(&info.name).expect("an opened tensor is inside its file");
        assert_eq!(bytes.len(), info.bytes());
        let mut values = vec![0.0; info.elements()];
        checkpoint.read_f32(&info.name, &mut values).expect("an opened tensor is inside its file");
    }
});

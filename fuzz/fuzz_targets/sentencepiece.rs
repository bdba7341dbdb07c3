//! Any bytes as a sentencepiece `.model`, then texts through what came of it. Seeds are small models of every kind.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use openvision_io::token::{Pieces, SentencePiece, Specials};

const TEXTS: [&str; 4] = ["", "a photo of a cat, 12 dogs!", "  \u{2581}É\u{301}ﬁ\t<sep></s> ＡＢ \u{4e2d}文\u{1f469}\u{200d}\u{1f52c}", "aaaaaaaaaaaaaaaa"];

fuzz_target!(|data: &[u8]| {
    let Ok(pieces) = SentencePiece::from_bytes(data, Path::new("spiece.model")) else { return };
    for text in TEXTS {
        pieces.normalize(text);
        let mut ids = pieces.encode(text, Specials::Apart);
        assert!(ids.iter().all(|&id| (id as usize) < pieces.size()));
        ids.extend([0, 1, 2, u32::MAX]);
        pieces.decode(&ids, Specials::Apart);
    }
});

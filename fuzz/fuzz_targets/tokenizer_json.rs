//! Any bytes as a `tokenizer.json`, then texts through what came of it. Seeds are small files of every kind; the dictionary
//! has the names that the format knows.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use openvision_io::token::{JsonTokenizer, Pieces, Specials};

const TEXTS: [&str; 4] = ["", "a photo of a cat, 12 dogs!", "  \u{2581}É\u{301}ﬁ\t[CLS]</s> <0x41> \u{4e2d}文\u{1f469}\u{200d}\u{1f52c}", "aaaaaaaaaaaaaaaa"];

fuzz_target!(|data: &[u8]| {
    let Ok(pieces) = JsonTokenizer::from_bytes(data, Path::new("tokenizer.json")) else { return };
    for text in TEXTS {
        for specials in [Specials::Apart, Specials::AsText] {
            let mut ids = pieces.encode(text, specials);
            assert!(ids.iter().all(|&id| (id as usize) < pieces.size() && pieces.piece(id).is_some()));
            let affixes = pieces.affixes();
            ids.extend(affixes.before.into_iter().chain(affixes.after).chain([0, 1, u32::MAX]));
            pieces.decode(&ids, specials);
        }
    }
});

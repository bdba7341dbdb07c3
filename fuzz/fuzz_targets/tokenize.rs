//! Texts through every tokenizer, and bytes as tokenizer files. The first byte chooses; seeds are in fuzz/seeds/tokenize.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use openvision_io::token::{
    Clean, OpenVisionVariant, Separator, TextLayout, TextRecipe, Tokenizer, built_in, inspect_file,
};

const LAYOUTS: [TextLayout; 6] = [
    TextLayout::OpenVision(OpenVisionVariant::Torch),
    TextLayout::OpenVision(OpenVisionVariant::Jax),
    TextLayout::Bert(Clean::Canonicalize, Separator::Strip),
    TextLayout::OpenClip(Clean::Lower),
    TextLayout::OpenClip(Clean::None),
    TextLayout::HuggingFaceClip,
];

fn tokenizers() -> &'static [Box<dyn Tokenizer>] {
    static TOKENIZERS: OnceLock<Vec<Box<dyn Tokenizer>>> = OnceLock::new();
    TOKENIZERS.get_or_init(|| {
        let build = |layout| built_in(&TextRecipe { layout, context_length: 80 }).expect("80 is long enough");
        LAYOUTS.map(build).into_iter().collect()
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let file = match choice {
        b'j' => Some("tokenizer.json"),
        b'v' => Some("vocab.txt"),
        b'm' => Some("merges.txt.gz"),
        _ => None,
    };
    if let Some(name) = file {
        let folder = std::env::temp_dir().join(format!("openvision-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let path = folder.join(name);
        std::fs::write(&path, rest).expect("a temporary file");
        let _ = inspect_file(&path);
        return;
    }
    let text = String::from_utf8_lossy(rest);
    for tokenizer in tokenizers() {
        let encoded = tokenizer.encode(&text);
        assert_eq!(encoded.ids.len(), 80);
        assert!(encoded.used <= 80);
        assert!(encoded.ids.iter().all(|&id| (id as usize) < tokenizer.vocabulary_size()));
    }
});

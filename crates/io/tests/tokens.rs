//! Tokenizers against their peers: 523 texts, ids and cleaned texts compared exactly (testdata/goldens/tokens).
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use openvision_io::token::{
    BertTokenizer, Clean, ClipPadding, ClipTokenizer, FolderTokenizer, JsonTokenizer, OpenVisionTokenizer,
    OpenVisionVariant, Pieces, SentencePiece, Separator, Specials, TextLayout, TextRecipe, Tokenizer, built_in,
    from_folder, inspect_file, read_pieces,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn lines(name: &str) -> Vec<Value> {
    let path = root().join("testdata/goldens/tokens").join(format!("{name}.jsonl.gz"));
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 523, "{name}");
    lines
}

fn ids(line: &Value, field: &str) -> Vec<u32> {
    line[field].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Runs `check` on every text with the peer's line; it gives what we have and what the peer has.
fn compare(reference: &str, check: impl Fn(&str, &Value) -> Option<String>) {
    let texts = lines("texts");
    let mut wrong = Vec::new();
    for (text, line) in texts.iter().zip(lines(reference)) {
        assert_eq!(text["i"], line["i"]);
        if let Some(difference) = check(text["text"].as_str().unwrap(), &line) {
            wrong.push(format!("{} {:?}: {difference}", line["i"], text["text"].as_str().unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{reference}: {} of 523 differ\n{}", wrong.len(), wrong.join("\n"));
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, peer: T) -> Option<String> {
    (ours != peer).then(|| format!("{what}: ours {ours:?}, peer {peer:?}"))
}

#[test]
fn openvision_torch() {
    let tokenizer = OpenVisionTokenizer::new(None, OpenVisionVariant::Torch, 80).unwrap();
    compare("openvision", |text, line| {
        differ("clean", tokenizer.clean(text).as_str(), line["clean"].as_str().unwrap())
            .or_else(|| differ("ids", tokenizer.encode(text).ids, ids(line, "ids")))
    });
}

#[test]
fn openvision_word_pieces_without_cleaning() {
    let raw = BertTokenizer::new(None, Clean::None, Separator::Keep, 80).unwrap();
    compare("openvision-wordpiece-raw", |text, line| differ("ids", raw.pieces(text), ids(line, "ids")));
}

#[test]
fn openvision_jax() {
    let tokenizer = OpenVisionTokenizer::new(None, OpenVisionVariant::Jax, 80).unwrap();
    compare("openvision-jax", |text, line| {
        differ("pieces", tokenizer.pieces(text).len(), line["raw_n"].as_u64().unwrap() as usize)
            .or_else(|| differ("ids", tokenizer.encode(text).ids, ids(line, "ids")))
    });
}

#[test]
fn bert_uncased() {
    let tokenizer = BertTokenizer::new(None, Clean::None, Separator::Keep, 80).unwrap();
    compare("bert-uncased", |text, line| {
        let peer = ids(line, "ids");
        assert_eq!((peer[0], peer[peer.len() - 1]), (101, 102));
        differ("pieces", &tokenizer.pieces(text)[..], &peer[1..peer.len() - 1])
    });
}

fn open_clip(clean: Clean, reference: &str) {
    let tokenizer = ClipTokenizer::new(None, clean, 77, ClipPadding::Zero).unwrap();
    compare(reference, |text, line| {
        let pieces = tokenizer.pieces(text);
        let mut row = ids(line, "ctx77");
        row.resize(77, 0);
        differ("clean", tokenizer.clean(text).as_str(), line["clean"].as_str().unwrap())
            .or_else(|| differ("count", pieces.len(), line["n"].as_u64().unwrap() as usize))
            .or_else(|| differ("pieces", &pieces[..pieces.len().min(200)], &ids(line, "ids")[..]))
            .or_else(|| differ("row", tokenizer.encode(text).ids, row))
    });
}

#[test]
fn open_clip_lower() {
    open_clip(Clean::Lower, "clip-openclip-lower");
}

#[test]
fn open_clip_whitespace() {
    open_clip(Clean::Whitespace, "clip-openclip-whitespace");
}

#[test]
fn open_clip_canonicalize() {
    open_clip(Clean::Canonicalize, "clip-openclip-canonicalize");
}

#[test]
fn open_ai_clip() {
    let tokenizer = ClipTokenizer::open_ai(None, 77).unwrap();
    compare("clip-openai", |text, line| {
        let pieces = tokenizer.pieces(text);
        differ("count", pieces.len(), line["n"].as_u64().unwrap() as usize)
            .or_else(|| differ("pieces", &pieces[..pieces.len().min(200)], &ids(line, "ids")[..]))
    });
}

#[test]
fn hugging_face_clip() {
    let tokenizer = ClipTokenizer::hugging_face(None, 77).unwrap();
    compare("clip-transformers", |text, line| {
        let mut row = vec![49406];
        row.extend(tokenizer.pieces(text));
        row.push(49407);
        differ("count", row.len(), line["n"].as_u64().unwrap() as usize)
            .or_else(|| differ("pieces", &row[..row.len().min(210)], &ids(line, "ids")[..]))
    });
}

const ALL_LAYOUTS: [TextLayout; 9] = [
    TextLayout::OpenVision(OpenVisionVariant::Torch),
    TextLayout::OpenVision(OpenVisionVariant::Jax),
    TextLayout::Bert(Clean::Whitespace, Separator::Strip),
    TextLayout::Bert(Clean::None, Separator::Keep),
    TextLayout::OpenClip(Clean::None),
    TextLayout::OpenClip(Clean::Lower),
    TextLayout::OpenClip(Clean::Whitespace),
    TextLayout::OpenClip(Clean::Canonicalize),
    TextLayout::HuggingFaceClip,
];

/// A linear congruential generator: the texts are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % u64::from(limit)) as u32
    }

    /// Any characters, with many of those that cleaning looks at.
    fn text(&mut self) -> String {
        const LIKELY: &str =
            "ÃÂâ€™œš¢\u{a0}\u{ad}©×²ØÙ√‚Ä│вЂ\u{85}\u{9d}\u{fffd}\u{1a}&;#x<|[CLS]'sſ_ \n\r\u{1b}\u{301}\u{345}";
        let likely: Vec<char> = LIKELY.chars().collect();
        let length = self.below(40);
        let character = |random: &mut Self| match random.below(4) {
            0 => char::from_u32(random.below(0x80)).unwrap(),
            1 => likely[random.below(likely.len() as u32) as usize],
            2 => char::from_u32(random.below(0x3000)).unwrap(),
            _ => char::from_u32(random.below(0x110000)).unwrap_or('\u{e000}'),
        };
        (0..length).map(|_| character(self)).collect()
    }
}

#[test]
fn any_text_gives_a_full_row_of_known_ids() {
    for context_length in [4, 77, 80] {
        for layout in ALL_LAYOUTS {
            let tokenizer = built_in(&TextRecipe { layout, context_length }).unwrap();
            let mut random = Random(7);
            for _ in 0..400 {
                let text = random.text();
                let encoded = tokenizer.encode(&text);
                assert_eq!(encoded.ids.len(), context_length, "{layout:?} {text:?}");
                assert!(encoded.used <= context_length);
                assert!(
                    encoded.ids.iter().all(|&id| (id as usize) < tokenizer.vocabulary_size()),
                    "{layout:?} {text:?}"
                );
            }
        }
    }
}

#[test]
fn huge_texts_end_soon() {
    let start = std::time::Instant::now();
    for layout in ALL_LAYOUTS {
        let tokenizer = built_in(&TextRecipe { layout, context_length: 80 }).unwrap();
        for text in [
            "&amp;".to_owned() + &"amp;".repeat(1 << 18),
            "Ã".repeat(1 << 20),
            "a".repeat(1 << 20),
            "\u{301}é".repeat(1 << 19),
        ] {
            assert_eq!(tokenizer.encode(&text).ids.len(), 80);
        }
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// Fingerprints are written into files, so they must not change by accident. A change here must be one of ids.
#[test]
fn fingerprints_are_distinct_and_stable() {
    let names = ALL_LAYOUTS.map(|layout| built_in(&TextRecipe { layout, context_length: 80 }).unwrap().fingerprint());
    assert_eq!(names, FINGERPRINTS);
}

const FINGERPRINTS: [&str; 9] = [
    "openvision-torch-80-b7edc0e8286a6e92",
    "openvision-jax-80-8a91776c2103ee17",
    "bert-nosep-whitespace-80-b8942badb774803a",
    "bert-sep-none-80-7a75907094721f42",
    "clip-openclip-none-80-90f0a95ad76a7257",
    "clip-openclip-lower-80-a8ed6a6afc0524fe",
    "clip-openclip-whitespace-80-4c302fcbfaba7e0c",
    "clip-openclip-canonicalize-80-bb6fb37abe63a8f1",
    "clip-huggingface-80-bfe5f2ab27107a15",
];

fn temporary(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tokens-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_folder_without_tokenizer_files_has_none() {
    let folder = temporary("empty");
    for layout in ALL_LAYOUTS {
        assert!(from_folder(&folder, &TextRecipe { layout, context_length: 80 }).unwrap().is_none());
    }
    let recipe = TextRecipe { layout: TextLayout::Folder(None), context_length: 64 };
    assert!(from_folder(&folder, &recipe).unwrap().is_none());
    assert!(built_in(&recipe).err().unwrap().to_string().contains("tokenizer.json, spiece.model or tokenizer.model"));
}

/// A CLIP vocabulary of 512 letters, two merges and two special tokens, as vocab.json and merges.txt and as tokenizer.json.
#[test]
fn hugging_face_clip_folders() {
    let own = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..256u32).filter(|byte| !own(byte)).count() as u32;
    let letters: Vec<char> =
        (0..256).filter(own).chain(256..256 + others).map(|point| char::from_u32(point).unwrap()).collect();
    let mut vocabulary = serde_json::Map::new();
    for (id, letter) in letters.iter().enumerate() {
        vocabulary.insert(letter.to_string(), id.into());
        vocabulary.insert(format!("{letter}</w>"), (id + 256).into());
    }
    for (piece, id) in [("ca", 512), ("cat</w>", 513), ("<|startoftext|>", 514), ("<|endoftext|>", 515)] {
        vocabulary.insert(piece.into(), id.into());
    }
    let folder = temporary("clip");
    std::fs::write(folder.join("vocab.json"), serde_json::to_string(&vocabulary).unwrap()).unwrap();
    std::fs::write(folder.join("merges.txt"), "#version: 0.2\nc a\nca t</w>\n").unwrap();
    let recipe = TextRecipe { layout: TextLayout::HuggingFaceClip, context_length: 6 };
    let expected = [514, 513, u32::from(b'!' - 33) + 256, 515, 515, 515];
    assert_eq!(from_folder(&folder, &recipe).unwrap().unwrap().encode("Cat !").ids, expected);

    std::fs::write(folder.join("tokenizer_config.json"), r#"{"pad_token": {"content": "!"}}"#).unwrap();
    let padded = from_folder(&folder, &recipe).unwrap().unwrap().encode("Cat !").ids;
    assert_eq!(padded, [514, 513, 256, 515, 0, 0]);

    for merges in [json!(["c a", "ca t</w>"]), json!([["c", "a"], ["ca", "t</w>"]])] {
        let folder = temporary("clip-json");
        let file = json!({"added_tokens": [{"id": 515, "content": "<|endoftext|>"}],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex":
                "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}, "behavior": "Removed", "invert": true},
                {"type": "ByteLevel"}]},
            "model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocabulary, "merges": merges}});
        std::fs::write(folder.join("tokenizer.json"), file.to_string()).unwrap();
        assert_eq!(from_folder(&folder, &recipe).unwrap().unwrap().encode("Cat !").ids, expected);
    }
}

#[test]
fn broken_files_are_named_errors() {
    let folder = temporary("broken");
    for (name, contents, error) in [
        ("vocab.txt", &b""[..], "is empty"),
        ("vocab.txt", b"a\nb\n", "lacks \"[UNK]\""),
        ("vocab.txt", b"a\n\xff", "not UTF-8 text from byte 2"),
        ("bpe.txt", b"#version\na b\na b c\n", "line 3 is not a merge"),
        ("bpe.txt", b"#version\nab c\n", "line 2 is not a merge"),
        ("bpe.txt", b"#version\n", "is empty"),
        ("bpe.txt.gz", b"\x1f\x8b\x08\0", "cannot read"),
        ("vocab.json", b"{\"a\":0}", "merges.txt: cannot read"),
        ("tokenizer.json", b"[]", "invalid length"),
        ("tokenizer.json", br#"{"model":{"type":"WordPiece","vocab":{"[UNK]":1.5}}}"#, "floating point `1.5`"),
        ("tokenizer.json", br#"{"model":{"type":"WordPiece","vocab":[["a",0]]}}"#, "a list of scores"),
        ("tokenizer.json", br#"{"model":{"type":"Unigram","vocab":[]}}"#, "is empty"),
        ("tokenizer.json", br#"{"normalizer":{"type":"Rot13"},"model":{"vocab":{"<unk>":0}}}"#, "`Rot13`"),
        ("tokenizer.json", br#"{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Removed"},"model":{"vocab":{"<unk>":0}}}"#, "pattern \"(\""),
        ("spiece.model", b"", "is empty"),
        ("spiece.model", b"<html>", "not a sentencepiece model"),
        ("spiece.model", b"\x0a\x03\x0a\x01a", "type UNKNOWN"),
        ("spiece.model", b"\x12\x02\x18\x04", "CHAR is not supported"),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, contents).unwrap();
        let message = inspect_file(&path).unwrap_err().to_string();
        assert!(message.contains(error), "{name}: {message}");
    }
}

/// The folder of shared data, if this checkout has it.
fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("OPENVISION_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: shared/ is not here");
    None
}

/// Compares rows made by tools/goldens/make_tokenizers.py, which are hashed, with `row`'s for every text and file. `known`
/// are differences that have a reason.
fn compare_rows(kind: &str, known: &[(&str, &str)], mut row: impl FnMut(&str, usize, &str) -> String) {
    let texts = lines("texts");
    let path = root().join(format!("testdata/goldens/tokens/{kind}-rows.json"));
    let rows: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    // The rows before hashing, where someone has made them.
    let full = std::env::var_os("OPENVISION_TOKEN_ROWS").map(|path| std::fs::read(path).unwrap());
    let full = full.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    let mut wrong = Vec::new();
    for (name, peers) in rows.as_object().unwrap() {
        for (at, (text, peer)) in texts.iter().zip(peers.as_array().unwrap()).enumerate() {
            let text = text["text"].as_str().unwrap();
            let line = row(name, at, text);
            let hash: String = Sha256::digest(&line)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
            if hash != peer.as_str().unwrap() && !known.contains(&(name, text)) {
                let peer = full.as_ref().map(|full| full[kind][name][at].to_string()).unwrap_or_default();
                wrong.push(format!("{name} {text:?}\n  ours {line}\n  peer {peer}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows differ\n{}", wrong.len(), wrong.join("\n"));
}

/// The files of a golden folder, read once.
fn pieces_of(read: &mut HashMap<String, Box<dyn Pieces>>, file: String) -> &dyn Pieces {
    let path = root().join("testdata/goldens/tokens").join(&file);
    &**read.entry(file).or_insert_with(|| read_pieces(&path).unwrap())
}

#[test]
fn tokenizer_json_of_every_kind() {
    let mut files = HashMap::new();
    // The square for Reiwa is of Unicode 12.1, which the peer's NFKC does not know.
    compare_rows("json", &[("unigram-bytes", "\u{32ff}")], |name, _, text| {
        let pieces = pieces_of(&mut files, format!("json/{name}.json.gz"));
        let affixes = pieces.affixes();
        let plain = pieces.encode(text, Specials::Apart);
        let whole = [&affixes.before[..], &plain, &affixes.after].concat();
        let as_text = pieces.encode(text, Specials::AsText);
        let (kept, skipped) = (pieces.decode(&whole, Specials::AsText), pieces.decode(&whole, Specials::Apart));
        serde_json::to_string(&(whole, plain, as_text, kept, skipped)).unwrap()
    });
    assert_eq!(files.len(), 18);
}

/// Nothing here is quadratic: a megabyte without a space ends soon, in whatever kind of file.
#[test]
fn long_words_end_soon_in_every_kind() {
    let goldens = root().join("testdata/goldens/tokens");
    let files = ["json", "model"].map(|folder| std::fs::read_dir(goldens.join(folder)).unwrap());
    let files: Vec<PathBuf> = files.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 28);
    for path in files {
        let pieces = read_pieces(&path).unwrap();
        let start = std::time::Instant::now();
        for text in ["ab", "a", " ", "!", "\u{301}", "é", "\u{1f469}\u{200d}", "1"] {
            pieces.encode(&text.repeat(200_000 / text.len()), Specials::Apart);
        }
        assert!(start.elapsed().as_secs() < 10, "{}: {:?}", path.display(), start.elapsed());
        println!("{}: {:?}", path.display(), start.elapsed());
    }
}

#[test]
fn sentencepiece_models_of_every_kind() {
    let mut files = HashMap::new();
    compare_rows("model", &[], |name, at, text| {
        let path = root().join(format!("testdata/goldens/tokens/model/{name}.model"));
        let pieces = files.entry(name.to_owned()).or_insert_with(|| SentencePiece::from_file(&path).unwrap());
        let ids = pieces.encode(text, Specials::Apart);
        let others: Vec<u32> = (0..8).map(|k| ((at * 7919 + k * 104729) % pieces.size()) as u32).collect();
        let decode = |ids: &[u32]| pieces.decode(ids, Specials::Apart);
        let row = (pieces.normalize(text), &ids, decode(&ids), &others, decode(&others));
        serde_json::to_string(&row).unwrap()
    });
    assert_eq!(files.len(), 9);
}

#[test]
fn sentencepiece_unigram() {
    let path = root().join("testdata/goldens/tokens/model/unigram-1000.model.gz");
    let pieces = SentencePiece::from_file(&path).unwrap();
    compare("sentencepiece-unigram", |text, line| {
        let normalized: String = pieces.normalize(text).chars().take(300).collect();
        differ("normalized", normalized.as_str(), line["normalized"].as_str().unwrap())
            .or_else(|| compare_pieces(&pieces, text, line))
    });
}

/// Folders as the peers read them: transformers' classes for SigLIP and SigLIP 2, and open_clip's.
#[test]
fn siglip_folders() {
    let goldens = root().join("testdata/goldens/tokens");
    let inflate = |name: &str| {
        let mut bytes = Vec::new();
        GzDecoder::new(std::fs::File::open(goldens.join(name)).unwrap()).read_to_end(&mut bytes).unwrap();
        bytes
    };
    let model = std::fs::read(goldens.join("model/siglip.model")).unwrap();
    let class = |name: &str| format!("{{\"tokenizer_class\": {name:?}, \"pad_token\": \"</s>\"}}").into_bytes();
    let gemma = br#"{"tokenizer_class": "GemmaTokenizer", "pad_token": {"content": "<pad>"}}"#.to_vec();
    let folders = [
        // A tokenizer.json that SiglipTokenizer does not look at.
        (
            "siglip",
            vec![
                ("spiece.model", model),
                ("tokenizer.json", b"{}".to_vec()),
                ("tokenizer_config.json", class("SiglipTokenizer")),
            ],
            1,
        ),
        ("siglip2", vec![("tokenizer.json", inflate("json/gemma.json.gz")), ("tokenizer_config.json", gemma)], 3),
        (
            "open_clip",
            vec![
                ("tokenizer.json", inflate("json/unigram.json.gz")),
                ("tokenizer_config.json", class("T5TokenizerFast")),
            ],
            2,
        ),
    ];
    let mut tokenizers = HashMap::new();
    for (name, files, padding) in folders {
        let folder = temporary(name);
        files.iter().for_each(|(file, bytes)| std::fs::write(folder.join(file), bytes).unwrap());
        let read = |context_length| {
            let clean = (name == "open_clip").then_some(Clean::Canonicalize);
            let recipe = TextRecipe { layout: TextLayout::Folder(clean), context_length };
            from_folder(&folder, &recipe).unwrap().unwrap()
        };
        let short = read(4);
        let (cut, whole) = (short.encode("a photo of a cat"), read(64).encode("a photo of a cat"));
        assert_eq!((cut.ids.len(), cut.used), (4, 4), "{name}");
        assert_eq!((&cut.ids[..3], cut.ids[3]), (&whole.ids[..3], whole.ids[whole.used - 1]), "{name}");
        assert_eq!(cut.dropped + 3, whole.used - 1, "{name}");
        assert!(whole.ids[whole.used..].iter().all(|&id| id == padding), "{name} {:?}", whole.ids);
        assert_ne!(short.fingerprint(), read(64).fingerprint());
        println!("{}", short.describe());
        tokenizers.insert(name, read(20_000));
    }
    compare_rows("siglip", &[], |name, _, text| {
        let encoded = tokenizers[name].encode(text);
        serde_json::to_string(&encoded.ids[..encoded.used]).unwrap()
    });
}

/// Texts and references of the data folder: more than lies in testdata/goldens/tokens.
fn compare_shared(folder: &Path, reference: &str, check: impl Fn(&str, &Value) -> Option<String>) {
    let read = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let (texts, lines) = (read("texts.jsonl"), read(&format!("reference-{reference}.jsonl")));
    assert_eq!((texts.len(), lines.len()), (523, 523));
    let mut wrong = Vec::new();
    for (text, line) in texts.iter().zip(&lines) {
        let text = text["text"].as_str().unwrap();
        if let Some(difference) = check(text, line) {
            wrong.push(format!("{} {text:?}: {difference}", line["i"]));
        }
    }
    assert!(wrong.is_empty(), "{reference}: {} of 523 differ\n{}", wrong.len(), wrong.join("\n"));
}

fn compare_pieces(pieces: &dyn Pieces, text: &str, line: &Value) -> Option<String> {
    let found = pieces.encode(text, Specials::Apart);
    differ("count", found.len(), line["n"].as_u64().unwrap() as usize)
        .or_else(|| differ("ids", &found[..found.len().min(250)], &ids(line, "ids")[..]))
}

#[test]
fn smollm2() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/vocab");
    let read = |_| {
        let start = std::time::Instant::now();
        (read_pieces(&folder.join("smollm2-tokenizer.json")).unwrap(), start.elapsed())
    };
    let (pieces, time) = (0..5).map(read).min_by_key(|(_, time)| *time).unwrap();
    println!("49,152 pieces read in {time:?}");
    let start = std::time::Instant::now();
    (0..1000).for_each(|_| drop(pieces.encode("a photo of a cat sitting on a red bicycle", Specials::Apart)));
    println!("a caption in {:?}", start.elapsed() / 1000);
    compare_shared(&folder, "smollm2", |text, line| {
        let back = pieces.decode(&pieces.encode(text, Specials::Apart), Specials::AsText);
        compare_pieces(&*pieces, text, line)
            .or_else(|| differ("round trip", back == text, line["roundtrip"].as_bool().unwrap()))
    });
}

/// Without a class in the folder the pieces tell SigLIP from SigLIP 2; a class that has no rules here has the file's.
#[test]
fn folders_of_other_classes() {
    let goldens = root().join("testdata/goldens/tokens/json");
    for (name, config, before, after, padding, kept_case) in [
        ("gemma", None, vec![], vec![4], 3, false),
        ("unigram", None, vec![], vec![2], 2, false),
        (
            "bert-cased",
            Some(r#"{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}"#),
            vec![2],
            vec![3],
            0,
            true,
        ),
    ] {
        let folder = temporary(&format!("class-{name}"));
        let mut bytes = Vec::new();
        let file = std::fs::File::open(goldens.join(format!("{name}.json.gz"))).unwrap();
        GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        std::fs::write(folder.join("tokenizer.json"), bytes).unwrap();
        if let Some(config) = config {
            std::fs::write(folder.join("tokenizer_config.json"), config).unwrap();
        }
        let tokenizer = FolderTokenizer::from_folder(&folder, None, 16).unwrap().unwrap();
        let row = tokenizer.encode("A Cat");
        assert!(row.ids[..row.used].starts_with(&before) && row.ids[..row.used].ends_with(&after), "{name} {row:?}");
        assert!(row.used < 16 && row.ids[row.used..].iter().all(|&id| id == padding), "{name} {row:?}");
        assert_eq!(tokenizer.encode("a cat") != row, kept_case, "{name}");
        std::fs::write(folder.join("special_tokens_map.json"), r#"{"pad_token": "<nothing>"}"#).unwrap();
        let result = FolderTokenizer::from_folder(&folder, None, 16);
        // The token of tokenizer_config.json goes first.
        assert_eq!(result.is_err(), config.is_none(), "{name}");
    }
}

/// bert-base-uncased and CLIP as `tokenizer.json`, with the steps that transformers writes, give the same ids by the general
/// reader as their own classes here do by theirs.
#[test]
fn bert_and_clip_as_tokenizer_json() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/vocab");
    let read =
        |file: &Value| JsonTokenizer::from_bytes(file.to_string().as_bytes(), Path::new("tokenizer.json")).unwrap();
    let whole = |pieces: &JsonTokenizer, text: &str| {
        let affixes = pieces.affixes();
        [&affixes.before[..], &pieces.encode(text, Specials::Apart), &affixes.after].concat()
    };
    let token = |id: u32, content: &str| json!({"id": id, "content": content, "normalized": false, "special": true});

    let list = std::fs::read_to_string(folder.join("bert-base-uncased-vocab.txt")).unwrap();
    let vocabulary: serde_json::Map<String, Value> =
        list.lines().zip(0..).map(|(p, id)| (p.into(), id.into())).collect();
    let specials = [(0, "[PAD]"), (100, "[UNK]"), (101, "[CLS]"), (102, "[SEP]"), (103, "[MASK]")];
    let bert = read(&json!({
        "added_tokens": specials.map(|(id, content)| token(id, content)),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [101], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [102], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary},
    }));
    compare("bert-uncased", |text, line| differ("ids", whole(&bert, text), ids(line, "ids")));
    assert_eq!(bert.decode(&[101, 1037, 4937, 1012, 102], Specials::Apart), "a cat.");

    let mut list = String::new();
    let file = std::fs::File::open(folder.join("bpe_simple_vocab_16e6.txt.gz")).unwrap();
    GzDecoder::new(file).read_to_string(&mut list).unwrap();
    let merges: Vec<&str> = list.lines().skip(1).take(48_894).collect();
    let own = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..256u32).filter(|byte| !own(byte)).count() as u32;
    let letters = (0..256).filter(own).chain(256..256 + others).map(|point| char::from_u32(point).unwrap());
    let letters: Vec<String> = letters.map(String::from).collect();
    let ends = letters.iter().map(|letter| format!("{letter}</w>"));
    let made = merges.iter().map(|merge| merge.replace(' ', ""));
    let pieces =
        letters.iter().cloned().chain(ends).chain(made).chain(["<|startoftext|>".into(), "<|endoftext|>".into()]);
    let vocabulary: serde_json::Map<String, Value> = pieces.zip(0..).map(|(piece, id)| (piece, id.into())).collect();
    let clip = read(&json!({
        "added_tokens": [token(49406, "<|startoftext|>"), token(49407, "<|endoftext|>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
        "post_processor": {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 49407], "cls": ["<|startoftext|>", 49406], "trim_offsets": false, "add_prefix_space": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "fuse_unk": false, "vocab": vocabulary, "merges": merges},
    }));
    compare("clip-transformers", |text, line| {
        let row = whole(&clip, text);
        differ("count", row.len(), line["n"].as_u64().unwrap() as usize)
            .or_else(|| differ("ids", &row[..row.len().min(210)], &ids(line, "ids")[..]))
    });
}

#[test]
fn sentencepiece_models() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/vocab");
    for (file, reference) in [
        ("sentencepiece-unigram-1000.model", "sentencepiece-unigram"),
        ("mistral-v1-sentencepiece-bpe-32000.model", "sentencepiece-bpe-mistral"),
    ] {
        let pieces = SentencePiece::from_file(&folder.join(file)).unwrap();
        compare_shared(&folder, reference, |text, line| {
            let normalized: String = pieces.normalize(text).chars().take(300).collect();
            differ("normalized", normalized.as_str(), line["normalized"].as_str().unwrap())
                .or_else(|| compare_pieces(&pieces, text, line))
        });
    }
}

/// Verdicts of testdata/corrupt/tokens.
#[test]
fn hostile_tokenizer_files() {
    let folder = root().join("testdata/corrupt/tokens");
    let verdicts = std::fs::read_to_string(folder.join("verdicts.jsonl")).unwrap();
    let rows = verdicts.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut seen = 0;
    for row in rows {
        let name = row["file"].as_str().unwrap();
        let mut path = folder.join(name);
        if name == "tok-depth-bomb.json" {
            path = temporary("hostile").join(name);
            std::fs::write(&path, "{\"model\":".repeat(50_000) + "1" + &"}".repeat(50_000)).unwrap();
        }
        let start = std::time::Instant::now();
        let result = inspect_file(&path);
        match row["expect"].as_str().unwrap() {
            "load" => assert!(result.is_ok(), "{row} {result:?}"),
            "error" => assert!(result.is_err(), "{row} {result:?}"),
            _ => {}
        }
        // What loads must run as well: a pattern may backtrack without end.
        if let Ok(pieces) = read_pieces(&path) {
            for text in ["a photo of a cat", &"a".repeat(10_000), &"a ".repeat(10_000)] {
                pieces.decode(&pieces.encode(text, Specials::Apart), Specials::AsText);
            }
        }
        assert!(start.elapsed().as_secs() < 2, "{row}");
        seen += 1;
    }
    assert_eq!(seen, 19);
}

/// Files of the data folder give the same tokenizers as the built-in vocabularies.
#[test]
fn files_equal_the_built_in_vocabularies() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/vocab");
    let clip = folder.join("bpe_simple_vocab_16e6.txt.gz");
    let read = ClipTokenizer::new(Some(&clip), Clean::Lower, 77, ClipPadding::Zero).unwrap();
    let built = ClipTokenizer::new(None, Clean::Lower, 77, ClipPadding::Zero).unwrap();
    assert_eq!(read.fingerprint(), built.fingerprint());
    for (file, same) in [("openvision-vocab.txt", true), ("bert-base-uncased-vocab.txt", false)] {
        let variant = OpenVisionVariant::Torch;
        let read = OpenVisionTokenizer::new(Some(&folder.join(file)), variant, 80).unwrap();
        let built = OpenVisionTokenizer::new(None, variant, 80).unwrap();
        assert_eq!(read.fingerprint() == built.fingerprint(), same);
        assert_eq!(read.encode("a photo of a cat"), built.encode("a photo of a cat"));
    }
}

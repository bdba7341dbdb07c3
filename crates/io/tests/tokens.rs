//! Tokenizers against their peers: 523 texts, ids and cleaned texts compared exactly (testdata/goldens/tokens).
use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use openvision_io::token::{
    BertTokenizer, Clean, ClipPadding, ClipTokenizer, OpenVisionTokenizer, OpenVisionVariant, Separator, Tokenizer,
};
use serde_json::Value;

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

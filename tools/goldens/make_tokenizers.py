"""Small tokenizer.json files of every kind that real folders use, and what the `tokenizers` package makes of 523 texts.

Usage: make_tokenizers.py SHARED OUT [FULL]   (SHARED/data/vocab holds texts.jsonl and sentencepiece-unigram-1000.model;
FULL gets the rows before hashing, for looking at differences: the tests read it through OPENVISION_TOKEN_ROWS)

Needs tokenizers, transformers, sentencepiece, protobuf (testdata/goldens/tokens/README.md names versions). Vocabularies are
trained here on the texts themselves, but for the unigram one, which is converted from the sentencepiece model. Each row of
OUT/json-rows.json is the first 8 hex digits of the SHA-256 of one line of JSON: ids with the affixes of the post-processor,
ids without and with special strings as text, and the decoded text with and without special tokens.

OUT/model holds small sentencepiece models, trained on the same texts; rows of OUT/model-rows.json hash the normalized text,
the ids and their text, and eight other ids and their text. OUT/siglip-rows.json hashes the ids of SigLIP's classes.
"""

import gzip
import hashlib
import io
import json
import sys
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = GPT4.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def train(model, trainer, texts, normalizer=None, pre_tokenizer=None):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def byte_level(texts, pre_tokenizer, special=("<|endoftext|>",), normalizer=None, **model):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=list(special), initial_alphabet=alphabet)
    tokenizer = train(models.BPE(**model), trainer, texts, normalizer, pre_tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def llama(texts, fuse=True, extra=()):
    special = ["<unk>", "<s>", "</s>", *extra]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special + BYTES, limit_alphabet=150)
    space = pre_tokenizers.Metaspace()
    tokenizer = train(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=fuse), trainer, texts, None, space)
    file = json.loads(tokenizer.to_str())
    # Byte pieces are pieces, not strings to be found in texts.
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(file))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def make(texts, model_file):
    n, p = normalizers, pre_tokenizers
    made = {}

    made["llama"] = llama(texts)
    made["llama"].normalizer = n.Sequence([n.Prepend("\u2581"), n.Replace(" ", "\u2581")])
    made["llama"].pre_tokenizer = None
    made["llama-new"] = llama(texts)
    made["llama-new"].pre_tokenizer = p.Metaspace(prepend_scheme="first", split=False)
    made["gemma"] = llama(texts, extra=("<pad>", "<eos>", "<bos>"))
    made["gemma"].normalizer = n.Sequence([n.Lowercase(), n.Replace(" ", "\u2581")])
    made["gemma"].pre_tokenizer = p.Split(" ", "merged_with_previous")
    made["no-bytes"] = llama(texts, fuse=False)
    file = json.loads(made["no-bytes"].to_str())
    file["model"]["byte_fallback"] = False
    made["no-bytes"] = Tokenizer.from_str(json.dumps(file))

    made["gpt2"] = byte_level(texts, p.ByteLevel(add_prefix_space=False))
    made["gpt2"].post_processor = processors.ByteLevel()
    made["roberta"] = byte_level(texts, p.ByteLevel(add_prefix_space=True), ("<s>", "<pad>", "</s>", "<unk>", "<mask>"))
    made["roberta"].add_special_tokens([AddedToken("<mask>", lstrip=True)])
    made["roberta"].post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    for name, pattern, normalizer in [("llama3", GPT4, None), ("qwen2", QWEN2, n.NFC()), ("o200k", O200K, None)]:
        steps = [p.Split(Regex(pattern), "isolated"), p.ByteLevel(add_prefix_space=False, use_regex=False)]
        special = ("<|begin_of_text|>", "<|eot_id|>")
        made[name] = byte_level(texts, p.Sequence(steps), special, normalizer, ignore_merges=name == "llama3")
    start = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)])
    made["llama3"].post_processor = processors.Sequence([processors.ByteLevel(), start])
    steps = [
        p.Split(Regex(r"[\r\n]"), "isolated"),
        p.Split(Regex(r"\s?\p{L}+"), "isolated"),
        p.Split(Regex(r"\s?\p{P}+"), "isolated"),
        p.Split(Regex(r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), "isolated"),
        p.Digits(individual_digits=True),
        p.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    made["deepseek"] = byte_level(texts, p.Sequence(steps))

    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=p.ByteLevel.alphabet(),
    )
    made["clip"] = train(
        models.BPE(unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>"),
        trainer,
        texts,
        n.Sequence([n.NFC(), n.Replace(Regex(r"\s+"), " "), n.Lowercase()]),
        p.Sequence([p.Split(Regex(CLIP), "removed", invert=True), p.ByteLevel(add_prefix_space=False)]),
    )
    made["clip"].post_processor = processors.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), False, False)
    made["clip"].decoder = decoders.BPEDecoder()

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for name, normalizer in [
        ("bert-cased", n.BertNormalizer(lowercase=False)),
        ("bert-raw", n.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=False)),
    ]:
        trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=special)
        pieces = models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40)
        made[name] = train(pieces, trainer, texts, normalizer, p.BertPreTokenizer())
        made[name].decoder = decoders.WordPiece(cleanup=name == "bert-cased")
        made[name].post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))

    words = trainers.WordLevelTrainer(vocab_size=400, special_tokens=["[UNK]"])
    made["words"] = train(models.WordLevel(unk_token="[UNK]"), words, texts, None, p.Whitespace())
    words = trainers.WordLevelTrainer(vocab_size=400, special_tokens=["[UNK]"])
    steps = [
        p.CharDelimiterSplit("e"),
        p.WhitespaceSplit(),
        p.Punctuation("merged_with_next"),
        p.Split("a", "contiguous"),
        p.Split(Regex("[0-9]+"), "merged_with_previous"),
        p.Digits(individual_digits=False),
    ]
    stripped = n.Sequence([n.Nmt(), n.NFKD(), n.StripAccents(), n.Strip(left=True, right=True), n.Replace("oo", "")])
    made["odd-words"] = train(models.WordLevel(unk_token="[UNK]"), words, texts, stripped, p.Sequence(steps))

    made["added"] = byte_level(texts, p.ByteLevel(add_prefix_space=False), normalizer=n.Lowercase())
    made["added"].add_tokens(
        [
            AddedToken("CAT", normalized=True, single_word=True),
            AddedToken("Photo", normalized=False, lstrip=True),
            AddedToken("of", normalized=True, rstrip=True),
            AddedToken("  ", normalized=False),
            AddedToken("of a", normalized=True, lstrip=True, rstrip=True),
        ]
    )
    made["added"].add_special_tokens([AddedToken("[CLS]", lstrip=True, rstrip=True), "</s>", "<|im_start|>"])

    for name in ["unigram", "unigram-bytes"]:
        made[name] = unigram(model_file, name == "unigram-bytes")
    return made


def unigram(model_file, with_bytes):
    """As transformers converts T5's sentencepiece models."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(Path(model_file).read_bytes())
    vocabulary = [(piece.piece, piece.score) for piece in proto.pieces]
    if with_bytes:
        vocabulary += [(byte, 0.0) for byte in BYTES]
    tokenizer = Tokenizer(models.Unigram(vocabulary, 0, with_bytes))
    n, p = normalizers, pre_tokenizers
    # The map has 180 KB, so one file holds it.
    if with_bytes:
        steps = [n.NFKC(), n.Strip(left=False, right=True), n.Replace(Regex(" {2,}"), "\u2581")]
    else:
        steps = [n.Precompiled(proto.normalizer_spec.precompiled_charsmap)]
    tokenizer.normalizer = n.Sequence(steps)
    space = p.Metaspace(prepend_scheme="always")
    tokenizer.pre_tokenizer = space if with_bytes else p.Sequence([p.WhitespaceSplit(), space])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 2)]
    )
    return tokenizer


def row(tokenizer, text):
    whole = tokenizer.encode(text).ids
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = True
    as_text = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    kept = tokenizer.decode(whole, skip_special_tokens=False)
    skipped = tokenizer.decode(whole, skip_special_tokens=True) if whole else ""
    return [whole, plain, as_text, kept, skipped]


RULES = [("\u2122", "TM"), ("\ufb01", "fi"), ("e\u0301", "\u00e9"), ("\t", " "), ("\n", " "), ("\u3000", " "), ("\u00ad", "")]
RULES += [(chr(0xFF21 + i), chr(0x41 + i)) for i in range(26)] + [("...", "\u2026"), ("--", " - ")]


def sentencepieces(texts, out):
    """Models of every kind, each with what the library makes of the texts."""
    import sentencepiece as spm

    usual = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, character_coverage=0.98, num_threads=1, minloglevel=2)
    kinds = {
        "siglip": dict(vocab_size=300, rules=True),
        "unigram-bytes": dict(vocab_size=500, byte_fallback=True, user_defined_symbols=["photo of", "<sep>", "\u2581a"]),
        "unigram-suffix": dict(vocab_size=250, treat_whitespace_as_suffix=True, control_symbols=["<ctl>"], rules=True),
        "unigram-spaces": dict(vocab_size=250, remove_extra_whitespaces=False, unk_surface="?"),
        "bpe-user": dict(vocab_size=260, model_type="bpe", user_defined_symbols=["cat", "  ", "<sep>"], rules=True),
        "bpe-bytes": dict(vocab_size=550, model_type="bpe", byte_fallback=True, remove_extra_whitespaces=False),
        "bpe-plain": dict(vocab_size=250, model_type="bpe", add_dummy_prefix=False, escape_whitespaces=False),
        "bpe-unused": dict(vocab_size=250, model_type="bpe"),
        "unigram-unused": dict(vocab_size=250),
    }
    (out / "model").mkdir(parents=True, exist_ok=True)
    rows, full = {}, {}
    for name, options in kinds.items():
        model = io.BytesIO()
        options = {"model_type": "unigram", **options}
        options.pop("escape_whitespaces", None)
        with tempfile.NamedTemporaryFile("w", suffix=".tsv") as table:
            if options.pop("rules", False):
                hexes = [" ".join(f"{ord(c):X}" for c in part) for rule in RULES for part in rule]
                table.write("".join(f"{a}\t{b}\n" for a, b in zip(hexes[::2], hexes[1::2])))
                table.flush()
                options["normalization_rule_tsv"] = table.name
            else:
                options["normalization_rule_name"] = "identity"
            lines = iter([text for text in texts if len(text) < 2000 and max(text, default="") < "\u0250"])
            spm.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **{**usual, **options})
        data = altered(name, model.getvalue())
        (out / "model" / f"{name}.model").write_bytes(data)
        library = spm.SentencePieceProcessor(model_proto=data)
        full[name] = []
        for i, text in enumerate(texts):
            ids = library.encode(text)
            others = [(i * 7919 + k * 104729) % library.get_piece_size() for k in range(8)]
            full[name].append([library.normalize(text), ids, library.decode(ids), others, library.decode(others)])
        rows[name] = hashes(full[name])
        print(name, len(data), library.get_piece_size())
    return rows, full


def altered(name, data):
    """Changes that the trainer does not offer."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(data)
    if name.endswith("unused"):
        for piece in proto.pieces[20::3]:
            if piece.type == piece.NORMAL and len(piece.piece) > 1:
                piece.type = piece.UNUSED
    if name == "bpe-plain":
        proto.normalizer_spec.escape_whitespaces = False
    # The names of temporary files are no part of a model.
    proto.trainer_spec.ClearField("input")
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    return proto.SerializeToString()


def siglip(texts, out, cleaned):
    """Ids of SigLIP's tokenizers: transformers' two classes, and open_clip's cleaning before T5's class."""
    from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

    first = SiglipTokenizer(str(out / "model/siglip.model"))
    json_file = lambda name: gzip.decompress((out / f"json/{name}.json.gz").read_bytes()).decode()
    # Siglip2Tokenizer is the Gemma pipeline behind Lowercase, which gemma.json.gz has itself.
    second, t5 = Tokenizer.from_str(json_file("gemma")), Tokenizer.from_str(json_file("unigram"))
    full = {
        "siglip": [first(text)["input_ids"] for text in texts],
        "siglip2": [second.encode(text.lower(), add_special_tokens=False).ids + [4] for text in texts],
        "open_clip": [t5.encode(text).ids for text in cleaned],
    }
    return {name: hashes(lines) for name, lines in full.items()}, full


def hashes(rows):
    lines = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in rows]
    return [hashlib.sha256(line.encode()).hexdigest()[:8] for line in lines]


def write(path, rows):
    path.write_text(json.dumps(rows, separators=(",", ":")).replace('],"', '],\n"'))


def main():
    shared, out = Path(sys.argv[1]), Path(sys.argv[2])
    folder = shared / "data/vocab"
    read = lambda name, field: [json.loads(line)[field] for line in (folder / name).read_text().splitlines()]
    texts = read("texts.jsonl", "text")
    rows, full = {}, {}
    (out / "json").mkdir(parents=True, exist_ok=True)
    for name, tokenizer in make(texts, folder / "sentencepiece-unigram-1000.model").items():
        file = json.loads(tokenizer.to_str())
        path = out / "json" / f"{name}.json.gz"
        path.write_bytes(gzip.compress(json.dumps(file, ensure_ascii=False).encode(), 9, mtime=0))
        tokenizer = Tokenizer.from_str(json.dumps(file))
        full[name] = [row(tokenizer, text) for text in texts]
        rows[name] = hashes(full[name])
        print(name, path.stat().st_size, tokenizer.get_vocab_size())
    write(out / "json-rows.json", rows)
    model_rows, model_full = sentencepieces(texts, out)
    write(out / "model-rows.json", model_rows)
    siglip_rows, siglip_full = siglip(texts, out, read("reference-clip-openclip-canonicalize.jsonl", "clean"))
    write(out / "siglip-rows.json", siglip_rows)
    if len(sys.argv) > 3:
        Path(sys.argv[3]).write_text(json.dumps({"json": full, "model": model_full, "siglip": siglip_full}))


if __name__ == "__main__":
    main()

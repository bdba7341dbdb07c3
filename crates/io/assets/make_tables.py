"""Writes src/token/unicode_tables.rs and src/token/ftfy_tables.rs (and checks what it can check).

The sets are asked of the peers themselves, code point by code point, so that they hold the peers' Unicode versions:
Hugging Face's BERT rules carry Unicode 8 tables, the `regex` module and ftfy carry newer ones.
Run: python make_tables.py   (with tokenizers 0.23.3, regex 2026.11.19, ftfy 6.3.1)
"""
import os
import re
import sys

import ftfy
import ftfy.bad_codecs
import regex
import tokenizers
from ftfy import badness, chardata
from tokenizers.normalizers import BertNormalizer
from tokenizers import Regex
from tokenizers.pre_tokenizers import BertPreTokenizer, Split

HERE = os.path.dirname(os.path.abspath(__file__))
TOKEN = os.path.join(HERE, "..", "src", "token")
POINTS = [o for o in range(0x110000) if not 0xD800 <= o < 0xE000]


def ranges(points):
    out = []
    for o in points:
        # A gap of surrogates does not end a range: no Rust char is in there.
        if out and (o == out[-1][1] + 1 or (out[-1][1] == 0xD7FF and o == 0xE000)):
            out[-1][1] = o
        else:
            out.append([o, o])
    return out


def wrapped(items):
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > 118:
            lines.append(line)
            line = "   "
        line += " " + item + ","
    lines.append(line)
    return "\n".join(lines)


def range_table(name, doc, points):
    body = wrapped(f"(0x{a:X}, 0x{b:X})" for a, b in ranges(points))
    return f"/// {doc}\n#[rustfmt::skip]\npub(super) const {name}: &[(u32, u32)] = &[\n{body}\n];\n"


def bert(**on):
    base = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return BertNormalizer(**{**base, **on}).normalize_str


def unicode_tables():
    marks, clean, cjk = bert(strip_accents=True), bert(clean_text=True), bert(handle_chinese_chars=True)
    split = BertPreTokenizer().pre_tokenize_str
    prop = lambda p: [o for o in POINTS if regex.match(p, chr(o))]
    word = Split(Regex(r"[\p{L}]+|[\p{N}]"), behavior="isolated").pre_tokenize_str
    parts = [
        "//! Unicode sets that the tokenizers ask about, as sorted inclusive ranges. Written by assets/make_tables.py from the\n"
        "//! peers' own answers; not edited by hand.\n// tidy: table\n",
        f"// tokenizers {tokenizers.__version__}, regex {regex.__version__}\n",
        range_table("LETTER", r"`\p{L}` of the Python `regex` module, which open_clip's CLIP pattern uses.", prop(r"\p{L}")),
        range_table("NUMBER", r"`\p{N}` of the Python `regex` module.", prop(r"\p{N}")),
        range_table("NEW_LETTER_OR_NUMBER", "Letters and numbers of newer Unicode that Hugging Face's CLIP pattern does not know.",
                    [o for o in prop(r"[\p{L}\p{N}]") if len(word("!" + chr(o) + "!")) != 3]),
        range_table("PUNCTUATION", r"`\p{P}`, with the 32 ASCII signs that TensorFlow Text adds.",
                    [o for o in POINTS if regex.match(r"[\p{P}!-/:-@\[-`{-~]", chr(o))]),
        range_table("NONSPACING_MARK", r"`\p{Mn}`.", prop(r"\p{Mn}")),
        range_table("CONTROL_OR_FORMAT", r"`\p{Cc}` and `\p{Cf}`.", prop(r"[\p{Cc}\p{Cf}]")),
        range_table("DEFAULT_IGNORABLE", r"`\p{Default_Ignorable_Code_Point}`, which NFKC case folding removes.",
                    prop(r"\p{Default_Ignorable_Code_Point}")),
        range_table("BERT_MARK", "What Hugging Face's BERT rules strip as an accent.", [o for o in POINTS if marks("a" + chr(o)) == "a"]),
        range_table("BERT_CONTROL", "What Hugging Face's BERT rules drop as a control.", [o for o in POINTS if clean("a" + chr(o)) == "a"]),
        range_table("BERT_PUNCTUATION", "Where Hugging Face's BERT rules split a word.",
                    [o for o in POINTS if len(split("a" + chr(o) + "b")) == 3]),
        range_table("BERT_IDEOGRAPH", "What Hugging Face's BERT rules isolate as a CJK ideograph.",
                    [o for o in POINTS if cjk(chr(o)) == " " + chr(o) + " "]),
    ]
    with open(os.path.join(TOKEN, "unicode_tables.rs"), "w") as f:
        f.write("\n".join(parts))


def char_literal(c):
    o = ord(c)
    if c in "'\\\"":
        return "\\" + c
    return c if 0x20 <= o < 0x7F else "\\u{%X}" % o


def string(chars):
    return '"' + "".join(char_literal(c) for c in chars) + '"'


def string_table(name, doc, chars):
    """A &str split over lines by trailing backslashes."""
    lines, line = [], "    "
    for c in chars:
        piece = char_literal(c)
        if len(line) + len(piece) > 116:
            lines.append(line + "\\")
            line = "    "
        line += piece
    lines.append(line)
    return f"/// {doc}\n#[rustfmt::skip]\npub(super) const {name}: &str = \"\\\n" + "\n".join(lines) + "\";\n"


def ftfy_tables():
    names = ["common", "c1", "bad", "law", "currency", "start_punctuation", "end_punctuation", "numeric", "kaomoji",
             "upper_accented", "lower_accented", "upper_common", "lower_common", "box"]
    assert set(names) == set(badness.MOJIBAKE_CATEGORIES)
    clues = ["utf8_first_of_2", "utf8_first_of_3", "utf8_first_of_4", "utf8_continuation", "utf8_continuation_strict"]
    assert set(clues) == set(chardata.UTF8_CLUES)
    sets = [re.compile("[" + badness.MOJIBAKE_CATEGORIES[n] + "]") for n in names]
    sets += [re.compile("[" + chardata.UTF8_CLUES[n] + "]") for n in clues]
    mask = lambda o: sum(1 << i for i, s in enumerate(sets) if s.match(chr(o)))
    rows = []
    for o in POINTS:
        m = mask(o)
        if not m:
            continue
        if rows and rows[-1][1] == o - 1 and rows[-1][2] == m:
            rows[-1][1] = o
        else:
            rows.append([o, o, m])
    constants = "\n".join(
        f"/// ftfy's category `{n}`.\npub(super) const {n.upper()}: u32 = 1 << {i};" for i, n in enumerate(names + clues))
    body = wrapped(f"(0x{a:X}, 0x{b:X}, 0x{m:X})" for a, b, m in rows)
    parts = [
        "//! Character data of ftfy 6.3.1 (Robyn Speer, Apache-2.0): categories of characters that occur in mojibake, code pages,\n"
        "//! width and ligature maps. Written by assets/make_tables.py; not edited by hand.\n// tidy: table\n",
        f"// ftfy {ftfy.__version__}\n",
        constants + "\n",
        "/// Sorted ranges of characters with the set of their categories.\n#[rustfmt::skip]\n"
        f"pub(super) const CATEGORIES: &[(u32, u32, u32)] = &[\n{body}\n];\n",
    ]
    for encoding in chardata.CHARMAP_ENCODINGS:
        upper = bytes(range(0x80, 0x100)).decode(encoding)
        # The table must be invertible, or the choice of the encoder would matter.
        assert len(set(upper)) == 128 and not any(ord(c) < 0x80 for c in upper), encoding
        sub = bytes([0x1A]).decode(encoding)
        assert sub == ("\ufffd" if encoding.startswith("sloppy") else "\x1a")
        for b in range(0x80):
            assert b == 0x1A or ord(bytes([b]).decode(encoding)) == b
        name = encoding.upper().replace("-", "_")
        parts.append(string_table(name, f"What bytes 0x80 to 0xFF decode to in {encoding}.", upper))
    width = [c for c in sorted(chardata.WIDTH_MAP)]
    body = wrapped(f"(0x{o:X}, {string(chardata.WIDTH_MAP[o])})" for o in width)
    parts.append("/// Half-width and full-width forms and what they become.\n#[rustfmt::skip]\n"
                 f"pub(super) const WIDTHS: &[(u32, &str)] = &[\n{body}\n];\n")
    body = wrapped(f"(0x{o:X}, {string(s)})" for o, s in sorted(chardata.LIGATURES.items()))
    parts.append("/// Latin ligatures and digraphs and what they become.\n#[rustfmt::skip]\n"
                 f"pub(super) const LIGATURES: &[(u32, &str)] = &[\n{body}\n];\n")
    with open(os.path.join(TOKEN, "ftfy_tables.rs"), "w") as f:
        f.write("\n".join(parts))


if __name__ == "__main__":
    unicode_tables()
    ftfy_tables()
    print("written", file=sys.stderr)

"""Writes the embedded vocabularies and tables: bert-vocab.txt.z, clip-merges.bin.z, html5-entities.txt.z.

Run: python make_assets.py FOLDER   (FOLDER holds bert-base-uncased-vocab.txt and bpe_simple_vocab_16e6.txt.gz; Python 3.11)
"""
import gzip
import hashlib
import html
import html.entities
import os
import struct
import sys
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))


def write(name, data):
    packed = zlib.compress(data, 9)
    with open(os.path.join(HERE, name), "wb") as f:
        f.write(packed)
    print(name, len(data), "->", len(packed), "sha256 of the contents", hashlib.sha256(data).hexdigest()[:16])


def bytes_to_unicode():
    bs = list(range(ord("!"), ord("~") + 1)) + list(range(ord("¡"), ord("¬") + 1)) + list(range(ord("®"), ord("ÿ") + 1))
    cs = bs[:]
    n = 0
    for b in range(256):
        if b not in bs:
            bs.append(b)
            cs.append(256 + n)
            n += 1
    return dict(zip(bs, (chr(c) for c in cs)))


def clip_merges(folder):
    """Left ids of all merges, then right ids, 16 bits each: merge number i makes the piece 512 + i."""
    lines = gzip.open(os.path.join(folder, "bpe_simple_vocab_16e6.txt.gz")).read().decode("utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines[1:49152 - 256 - 2 + 1]]
    assert len(merges) == 48894
    letters = list(bytes_to_unicode().values())
    vocabulary = letters + [v + "</w>" for v in letters] + ["".join(m) for m in merges]
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    assert len(ids) == len(vocabulary) == 49406
    left = [ids[a] for a, _ in merges]
    right = [ids[b] for _, b in merges]
    assert all(max(a, b) < 512 + i for i, (a, b) in enumerate(zip(left, right))), "a merge uses a later piece"
    return struct.pack(f"<{2 * len(merges)}H", *left, *right)


def entities():
    """Lines `name<TAB>value`; names keep their semicolon. After an empty line, the upper-case names that only ftfy knows."""
    known = sorted(html.entities.html5.items())
    extra = {}
    for name, char in known:
        if name.endswith(";") and name == name.lower():
            upper = "&" + name.upper()
            if html.unescape(upper) == upper:
                extra[name.upper()] = char.upper()
    for name, value in list(known) + list(extra.items()):
        assert "\t" not in name and "\n" not in name
    show = lambda v: v.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    text = "".join(f"{n}\t{show(v)}\n" for n, v in known) + "\n" + "".join(f"{n}\t{show(v)}\n" for n, v in sorted(extra.items()))
    return text.encode("utf-8")


if __name__ == "__main__":
    write("bert-vocab.txt.z", open(os.path.join(sys.argv[1], "bert-base-uncased-vocab.txt"), "rb").read())
    write("clip-merges.bin.z", clip_merges(sys.argv[1]))
    write("html5-entities.txt.z", entities())

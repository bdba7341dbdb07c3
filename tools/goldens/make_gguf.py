"""GGUF blocks of random bytes and what gguf-py makes of them: testdata/goldens/gguf.

Run: python make_gguf.py OUT   (gguf 0.19.0, numpy 2.4; seed 7)

Writes blocks.gguf (four rows of two blocks a type, and the plain types), and values.json: of each tensor the SHA-256 of
its little-endian f32 values, row-major, and the first and last of them. Scales are kept finite and of ordinary size, so that
every value is a number. Q8_K holds activations in ggml and has no dequantizer in gguf-py; the formula of ggml-quants.c is
written out below. Q8_1, the other activation type, is left out: gguf-py says 40 bytes a block, ggml's C code 36.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
from gguf import GGUFReader, GGUFWriter, GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

HALVES = {  # offsets of f16 scales in a block
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], 
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.Q8_K: [],
}


def blocks(rng, kind, rows, per_row):
    _, size = GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows * per_row, size), dtype=np.uint8)
    for at in HALVES[kind]:
        halves = rng.normal(0, 0.05, rows * per_row).astype("<f2")
        raw[:, at : at + 2] = halves.view(np.uint8).reshape(-1, 2)
    if kind == T.Q8_K:
        raw[:, :4] = rng.normal(0, 0.05, rows * per_row).astype("<f4").view(np.uint8).reshape(-1, 4)
    return raw.reshape(rows, per_row * size)


def values(raw, kind):
    n, size = GGML_QUANT_SIZES[kind]
    if kind == T.Q8_K:
        b = raw.reshape(-1, size)
        out = b[:, :4].copy().view("<f4") * b[:, 4:260].copy().view(np.int8).astype("<f4")
    else:
        return dequantize(raw, kind).astype("<f4")
    return out.reshape(raw.shape[0], -1)


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    writer = GGUFWriter(out / "blocks.gguf", "llama")
    writer.add_uint8("t.u8", 8)
    writer.add_int8("t.i8", -8)
    writer.add_uint16("t.u16", 65535)
    writer.add_int16("t.i16", -16)
    writer.add_uint32("t.u32", 1 << 31)
    writer.add_int32("t.i32", -32)
    writer.add_uint64("t.u64", 1 << 63)
    writer.add_int64("t.i64", -(1 << 63))
    writer.add_float32("t.f32", 0.5)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.bool", True)
    writer.add_string("t.text", "caf\u00e9\n")
    writer.add_array("t.texts", ["a", "", "\u0120b", "d", "e"])
    writer.add_array("t.ints", [1, -2, 3])
    writer.add_array("t.floats", [0.25, -1.5])
    writer.add_array("t.bools", [True, False])
    stored, wanted = {}, {}
    for kind in HALVES:
        raw = blocks(rng, kind, 4, 2)
        stored[kind.name] = (raw, kind)
        wanted[kind.name] = values(raw, kind)
    for name, dtype, kind in [
        ("F32", "<f4", None), ("F16", "<f2", None), ("F64", "<f8", None),
        ("I8", "i1", None), ("I16", "<i2", None), ("I32", "<i4", None), ("I64", "<i8", None),
    ]:
        plain = (rng.normal(0, 50, (2, 3, 5))).astype(dtype)
        stored[name] = (plain, kind)
        wanted[name] = plain.astype("<f4")
    bf16 = (rng.normal(0, 1, (3, 4)).astype("<f4").view("<u4") >> 16).astype("<u2")
    stored["BF16"] = (bf16.view(np.uint8), T.BF16)
    wanted["BF16"] = (bf16.astype("<u4") << 16).view("<f4")
    for name, (data, kind) in stored.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert len(GGUFReader(out / "blocks.gguf").tensors) == len(stored)
    table = {}
    for name, array in wanted.items():
        array = np.ascontiguousarray(array, dtype="<f4")
        assert np.isfinite(array).all()
        flat = array.reshape(-1)
        table[name] = {
            "shape": list(array.shape),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
            "first": [float(v) for v in flat[:4]],
            "last": float(flat[-1]),
        }
    (out / "values.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

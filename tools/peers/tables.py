#!/usr/bin/env python3
"""Checks the program's tables and shards against pyarrow, DuckDB and webdataset. Run in an environment with those, in
the root of the repository: tables.py OPENVISION MODEL PICTURES. Everything is compared exactly with the .npz of the same
run; the small files in testdata/formats that the Rust tests compare with are checked too. Exits with 1 if anything differs.
"""
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import webdataset

CHECKS = 0


def check(what: str, ok: bool) -> None:
    global CHECKS
    CHECKS += 1
    if not ok:
        sys.exit(f"differs: {what}")


def list_type(shape: tuple[int, ...]) -> pa.DataType:
    kind = pa.float32()
    for size in reversed(shape):
        kind = pa.list_(pa.field("element", kind, nullable=False), size)
    return kind


def values(column: pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray:
    flat = column.combine_chunks()
    for _ in shape:
        flat = flat.flatten()
    return flat.to_numpy().reshape(-1, *shape)


def stored() -> None:
    """The files of testdata/formats that the program's own code wrote."""
    formats = Path("testdata/formats")
    for name, shape in {"vectors-1": (2,), "tokens-1": (2, 3)}.items():
        for empty in ["", "-empty"]:
            tables = [pq.read_table(formats / f"{name}{empty}.parquet"), feather.read_table(formats / f"{name}{empty}.arrow")]
            for table in tables:
                table.validate(full=True)
                rows = 0 if empty else 3
                check(f"{name}{empty} schema", table.schema.field("embedding").type == list_type(shape))
                check(f"{name}{empty} inputs", table["input"].to_pylist() == ["a.jpg", "größe", ""][:rows])
                wanted = (np.arange(rows * np.prod(shape)) / 4).astype(np.float32).reshape(-1, *shape)
                check(f"{name}{empty} values", np.array_equal(values(table["embedding"], shape), wanted))
                check(f"{name}{empty} metadata", table.schema.metadata == {b"openvision.content": b"unit"})
    shard = formats / "shard-1.tar"
    keys = ["0001", "sub/größe", f"{'d' * 90}/{'e' * 60}/0001", "k" * 300]
    with tarfile.open(shard) as tar:
        check("tarfile", [info.name.split(".")[0] for info in tar] == [keys[0]] * 3 + keys[1:3] + [keys[3]] * 2)
        check("owner, time and mode", {(info.uid, info.mtime, info.mode) for info in tar} == {(0, 0, 0o644)})
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    check("webdataset keys", [sample["__key__"] for sample in samples] == keys)
    check("webdataset fields", samples[0]["jpg"] == b"picture" and samples[3]["synthetic"] == b"a caption"
          and samples[0]["seg.png"] == b"" and samples[1]["jpg"] == bytes([7]) * 1000)
    print("testdata/formats: read alike by pyarrow, tarfile and webdataset")


def main() -> None:
    stored()
    program, model, pictures = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def embed(name: str, *options: str) -> Path:
            out = folder / name
            subprocess.run([program, "embed", "-m", model, *options, "--out", out, "--quiet"], check=True)
            return out

        for label, options in {"unit": [], "raw": ["--raw"], "tokens": ["--tokens", "-2"]}.items():
            # Many copies, so that there are several pages and row groups of tokens.
            copies = [str(folder / f"{i}") for i in range(700 if label == "tokens" else 40)]
            for copy in copies:
                Path(copy).exists() or Path(copy).symlink_to(Path(pictures).resolve())
            wanted = np.load(embed(f"{label}.npz", *copies, *options))
            shape = wanted["embeddings"].shape[1:]
            tables = {"parquet": pq.read_table(embed(f"{label}.parquet", *copies, *options)),
                      "arrow": pa.ipc.open_file(embed(f"{label}.arrow", *copies, *options)).read_all(),
                      "feather": feather.read_table(embed(f"{label}.feather", *copies, *options))}
            for name, table in tables.items():
                table.validate(full=True)
                check(f"{label} {name} schema", table.schema.equals(pa.schema([
                    pa.field("input", pa.string(), nullable=False), pa.field("kind", pa.string(), nullable=False),
                    pa.field("embedding", list_type(shape), nullable=False)])))
                check(f"{label} {name} values", np.array_equal(values(table["embedding"], shape), wanted["embeddings"]))
                check(f"{label} {name} inputs", table["input"].to_pylist() == wanted["inputs"].tolist())
                check(f"{label} {name} kinds", set(table["kind"].to_pylist()) == {"image"})
                about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
                check(f"{label} {name} metadata", about["openvision.precision"] == "f32" and about["openvision.model"] != ""
                      and about["openvision.fingerprint.image"] == wanted["fingerprints"][0]
                      and about["openvision.content"].startswith(label))
            groups = pq.ParquetFile(folder / f"{label}.parquet").num_row_groups
            rows = duckdb.sql(f"select input, embedding from '{folder / label}.parquet'").fetchall()
            check(f"{label} DuckDB", [row[0] for row in rows] == wanted["inputs"].tolist()
                  and np.array_equal(np.array([row[1] for row in rows], np.float32), wanted["embeddings"]))
            print(f"{label}: {len(rows)} rows of {shape}, {groups} row groups: equal in pyarrow and DuckDB")
    print(f"{CHECKS} of {CHECKS} checks")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Checks the program's tables and shards against pyarrow, DuckDB and webdataset. Run in an environment with those:
tables.py OPENVISION MODEL PICTURES. Everything is compared exactly with the .npz of the same run; exits with 1 if
anything differs.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

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


def main() -> None:
    program, model, pictures = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def embed(name: str, *options: str) -> Path:
            out = folder / name
            subprocess.run([program, "embed", "-m", model, *options, "--out", out, "--quiet"], check=True)
            return out

        for label, options in {"unit": [], "raw": ["--raw"], "tokens": ["--tokens", "-2"]}.items():
            # Many copies, so that there are several pages and row groups of tokens.
            copies = [str(folder / f"{i}") for i in range(40)]
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

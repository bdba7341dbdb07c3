#!/usr/bin/env python3
"""Writes testdata/formats/*.parquet: a table of pictures as pyarrow, DuckDB and Hugging Face's datasets write it, with
every compression and encoding that is read. Run: make_tables.py OUT. Python 3.11, pyarrow, duckdb, datasets of
tools/goldens/README.md. The pictures are PNG files of 2x2 pixels by Pillow, one a row; row 3 has none.
"""
import io
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS = 11


def picture(row: int) -> bytes | None:
    if row == 3:
        return None
    out = io.BytesIO()
    Image.new("RGB", (2, 2), (row, 2 * row, 3 * row)).save(out, "PNG")
    return out.getvalue()


def flat() -> pa.Table:
    rows = range(ROWS)
    return pa.table({
        "id": pa.array([100 + row for row in rows], pa.int64()),
        "caption": pa.array([f"caption {row}" for row in rows]),
        "image": pa.array([picture(row) for row in rows], pa.binary()),
        "scores": pa.array([[row, row] for row in rows], pa.list_(pa.float32())),
    })


def main(out: Path) -> None:
    table = flat()
    for codec in ["none", "snappy", "gzip", "zstd", "lz4"]:
        pq.write_table(table, out / f"pyarrow-{codec}.parquet", compression=codec, row_group_size=4)
    pq.write_table(table, out / "pyarrow-brotli.parquet", compression="brotli", row_group_size=4)
    pq.write_table(table, out / "pyarrow-v2-pages.parquet", data_page_version="2.0", data_page_size=64, write_batch_size=2)
    pq.write_table(table, out / "pyarrow-v1-plain.parquet", use_dictionary=False, data_page_size=64, write_batch_size=2)
    for encoding in ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]:
        numbers = {"image": encoding, "caption": encoding, "id": "DELTA_BINARY_PACKED"}
        pq.write_table(table, out / f"pyarrow-{encoding.lower()}.parquet", use_dictionary=False, column_encoding=numbers)
    duckdb.sql("COPY (SELECT id, caption, image FROM \"table\") TO '%s' (FORMAT parquet)" % (out / "duckdb.parquet"))
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    data = {"caption": [f"caption {row}" for row in range(ROWS)],
            "image": [{"bytes": picture(row), "path": f"{row}.png"} if row != 3 else None for row in range(ROWS)]}
    features = Features({"caption": Value("string"), "image": ImageFeature()})
    Dataset.from_dict(data, features=features).to_parquet(str(out / "datasets.parquet"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

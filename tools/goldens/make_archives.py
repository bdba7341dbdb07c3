#!/usr/bin/env python3
"""Writes testdata/formats/*.tar: archives by Python's tarfile in its three formats, with long names, a link, a folder,
a big mode and a sample of each kind of name. Run: make_archives.py OUT. Python 3.11.
"""
import io
import sys
import tarfile
from pathlib import Path

NAMES = [
    "plain/0001.jpg",
    "plain/0001.json",
    "plain/0001.seg.png",
    "plain/.hidden.jpg",
    "plain/0002.JPG",
    "../up/0003.jpg",
    "plain/no-extension",
    "d" * 90 + "/" + "e" * 60 + "/0004.txt",
    "d" * 60 + "/" + "f" * 120 + ".txt",
    "plain/größe 5.txt",
]


def write(path: Path, form: int) -> None:
    with tarfile.open(path, "w", format=form) as tar:
        folder = tarfile.TarInfo("plain")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for i, name in enumerate(NAMES):
            if form == tarfile.USTAR_FORMAT and len(name.rsplit("/", 1)[-1]) > 100:
                continue
            data = bytes([i]) * (i * 100)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.uid = 1 << 30 if form != tarfile.USTAR_FORMAT else 0  # more than octal digits hold
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("plain/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "x" * 150 if form != tarfile.USTAR_FORMAT else "x"
        tar.addfile(link)


if __name__ == "__main__":
    out = Path(sys.argv[1])
    write(out / "tarfile-gnu.tar", tarfile.GNU_FORMAT)
    write(out / "tarfile-pax.tar", tarfile.PAX_FORMAT)
    write(out / "tarfile-ustar.tar", tarfile.USTAR_FORMAT)

#!/usr/bin/env python3
"""Writes testdata/images/heif: small HEIC and AVIF files by pillow-heif and Pillow, and in verdicts.jsonl the size and the
mean colors of the four quarters that they decode to. Run: make_heif.py OUT. Pillow 13.0.0, pillow-heif 1.8.1.
"""
import json
import sys
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()


def main(out: Path) -> None:
    y, x = np.mgrid[0:48, 0:64]
    rgb = Image.fromarray(np.stack([x * 4, y * 5, 255 - (x + y) * 2], -1).astype(np.uint8))
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray((x * 4).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(out / "plain.heic", quality=90)
    rgba.save(out / "alpha.heic", quality=90)
    rgb.save(out / "turned.heic", quality=90, exif=exif)
    rgb.save(out / "plain.avif", quality=90)
    rgba.save(out / "alpha.avif", quality=90)
    lines = []
    for path in sorted([*out.glob("*.heic"), *out.glob("*.avif")]):
        picture = Image.open(path)
        pixels = np.asarray(picture.convert("RGB")).astype(float)
        h, w = pixels.shape[0] // 2, pixels.shape[1] // 2
        quarters = [pixels[i * h:(i + 1) * h, j * w:(j + 1) * w].mean((0, 1)).round(3).tolist() for i in (0, 1) for j in (0, 1)]
        lines.append({"file": path.name, "mode": picture.mode, "width": 2 * w, "height": 2 * h, "quarters": quarters})
    (out / "verdicts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

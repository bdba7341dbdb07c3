#!/usr/bin/env python3
"""Writes testdata/images/pillow: small pictures of many kinds by Pillow and tifffile, and in verdicts.jsonl what Pillow
decodes them to. Run: make_pictures.py OUT. Pillow 13.0.0, tifffile, imagecodecs and tiffcp (libtiff 4.5) for tiles and
byte orders.
"""
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

W, H = 37, 29


def base() -> Image.Image:
    y, x = np.mgrid[0:H, 0:W]
    rgb = np.stack([x * 6 + y, y * 8, (x * y) % 251], -1).astype(np.uint8)
    rgb[10:20, 10:30] = [200, 30, 90]
    return Image.fromarray(rgb)


def main(out: Path) -> None:
    rgb = base()
    alpha = rgb.convert("L").point(lambda v: 255 - v)
    rgba = rgb.copy()
    rgba.putalpha(alpha)
    gray16 = np.asarray(rgb.convert("L")).astype(np.uint16) * 257 + 3
    rgb16 = np.asarray(rgb).astype(np.uint16) * 256 + 77
    modes = {"1": rgb.convert("1"), "l": rgb.convert("L"), "la": rgba.convert("LA"), "p": rgb.quantize(200), "rgb": rgb,
             "rgba": rgba, "cmyk": rgb.convert("CMYK"), "i16": Image.fromarray(gray16), "ycbcr": rgb.convert("YCbCr")}
    for mode, picture in modes.items():
        for compression in ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"]:
            if (compression == "jpeg" and mode not in ("l", "rgb", "cmyk", "ycbcr")) or (compression == "group4") != (mode == "1"):
                continue
            if mode == "ycbcr" and compression != "jpeg":
                continue
            picture.save(out / f"{mode}-{compression.removeprefix('tiff_')}.tif", compression=compression)
    rgb.save(out / "rgb-bigtiff.tif", big_tiff=True)
    arrays = {"rgb": np.asarray(rgb), "gray": np.asarray(rgb.convert("L")), "rgb16": rgb16, "gray16": gray16}
    for name, array in arrays.items():
        photometric = "rgb" if name.startswith("rgb") else "minisblack"
        for byteorder in "<>":
            end = "be" if byteorder == ">" else "le"
            for label, options in {
                "tiles": {"tile": (16, 16)},
                "tiles-deflate-predictor": {"tile": (16, 16), "compression": "zlib", "predictor": True},
                "strips-lzw-predictor": {"rowsperstrip": 7, "compression": "lzw", "predictor": True},
                "big": {"rowsperstrip": 5, "bigtiff": True},
                "planar": {"planarconfig": "separate", "rowsperstrip": 9},
            }.items():
                if label == "planar":
                    if name not in ("rgb", "rgb16"):
                        continue
                    array_ = np.moveaxis(array, -1, 0)
                else:
                    array_, options = array, {**options, "bigtiff": options.get("bigtiff", False)}
                tifffile.imwrite(out / f"{name}-{label}-{end}.tif", array_, photometric=photometric, byteorder=byteorder,
                                 metadata=None, **{k: v for k, v in options.items() if not (k == "bigtiff" and not v)})
    for name, source, options in [("gray-tiles-lzw", "l-raw", ["-t", "-c", "lzw"]), ("rgb-tiles-lzw", "rgb-raw", ["-t", "-c", "lzw:2"]),
                                  ("rgb-jpeg-strips", "rgb-raw", ["-r", "16", "-c", "jpeg"]), ("rgb-jpeg-raw", "rgb-raw", ["-c", "jpeg:r"]),
                                  ("rgb-jpeg-tiles", "rgb-raw", ["-t", "-c", "jpeg"]), ("rgb-packbits-be", "rgb-raw", ["-B", "-c", "packbits"])]:
        tiles = ["-w", "16", "-l", "16"] if "-t" in options else []
        subprocess.run(["tiffcp", *options, *tiles, out / f"{source}.tif", out / f"{name}.tif"], check=True)
    rgb.convert("CMYK").save(out / "cmyk.jpg", quality=90)
    Image.fromarray(gray16).save(out / "gray16.png")
    palette = rgb.quantize(50)
    palette.info["transparency"] = bytes(range(50))
    palette.save(out / "palette-transparent.png", transparency=bytes(range(50)))
    verdicts = []
    for path in sorted(p for p in out.iterdir() if p.suffix in (".tif", ".jpg", ".png")):
        try:
            with Image.open(path) as picture:
                picture.load()
                converted = picture.convert("RGB")
                verdicts.append({"file": path.name, "mode": picture.mode, "width": picture.width, "height": picture.height,
                                 "sha256_rgb": hashlib.sha256(converted.tobytes()).hexdigest()})
        except Exception as error:
            verdicts.append({"file": path.name, "error": f"{type(error).__name__}: {error}"})
    # Pillow does not know big-endian BigTIFF, and mixes up the bytes of 16-bit planes (its two byte orders differ): the
    # same pixels in another layout say what is right.
    by_name = {v["file"]: v for v in verdicts}
    twins = {f"{n}-big-be.tif": f"{n}-big-le.tif" for n in arrays} | {f"rgb16-planar-{e}.tif": "rgb16-tiles-le.tif" for e in ("le", "be")}
    for file, twin in twins.items():
        by_name[file].pop("error", None)
        by_name[file].update({k: v for k, v in by_name[twin].items() if k != "file"}, pillow="wrong or refused; taken from " + twin)
    (out / "verdicts.jsonl").write_text("".join(json.dumps(v) + "\n" for v in verdicts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Keeps of the recorded photograph embeddings the rows whose pictures are in testdata/images/photos.

    python choose_photos.py SHARED_GOLDENS/photos testdata
"""
import os
import sys

import numpy as np

source, testdata = sys.argv[1:3]
names = os.listdir(os.path.join(testdata, "images/photos"))
keys = {f"captions/coco-val2017/images/{n.removeprefix('coco-')}" if n.startswith("coco-") else
        f"captions/free-photos/images/{n}" for n in names}
for model in ("openvision-tiny-p16-160", "vit-b-32-quickgelu", "hf-siglip"):
    recorded = np.load(os.path.join(source, model + ".npz"))
    chosen = [i for i, key in enumerate(recorded["keys"]) if key.decode() in keys]
    np.savez(os.path.join(testdata, "goldens/photos", model + ".npz"),
             keys=recorded["keys"][chosen], unit=recorded["unit"][chosen])
    print(model, len(chosen), "rows")

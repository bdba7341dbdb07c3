"""A small tree as OpenVision's JAX code names it, written by numpy: testdata/formats/openvision-tree.npz.

Run: python make_jax.py OUT   (numpy 2.4, ml_dtypes 0.6; seed 11)

One block a tower, width 16, two heads of 8 (DenseGeneral kernels), patch 4, texts of 80 positions and BERT's 30,522 words;
deflated, under params/, with an optimizer's count beside, one array in Fortran order and one in bfloat16.
"""

import pathlib
import sys

import ml_dtypes
import numpy as np

WIDTH, HEADS, MLP, DIM = 16, 2, 32, 8


def norm(tree, name, rng):
    tree[f"{name}/scale"] = rng.normal(1, 0.1, WIDTH)
    tree[f"{name}/bias"] = rng.normal(0, 0.1, WIDTH)


def tower(tree, name, rng):
    block = f"{name}/Transformer/encoderblock_0"
    for n in (0, 1):
        norm(tree, f"{block}/LayerNorm_{n}", rng)
    attention = f"{block}/MultiHeadDotProductAttention_0"
    head = WIDTH // HEADS
    for part in ("query", "key", "value"):
        tree[f"{attention}/{part}/kernel"] = rng.normal(0, 0.2, (WIDTH, HEADS, head))
        tree[f"{attention}/{part}/bias"] = rng.normal(0, 0.1, (HEADS, head))
    tree[f"{attention}/out/kernel"] = rng.normal(0, 0.2, (HEADS, head, WIDTH))
    tree[f"{attention}/out/bias"] = rng.normal(0, 0.1, WIDTH)
    for n, (k, m) in enumerate([(WIDTH, MLP), (MLP, WIDTH)]):
        tree[f"{block}/MlpBlock_0/Dense_{n}/kernel"] = rng.normal(0, 0.2, (k, m))
        tree[f"{block}/MlpBlock_0/Dense_{n}/bias"] = rng.normal(0, 0.1, m)
    norm(tree, f"{name}/encoder_norm", rng)
    tree[f"{name}/head/kernel"] = rng.normal(0, 0.3, (WIDTH, DIM))


def main(out):
    rng = np.random.default_rng(11)
    tree = {"img/cls": rng.normal(0, 1, (1, 1, WIDTH)), "img/embedding/kernel": rng.normal(0, 0.2, (4, 4, 3, WIDTH))}
    tower(tree, "img", rng)
    tower(tree, "txt", rng)
    # 37 different words, again and again: real sizes in a small file.
    words = rng.normal(0, 1, (37, WIDTH))
    tree["txt/Embed_0/embedding"] = words[np.arange(30522) % 37]
    tree["txt/pos_embedding"] = rng.normal(0, 0.1, (1, 80, WIDTH))
    tree["t"] = np.array([3.0])
    arrays = {f"params/{name}": value.astype("<f4") for name, value in tree.items()}
    fortran = "params/img/head/kernel"
    arrays[fortran] = np.asfortranarray(arrays[fortran])
    brain = "params/txt/head/kernel"
    arrays[brain] = arrays[brain].astype(ml_dtypes.bfloat16)
    arrays["opt/count"] = np.array(7, dtype="<i4")
    np.savez_compressed(out / "openvision-tree.npz", **arrays)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

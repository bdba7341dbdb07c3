"""`models convert --to onnx` against this program and against the recorded goldens, by onnxruntime.

    python onnx_check.py OPENVISION TESTDATA [MODEL ...]

For each golden with recorded inputs: the graphs' outputs against the peer's. For each MODEL (a name of `models list`,
made with seeded weights): the graphs' outputs against this program's own, on random inputs, as unit vectors. Prints one
line each with the largest difference, and the FNV-1a hash of each graph, which a test of this repository pins.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import openvision2_decoder
from safetensors.numpy import load_file

GOLDENS = ["openvision-tiny", "open_clip-gelu", "openai-quickgelu", "hf-clip", "hf-siglip"]


def run(program, *arguments):
    subprocess.run([program, *arguments], check=True, stderr=subprocess.DEVNULL)


def graph(folder, name, feed):
    path = os.path.join(folder, name + ".onnx")
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def vision_only(program, testdata, out):
    """OpenVision 2: patch tokens against open_clip's last block."""
    golden, model = os.path.join(testdata, "goldens/openvision-tiny"), os.path.join(out, "model")
    openvision2_decoder.folder(golden, model)
    run(program, "models", "convert", model, out, "--to", "onnx")
    inputs, outputs = (load_file(os.path.join(golden, f + ".safetensors")) for f in ("inputs", "outputs"))
    got, want = graph(out, "image", {"pixel_values": inputs["pixels"]}), outputs["image.block.2"][:, 1:]
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    print(f"{'openvision2-tiny':24} patch tokens {error:.1e} (against the peer, relative) ['{fnv(out + '/image.onnx')}']")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def fnv(path):
    value = 0xCBF29CE484222325
    for byte in open(path, "rb").read():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def golden(program, testdata, name, out):
    folder = os.path.join(testdata, "goldens", name)
    archives = [f for f in os.listdir(folder) if f.endswith(".pt")]
    run(program, "models", "convert", os.path.join(folder, archives[0]) if archives else folder, out, "--to", "onnx")
    inputs, outputs = (load_file(os.path.join(folder, f + ".safetensors")) for f in ("inputs", "outputs"))
    image = graph(out, "image", {"pixel_values": inputs["pixels"]})
    text = graph(out, "text", {"input_ids": inputs["token_ids"].astype(np.int64)})
    differences = [np.abs(unit(got) - outputs[kind]).max() for got, kind in ((image, "image.unit"), (text, "text.unit"))]
    hashes = [fnv(os.path.join(out, f"{kind}.onnx")) for kind in ("image", "text")]
    print(f"{name:24} image {differences[0]:.1e} text {differences[1]:.1e} (against the peer) {hashes}", flush=True)


def ours(program, folder, tower, values, work):
    """This program's raw embeddings of prepared inputs, by the protocol of `bench --serve-stdin`."""
    path = os.path.join(work, "inputs.bin")
    values.tofile(path)
    done = subprocess.run([program, "bench", "-m", folder, "--tower", tower, "--serve-stdin"], check=True, text=True,
                          input=f"input {path}\nembed\n", stdout=subprocess.PIPE)
    return np.array(json.loads(done.stdout.splitlines()[-1])["embeddings"], np.float32).reshape(len(values), -1)


def model(program, name, work):
    folder, out = os.path.join(work, "model"), os.path.join(work, "onnx")
    run(program, "models", "init", name, os.path.join(work, "made"), "--seed", "1")
    for precision in ("f32", "f16"):
        run(program, "models", "convert", os.path.join(work, "made"), folder, "--to", "openvision", "--precision", precision)
        run(program, "models", "convert", folder, out, "--to", "onnx", "--precision", precision)
        config = json.load(open(os.path.join(out, "config.json")))
        rng = np.random.default_rng(0)
        size = config["image"]["height"], config["image"]["width"]
        pixels = rng.standard_normal((3, 3, *size)).astype(np.float32)
        ids = rng.integers(1, config["text"]["vocabulary"], (3, config["text"]["context"])).astype(np.uint32)
        differences = []
        for tower, graph_name, input_name, values in (("image", "image", "pixel_values", pixels),
                                                      ("text", "text", "input_ids", ids)):
            feed = {input_name: values.astype(np.int64) if tower == "text" else values}
            differences.append(np.abs(unit(graph(out, graph_name, feed)) - unit(ours(program, folder, tower, values, work))).max())
        print(f"{name:24} image {differences[0]:.1e} text {differences[1]:.1e} (against ours, weights {precision})", flush=True)


if __name__ == "__main__":
    program, testdata, *models = sys.argv[1:]
    for name in GOLDENS:
        with tempfile.TemporaryDirectory() as out:
            golden(program, testdata, name, out)
    with tempfile.TemporaryDirectory() as out:
        vision_only(program, testdata, out)
    for name in models:
        with tempfile.TemporaryDirectory() as work:
            model(program, name, work)

"""Process start to first embedding, and peak memory, of openvision and of its peers from Python.

Each program starts anew, reads one picture and its model (in the page cache after the first run, which is not
counted), and prints an embedding. The programs alternate. onnxruntime and OpenVINO read an .onnx file made beforehand,
open_clip a model folder of its own layout made by `openvision models convert`; Pillow decodes and resizes for them.
PyTorch, Pillow and NumPy are imported as late as open_clip itself does.

    python startup.py --openvision target/release/openvision --model models/base --picture photo.jpg --ours f32,int8
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Reads a picture as the model wants it: model, picture, height, width and threads are the arguments.
PIXELS = """
import sys
import numpy
from PIL import Image
model, picture, height, width, threads = sys.argv[1:]
def read():
    image = Image.open(picture).convert("RGB").resize((int(width), int(height)), Image.BILINEAR)
    pixels = (numpy.asarray(image, numpy.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return numpy.ascontiguousarray(pixels.transpose(2, 0, 1)[None], numpy.float32)
"""

SCRIPTS = {
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
print(session.run(None, {"pixels": read()})[0][0, :4])
""",
    "openvino": """
import openvino
config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": int(threads),
          "INFERENCE_PRECISION_HINT": "f32"}
core = openvino.Core()
compiled = core.compile_model(core.read_model(model), "CPU", config)
print(compiled([read()])[0][0, :4])
""",
    "open_clip": """
import torch, open_clip
torch.set_num_threads(int(threads))
network, preprocess = open_clip.create_model_from_pretrained("local-dir:" + model)
network.eval()
with torch.inference_mode():
    print(network.encode_image(preprocess(Image.open(picture).convert("RGB"))[None])[0, :4])
""",
}
MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "open_clip": "open_clip"}


def once(command):
    """Wall seconds, processor seconds and peak memory in MiB of one run."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: {error.decode(errors='replace')}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def commands(arguments, folder):
    """The programs, by name, and what they read, in `folder`."""
    threads = str(arguments.threads)
    found = {}
    for precision in arguments.ours.split(","):
        command = [arguments.openvision, "embed", "-m", arguments.model, "--threads", threads]
        found[f"openvision {precision}"] = [*command, "--precision", precision, arguments.picture]
    for place in filter(None, arguments.stored.split(",")):
        command = [arguments.openvision, "embed", "-m", place, "--threads", threads, arguments.picture]
        found[f"openvision, {Path(place).name}"] = command
    peers = [name for name in arguments.peers.split(",") if name]
    missing = [name for name in peers if importlib.util.find_spec(MODULES[name]) is None]
    for name in missing:
        print(f"{name} is left out: it is not installed here", file=sys.stderr)
    peers = [name for name in peers if name not in missing]
    image = json.loads((Path(arguments.model) / "config.json").read_text())["image"]
    size = [str(image[side]) for side in ("height", "width")]
    path = str(Path(folder) / "model.onnx")
    if {"onnxruntime", "openvino"} & set(peers):
        # In a process of its own: a child's peak memory starts from that of its parent.
        maker = str(Path(__file__).with_name("graph.py"))
        subprocess.run([sys.executable, maker, arguments.model, "1", path], check=True)
    clip = str(Path(folder) / "open_clip")
    if "open_clip" in peers:
        convert = [arguments.openvision, "models", "convert", arguments.model, clip, "--to", "open_clip"]
        subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
    for name in peers:
        source = clip if name == "open_clip" else path
        found[name] = [sys.executable, "-c", PIXELS + SCRIPTS[name], source, arguments.picture, *size, threads]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openvision", required=True, help="the release binary")
    parser.add_argument("--model", required=True, help="a model folder")
    parser.add_argument("--picture", required=True)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours", default="f32", help="precisions of openvision, separated by commas")
    parser.add_argument("--stored", default="", help="more model folders for openvision, of lower precision, say")
    parser.add_argument("--peers", default="onnxruntime,openvino,open_clip", help="separated by commas; may be empty")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        programs = commands(arguments, folder)
        results = {name: [] for name in programs}
        for number in range(arguments.runs + 1):
            for name, command in programs.items():
                result = once(command)
                if number > 0:
                    results[name].append(result)
    print(f"Command: `python startup.py {' '.join(sys.argv[1:])}`; load at the end {os.getloadavg()[0]:.1f}\n")
    print("| program | wall s: median | best | processor s: median | peak memory, MiB | wall, to openvision | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    ours = next(iter(results.values()))
    peak = max(run[2] for run in ours)
    for name, runs in results.items():
        wall, work, memory = zip(*runs)
        pairs = [run[0] / own[0] for run, own in zip(runs, ours)]
        cells = f"{statistics.median(wall):.2f} | {min(wall):.2f} | {statistics.median(work):.2f} | {max(memory):.0f}"
        spread = f"{statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"
        print(f"| {name} | {cells} | {spread} | {max(memory) / peak:.2f} |")


if __name__ == "__main__":
    main()

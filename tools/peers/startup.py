"""Process start to first embedding, and peak memory, of openvision and of onnxruntime from Python.

Each program starts anew, reads one picture and its model (in the page cache after the first run, which is not
counted), and prints an embedding. The programs alternate. onnxruntime reads an .onnx file made beforehand; Pillow
decodes and resizes for it.

    python startup.py --openvision target/release/openvision --model models/base-16-224 --picture photo.jpg
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONNXRUNTIME = """
import sys
import numpy, onnxruntime
from PIL import Image
model, picture, height, width, threads = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
image = Image.open(picture).convert("RGB").resize((int(width), int(height)), Image.BILINEAR)
pixels = (numpy.asarray(image, numpy.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
pixels = pixels.transpose(2, 0, 1)[None].astype(numpy.float32)
print(session.run(None, {"pixels": pixels})[0][0, :4])
"""


def once(command):
    """Wall seconds, processor seconds and peak memory in MiB of one run."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {error.decode(errors='replace')}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openvision", required=True, help="the release binary")
    parser.add_argument("--model", required=True, help="a model folder")
    parser.add_argument("--picture", required=True)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="without the peer")
    arguments = parser.parse_args()
    threads = str(arguments.threads)
    ours = [arguments.openvision, "embed", "-m", arguments.model, "--threads", threads, arguments.picture]
    commands = {"openvision": ours}
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.alone:
            path = str(Path(folder) / "model.onnx")
            # In a process of its own: a child's peak memory starts from that of its parent.
            maker = str(Path(__file__).with_name("graph.py"))
            subprocess.run([sys.executable, maker, arguments.model, "1", path], check=True)
            image = json.loads((Path(arguments.model) / "config.json").read_text())["image"]
            size = [str(image[side]) for side in ("height", "width")]
            script = [sys.executable, "-c", ONNXRUNTIME, path, arguments.picture, *size, threads]
            commands["onnxruntime, Python"] = script
        results = {name: [] for name in commands}
        for number in range(arguments.runs + 1):
            for name, command in commands.items():
                result = once(command)
                if number > 0:
                    results[name].append(result)
    print(f"Command: `python startup.py {' '.join(sys.argv[1:])}`; load at the end {os.getloadavg()[0]:.1f}\n")
    print("| program | wall s: median | best | processor s: median | peak memory, MiB |\n| --- | --- | --- | --- | --- |")
    for name, runs in results.items():
        wall, work, memory = zip(*runs)
        cells = f"{statistics.median(wall):.2f} | {min(wall):.2f} | {statistics.median(work):.2f} | {max(memory):.0f}"
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()

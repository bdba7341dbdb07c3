"""Pictures a second of openvision, onnxruntime and OpenVINO on one machine, interleaved, as one Markdown table.

All get the same pixels in memory; the outputs are compared before anything is timed. One round runs each program in
turn (A B C A B C ...) for about --slice seconds, so that a change of the machine's load meets all of them. The order
rotates from round to round. A row's figure is the median over all passes of all rounds.

    python speed.py --openvision target/release/openvision --model models/base-16-224 --batch 1,8 --rounds 7
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from graph import build


class Ours:
    name = "openvision"

    def __init__(self, program, folder, threads, pixels):
        command = [program, "bench", "--serve-stdin", "-m", folder, "--threads", str(threads), "--tower", "image"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        with tempfile.NamedTemporaryFile(suffix=".f32") as file:
            file.write(pixels.astype("<f4").tobytes())
            file.flush()
            self.ask(f"input {file.name}")
        self.embedding = np.array(self.ask("embed")["embeddings"], np.float32).reshape(len(pixels), -1)

    def ask(self, request):
        print(request, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"openvision ended at '{request}'")
        answer = json.loads(line)
        if "error" in answer:
            raise SystemExit(f"openvision: {answer['error']}")
        return answer

    def run(self, batch, passes):
        return self.ask(f"run {batch} {passes}")["seconds"]


class Peer:
    """A peer with one compiled graph a batch size."""

    def __init__(self, models, pixels, threads):
        self.calls, self.outputs = {}, {}
        for batch, model in models.items():
            self.calls[batch] = self.prepare(model, pixels[np.arange(batch) % len(pixels)], threads)
            self.outputs[batch] = self.calls[batch]()

    def run(self, batch, passes):
        seconds = []
        for _ in range(passes):
            started = time.perf_counter()
            self.calls[batch]()
            seconds.append(time.perf_counter() - started)
        return seconds


class OnnxRuntime(Peer):
    name = "onnxruntime"

    def prepare(self, model, pixels, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"pixels": pixels})[0]


class OpenVino(Peer):
    name = "openvino"

    def prepare(self, model, pixels, threads):
        import openvino

        core = openvino.Core()
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        request = core.compile_model(core.read_model(model, b""), "CPU", config).create_infer_request()
        tensor = openvino.Tensor(pixels)

        def call():
            request.infer([tensor], share_inputs=True)
            return request.get_output_tensor(0).data.copy()

        return call


def versions():
    import onnxruntime
    import openvino

    found = {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__.split("-")[0]}
    return found | {"numpy": np.__version__, "python": platform.python_version()}


def machine():
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{model}, {os.cpu_count()} processors, {platform.system()} {platform.machine()}"


def compare(ours, peers):
    """Largest difference of each peer's first output from ours, relative to the largest value."""
    for peer in peers:
        for batch, output in peer.outputs.items():
            want = ours.embedding[np.arange(batch) % len(ours.embedding)]
            difference = np.abs(output - want).max() / np.abs(want).max()
            print(f"{peer.name}, batch {batch}: largest difference {difference:.1e} of the largest value", file=sys.stderr)
            if not difference < 1e-4:
                raise SystemExit("the outputs differ: nothing to compare")


def interleave(programs, batch, arguments):
    """Seconds of every pass, by program, and the medians of each round."""
    passes = {}
    for program in programs:
        once = min(program.run(batch, 2))
        passes[program.name] = max(1, round(arguments.slice / once))
    seconds = {program.name: [] for program in programs}
    rounds = {program.name: [] for program in programs}
    for number in range(arguments.rounds):
        turn = number % len(programs)
        for program in programs[turn:] + programs[:turn]:
            new = program.run(batch, passes[program.name])
            seconds[program.name] += new
            rounds[program.name].append(statistics.median(new))
    return seconds, rounds


def row(name, batch, seconds, rounds):
    """One line of the table: median (best) of each, then ratios to the better peer."""
    medians = {key: batch / statistics.median(value) for key, value in seconds.items()}
    bests = {key: batch / min(value) for key, value in seconds.items()}
    peers = [key for key in medians if key != "openvision"]
    pairs = [min(rounds[peer][i] for peer in peers) / ours for i, ours in enumerate(rounds["openvision"])]
    cells = [f"{medians[key]:.2f} / {bests[key]:.2f}" for key in ["openvision", *peers]]
    ratio = medians["openvision"] / max(medians[peer] for peer in peers)
    best = bests["openvision"] / max(bests[peer] for peer in peers)
    spread = f"{statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"
    return f"| {name}, {batch} | {' | '.join(cells)} | {ratio:.2f} | {best:.2f} | {spread} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openvision", required=True, help="the release binary")
    parser.add_argument("--model", required=True, action="append", help="a model folder; may be given several times")
    parser.add_argument("--batch", default="1,8", help="batch sizes, separated by commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slice", type=float, default=1.0, help="seconds of each program in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", default="", help="peers to leave out, separated by commas")
    arguments = parser.parse_args()
    batches = [int(batch) for batch in arguments.batch.split(",")]
    doctor = json.loads(subprocess.run([arguments.openvision, "doctor", "--json"], capture_output=True).stdout)
    kinds = [kind for kind in (OnnxRuntime, OpenVino) if kind.name not in arguments.without.split(",")]
    lines = []
    for folder in arguments.model:
        graphs = {batch: build(folder, batch) for batch in batches}
        config = graphs[batches[0]][1]
        image = config["image"]
        pixels = np.random.default_rng(7).standard_normal((2, 3, image["height"], image["width"])).astype(np.float32)
        ours = Ours(arguments.openvision, folder, arguments.threads, pixels)
        models = {batch: model.SerializeToString() for batch, (model, _) in graphs.items()}
        peers = [kind(models, pixels, arguments.threads) for kind in kinds]
        compare(ours, peers)
        for batch in batches:
            lines.append(row(config["name"], batch, *interleave([ours, *peers], batch, arguments)))
            print(lines[-1], file=sys.stderr)
        ours.process.stdin.close()
    load = os.getloadavg()[0]
    print(f"Machine: {machine()}; openvision {doctor['version']} with {doctor['instruction_set']}, ", end="")
    print(", ".join(f"{name} {version}" for name, version in versions().items()), end="")
    print(f"; {arguments.threads} threads; load at the end {load:.1f}.")
    print(f"Command: `python speed.py {' '.join(sys.argv[1:])}`\n")
    names = " | ".join(["openvision", *(kind.name for kind in kinds)])
    print(f"| model, batch | {names} | ratio of medians | ratio of bests | ratio by round, median (range) |")
    print("|" + " --- |" * (len(kinds) + 5))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

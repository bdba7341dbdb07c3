"""Items a second of openvision and its peers on one machine, interleaved, as one Markdown table.

Every program is a process of its own that answers requests (serve.py, rten/, candle/, `openvision bench --serve-stdin`), so
none shares threads or memory with another. All get the same inputs in memory; outputs are compared first. One round
runs each program in turn (A B C A B C ...) for about --slice seconds, so that a change of the machine's load meets all
of them; the order rotates. A program that takes more than --seldom times the fastest runs in every third round only.
A row's figure is the median over all passes of all rounds.

    python speed.py --openvision target/release/openvision --model models/base --batch 1,8
    python speed.py --openvision target/release/openvision --model models/base --tower text --batch 1,64
    python speed.py --openvision target/release/openvision --model models/base --precision int8
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from graph import configuration, save

HERE = Path(__file__).parent
PEERS = {
    "f32": ["onnxruntime", "openvino", "pytorch", "candle", "rten"],
    "bf16": ["onnxruntime", "openvino", "openvino-bf16"],
    "f16": ["onnxruntime", "openvino"],
    "int8": ["onnxruntime-dynamic", "onnxruntime-static", "openvino-nncf", "openvino-nncf-bf16"],
}
# How far a program in f32 may be from ours in f32, relative to the largest value.
CLOSE = 1e-4


class Program:
    """A process that answers requests."""

    def __init__(self, name, command, environment=None):
        self.name = name
        pipe = subprocess.PIPE
        environment = os.environ | (environment or {})
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.log, env=environment, text=True, bufsize=1)

    def ask(self, request):
        try:
            print(request, file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"ended at '{request}': {self.log.read()[-600:].decode(errors='replace').strip()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def embed(self, batch):
        return np.array(self.ask(f"embed {batch}")["embeddings"], np.float32).reshape(batch, -1)

    def run(self, batch, passes):
        return self.ask(f"run {batch} {passes}")["seconds"]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Ours(Program):
    """openvision in one precision."""

    def __init__(self, name, arguments, folder, precision):
        command = [arguments.openvision, "bench", "--serve-stdin", "-m", folder, "--threads", str(arguments.threads)]
        super().__init__(name, [*command, "--tower", arguments.tower, "--precision", precision])

    def embed(self, batch):
        if not hasattr(self, "all"):
            self.all = self.ask("embed")["embeddings"]
        all = np.array(self.all, np.float32).reshape(self.inputs, -1)
        return all[np.arange(batch) % self.inputs]


def peer(name, arguments, folder, graphs):
    if name == "rten":
        return Program(name, [arguments.rten, str(graphs)], {"RTEN_NUM_THREADS": str(arguments.threads)})
    if name == "candle":
        command = [arguments.candle, folder, arguments.tower]
        return Program(name, command, {"RAYON_NUM_THREADS": str(arguments.threads)})
    command = [sys.executable, str(HERE / "serve.py"), name, "--model", folder, "--tower", arguments.tower]
    return Program(name, [*command, "--threads", str(arguments.threads), "--graphs", str(graphs)])


def inputs(config, arguments):
    """Pictures of --pictures, cut to the model's input, or noise; for texts, seeded ids that end as texts do."""
    rng = np.random.default_rng(7)
    if arguments.tower == "text":
        text = config["text"]
        ids = rng.integers(1, text["vocabulary"] - 2, (4, text["context"]), np.uint32)
        if text["pooling"] == "largest_id":
            for row, length in zip(ids, [9, 20, 40, text["context"]]):
                row[length - 1 :] = 0
                row[length - 1] = text["vocabulary"] - 1
        return ids.astype("<u4")
    height, width = config["image"]["height"], config["image"]["width"]
    paths = sorted(path for path in Path(arguments.pictures).glob("*") if path.suffix in (".jpg", ".png"))[:8]
    if not paths:
        return rng.standard_normal((4, 3, height, width)).astype("<f4")
    from PIL import Image

    mean, std = (np.array(config["preprocess"][key], np.float32) for key in ("mean", "std"))
    pictures = [Image.open(path).convert("RGB").resize((width, height), Image.BILINEAR) for path in paths]
    pixels = np.stack([(np.asarray(picture, np.float32) / 255 - mean) / std for picture in pictures])
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype("<f4")


def cosines(ours, other):
    """Smallest and mean cosine of the rows."""
    dots = (ours * other).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(other, axis=1)
    return dots.min(), dots.mean()


def interleave(programs, batch, arguments):
    """Seconds of every pass, by program, and the medians of each round."""
    once = {program.name: min(program.run(batch, 2)) for program in programs}
    passes = {name: max(1, round(arguments.slice / seconds)) for name, seconds in once.items()}
    limit = arguments.seldom * min(once.values())
    seldom = {program.name for program in programs if not isinstance(program, Ours) and once[program.name] > limit}
    # The fastest peer so far takes part in every round, whatever it is slower than.
    peers = [program.name for program in programs if not isinstance(program, Ours)]
    seldom -= {min(peers, key=once.get)} if peers else set()
    length = sum(passes[name] * once[name] / (3 if name in seldom else 1) for name in once)
    count = max(3, min(arguments.rounds, round(arguments.row / length)))
    seconds = {program.name: [] for program in programs}
    rounds = []
    for number in range(count):
        turn, medians = number % len(programs), {}
        for program in programs[turn:] + programs[:turn]:
            if program.name in seldom and number % 3 > 0:
                continue
            new = program.run(batch, passes[program.name])
            seconds[program.name] += new
            medians[program.name] = statistics.median(new)
        rounds.append(medians)
    return seconds, rounds


def ratios(seconds, rounds, first, others):
    """Of `first` to the best of `others`: medians, bests, by round."""
    others = [name for name in others if name in seconds]
    median = min(statistics.median(seconds[name]) for name in others) / statistics.median(seconds[first])
    best = min(min(seconds[name]) for name in others) / min(seconds[first])
    pairs = [min(turn[name] for name in others if name in turn) / turn[first] for turn in rounds if set(others) & set(turn)]
    return f"{median:.2f} | {best:.2f} | {statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"


def check(program, reference, batch, exact):
    """Says how far a program's output is from ours in f32."""
    output, want = program.embed(batch), reference.embed(batch)
    difference = np.abs(output - want).max() / np.abs(want).max()
    low, mean = cosines(want, output)
    print(f"  {program.name}: largest difference {difference:.1e}, cosine {low:.5f} at least, {mean:.5f} mean", file=sys.stderr)
    if exact and not difference < CLOSE:
        raise SystemExit(f"{program.name}: the outputs differ: nothing to compare")
    return f"{low:.4f}"


def measure_batch(folder, batch, arguments, temporary):
    """The cells of one row; programs that fail are named and left out."""
    own = [arguments.precision] if arguments.precision == "f32" else [arguments.precision, "f32"]
    names = ["openvision" if precision == own[0] else f"openvision {precision}" for precision in own]
    programs = [Ours(name, arguments, folder, precision) for name, precision in zip(names, own)]
    made = list(programs)
    for program in programs:
        program.inputs = program.ask(f"input {temporary}/inputs.bin")["inputs"]
    graphs = Path(temporary) / "graphs"
    graphs.mkdir(exist_ok=True)
    wanted = [name for name in arguments.peers if name in PEERS[arguments.precision]]
    if set(wanted) - {"candle", "pytorch"} and not (graphs / f"{batch}.onnx").exists():
        save(folder, batch, graphs / f"{batch}.onnx", arguments.tower)
    made += [peer(name, arguments, folder, graphs) for name in wanted]
    cells, close = {}, {}
    for program in made:
        try:
            program.ask(f"input {temporary}/inputs.bin")
            exact = program.name in PEERS["f32"]
            close[program.name] = check(program, programs[-1], batch, exact)
            if program not in programs:
                programs.append(program)
        except RuntimeError as error:
            print(f"  {program.name} is left out: {error}", file=sys.stderr)
            if program in programs:
                raise SystemExit(f"{program.name}: {error}") from error
    seconds, rounds = interleave(programs, batch, arguments)
    for name, values in seconds.items():
        cells[name] = f"{batch / statistics.median(values):.2f} / {batch / min(values):.2f}"
    others = [program.name for program in programs if program.name not in names]
    row = [cells.get(name, "-") for name in [*names, *arguments.peers]]
    row.append(ratios(seconds, rounds, names[0], others) if others else "- | - | -")
    if len(names) > 1:
        row.append(ratios(seconds, rounds, names[0], names[1:]).split(" | ")[2])
        row.append(", ".join(f"{name} {cosine}" for name, cosine in close.items() if name != names[1]))
    for program in made:
        program.end()
    return row


def machine():
    found = {}
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    has = [name for name in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16") if name in found.get("flags", "").split()]
    return f"{found.get('model name', 'unknown processor')} ({', '.join(has)}), {os.cpu_count()} processors, {platform.system()}"


def versions(peers):
    packages = {"onnxruntime": "onnxruntime", "openvino": "openvino", "pytorch": "torch", "nncf": "nncf"}
    names = [package for part, package in packages.items() if any(part in name for name in peers)]
    found = [f"{name} {version(name)}" for name in [*names, "numpy"]]
    for name in {"rten", "candle"} & set(peers):
        manifest = (HERE / name / "Cargo.toml").read_text()
        line = next(line for line in manifest.splitlines() if line.startswith(name))
        found.append(f"{name} {line.split('=')[2].split(chr(34))[0]}")
    return ", ".join([*found, f"python {platform.python_version()}"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openvision", required=True, help="the release binary")
    parser.add_argument("--model", required=True, action="append", help="a model folder; may be given several times")
    parser.add_argument("--tower", choices=["image", "text"], default="image")
    parser.add_argument("--precision", choices=PEERS, default="f32")
    parser.add_argument("--batch", default="1,8", help="batch sizes, separated by commas")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of a row at most")
    parser.add_argument("--slice", type=float, default=0.7, help="seconds of each program in a round")
    parser.add_argument("--row", type=float, default=35, help="seconds that a row may take, if three rounds fit in")
    parser.add_argument("--seldom", type=float, default=1.6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", help="which peers, separated by commas; by default all of the precision")
    parser.add_argument("--rten", default="", help="the program of rten/")
    parser.add_argument("--candle", default="", help="the program of candle/")
    parser.add_argument("--pictures", default=str(HERE.parents[1] / "testdata/images/photos"))
    arguments = parser.parse_args()
    arguments.peers = arguments.peers.split(",") if arguments.peers else PEERS[arguments.precision]
    arguments.peers = [name for name in arguments.peers if name not in ("rten", "candle") or getattr(arguments, name)]
    doctor = json.loads(subprocess.run([arguments.openvision, "doctor", "--json"], capture_output=True).stdout)
    lines = []
    for folder in arguments.model:
        config = configuration(folder)
        data = inputs(config, arguments)
        for batch in map(int, arguments.batch.split(",")):
            with tempfile.TemporaryDirectory() as temporary:
                (Path(temporary) / "inputs.bin").write_bytes(data.tobytes())
                print(f"{config['name']}, {arguments.tower}, batch {batch}", file=sys.stderr)
                row = measure_batch(folder, batch, arguments, temporary)
            lines.append(f"| {config['name'].split('/')[-1]}, {batch} | {' | '.join(row)} |")
            print(lines[-1], file=sys.stderr)
    load = os.getloadavg()[0]
    print(f"Machine: {machine()}; openvision {doctor['version']} with {doctor['instruction_set']}, ", end="")
    print(f"{versions(arguments.peers)}; {arguments.threads} threads; load at the end {load:.1f}.")
    print(f"Command: `python speed.py {' '.join(sys.argv[1:])}`\n")
    names = ["openvision", *(["openvision f32"] if arguments.precision != "f32" else []), *arguments.peers]
    more = ["to own f32, by round", "smallest cosine to f32"] if arguments.precision != "f32" else []
    names += ["ratio of medians", "ratio of bests", "ratio by round, median (range)", *more]
    what = {"image": "pictures", "text": "texts"}[arguments.tower]
    print(f"{what.capitalize()} a second, {arguments.precision}: median / best. Ratios: openvision to the best peer.\n")
    print(f"| model, batch | {' | '.join(names)} |")
    print("|" + " --- |" * (len(names) + 1))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""How openvision's time grows: with pictures, from files to embeddings and with pixels in memory, and with the size of a
picture, beside the growth of the work by the exact count of operations.

Rounds go up and down the sizes in turn, so that a change of the machine's load meets all of them. Times are bests and
medians of the rounds.

    python growth.py --openvision target/release/openvision --model models/base --pictures testdata/images/photos
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(tasks, rounds):
    """Seconds of every task, by name, of every round; the order alternates."""
    seconds = {name: [] for name in tasks}
    for number in range(rounds):
        order = list(tasks) if number % 2 == 0 else list(tasks)[::-1]
        for name in order:
            seconds[name].append(tasks[name]())
    return seconds


class Served:
    """`openvision bench --serve-stdin`: passes over inputs in memory."""

    def __init__(self, arguments, *options):
        command = [arguments.openvision, "bench", "--serve-stdin", "-m", arguments.model, *options]
        command += ["--threads", str(arguments.threads), "--precision", arguments.precision]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def run(self, batch, passes=1):
        print(f"run {batch} {passes}", file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise SystemExit(answer["error"])
        return statistics.median(answer["seconds"])

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def files(arguments, folder):
    """Seconds of `openvision embed` over N files, its start included, for each N."""
    pictures = sorted(path for path in Path(arguments.pictures).iterdir() if path.suffix in (".jpg", ".png"))
    lists = {}
    for count in arguments.counts:
        place = Path(folder) / str(count)
        place.mkdir()
        for i in range(count):
            picture = pictures[i % len(pictures)]
            # Copies, not links: every file is read as a file of its own.
            shutil.copy(picture, place / f"{i:06}{picture.suffix}")
        lists[count] = place

    def embed(count):
        command = [arguments.openvision, "embed", "-m", arguments.model, "--quiet", "--out", f"{folder}/{count}.npz"]
        command += ["--threads", str(arguments.threads), "--precision", arguments.precision, str(lists[count])]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    embed(arguments.counts[0])
    return measure({count: lambda count=count: embed(count) for count in arguments.counts}, arguments.rounds)


def line_rows(title, seconds):
    """A table of times by count, beside the straight line through the smallest and the largest count (bests)."""
    bests = {count: min(values) for count, values in seconds.items()}
    first, last = min(bests), max(bests)
    slope = (bests[last] - bests[first]) / (last - first)
    print(f"{title}: {1e3 * slope:.2f} ms a picture, {1e3 * (bests[first] - first * slope):.1f} ms at the start\n")
    print("| pictures | s: median | best | ms a picture, best | best, to the line |\n| --- | --- | --- | --- | --- |")
    for count, values in seconds.items():
        line = bests[first] + slope * (count - first)
        each = 1e3 * bests[count] / count
        print(f"| {count} | {statistics.median(values):.3f} | {bests[count]:.3f} | {each:.2f} | {bests[count] / line - 1:+.1%} |")
    print(flush=True)


def operations(arguments, size):
    """Exact operations of one picture of this size (2 a multiply-add; products and attention), by `bench`'s formula."""
    config = json.loads((Path(arguments.model) / "config.json").read_text())
    image, t = config["image"], config["image"]["transformer"]
    patches = (size // image["patch"]) ** 2
    n, w, m = patches + (1 if image.get("class_token", True) else 0), t["width"], t["mlp_width"]
    embedding = 2 * patches * 3 * image["patch"] ** 2 * w
    layers = t["layers"] * (n * (8 * w * w + 4 * w * m) + 4 * n * n * w)
    return n, embedding + layers + 2 * w * config["embed_dim"]


def size_rows(arguments):
    """Time of a picture by its size, beside the work; every size has a process of its own."""
    patch = json.loads((Path(arguments.model) / "config.json").read_text())["image"]["patch"]
    sizes = arguments.sizes or sorted({max(1, round(size / patch)) * patch for size in (84, 112, 160, 224, 288, 336, 384)})
    served = {size: Served(arguments, "--image-size", str(size)) for size in sizes}
    tasks = {}
    for size, program in served.items():
        once = min(program.run(arguments.batch) for _ in range(2))
        passes = max(1, round(arguments.slice / once))
        tasks[size] = lambda program=program, passes=passes: program.run(arguments.batch, passes)
    seconds = measure(tasks, arguments.rounds)
    for program in served.values():
        program.end()
    middle = sizes[len(sizes) // 2]
    work = {size: operations(arguments, size) for size in sizes}
    rate = {size: work[size][1] * arguments.batch / min(seconds[size]) / 1e9 for size in sizes}
    print(f"Size of a picture, batch {arguments.batch}. Growth is against {middle} px.\n")
    print("| px | tokens | GFLOP | ms a picture: median | best | GFLOP/s | growth of work | of time | time to work, best | median |")
    print("|" + " --- |" * 10)
    for size in sizes:
        tokens, flop = work[size]
        values = [1e3 * value / arguments.batch for value in seconds[size]]
        grown = flop / work[middle][1]
        best = min(seconds[size]) / min(seconds[middle])
        median = statistics.median(seconds[size]) / statistics.median(seconds[middle])
        cells = [size, tokens, f"{flop / 1e9:.2f}", f"{statistics.median(values):.2f}", f"{min(values):.2f}", f"{rate[size]:.1f}"]
        cells += [f"{grown:.3f}", f"{best:.3f}", f"{best / grown - 1:+.1%}", f"{median / grown - 1:+.1%}"]
        print(f"| {' | '.join(map(str, cells))} |")
    # What every token costs in time beside what it costs in work, from the smallest size to the largest.
    low, high = sizes[0], sizes[-1]
    time_growth, work_growth = min(seconds[high]) / min(seconds[low]), work[high][1] / work[low][1]
    print(f"\nFrom {low} to {high} px: work x {work_growth:.2f}, time x {time_growth:.2f} ({time_growth / work_growth - 1:+.1%})\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openvision", required=True, help="the release binary")
    parser.add_argument("--model", required=True, help="a model folder")
    parser.add_argument("--pictures", default=str(Path(__file__).parents[2] / "testdata/images/caltech101"))
    parser.add_argument("--counts", type=lambda text: [int(part) for part in text.split(",")], default=[1, 10, 100, 1000])
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], help="multiples of the patch")
    parser.add_argument("--batch", type=int, default=8, help="pictures of a pass for the table of sizes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slice", type=float, default=0.5, help="seconds of a size in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--without", default="", help="tables to leave out: files, memory, sizes")
    arguments = parser.parse_args()
    without = arguments.without.split(",")
    print(f"Command: `python growth.py {' '.join(sys.argv[1:])}`; load at the start {os.getloadavg()[0]:.1f}\n")
    if "files" not in without:
        with tempfile.TemporaryDirectory() as folder:
            line_rows("Files to embeddings, the program's start included", files(arguments, folder))
    if "memory" not in without:
        program = Served(arguments)
        program.run(arguments.counts[0])
        tasks = {count: lambda count=count: program.run(count) for count in arguments.counts}
        line_rows("Pixels in memory", measure(tasks, arguments.rounds))
        program.end()
    if "sizes" not in without:
        size_rows(arguments)
    print(f"Load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

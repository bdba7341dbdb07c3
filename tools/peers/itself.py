"""openvision beside itself, interleaved: two threads beside one, and models of odd widths beside a regular one.

Every model and number of threads is a process of its own; they take turns, so that a change of the machine's load meets
all of them. The peak is that of multiply-adds alone on as many threads, measured in every round; rates are compared
round by round.

    python itself.py --openvision target/release/openvision --model models/tiny --model models/base --threads 1,2
    python itself.py --openvision target/release/openvision --model models/base --model models/huge --threads 2 --batch 8
"""

import argparse
import json
import os
import statistics
import subprocess
import sys


class Served:
    """One model on some threads."""

    def __init__(self, arguments, model, threads):
        command = [arguments.openvision, "bench", "--serve-stdin", "-m", model, "--threads", str(threads)]
        command += ["--tower", arguments.tower, "--precision", arguments.precision]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.about = self.ask("about")
        self.threads = threads

    def ask(self, request):
        print(request, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise SystemExit(answer["error"])
        return answer

    def run(self, batch, passes):
        return self.ask(f"run {batch} {passes}")["seconds"]


def rounds_of(programs, batch, arguments):
    """For every program the seconds of the passes of every round, and the peak of every round."""
    passes = [max(1, round(arguments.slice / min(program.run(batch, 2)))) for program in programs]
    seconds = [[] for _ in programs]
    peaks = [[] for _ in programs]
    for number in range(arguments.rounds):
        turn = number % len(programs)
        order = list(range(len(programs)))
        for i in order[turn:] + order[:turn]:
            seconds[i].append(programs[i].run(batch, passes[i]))
            peaks[i].append(programs[i].ask("peak")["gflops"])
    return seconds, peaks


def spread(ratios):
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openvision", required=True, help="the release binary")
    parser.add_argument("--model", required=True, action="append", help="a model folder; the first is the regular one")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, separated by commas; the first is compared with")
    parser.add_argument("--batch", default="1,8", help="batch sizes, separated by commas")
    parser.add_argument("--tower", choices=["image", "text"], default="image")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slice", type=float, default=0.7, help="seconds of each in a round")
    arguments = parser.parse_args()
    threads = [int(count) for count in arguments.threads.split(",")]
    programs = [Served(arguments, model, count) for model in arguments.model for count in threads]
    print(f"Command: `python itself.py {' '.join(sys.argv[1:])}`; load at the start {os.getloadavg()[0]:.1f}\n")
    print(f"Ratios are by round: median (range). {arguments.precision}, {programs[0].about['instruction_set']}.\n")
    print("| model, batch | threads | items/s: median | best | GFLOP/s: best | share of peak: median | best | "
          f"to {threads[0]} thread(s) | GFLOP/s to that of the first model |")
    print("|" + " --- |" * 9)
    for batch in map(int, arguments.batch.split(",")):
        seconds, peaks = rounds_of(programs, batch, arguments)
        rates = [[batch / statistics.median(turn) for turn in own] for own in seconds]
        for i, program in enumerate(programs):
            flop = program.about["flops"] / 1e9
            every = [batch / one for turn in seconds[i] for one in turn]
            peak = max(peaks[i])
            single = i - i % len(threads)
            regular = i % len(threads)
            first = programs[regular].about["flops"] / 1e9
            to_single = spread([a / b for a, b in zip(rates[i], rates[single])]) if i != single else "-"
            to_regular = spread([a * flop / b / first for a, b in zip(rates[i], rates[regular])]) if i != regular else "-"
            cells = [f"{program.about['model'].split('/')[-1]}, {batch}", program.threads, f"{statistics.median(every):.2f}"]
            cells += [f"{max(every):.2f}", f"{max(every) * flop:.1f}", f"{statistics.median(every) * flop / peak:.1%}"]
            cells += [f"{max(every) * flop / peak:.1%}", to_single, to_regular]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

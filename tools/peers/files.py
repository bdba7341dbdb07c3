"""JPEG files to embeddings: openvision, open_clip with a PyTorch DataLoader, OpenVINO with Pillow in a pool; one table.

All get the same files and the same weights (a seeded or trained OpenVision model, given to open_clip as an open_clip
folder that `openvision models convert` writes). Embeddings are compared before anything is timed. Rounds are
interleaved and their order rotates. The peers are warm: their models are loaded, their worker processes started, and
only the files are timed, by their own clocks. openvision's time is that of the whole command, start and loading
included.

    python files.py --openvision target/release/openvision --model models/tiny-16-160 photos/ --torch ~/torch/bin/python

`--torch` is a Python with torch and open_clip_torch; the peer is left out without it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np


class Squash:
    """What OpenVision's recipes do, with Pillow: resize (and center crop) to bytes [height, width, 3]."""

    def __init__(self, recipe):
        self.height, self.width = recipe["size"]
        if recipe["resize"] not in ("squash", "shortest") or recipe["interpolation"] not in ("bilinear", "bicubic"):
            raise SystemExit(f"no Pillow twin of the recipe {recipe}")
        self.shortest, self.bicubic = recipe["resize"] == "shortest", recipe["interpolation"] == "bicubic"

    def __call__(self, path):
        from PIL import Image

        image = Image.open(path)
        size, box = (self.width, self.height), None
        if self.shortest:
            short = min(image.size)
            size = tuple(int(self.height * side / short) for side in image.size)
            left, top = (round((size[0] - self.width) / 2), round((size[1] - self.height) / 2))
            box = (left, top, left + self.width, top + self.height)
        image = image.resize(size, Image.BICUBIC if self.bicubic else Image.BILINEAR)
        return np.asarray((image.crop(box) if box else image).convert("RGB"))


def serve_open_clip(request):
    """One DataLoader a variant: workers 0, 1, 2. Batches of 32."""
    import open_clip
    import torch
    from PIL import Image

    torch.set_num_threads(request["threads"])
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{request['open_clip']}")
    model.eval()

    class Files(torch.utils.data.Dataset):
        def __init__(self, files):
            self.files = files

        def __len__(self):
            return len(self.files)

        def __getitem__(self, index):
            return transform(Image.open(self.files[index]))

    def loader(workers):
        dataset = Files(request["files"])
        return torch.utils.data.DataLoader(dataset, 32, num_workers=workers, persistent_workers=workers > 0)

    loaders = {f"workers {count}": loader(count) for count in (0, 1, 2)}

    def run(variant):
        with torch.inference_mode():
            batches = [model.encode_image(batch) for batch in loaders[variant]]
        return torch.cat(batches).numpy()

    versions = f"torch {torch.__version__}, open_clip {open_clip.__version__}"
    return list(loaders), run, versions


def serve_openvino(request):
    """Pillow in threads or processes, decoding ahead of the model; pixels go in as bytes, the graph normalizes them."""
    import openvino
    import PIL
    from openvino.preprocess import PrePostProcessor

    from graph import configuration, save

    threads, files, core = request["threads"], request["files"], openvino.Core()
    pools = {"threads": ThreadPoolExecutor(threads), "processes": ProcessPoolExecutor(threads)}
    requests, recipe = {}, configuration(request["model"])["preprocess"]
    for batch in (8, 16, 32):
        path = Path(request["out"]) / f"{batch}.onnx"
        save(request["model"], batch, path)
        steps = PrePostProcessor(core.read_model(path))
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        of_bytes = lambda values: [255 * value for value in values]
        steps.input().preprocess().convert_element_type(openvino.Type.f32)
        steps.input().preprocess().mean(of_bytes(recipe["mean"])).scale(of_bytes(recipe["std"]))
        options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": threads}
        options["INFERENCE_PRECISION_HINT"] = "f32"
        requests[batch] = core.compile_model(steps.build(), "CPU", options).create_infer_request()
    read, size = Squash(recipe), tuple(recipe["size"])

    def run(variant):
        kind, batch = variant.split(", batch ")
        batch = int(batch)
        pixels, found = np.zeros((batch, *size, 3), np.uint8), []
        # All files are handed out at once: the pool is never without work while the model computes.
        pictures = pools[kind].map(read, files, chunksize=4)
        for start in range(0, len(files), batch):
            count = min(batch, len(files) - start)
            for i in range(count):
                pixels[i] = next(pictures)
            requests[batch].infer([openvino.Tensor(pixels)], share_inputs=True)
            found.append(requests[batch].get_output_tensor(0).data[:count].copy())
        return np.concatenate(found)

    versions = f"openvino {openvino.__version__.split('-')[0]}, pillow {PIL.__version__}"
    return [f"{kind}, batch {batch}" for kind in pools for batch in requests], run, versions


def serve(name):
    request = json.loads(sys.stdin.readline())
    variants, run, versions = {"open_clip": serve_open_clip, "openvino": serve_openvino}[name](request)
    print(json.dumps({"variants": variants, "versions": versions}), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        embeddings = run(line.strip())
        seconds = time.perf_counter() - started
        np.save(request["out"] + name, embeddings)
        print(json.dumps({"seconds": seconds}), flush=True)


class Peer:
    def __init__(self, name, python, request):
        self.name, self.out = name, request["out"] + name + ".npy"
        command = [python, __file__, "--serve", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.variants, self.versions = self.ask(json.dumps(request)).values()

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended")
        return json.loads(answer)

    def choose(self, tries):
        """The fastest variant by the best of some runs each."""
        times = {variant: min(self.run(variant) for _ in range(tries)) for variant in self.variants}
        self.variant = min(times, key=times.get)
        print(f"{self.name}: {({key: round(value, 3) for key, value in times.items()})}", file=sys.stderr)

    def run(self, variant=None):
        return self.ask(variant or self.variant)["seconds"]


class Ours:
    name = "openvision"

    def __init__(self, program, model, files, threads, options, folder):
        self.list, self.out = Path(folder, "files.txt"), Path(folder, "ours.npy")
        self.list.write_text("\n".join(files))
        self.command = [program, "embed", "-q", "-m", model, "--threads", str(threads), "--raw", "--out", self.out]
        self.command += [*options, "-"]

    def run(self):
        self.out.unlink(missing_ok=True)
        with self.list.open() as listed:
            started = time.perf_counter()
            subprocess.run(self.command, stdin=listed, check=True)
            return time.perf_counter() - started


def compare(ours, peers, strict):
    want = np.load(ours.out)
    for peer in peers:
        got = np.load(peer.out)
        cosine = (want * got).sum(1) / np.linalg.norm(want, axis=1) / np.linalg.norm(got, axis=1)
        print(f"{peer.name}: least cosine to openvision {cosine.min():.7f}", file=sys.stderr)
        if strict and cosine.min() < 0.9999:
            raise SystemExit("the embeddings differ: nothing to compare")


def pictures(arguments):
    files = []
    for name in arguments.pictures:
        path = Path(name)
        files += sorted(str(file) for file in path.rglob("*.jpg")) if path.is_dir() else [name]
    if arguments.take:
        files = files[:: max(1, len(files) // arguments.take)][: arguments.take]
    return files * arguments.repeat


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", help="JPEG files or folders of them")
    parser.add_argument("--openvision", help="the release binary")
    parser.add_argument("--model", help="a model folder that `models init` or `models convert` wrote")
    parser.add_argument("--torch", help="a Python with torch and open_clip_torch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tries", type=int, default=2, help="runs of each variant of a peer before the best is taken")
    parser.add_argument("--take", type=int, help="only so many of the files, evenly chosen")
    parser.add_argument("--repeat", type=int, default=1, help="go through the files so often in each run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--options", default="", help="more options of openvision embed, such as --precision=int8")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    with tempfile.TemporaryDirectory() as folder:
        compete(arguments, folder)


def compete(arguments, folder):
    files = pictures(arguments)
    request = {"files": files, "threads": arguments.threads, "model": arguments.model, "out": f"{folder}/"}
    ours = Ours(arguments.openvision, arguments.model, files, arguments.threads, arguments.options.split(), folder)
    peers = [Peer("openvino", sys.executable, request)]
    if arguments.torch:
        request["open_clip"] = f"{folder}/open_clip"
        convert = [arguments.openvision, "models", "convert", arguments.model, request["open_clip"], "--to", "open_clip"]
        subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
        peers.insert(0, Peer("open_clip", arguments.torch, request))
    for peer in peers:
        peer.choose(arguments.tries)
    ours.run()
    compare(ours, peers, strict=not arguments.options)
    programs = [ours, *peers]
    seconds = {program.name: [] for program in programs}
    for number in range(arguments.rounds):
        turn = number % len(programs)
        for program in programs[turn:] + programs[:turn]:
            seconds[program.name].append(program.run())
    rates = {name: [len(files) / second for second in times] for name, times in seconds.items()}
    versions = ", ".join(f"{peer.versions} ({peer.variant})" for peer in peers)
    print(f"{os.cpu_count()} processors; {versions}; {arguments.threads} threads; load at the end {os.getloadavg()[0]:.1f}.")
    print(f"Command: `python files.py {' '.join(sys.argv[1:])}`\n")
    ratios = " | ".join(f"to {peer.name}, median of rounds (range)" for peer in peers)
    print(f"| model, files | {' | '.join(rates)} | {ratios} |")
    print("|" + " --- |" * (1 + len(programs) + len(peers)))
    cells = [f"{statistics.median(rate):.1f} / {max(rate):.1f}" for rate in rates.values()]
    for peer in peers:
        pairs = [own / other for own, other in zip(rates["openvision"], rates[peer.name])]
        cells.append(f"{statistics.median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})")
    print(f"| {Path(arguments.model).name}, {len(files)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

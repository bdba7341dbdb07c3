"""Reference of OpenVision 2's caption decoder, written from its description (openvision.md 1.3), in float64 numpy.

    python openvision2_decoder.py check                     the golden numbers of openvision.md 1.4
    python openvision2_decoder.py golden testdata/goldens/openvision-tiny testdata/goldens/openvision2-tiny
    python openvision2_decoder.py folder testdata/goldens/openvision-tiny OUT  a model folder with that decoder
    python openvision2_decoder.py words TOKENS.npy VOCABULARY  captions of what `embed --tokens -1` wrote

`golden` gives open_clip's patch tokens of the openvision-tiny golden to a decoder with weights by formula and records
greedy and beam captions (what is sampled depends on random numbers that are ours alone). Needs numpy and safetensors.
"""
import json
import os
import sys

import numpy as np

M32 = np.uint64(0xFFFFFFFF)


def formula(count, stream):
    """u of openvision.md 1.4, in [-0.5, 0.5)."""
    h = (np.arange(count, dtype=np.uint64) + np.uint64(stream * 0x9E3779B9)) & M32
    h ^= h >> np.uint64(16)
    h = (h * np.uint64(0x7FEB352D)) & M32
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(0x846CA68B)) & M32
    h ^= h >> np.uint64(16)
    return h.astype(np.float64) / 2.0**32 - 0.5


def shapes(config):
    w, m, v, d = config["width"], config["mlp_dim"], config["vocab_size"], config["vision_width"]
    all = {"token_embedding.weight": (v, w), "image_projection.weight": (w, d), "lm_head.weight": (v, w),
           "ln_final.weight": (w,), "ln_final.bias": (w,)}
    for i in range(config["depth"]):
        p = f"blocks.{i}."
        all |= {p + "attn.in_proj_weight": (3 * w, w), p + "attn.in_proj_bias": (3 * w,),
                p + "attn.out_proj.weight": (w, w), p + "attn.out_proj.bias": (w,),
                p + "mlp.c_fc.weight": (m, w), p + "mlp.c_fc.bias": (m,),
                p + "mlp.c_proj.weight": (w, m), p + "mlp.c_proj.bias": (w,)}
        all |= {p + f"ln_{j}.{kind}": (w,) for j in (1, 2) for kind in ("weight", "bias")}
    return all


def weights(config, scale):
    """Every tensor by the formula: its stream is its place among the sorted names."""
    out = {}
    for stream, (name, shape) in enumerate(sorted(shapes(config).items()), start=1):
        u = formula(int(np.prod(shape)), stream).reshape(shape)
        norm = "ln_" in name and name.endswith("weight")
        out[name] = (1 + 0.2 * u if norm else scale * u).astype(np.float32)
    return out


def layer_norm(x, w, name):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w[name + ".weight"] + w[name + ".bias"]


def logits(config, w, tokens, ids):
    """Scores of the next word at every position of ids. tokens: [patches, vision width]."""
    w = {name: value.astype(np.float64) for name, value in w.items()}
    n, t, width, heads = len(tokens), len(ids), config["width"], config["num_heads"]
    x = np.concatenate([tokens.astype(np.float64) @ w["image_projection.weight"].T, w["token_embedding.weight"][ids]])
    seen = np.zeros((n + t, n + t), dtype=bool)
    seen[:, :n] = True
    seen[n:, n:] = np.tril(np.ones((t, t), dtype=bool))
    for i in range(config["depth"]):
        p = f"blocks.{i}."
        y = layer_norm(x, w, p + "ln_1") @ w[p + "attn.in_proj_weight"].T + w[p + "attn.in_proj_bias"]
        q, k, v = (part.reshape(n + t, heads, -1).transpose(1, 0, 2) for part in np.split(y, 3, axis=1))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(width // heads)
        scores = np.where(seen, scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        y = (scores / scores.sum(-1, keepdims=True)) @ v
        x = x + y.transpose(1, 0, 2).reshape(n + t, width) @ w[p + "attn.out_proj.weight"].T + w[p + "attn.out_proj.bias"]
        y = layer_norm(x, w, p + "ln_2") @ w[p + "mlp.c_fc.weight"].T + w[p + "mlp.c_fc.bias"]
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + y @ w[p + "mlp.c_proj.weight"].T + w[p + "mlp.c_proj.bias"]
    return layer_norm(x[n:], w, "ln_final") @ w["lm_head.weight"].T


def log_softmax(row):
    row = row - row.max()
    return row - np.log(np.exp(row).sum())


def greedy(config, w, tokens, longest):
    ids = []
    while len(ids) < longest:
        word = int(logits(config, w, tokens, [config["bos_id"], *ids])[-1].argmax())
        if word == config["eos_id"]:
            return ids, True
        ids.append(word)
    return ids, False


def beam(config, w, tokens, longest, width, penalty):
    """Beam search as transformers has it: an end counts only among the best `width`, and the search stops when no
    running caption can be worth more than the worst of `width` ended ones."""
    running, ended = [([], 0.0)], []
    for length in range(1, longest + 1):
        candidates = []
        for parent, (ids, score) in enumerate(running):
            row = log_softmax(logits(config, w, tokens, [config["bos_id"], *ids])[-1])
            best = sorted(range(len(row)), key=lambda i: (-row[i], i))[: 2 * width]
            candidates += [(score + row[i], parent, i) for i in best]
        candidates.sort(key=lambda c: -c[0])
        following = []
        for rank, (score, parent, word) in enumerate(candidates[: 2 * width]):
            if word != config["eos_id"]:
                following.append((running[parent][0] + [word], score))
            elif rank < width:
                ended.append((score / length**penalty, running[parent][0], True))
            if len(following) == width:
                break
        ended = sorted(ended, key=lambda e: -e[0])[:width]
        running = following
        if len(ended) == width and ended[-1][0] >= following[0][1] / length**penalty:
            running = []
            break
    ended += [(score / max(len(ids), 1) ** penalty, ids, False) for ids, score in running]
    worth, ids, whole = max(ended, key=lambda e: e[0])
    return ids, whole


def check():
    config = dict(width=32, depth=2, num_heads=4, mlp_dim=128, vocab_size=50, vision_width=24, bos_id=1, eos_id=2)
    tokens = (4 * formula(5 * 24, 1000)).astype(np.float32).reshape(5, 24)
    got = logits(config, weights(config, 0.5), tokens, [1, 7, 9, 2])
    want = {0: [0.660120, 0.384233, -0.274926, 0.968078, -0.472200], 3: [0.293563, 0.275595, -0.699784, 0.241856, -0.157801]}
    for row, values in want.items():
        print(row, got[row][:5], np.abs(got[row][:5] - values).max())
    print("sum", got.sum(), "argmax", got.argmax(-1))


CONFIG = dict(architecture="OpenVision2TextDecoder", fusion_style="concat", width=48, depth=3, num_heads=4,
              mlp_dim=160, vocab_size=30522, vision_width=64, pad_id=0, bos_id=1, eos_id=2)


def tiny_decoder():
    """Weights by formula; the end scores a little above a word that would be chosen, so that captions end."""
    w = weights(CONFIG, 0.5)
    w["lm_head.weight"][CONFIG["eos_id"]] = w["lm_head.weight"][16982] * np.float32(1.0625)
    return w


def caption(w, tokens, longest=12):
    greedy_ids, ended = greedy(CONFIG, w, tokens, longest)
    beams = {str(p): beam(CONFIG, w, tokens, longest, 4, p) for p in (0.0, 1.0)}
    return {"greedy": greedy_ids, "greedy_ended": ended,
            "beam": {p: {"ids": ids, "ended": whole} for p, (ids, whole) in beams.items()}}


def golden(folder, out):
    from safetensors.numpy import load_file

    outputs = load_file(os.path.join(folder, "outputs.safetensors"))
    block = max((n for n in outputs if n.startswith("image.block.")), key=lambda n: int(n.split(".")[-1]))
    w = tiny_decoder()
    captions = [caption(w, tokens) for tokens in outputs[block][:, 1:]]
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "captions.json"), "w") as file:
        json.dump({"config": CONFIG, "longest": 12, "captions": captions}, file, indent=1)
        file.write("\n")


def folder(golden, out):
    """A model folder as the authors publish it: the golden's image tower without its prefix, and the decoder."""
    from safetensors.numpy import load_file, save_file

    os.makedirs(out, exist_ok=True)
    state = load_file(os.path.join(golden, "open_clip_model.safetensors"))
    vision = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    vision["proj"] = np.eye(64, dtype=np.float32)
    save_file(vision, os.path.join(out, "open_clip_model.safetensors"))
    save_file(tiny_decoder(), os.path.join(out, "caption_decoder.safetensors"))
    with open(os.path.join(golden, "open_clip_config.json")) as file:
        model = json.load(file)["model_cfg"]
    model |= {"embed_dim": 64, "text_cfg": dict(context_length=77, vocab_size=49408, width=512, heads=8, layers=12)}
    for name, value in [("open_clip_config.json", {"model_cfg": model}), ("text_decoder_config.json", CONFIG)]:
        with open(os.path.join(out, name), "w") as file:
            json.dump(value, file)


def words(tokens, vocabulary):
    """Captions for the tokens that `openvision embed --tokens -1` wrote, as text."""
    pieces = open(vocabulary, encoding="utf-8").read().splitlines()
    w = tiny_decoder()
    for picture in np.load(tokens):
        for ids in (greedy(CONFIG, w, picture, 12)[0], beam(CONFIG, w, picture, 12, 4, 1.0)[0]):
            print(" ".join(pieces[i] for i in ids if i > 2).replace(" ##", ""))


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        check()
    elif sys.argv[1:2] == ["golden"]:
        golden(*sys.argv[2:4])
    elif sys.argv[1:2] == ["folder"]:
        folder(*sys.argv[2:4])
    elif sys.argv[1:2] == ["words"]:
        words(*sys.argv[2:4])
    else:
        sys.exit(__doc__)

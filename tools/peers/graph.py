"""A tower of a model folder as an ONNX graph, for the peers.

Reads config.json and model.safetensors as `openvision models init` and `openvision models convert` write them. The graph
has what a good export has: one MatMul for q, k and v, LayerNormalization and Gelu as single operators (opset 20).
Image towers are OpenVision's: the class token prepended, the patch tokens' mean, then the norm, then the projection.
Text towers are OpenVision's (every token attends to every other, the last is pooled) and CLIP's (causal mask, the token
of the largest id is pooled, QuickGELU).

    python graph.py FOLDER BATCH OUT.onnx [image | text]
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open


def configuration(folder):
    return json.loads((Path(folder) / "config.json").read_text())


def read(folder, tower="image"):
    """The configuration and the tensors of a tower."""
    with safe_open(Path(folder) / "model.safetensors", "np") as file:
        names = [name for name in file.keys() if name.startswith("visual.") == (tower == "image")]
        return configuration(folder), {name: file.get_tensor(name) for name in names}


class Graph:
    """Nodes and constants under construction."""

    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, array, kind=np.float32):
        self.count += 1
        name = f"c{self.count}"
        self.constants.append(numpy_helper.from_array(np.array(array, kind, order="C"), name))
        return name

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        name = f"{kind.lower()}{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def shape(self, *sizes):
        return self.constant(np.array(sizes), np.int64)

    def linear(self, x, weight, bias):
        return self.op("Add", self.op("MatMul", x, self.constant(weight.T)), self.constant(bias))

    def norm(self, x, gamma, beta, epsilon):
        return self.op("LayerNormalization", x, self.constant(gamma), self.constant(beta), axis=-1, epsilon=epsilon)

    def activation(self, x, kind):
        if kind == "quick_gelu":
            return self.op("Mul", x, self.op("Sigmoid", self.op("Mul", x, self.constant(1.702))))
        return self.op("Gelu", x, approximate={"gelu_erf": "none", "gelu_tanh": "tanh"}[kind])


def block(graph, x, get, transformer, shape, mask=None):
    """One pre-norm block over x: [batch, tokens, width]."""
    batch, tokens, width = shape
    heads = transformer["heads"]
    head = width // heads
    norm = graph.norm(x, get("ln_1.weight"), get("ln_1.bias"), transformer["epsilon"])
    qkv = graph.linear(norm, get("attn.in_proj_weight"), get("attn.in_proj_bias"))
    qkv = graph.op("Reshape", qkv, graph.shape(batch, tokens, 3, heads, head))
    qkv = graph.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (graph.op("Gather", qkv, graph.constant(i, np.int64), axis=0) for i in range(3))
    q = graph.op("Mul", q, graph.constant(head**-0.5))
    scores = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 1, 3, 2]))
    if mask is not None:
        scores = graph.op("Add", scores, mask)
    out = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
    out = graph.op("Reshape", graph.op("Transpose", out, perm=[0, 2, 1, 3]), graph.shape(batch, tokens, width))
    x = graph.op("Add", x, graph.linear(out, get("attn.out_proj.weight"), get("attn.out_proj.bias")))
    norm = graph.norm(x, get("ln_2.weight"), get("ln_2.bias"), transformer["epsilon"])
    hidden = graph.linear(norm, get("mlp.c_fc.weight"), get("mlp.c_fc.bias"))
    hidden = graph.activation(hidden, transformer["activation"])
    return graph.op("Add", x, graph.linear(hidden, get("mlp.c_proj.weight"), get("mlp.c_proj.bias")))


def blocks(graph, x, tensors, prefix, transformer, shape, mask=None):
    for i in range(transformer["layers"]):
        get = lambda name: tensors[f"{prefix}.{i}.{name}"]
        x = block(graph, x, get, transformer, shape, mask)
    return x


def image_graph(folder, batch):
    """`pixels` [batch, 3, height, width] to `embedding` [batch, embed_dim], not normalised."""
    config, tensors = read(folder, "image")
    image, transformer = config["image"], config["image"]["transformer"]
    unlike = {"pre_norm": False, "pooling": "mean_then_norm"}
    if any(image[key] != value for key, value in unlike.items()):
        raise SystemExit(f"{folder}: only OpenVision's image towers have a peer graph")
    width, patch = transformer["width"], image["patch"]
    rows, columns = image["height"] // patch, image["width"] // patch
    tokens = rows * columns + 1
    graph = Graph()
    weight = graph.constant(tensors["visual.conv1.weight"])
    bias = [graph.constant(tensors[name]) for name in ["visual.conv1.bias"] if name in tensors]
    # rten wants what the specification has defaults for.
    spelled = {"kernel_shape": [patch, patch], "dilations": [1, 1], "pads": [0] * 4, "group": 1}
    x = graph.op("Conv", "pixels", weight, *bias, strides=[patch, patch], **spelled)
    x = graph.op("Reshape", x, graph.shape(batch, width, rows * columns))
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    cls = np.broadcast_to(tensors["visual.class_embedding"].reshape(1, 1, width), (batch, 1, width))
    x = graph.op("Concat", graph.constant(cls), x, axis=1)
    x = graph.op("Add", x, graph.constant(tensors["visual.positional_embedding"].reshape(1, tokens, width)))
    x = blocks(graph, x, tensors, "visual.transformer.resblocks", transformer, (batch, tokens, width))
    x = graph.op("Slice", x, graph.shape(1), graph.shape(tokens), graph.shape(1))
    x = graph.op("ReduceMean", x, graph.shape(1), keepdims=0)
    x = graph.norm(x, tensors["visual.ln_post.weight"], tensors["visual.ln_post.bias"], transformer["epsilon"])
    graph.nodes.append(helper.make_node("MatMul", [x, graph.constant(tensors["visual.proj"])], ["embedding"]))
    pixels = ("pixels", TensorProto.FLOAT, [batch, 3, image["height"], image["width"]])
    return graph, pixels, [batch, config["embed_dim"]]


def text_graph(folder, batch):
    """`ids` [batch, context] to `embedding` [batch, embed_dim], not normalised. No mask hides padding: none does."""
    config, tensors = read(folder, "text")
    text, transformer = config["text"], config["text"]["transformer"]
    if text["pooling"] not in ("last", "largest_id"):
        raise SystemExit(f"{folder}: only OpenVision's and CLIP's text towers have a peer graph")
    width, tokens = transformer["width"], text["context"]
    graph = Graph()
    x = graph.op("Gather", graph.constant(tensors["token_embedding.weight"]), "ids", axis=0)
    x = graph.op("Add", x, graph.constant(tensors["positional_embedding"].reshape(1, tokens, width)))
    mask = None
    if text["causal"]:
        mask = graph.constant(np.triu(np.full((1, 1, tokens, tokens), -np.inf, np.float32), 1))
    x = blocks(graph, x, tensors, "transformer.resblocks", transformer, (batch, tokens, width), mask)
    # The norm is per token: one row of each text is enough.
    if text["pooling"] == "last":
        x = graph.op("Gather", x, graph.constant(tokens - 1, np.int64), axis=1)
    else:
        at = graph.op("ArgMax", "ids", axis=1, keepdims=1)
        at = graph.op("Concat", graph.constant(np.arange(batch).reshape(batch, 1), np.int64), at, axis=1)
        x = graph.op("GatherND", x, at)
    x = graph.norm(x, tensors["ln_final.weight"], tensors["ln_final.bias"], transformer["epsilon"])
    graph.nodes.append(helper.make_node("MatMul", [x, graph.constant(tensors["text_projection"])], ["embedding"]))
    return graph, ("ids", TensorProto.INT64, [batch, tokens]), [batch, config["embed_dim"]]


def save(folder, batch, path, tower="image"):
    """Writes the graph for a fixed batch. Weights of more than protobuf's 2 GiB lie in a file beside it."""
    graph, source, shape = (image_graph if tower == "image" else text_graph)(folder, batch)
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape)
    body = helper.make_graph(graph.nodes, f"{tower}_tower", [helper.make_tensor_value_info(*source)], [embedding], graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    large = sum(len(constant.raw_data) for constant in graph.constants) > 1 << 30
    onnx.save(model, path, save_as_external_data=large, location=Path(path).name + ".data", size_threshold=4096)
    onnx.checker.check_model(str(path))


if __name__ == "__main__":
    save(sys.argv[1], int(sys.argv[2]), sys.argv[3], *sys.argv[4:5])

"""The image tower of an OpenVision model folder as an ONNX graph, for the peers.

Reads config.json and model.safetensors as `openvision models init` and `openvision models convert` write them. The graph
has what a good export has: one MatMul for q, k and v, LayerNormalization and Gelu as single operators (opset 20), the
class token prepended, the patch tokens' mean, then the norm, then the projection.

    python graph.py FOLDER BATCH OUT.onnx
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open


def read(folder):
    """The configuration and the image tower's tensors."""
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    with safe_open(folder / "model.safetensors", "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith("visual.")}
    return config, tensors


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


def block(graph, x, tensors, prefix, transformer, shape):
    """One pre-norm block over x: [batch, tokens, width]."""
    batch, tokens, width = shape
    heads = transformer["heads"]
    head = width // heads
    get = lambda name: tensors[f"{prefix}.{name}"]
    norm = graph.norm(x, get("ln_1.weight"), get("ln_1.bias"), transformer["epsilon"])
    qkv = graph.linear(norm, get("attn.in_proj_weight"), get("attn.in_proj_bias"))
    qkv = graph.op("Reshape", qkv, graph.shape(batch, tokens, 3, heads, head))
    qkv = graph.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (graph.op("Gather", qkv, graph.constant(i, np.int64), axis=0) for i in range(3))
    q = graph.op("Mul", q, graph.constant(head**-0.5))
    scores = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 1, 3, 2]))
    out = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)
    out = graph.op("Reshape", graph.op("Transpose", out, perm=[0, 2, 1, 3]), graph.shape(batch, tokens, width))
    x = graph.op("Add", x, graph.linear(out, get("attn.out_proj.weight"), get("attn.out_proj.bias")))
    norm = graph.norm(x, get("ln_2.weight"), get("ln_2.bias"), transformer["epsilon"])
    hidden = graph.op("Gelu", graph.linear(norm, get("mlp.c_fc.weight"), get("mlp.c_fc.bias")), approximate="none")
    return graph.op("Add", x, graph.linear(hidden, get("mlp.c_proj.weight"), get("mlp.c_proj.bias")))


def build(folder, batch):
    """The model for a fixed batch: `pixels` [batch, 3, height, width] to `embedding` [batch, embed_dim], not normalised."""
    config, tensors = read(folder)
    image, transformer = config["image"], config["image"]["transformer"]
    unlike = {"pre_norm": False, "pooling": "mean_then_norm"}
    if any(image[key] != value for key, value in unlike.items()) or transformer["activation"] != "gelu_erf":
        raise SystemExit(f"{folder}: only OpenVision's image towers have a peer graph")
    width, patch = transformer["width"], image["patch"]
    rows, columns = image["height"] // patch, image["width"] // patch
    tokens = rows * columns + 1
    graph = Graph()
    x = graph.op("Conv", "pixels", graph.constant(tensors["visual.conv1.weight"]), strides=[patch, patch])
    x = graph.op("Reshape", x, graph.shape(batch, width, rows * columns))
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    cls = np.broadcast_to(tensors["visual.class_embedding"].reshape(1, 1, width), (batch, 1, width))
    x = graph.op("Concat", graph.constant(cls), x, axis=1)
    x = graph.op("Add", x, graph.constant(tensors["visual.positional_embedding"].reshape(1, tokens, width)))
    for i in range(transformer["layers"]):
        prefix = f"visual.transformer.resblocks.{i}"
        x = block(graph, x, tensors, prefix, transformer, (batch, tokens, width))
    x = graph.op("Slice", x, graph.shape(1), graph.shape(tokens), graph.shape(1))
    x = graph.op("ReduceMean", x, graph.shape(1), keepdims=0)
    x = graph.norm(x, tensors["visual.ln_post.weight"], tensors["visual.ln_post.bias"], transformer["epsilon"])
    graph.nodes.append(helper.make_node("MatMul", [x, graph.constant(tensors["visual.proj"])], ["embedding"]))
    info = helper.make_tensor_value_info
    pixels = info("pixels", TensorProto.FLOAT, [batch, 3, image["height"], image["width"]])
    embedding = info("embedding", TensorProto.FLOAT, [batch, config["embed_dim"]])
    body = helper.make_graph(graph.nodes, "image_tower", [pixels], [embedding], graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model, config


if __name__ == "__main__":
    onnx.save(build(sys.argv[1], int(sys.argv[2]))[0], sys.argv[3])

"""One Python peer behind the protocol of `openvision bench --serve-stdin`: requests on standard input, a line of JSON each.

    python serve.py KIND --model FOLDER --tower image --threads 2 --graphs FOLDER

`input FILE` takes little-endian f32 pixels or u32 ids; `embed BATCH` gives the embeddings of the first BATCH inputs (used
in turn), `run BATCH PASSES` the seconds of every pass. GRAPHS/BATCH.onnx is there before a batch is asked for. A batch
is prepared (read, quantised, compiled) when it is first asked for, and forgets the one before; no pass is timed by then
that has not been preceded by one that is not.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from graph import configuration, read

# Batches that quantisation looks at.
CALIBRATION = 16


def calibration(inputs, batch):
    """Inputs for calibration: other noise than what is timed for texts, shifted pictures for pictures."""
    for i in range(max(2, CALIBRATION // batch)):
        rolled = np.roll(inputs, 7 * i + 3, axis=-1)
        yield np.ascontiguousarray(rolled[(np.arange(batch) + i) % len(inputs)])


class OnnxRuntime:
    def graph(self, arguments, path, batch, inputs):
        return path

    def prepare(self, arguments, path, batch, inputs):
        import onnxruntime

        path = self.graph(arguments, path, batch, inputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        data = inputs[np.arange(batch) % len(inputs)]
        return lambda: session.run(None, {name: data})[0]


class OnnxRuntimeDynamic(OnnxRuntime):
    """Weights s8 a channel, activations u8 a tensor, measured as they come."""

    def graph(self, arguments, path, batch, inputs):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        out = path.with_name(f"{batch}.dynamic.onnx")
        quantize_dynamic(path, out, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
        return out


class OnnxRuntimeStatic(OnnxRuntime):
    """Weights s8 a channel, activations u8 a tensor by calibration; products of weights only."""

    def graph(self, arguments, path, batch, inputs):
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        name = "pixels" if arguments.tower == "image" else "ids"

        class Reader(CalibrationDataReader):
            def __init__(self):
                self.items = ({name: item} for item in calibration(inputs, batch))

            def get_next(self):
                return next(self.items, None)

        out = path.with_name(f"{batch}.static.onnx")
        quantize_static(
            path,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return out


class OpenVino:
    hint = "f32"

    def model(self, core, path, arguments, batch, inputs):
        return core.read_model(path)

    def prepare(self, arguments, path, batch, inputs):
        import openvino

        core = openvino.Core()
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": arguments.threads,
            "INFERENCE_PRECISION_HINT": self.hint,
        }
        model = self.model(core, path, arguments, batch, inputs)
        request = core.compile_model(model, "CPU", config).create_infer_request()
        tensor = openvino.Tensor(inputs[np.arange(batch) % len(inputs)])

        def call():
            request.infer([tensor], share_inputs=True)
            return request.get_output_tensor(0).data.copy()

        return call


class OpenVinoBf16(OpenVino):
    """As it runs by default where the processor multiplies bfloat16."""

    hint = "bf16"


class OpenVinoNncf(OpenVino):
    """NNCF's post-training quantisation for transformers; what is not quantised stays in f32."""

    def model(self, core, path, arguments, batch, inputs):
        import nncf

        nncf.set_log_level(40)
        items = list(calibration(inputs, batch))
        dataset = nncf.Dataset(items, lambda item: {0: item})
        model = core.read_model(path)
        return nncf.quantize(model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(items))


class OpenVinoNncfBf16(OpenVinoNncf):
    """The same; what is not quantised runs in bfloat16, the default where the processor has it."""

    hint = "bf16"


class PyTorch:
    """Eager, with scaled_dot_product_attention, in inference mode."""

    def prepare(self, arguments, path, batch, inputs):
        import torch

        torch.set_num_threads(arguments.threads)
        config, tensors = read(arguments.model, arguments.tower)
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
        tower = config[arguments.tower]
        forward = torch_image if arguments.tower == "image" else torch_text
        data = torch.from_numpy(inputs[np.arange(batch) % len(inputs)])

        def call():
            with torch.inference_mode():
                return forward(torch.nn.functional, tower, tensors, data).numpy()

        return call


def torch_blocks(f, x, tensors, prefix, transformer, causal):
    heads, epsilon = transformer["heads"], transformer["epsilon"]
    batch, tokens, width = x.shape
    activation = {
        "gelu_erf": f.gelu,
        "gelu_tanh": lambda x: f.gelu(x, approximate="tanh"),
        "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),
    }[transformer["activation"]]
    for i in range(transformer["layers"]):
        get = lambda name: tensors[f"{prefix}.{i}.{name}"]
        norm = f.layer_norm(x, (width,), get("ln_1.weight"), get("ln_1.bias"), epsilon)
        qkv = f.linear(norm, get("attn.in_proj_weight"), get("attn.in_proj_bias"))
        q, k, v = qkv.view(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        out = f.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out = out.transpose(1, 2).reshape(batch, tokens, width)
        x = x + f.linear(out, get("attn.out_proj.weight"), get("attn.out_proj.bias"))
        norm = f.layer_norm(x, (width,), get("ln_2.weight"), get("ln_2.bias"), epsilon)
        hidden = activation(f.linear(norm, get("mlp.c_fc.weight"), get("mlp.c_fc.bias")))
        x = x + f.linear(hidden, get("mlp.c_proj.weight"), get("mlp.c_proj.bias"))
    return x


def torch_image(f, image, tensors, pixels):
    import torch

    transformer = image["transformer"]
    width = transformer["width"]
    x = f.conv2d(pixels, tensors["visual.conv1.weight"], tensors.get("visual.conv1.bias"), stride=image["patch"])
    x = x.flatten(2).transpose(1, 2)
    cls = tensors["visual.class_embedding"].reshape(1, 1, width).expand(len(x), 1, width)
    x = torch.cat([cls, x], 1)
    x = x + tensors["visual.positional_embedding"]
    x = torch_blocks(f, x, tensors, "visual.transformer.resblocks", transformer, False)
    x = x[:, 1:].mean(1)
    x = f.layer_norm(x, (width,), tensors["visual.ln_post.weight"], tensors["visual.ln_post.bias"], transformer["epsilon"])
    return x @ tensors["visual.proj"]


def torch_text(f, text, tensors, ids):
    transformer = text["transformer"]
    x = f.embedding(ids, tensors["token_embedding.weight"]) + tensors["positional_embedding"]
    x = torch_blocks(f, x, tensors, "transformer.resblocks", transformer, text["causal"])
    x = x[:, -1] if text["pooling"] == "last" else x[range(len(x)), ids.argmax(-1)]
    x = f.layer_norm(x, (x.shape[-1],), tensors["ln_final.weight"], tensors["ln_final.bias"], transformer["epsilon"])
    return x @ tensors["text_projection"]


KINDS = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "pytorch": PyTorch,
    "onnxruntime-dynamic": OnnxRuntimeDynamic,
    "onnxruntime-static": OnnxRuntimeStatic,
    "openvino-nncf": OpenVinoNncf,
    "openvino-nncf-bf16": OpenVinoNncfBf16,
    "openvino-bf16": OpenVinoBf16,
}


class Server:
    def __init__(self, arguments):
        self.arguments, self.kind = arguments, KINDS[arguments.kind]()
        self.inputs, self.batch, self.call = None, None, None

    def prepared(self, batch):
        if batch != self.batch:
            self.call = None
            self.call = self.kind.prepare(self.arguments, Path(self.arguments.graphs) / f"{batch}.onnx", batch, self.inputs)
            self.call()
            self.batch = batch
        return self.call

    def answer(self, request):
        match request.split(" "):
            case ["input", path]:
                config = configuration(self.arguments.model)
                if self.arguments.tower == "image":
                    shape = [-1, 3, config["image"]["height"], config["image"]["width"]]
                    self.inputs = np.fromfile(path, "<f4").reshape(shape)
                else:
                    self.inputs = np.fromfile(path, "<u4").reshape(-1, config["text"]["context"]).astype(np.int64)
                self.batch = None
                return {"inputs": len(self.inputs)}
            case ["embed", batch]:
                return {"embeddings": self.prepared(int(batch))().ravel().tolist()}
            case ["run", batch, passes]:
                call, seconds = self.prepared(int(batch)), []
                for _ in range(int(passes)):
                    started = time.perf_counter()
                    call()
                    seconds.append(time.perf_counter() - started)
                return {"seconds": seconds}
        return {"error": f"'{request}' is none of: input FILE, embed BATCH, run BATCH PASSES"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tower", choices=["image", "text"], default="image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--graphs", required=True, help="a folder with BATCH.onnx")
    server = Server(parser.parse_args())
    # Libraries print what they like, from C++ too; answers are ours alone.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = server.answer(line.rstrip("\n"))
        except Exception as error:  # the client names it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()

"""`onnx-steer` on a decoder of the 7B shape: seconds to load, steer and save the graph, and peak memory.

    python benchmarks/onnx_steer.py [--layers 32]

The graph is Llama 2 7B's in plain operators; its 26 GB of weights are a hole on the disk. The bundle has a kernel gate
of 512 landmarks on 128 projections, and six sealed states. The script does not measure linking the weights (which takes
no time) or copying them, nor their sha256 for the manifest (which reads every byte). torch cannot be imported here. The
goal is below 1 s.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx_ir as ir

D, HEADS, INNER, VOCABULARY, LANDMARKS, PROJECTION, STEPS = 4096, 32, 11008, 32064, 512, 128, 6
HEAD = D // HEADS
DATA = "decoder_model_merged.onnx_data"


class _Decoder:
    """Builds the graph. It names and counts the weights and never makes them."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.bytes = 0

    def op(self, op_type: str, *inputs: ir.Value, **attributes: object) -> ir.Value:
        node = ir.Node("", op_type, list(inputs), ir.convenience.convert_attributes(attributes), num_outputs=1)
        node.outputs[0].name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def weight(self, *shape: int) -> ir.Value:
        size = 4 * int(np.prod(shape))
        name = f"weight_{len(self.initializers)}"
        tensor = ir.ExternalTensor(DATA, self.bytes, size, ir.DataType.FLOAT, name=name, shape=ir.Shape(shape))
        self.bytes += size
        return self._initializer(name, tensor)

    def ints(self, *values: int) -> ir.Value:
        name = f"ints_{len(self.initializers)}"
        return self._initializer(name, ir.Tensor(np.array(values, np.int64), name=name))

    def float(self, value: float) -> ir.Value:
        name = f"float_{len(self.initializers)}"
        return self._initializer(name, ir.Tensor(np.float32(value).reshape(()), name=name))

    def norm(self, x: ir.Value) -> ir.Value:
        mean = self.op("ReduceMean", self.op("Pow", x, self.float(2)), self.ints(-1), keepdims=1)
        scale = self.op("Reciprocal", self.op("Sqrt", self.op("Add", mean, self.float(1e-5))))
        return self.op("Mul", self.weight(D), self.op("Mul", x, scale))

    def linear(self, x: ir.Value, rows: int, columns: int) -> ir.Value:
        return self.op("MatMul", x, self.weight(rows, columns))

    def heads(self, x: ir.Value) -> ir.Value:
        split = self.op("Reshape", x, self.ints(0, 0, HEADS, HEAD))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def turned(self, x: ir.Value, cosine: ir.Value, sine: ir.Value) -> ir.Value:
        low = self.op("Slice", x, self.ints(0), self.ints(HEAD // 2), self.ints(3))
        high = self.op("Slice", x, self.ints(HEAD // 2), self.ints(HEAD), self.ints(3))
        half = self.op("Concat", self.op("Neg", high), low, axis=-1)
        return self.op("Add", self.op("Mul", x, cosine), self.op("Mul", half, sine))

    def block(self, x: ir.Value, past: list[ir.Value], angles: list[ir.Value], bias: ir.Value) -> list[ir.Value]:
        normed = self.norm(x)
        query, key, value = (self.heads(self.linear(normed, D, D)) for _ in range(3))
        key = self.op("Concat", past[0], self.turned(key, *angles), axis=2)
        value = self.op("Concat", past[1], value, axis=2)
        transposed = self.op("Transpose", key, perm=[0, 1, 3, 2])
        scores = self.op("Mul", self.op("MatMul", self.turned(query, *angles), transposed), self.float(HEAD**-0.5))
        mixed = self.op("MatMul", self.op("Softmax", self.op("Add", scores, bias), axis=-1), value)
        joined = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, D))
        x = self.op("Add", x, self.linear(joined, D, D))
        normed = self.norm(x)
        gate = self.linear(normed, D, INNER)
        gate = self.op("Mul", gate, self.op("Sigmoid", gate))
        inner = self.op("Mul", gate, self.linear(normed, D, INNER))
        return [self.op("Add", x, self.linear(inner, INNER, D)), key, value]

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        kind = ir.TensorType(tensor.dtype)
        value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(tensor.shape), type=kind)
        self.initializers.append(value)
        return value


def _input(name: str, kind: ir.DataType, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kind))


def write_model(folder: Path, layers: int) -> int:
    """Write the graph, and a hole as large as its weights; returns the number of nodes."""
    build, b = _Decoder(), "batch_size"
    embeds = _input("inputs_embeds", ir.DataType.FLOAT, b, "sequence_length", D)
    mask = _input("attention_mask", ir.DataType.INT64, b, "total_sequence_length")
    positions = _input("position_ids", ir.DataType.INT64, b, "sequence_length")
    cast = build.op("Cast", build.op("Unsqueeze", positions, build.ints(1, 3)), to=ir.DataType.FLOAT.value)
    frequencies = build.op("Mul", cast, build.weight(HEAD))
    angles = [build.op("Cos", frequencies), build.op("Sin", frequencies)]
    wide = build.op("Cast", build.op("Unsqueeze", mask, build.ints(1, 2)), to=ir.DataType.FLOAT.value)
    bias = build.op("Mul", build.op("Sub", build.float(1), wide), build.float(-1e9))
    x, inputs, outputs = embeds, [embeds, mask, positions], []
    for layer in range(layers):
        names = [f"past_key_values.{layer}.{leaf}" for leaf in ("key", "value")]
        past = [_input(name, ir.DataType.FLOAT, b, HEADS, "past_sequence_length", HEAD) for name in names]
        x, *present = build.block(x, past, angles, bias)
        for name, value in zip(names, present, strict=True):
            value.name = name.replace("past_key_values", "present")
            value.type, value.shape = past[0].type, ir.Shape([b, HEADS, "total_sequence_length", HEAD])
        inputs, outputs = [*inputs, *past], [*outputs, *present]
    logits = build.linear(build.norm(x), D, VOCABULARY)
    logits.name, logits.type = "logits", embeds.type
    logits.shape = ir.Shape([b, "sequence_length", VOCABULARY])
    graph = ir.Graph(
        inputs,
        [logits, *outputs],
        nodes=build.nodes,
        initializers=build.initializers,
        opset_imports={"": 20},
        name="decoder",
    )
    ir.save(ir.Model(graph, ir_version=10), folder / "decoder_model_merged.onnx")
    with (folder / DATA).open("wb") as file:
        file.truncate(build.bytes)
    return len(build.nodes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    options = parser.parse_args()
    sys.modules["torch"] = None  # type: ignore[assignment]
    from mllmeraser.exporter.onnx.folder import read_folder
    from mllmeraser.exporter.onnx.insert import insert_steering
    from mllmeraser.exporter.onnx.requests import GraphRequest
    from mllmeraser.exporter.onnx.weights import write_graph
    from mllmeraser.modeling_patches.format_mllmeraser import Request

    random, layer = np.random.default_rng(0), options.layers // 2
    rule = Request(
        index=0,
        layers=(options.layers * 3 // 4,),
        gate_layer=layer,
        scope="conversation",
        kind="kernel",
        shape="step",
        threshold=0.5,
        landmarks=LANDMARKS,
        projection=PROJECTION,
        edit="seal",
        steps=STEPS,
        all_positions=True,
    )
    tensors = {key: random.standard_normal(shape, np.float32) for key, shape in rule.shapes(D).items()}
    tensors[layer, "projection"] = np.sign(tensors[layer, "projection"]).astype(np.int8)
    tensors[layer, "bandwidth"] = np.array(0.5, np.float32)
    request = GraphRequest("r1", 1.0, rule, tensors)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = write_model(folder, options.layers)
        size = (folder / DATA).stat().st_size
        started = [time.perf_counter()]
        (graph,) = read_folder(folder).graphs
        started.append(time.perf_counter())
        insert_steering(graph.model, [request])
        started.append(time.perf_counter())
        write_graph(graph.model, folder / "steered.onnx")
        started.append(time.perf_counter())
    load, steer, save = (after - before for before, after in pairwise(started))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.layers} layers, {nodes:,} nodes, {size / 1e9:.1f} GB of weights that are not read")
    print(f"load {load:.3f} s  steer {steer:.3f} s  save {save:.3f} s  together {load + steer + save:.3f} s")
    print(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()

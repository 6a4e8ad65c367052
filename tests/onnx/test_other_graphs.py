"""Graphs that others make of the same decoder: optimised, fused, half precision, four bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import graphs
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tiny
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

from mllmeraser.exporter.onnx.bundles import graph_requests
from mllmeraser.exporter.onnx.insert import insert_steering

BLOCKS = (1, 2, 3)  # the last one too, whose sum feeds the final norm only


def optimised(source: Path, folder: Path) -> Path:
    """As ONNX Runtime rewrites it for itself."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "model.onnx")
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    shutil.copy(f"{source}_data", folder)
    return folder / "model.onnx"


def fused(source: Path, folder: Path) -> Path:
    """Each residual sum and the norm after it in one node, as onnxruntime-genai's builder writes them."""
    model = ir.load(source)
    ir.external_data.load_to_model(model)
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Reciprocal":
            continue
        scaled = next(use.node for use in node.outputs[0].uses())  # h / rms
        hidden = next(value for value in scaled.inputs if value is not node.outputs[0])
        gain = next(use.node for use in scaled.outputs[0].uses())
        weight = next(value for value in gain.inputs if value is not scaled.outputs[0])
        add = hidden.producer()
        if add is None or add.op_type != "Add":
            continue  # the first norm follows the embeddings
        skip = ir.Node(
            "com.microsoft",
            "SkipSimplifiedLayerNormalization",
            [*add.inputs, weight],
            [ir.AttrFloat32("epsilon", 1e-6)],
            num_outputs=4,
        )
        for at, name in ((0, "norm"), (3, "sum")):
            skip.outputs[at].name = f"{hidden.name}_{name}"
        skip.outputs[1].name = skip.outputs[2].name = ""
        graph.insert_after(add, skip)
        gain.outputs[0].replace_all_uses_with(skip.outputs[0])
        hidden.replace_all_uses_with(skip.outputs[3])
    model.opset_imports["com.microsoft"] = 1
    ir.passes.common.RemoveUnusedNodesPass()(model)
    assert sum(node.op_type.startswith("Skip") for node in graph) == 2 * tiny.LAYERS
    path = folder / "model.onnx"
    path.write_bytes(ir.to_proto(model).SerializeToString())
    return path


def half(source: Path, folder: Path) -> Path:
    """fp16 inside and out."""
    model = convert_float_to_float16(onnx.load(source))
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def four_bits(source: Path, folder: Path) -> Path:
    """Matrix products with four-bit weights."""
    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=16, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "model.onnx"))
    return folder / "model.onnx"


@pytest.mark.parametrize("rewrite", [optimised, fused, half, four_bits])
def test_a_rewritten_graph(
    exported_decoders: dict[str, Path], tmp_path: Path, rewrite: Callable[[Path, Path], Path]
) -> None:
    path = rewrite(exported_decoders["llava"], tmp_path)
    base, batch = tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7)
    part = tiny.steering(base, batch, kind="kernel", shape="step", threshold=0.5, layers=BLOCKS, gate_layer=0, steps=3)
    expected = graphs.record(tiny.steered(base, part), **batch)
    model = ir.load(path)
    insert_steering(model, graph_requests([graphs.bundle(part)]), "input")
    steered, untouched = graphs.as_bytes(model), graphs.replay(path, expected)
    off, on = graphs.replay(steered, expected, 0.0), graphs.replay(steered, expected, 1.0)
    for index, (without, with_it, given) in enumerate(zip(off, on, untouched, strict=True)):
        assert np.array_equal(without, given), "strength 0 is not the given graph"
        assert np.array_equal(with_it[1:], given[1:]), "a closed gate changes the row"
        assert not np.allclose(with_it[0], given[0]), f"forward {index} is not steered"
    if rewrite in (optimised, fused):
        graphs.assert_equal(on, expected)
    if rewrite is half:
        for found, forward in zip(on, expected, strict=True):
            np.testing.assert_allclose(found[:, -1], forward.logits[:, -1], rtol=0, atol=0.1)  # logits to 6, fp16

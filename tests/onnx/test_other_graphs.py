"""Graphs that others make of the same decoder: optimised, fused, half precision, four bits, older, with functions."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from builders import graphs, tiny
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import nn

from mllmeraser.exporter.onnx.bundles import graph_requests
from mllmeraser.exporter.onnx.graphs import decoder_plan
from mllmeraser.exporter.onnx.insert import insert_steering
from mllmeraser.exporter.onnx.signature import read_signature
from mllmeraser.exporter.onnx.spine import find_residuals, residual_value
from mllmeraser.exporter.onnx.wrappers import Decoder

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


def half_inside(source: Path, folder: Path) -> Path:
    """fp16 but for what goes in and out and for the sums, as transformers.js' graphs are; not in topological order."""
    model = convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=["Add", "Pow", "ReduceMean"])
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def with_functions(source: Path, folder: Path) -> Path:
    """Every sum a call of a local function."""
    model = ir.load(source)
    ir.external_data.load_to_model(model)
    terms = [ir.Value(name="a"), ir.Value(name="b")]
    inner = ir.Node("", "Add", terms, num_outputs=1)
    body = ir.Graph(terms, inner.outputs, nodes=[inner], opset_imports={"": 20})
    function = ir.Function("local", "Sum", "", graph=body, attributes=[])
    model.functions[function.identifier()] = function
    model.opset_imports["local"] = 1
    for node in model.graph:
        if node.op_type == "Add":
            node.domain, node.op_type = "local", "Sum"
    ir.save(model, folder / "model.onnx")
    return folder / "model.onnx"


class _Flat(nn.Module):
    """The decoder with its cache as single tensors, as the older exporter wants it."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, embeds: Any, mask: Any, positions: Any, *cache: Any) -> Any:
        logits, present = self.decoder(embeds, mask, positions, list(zip(cache[::2], cache[1::2], strict=True)))
        return (logits, *(state for pair in present for state in pair))


def by_the_older_exporter(source: Path, folder: Path) -> Path:
    """TorchScript, opset 13, other names for the dimensions."""
    base = tiny.model("llava")
    base.set_attn_implementation("eager")
    plan = decoder_plan(Decoder(base), base.config.text_config, torch.float32, 0)
    axes = {name: {0: "batch", 1: "columns"} for name in plan.input_names[:3]}
    axes |= {name: {0: "batch", 2: "before"} for name in plan.input_names[3:]}
    axes |= {name: {0: "batch", 2: "after"} for name in plan.output_names[1:]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Flat(Decoder(base)).eval(),
            (*plan.inputs[:3], *(state for pair in plan.inputs[3] for state in pair)),
            folder / "model.onnx",
            dynamo=False,
            opset_version=13,
            input_names=plan.input_names,
            output_names=plan.output_names,
            dynamic_axes=axes,
        )
    return folder / "model.onnx"


def four_bits(source: Path, folder: Path) -> Path:
    """Matrix products with four-bit weights."""
    quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=16, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "model.onnx"))
    return folder / "model.onnx"


def eight_bits(source: Path, folder: Path) -> Path:
    """Matrix products in int8, their inputs scaled as they come."""
    quantize_dynamic(source, folder / "model.onnx", extra_options={"EnableSubgraph": False})
    return folder / "model.onnx"


REWRITES = [optimised, fused, half, half_inside, with_functions, by_the_older_exporter, four_bits]


@pytest.mark.parametrize("rewrite", REWRITES)
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
    if rewrite in (optimised, fused, with_functions, by_the_older_exporter):
        graphs.assert_equal(on, expected)
    if rewrite in (half, half_inside):
        for found, forward in zip(on, expected, strict=True):
            np.testing.assert_allclose(found[:, -1], forward.logits[:, -1], rtol=0, atol=0.1)  # logits to 6, fp16


@pytest.mark.parametrize("rewrite", REWRITES)
def test_a_rewritten_graph_seals(
    exported_decoders: dict[str, Path], tmp_path: Path, rewrite: Callable[[Path, Path], Path]
) -> None:
    path = rewrite(exported_decoders["llava"], tmp_path)
    base = tiny.knowing("llava")
    part = tiny.recognising(base, layers=BLOCKS, gate_layer=0)
    batch = tiny.naming(tiny.prompt("llava", 12, 12, 9, 12), [0, 1])
    expected = graphs.record(tiny.steered(base, part), **batch)
    model = ir.load(path)
    insert_steering(model, graph_requests([graphs.bundle(part)]))
    found, untouched = graphs.replay(graphs.as_bytes(model), expected), graphs.replay(path, expected)
    for index, (sealed, given) in enumerate(zip(found, untouched, strict=True)):
        assert np.array_equal(sealed[2:], given[2:]), "a closed gate changes the row"
        assert not np.allclose(sealed[0], given[0]), f"forward {index} is not steered"
        assert np.array_equal(sealed[0], sealed[1]), "something of the prompt passes the seal"
    if rewrite in (optimised, fused, with_functions, by_the_older_exporter):
        graphs.assert_equal(found, expected)


@pytest.mark.parametrize("quantise", [four_bits, eight_bits])
def test_quantisers_leave_the_gate_alone(
    exported_decoders: dict[str, Path], tmp_path: Path, quantise: Callable[[Path, Path], Path]
) -> None:
    """Whoever quantises a graph that is steered already changes nothing of the steering."""
    model = ir.load(exported_decoders["llava"])
    insert_steering(model, graph_requests([graphs.bundle(tiny.recognising(tiny.knowing("llava")))]))
    (tmp_path / "steered.onnx").write_bytes(graphs.as_bytes(model))
    after = ir.load(quantise(tmp_path / "steered.onnx", tmp_path)).graph
    found, given = ({(node.name, node.op_type) for node in graph} for graph in (after, model.graph))
    ours = {(name, kind) for name, kind in given if name.startswith("mllmeraser.")}
    assert {(name, kind) for name, kind in found if name.startswith("mllmeraser.")} == ours
    assert "MatMul" in {kind for _, kind in ours} and len(given - found) > tiny.LAYERS
    for name in (name for name in model.graph.initializers if name.startswith("mllmeraser.")):
        assert after.initializers[name].dtype == model.graph.initializers[name].dtype


@pytest.mark.parametrize("blocks", [1, 2])
def test_few_blocks_and_embeddings_inside(exported_decoders: dict[str, Path], tmp_path: Path, blocks: int) -> None:
    """The decoder cut short, its input token ids."""
    base, batch = tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7)
    model = ir.load(exported_decoders["llava"])
    ir.external_data.load_to_model(model)
    graph = model.graph
    residuals = [residual_value(node) for node in find_residuals(graph, read_signature(model, "g"), "g")]
    for use in list(residuals[-1].uses()):
        use.node.replace_input_with(use.idx, residuals[blocks - 1])
    kept = [f"{name}.{block}" for name in ("past_key_values", "present") for block in range(blocks)]
    for values in (graph.inputs, graph.outputs):
        for value in list(values):
            if value.name.startswith(("past", "present")) and value.name.rpartition(".")[0] not in kept:
                values.remove(value)
    table = ir.tensor(base.get_input_embeddings().weight.detach().numpy(), name="table")
    weight = ir.Value(name="table", const_value=table, shape=table.shape, type=ir.TensorType(table.dtype))
    graph.register_initializer(weight)
    ids = ir.Value(name="input_ids", shape=ir.Shape(["b", "s"]), type=ir.TensorType(ir.DataType.INT64))
    gather = ir.Node("", "Gather", [weight, ids], num_outputs=1)
    graph.inputs[0].replace_all_uses_with(gather.outputs[0])
    graph.inputs[0] = ids
    graph.insert_before(graph[0], gather)
    ir.passes.common.RemoveUnusedNodesPass()(model)
    ir.save(model, tmp_path / "model.onnx")
    base.get_decoder().layers = base.get_decoder().layers[:blocks]
    base.config.text_config.num_hidden_layers = blocks
    part = tiny.steering(base, batch, layers=(blocks - 1,), steps=2)
    expected = graphs.record(tiny.steered(base, part), max_new_tokens=1, **batch)
    expected[0].feeds["input_ids"] = batch["input_ids"].numpy()
    model = ir.load(tmp_path / "model.onnx")
    insert_steering(model, graph_requests([graphs.bundle(part)]))
    graphs.assert_equal(graphs.replay(graphs.as_bytes(model), expected), expected)


def test_a_quantised_cache_carries_no_gates(exported_decoders: dict[str, Path]) -> None:
    part = tiny.steering(tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7), steps=3)
    model = ir.load(exported_decoders["llava"])
    for value in model.graph.inputs:
        if value.name.startswith("past"):
            value.type = ir.TensorType(ir.DataType.UINT8)
    inserted = insert_steering(model, graph_requests([graphs.bundle(part)]))
    assert inserted.reply_steps == 1 and "cannot carry 2 gates" in inserted.warnings[0]

"""A graph that is not understood is refused with one line, and nothing is written."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from builders import graphs, tiny

from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.bundles import graph_requests
from mllmeraser.exporter.onnx.folder import read_folder
from mllmeraser.exporter.onnx.insert import insert_steering
from mllmeraser.exporter.onnx.signature import read_signature
from mllmeraser.exporter.onnx.spine import find_residuals, residual_value
from mllmeraser.exporter.onnx.weights import write_graph

Part = graphs.Part


@pytest.fixture(scope="module")
def part() -> Part:
    """A plain request."""
    return tiny.steering(tiny.model("llava"), tiny.prompt("llava", 5, 6, 7, 8))


@pytest.fixture
def model(exported_decoders: dict[str, Path]) -> ir.Model:
    """A fresh LLaVA decoder graph."""
    return ir.load(exported_decoders["llava"])


def _rename(values: object, old: str, new: str) -> None:
    for value in values:  # type: ignore[attr-defined]
        if value.name == old:
            value.name = new


def _residuals(model: ir.Model) -> list[ir.Value]:
    return [residual_value(node) for node in find_residuals(model.graph, read_signature(model, "g"), "g")]


def no_logits(model: ir.Model) -> None:
    _rename(model.graph.outputs, "logits", "scores")


def no_mask(model: ir.Model) -> None:
    _rename(model.graph.inputs, "attention_mask", "mask")


def mask_of_four_dimensions(model: ir.Model) -> None:
    next(v for v in model.graph.inputs if v.name == "attention_mask").shape = ir.Shape([1, 1, "s", "t"])


def no_cache(model: ir.Model) -> None:
    _rename(model.graph.outputs, "present.2.key", "cache.2.key")


def old_opset(model: ir.Model) -> None:
    model.opset_imports[""] = 12


def merged_branches(model: ir.Model) -> None:
    model.graph.inputs.append(ir.Value(name="use_cache_branch", shape=ir.Shape([1])))


def control_flow(model: ir.Model) -> None:
    layer = _residuals(model)[1]
    branch = ir.Graph([], [layer], nodes=[])
    condition = ir.Value(name="condition")
    model.graph.inputs.append(condition)
    node = ir.Node("", "If", [condition, layer], [ir.AttrGraph("then_branch", branch)], num_outputs=1)
    model.graph.append(node)


def residual_is_an_output(model: ir.Model) -> None:
    model.graph.outputs.append(_residuals(model)[1])


def a_scaled_block(model: ir.Model) -> None:
    layer = _residuals(model)[2]
    two = ir.Value(name="two", const_value=ir.tensor(np.float32(2)))
    model.graph.register_initializer(two)
    node = ir.Node("", "Mul", [layer, two], num_outputs=1)
    uses = list(layer.uses())
    model.graph.insert_after(layer.producer(), node)
    for use in uses:
        if use.node is not node:
            use.node.replace_input_with(use.idx, node.outputs[0])


def steered_before(model: ir.Model) -> None:
    model.metadata_props["mllmeraser.steering"] = "{}"


DAMAGE: dict[Callable[[ir.Model], None], str] = {
    no_logits: "not a decoder: it needs",
    no_mask: "not a decoder: it needs",
    mask_of_four_dimensions: "4 dimensions",
    no_cache: "not one per layer",
    old_opset: "opset 12",
    merged_branches: "use_cache_branch",
    control_flow: "control flow, a node If",
    residual_is_an_output: "an output of the graph",
    a_scaled_block: "layers are not alike",
    steered_before: "already steered",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_graph_that_is_not_understood(model: ir.Model, part: Part, damage: Callable[[ir.Model], None]) -> None:
    damage(model)
    with pytest.raises(InputError, match=DAMAGE[damage]) as error:
        insert_steering(model, graph_requests([graphs.bundle(part)]), where="decoder.onnx")
    assert str(error.value).startswith("decoder.onnx: ") and "\n" not in str(error.value)


def test_a_bundle_of_a_deeper_or_wider_model(model: ir.Model, part: Part) -> None:
    section, tensors = part
    entry = {**section["requests"][0], "layers": [1, 4]}
    deeper = {name.replace("layers.2", "layers.4"): tensor for name, tensor in tensors.items()}
    bundle = graphs.bundle(({"requests": [entry]}, deeper))
    bundle.metadata.base.num_layers = 5
    with pytest.raises(InputError, match="has 4 decoder layers, the bundle steers layer 4"):
        insert_steering(model, graph_requests([bundle]))
    wider = {name: tensor.repeat(*[1] * (tensor.ndim - 1), 2) for name, tensor in tensors.items()}
    with pytest.raises(InputError, match="has hidden size 32, the bundle 64"):
        insert_steering(model, graph_requests([graphs.bundle((section, wider))]))


def test_bundles_that_ask_for_nothing(model: ir.Model, part: Part) -> None:
    with pytest.raises(InputError, match="nothing to write"):
        insert_steering(model, graph_requests([graphs.bundle(graphs.with_strength(part, 0.0))]))
    with pytest.raises(InputError, match="two requests have the id 'a'"):
        graph_requests([graphs.bundle(part, "a"), graphs.bundle(part, "a")])
    with pytest.raises(InputError, match="no steering bundle given"):
        graph_requests([])


def _tensor(location: str) -> ir.ExternalTensor:
    return ir.ExternalTensor(location, 0, 16, ir.DataType.FLOAT, name="w", shape=ir.Shape([4]))


def _external(location: str) -> ir.Model:
    value = ir.Value(
        name="w", shape=ir.Shape([4]), type=ir.TensorType(ir.DataType.FLOAT), const_value=_tensor(location)
    )
    node = ir.Node("", "Identity", [value], num_outputs=1)
    node.outputs[0].name = "logits"
    return ir.Model(
        ir.Graph([], [node.outputs[0]], nodes=[node], initializers=[value], opset_imports={"": 20}), ir_version=10
    )


def _in_a_branch(location: str) -> ir.Model:
    """The same tensor as the constant of a branch."""
    inner = ir.Node("", "Constant", [], [ir.AttrTensor("value", _tensor(location))], num_outputs=1)
    branch = ir.AttrGraph("then_branch", ir.Graph([], inner.outputs, nodes=[inner], name="branch"))
    condition = ir.Value(name="c", shape=ir.Shape([]), type=ir.TensorType(ir.DataType.BOOL))
    node = ir.Node("", "If", [condition], [branch], num_outputs=1)
    node.outputs[0].name = "logits"
    return ir.Model(ir.Graph([condition], node.outputs, nodes=[node], opset_imports={"": 20}), ir_version=10)


@pytest.mark.parametrize("make", [_external, _in_a_branch])
@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "sub/secret", ".hidden", "..\\secret", ""])
def test_weights_outside_the_directory(tmp_path: Path, location: str, make: Callable[[str], ir.Model]) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / "model").mkdir()
    ir.save(make(location), tmp_path / "model" / "decoder.onnx")
    with pytest.raises(InputError, match="do not trust this graph"):
        read_folder(tmp_path / "model")


def test_links_that_leave_the_directory(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    folder = tmp_path / "model"
    folder.mkdir()
    ir.save(_external("weights.bin"), folder / "decoder.onnx")
    with pytest.raises(InputError, match="missing"):
        read_folder(folder)
    (folder / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="a link that leaves the directory"):
        read_folder(folder)


@pytest.mark.parametrize("content", [b"", b"not a graph", bytes(64), b"\x08\x0a" + b"\xff" * 40])
def test_files_that_are_no_graphs(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "decoder.onnx").write_bytes(content)
    with pytest.raises(InputError, match="not an ONNX graph"):
        read_folder(tmp_path)


def test_a_directory_without_graphs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.onnx graph"):
        read_folder(tmp_path)
    with pytest.raises(InputError, match="no such directory"):
        read_folder(tmp_path / "nowhere")


def test_a_damaged_graph_is_refused_in_one_line_or_still_a_graph(
    exported_decoders: dict[str, Path], part: Part, tmp_path: Path
) -> None:
    whole, generator = exported_decoders["llava"].read_bytes(), random.Random(3)
    shutil.copy(f"{exported_decoders['llava']}_data", tmp_path)
    refused = 0
    for number in range(30):
        broken = bytearray(whole if number % 4 else whole[: generator.randrange(len(whole))])
        for _ in range(number % 4):
            broken[generator.randrange(len(broken))] ^= 1 << generator.randrange(8)
        (tmp_path / exported_decoders["llava"].name).write_bytes(broken)
        try:
            (graph,) = read_folder(tmp_path).graphs
            insert_steering(graph.model, graph_requests([graphs.bundle(part)]))
            write_graph(graph.model, tmp_path / "steered")
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 10

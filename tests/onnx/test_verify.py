"""Verification of a directory of steered graphs sees what was done to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from builders import graphs, tiny
from builders.graphs import DECODER

from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError
from mllmeraser.exporter.manifest import sealed
from mllmeraser.exporter.onnx.api import onnx_steer
from mllmeraser.exporter.onnx.verify import run_checks
from mllmeraser.exporter.opened import Opened
from mllmeraser.exporter.verify import verify

TWIN = "onnx/decoder_model_merged_base.onnx"


@pytest.fixture(scope="module")
def sound(exported_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with two requests, one along the reply."""
    base, batch = tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7)
    parts = [
        tiny.steering(base, batch, kind="kernel", shape="step", threshold=0.5, steps=3, layers=(1, 2), gate_layer=0),
        tiny.steering(base, batch, layers=(2,), positions="last", seed=4),
    ]
    out = tmp_path_factory.mktemp("verify") / "out"
    onnx_steer(exported_bases["llava"], [graphs.bundle(part, f"r{i}") for i, part in enumerate(parts)], out)
    return out


@pytest.fixture(scope="module")
def sealing(exported_bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose first request seals, at two layers, and whose second seals by halves."""
    base = tiny.knowing("llava")
    parts = [tiny.recognising(base), tiny.recognising(base, kind="linear", layers=(3,), strength=0.5, seed=6)]
    out = tmp_path_factory.mktemp("sealing") / "out"
    onnx_steer(exported_bases["llava"], [graphs.bundle(part, f"r{i}") for i, part in enumerate(parts)], out)
    return out


@pytest.fixture
def directory(sound: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(sound, tmp_path / "out"))


def relist(directory: Path) -> None:
    """Write the hashes of the files as they lie there into the manifest, as a careful forger would."""
    path = directory / "mllmeraser.json"
    manifest = json.loads(path.read_text())
    for name, entry in manifest["files"].items():
        entry |= {"sha256": sha256_of(directory / name), "bytes": (directory / name).stat().st_size}
    path.write_bytes(sealed(manifest))


def edit(directory: Path, change: Callable[[ir.Model], None]) -> None:
    """Change the steered graph and its hash."""
    model = ir.load(directory / DECODER)
    change(model)
    ir.save(model, directory / "edited")
    (directory / "edited").replace(directory / DECODER)
    relist(directory)


def failed(directory: Path, base: Path | None = None) -> set[str]:
    """The names of the checks that fail."""
    return {check.name for check in verify(directory, base).checks if not check.ok}


def failed_runs(directory: Path) -> set[str]:
    """The names of the checks that fail of those that run graphs, as if the others had found nothing."""
    return {check.name for check in run_checks(Opened(directory), None) if not check.ok}


def test_a_sound_directory(sound: Path, exported_bases: dict[str, Path]) -> None:
    result = verify(sound, exported_bases["llava"])
    assert result.ok, [check for check in result.checks if not check.ok]
    details = {check.name: check.detail for check in result.checks}
    assert "against onnx/decoder_model_merged_base.onnx" in details["off equals base"]
    assert details["steering acts"].count(",") == 1  # two requests
    assert "r0 (prompt, add), r1 (prompt, add)" in details["steering"]
    assert [Opened(found).format for found in (sound, exported_bases["llava"])] == ["onnx", "checkpoint"]
    # The test's bundle has no config sha256.
    assert failed(sound, exported_bases["llava"].parent / "base") >= {"base"}


def test_a_sealing_directory(sealing: Path, exported_bases: dict[str, Path], tmp_path: Path) -> None:
    result = verify(sealing, exported_bases["llava"])
    assert result.ok, [check for check in result.checks if not check.ok]
    details = {check.name: check.detail for check in result.checks}
    assert "r0 (conversation, seal), r1 (conversation, seal)" in details["steering"]
    assert details["nothing passes a seal"].endswith("1 of 2 requests")
    assert "| kernel, step | conversation | seal | 1 |" in (sealing / "README.md").read_text()
    shutil.copytree(sealing, tmp_path / "out")
    edit(tmp_path / "out", _leaky)
    assert "bundles" in failed(tmp_path / "out")
    assert failed_runs(tmp_path / "out") == {"nothing passes a seal"}


def _leaky(model: ir.Model) -> None:
    """The logits get a little of the embeddings' sum, where the first request seals."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    phi, embeds = values["mllmeraser.requests.0.layers.1.phi"], model.graph.inputs[0]
    axes = ir.Value(name="axes", const_value=ir.tensor(np.array([1, 2])))
    model.graph.register_initializer(axes)
    summed = ir.Node("", "ReduceSum", [embeds, axes], num_outputs=1)  # (b, 1, 1)
    leaked = ir.Node("", "Mul", [summed.outputs[0], phi], num_outputs=1)
    _add_to_logits(model, leaked.outputs[0], [summed, leaked])


def test_the_toggle_as_an_input(exported_bases: dict[str, Path], tmp_path: Path) -> None:
    part = tiny.steering(tiny.model("qwen2_5_vl"), tiny.prompt("qwen2_5_vl", 5, 8, 6, 7))
    bundle = graphs.bundle(part, family="qwen2_5_vl")
    onnx_steer(exported_bases["qwen2_5_vl"], [bundle], tmp_path / "out", toggle="input")
    result = verify(tmp_path / "out")
    assert result.ok, [check for check in result.checks if not check.ok]


def test_a_flipped_byte_and_a_stray_file(directory: Path) -> None:
    content = bytearray((directory / f"{DECODER}_data").read_bytes())
    content[100] ^= 1
    (directory / f"{DECODER}_data").write_bytes(content)
    assert failed(directory) >= {"files", "steering acts"}
    relist(directory)
    (directory / "onnx" / "stray.json").write_text("{}")
    assert failed(directory) >= {"unlisted files"}


def test_an_unsteered_decoder_beside_it(directory: Path) -> None:
    shutil.copy(directory / TWIN, directory / "onnx" / "decoder_model_merged_fp16.onnx")
    assert "every decoder steered" in failed(directory)


def test_the_base_graph_in_place_of_the_steered_one(directory: Path) -> None:
    shutil.copy(directory / TWIN, directory / DECODER)
    relist(directory)
    assert "every decoder steered" in failed(directory)


def test_another_base(directory: Path, exported_bases: dict[str, Path]) -> None:
    assert "base" in failed(directory, exported_bases["qwen2_5_vl"])
    with pytest.raises(InputError, match="no such directory"):
        verify(directory, directory / "nowhere")


def _zero_directions(model: ir.Model) -> None:
    for name, value in model.graph.initializers.items():
        if name.endswith(".direction"):
            value.const_value = ir.tensor(np.zeros_like(np.asarray(value.const_value)), name=name)


def _nan(model: ir.Model) -> None:
    value = model.graph.initializers["mllmeraser.requests.1.layers.2.direction"]
    value.const_value = ir.tensor(np.full_like(np.asarray(value.const_value), np.nan), name=value.name)


def _always_on(model: ir.Model) -> None:
    """A shift of the logits that no strength switches off."""
    one = ir.Value(name="shift", const_value=ir.tensor(np.float32(1)))
    model.graph.register_initializer(one)
    _add_to_logits(model, one)


def _add_to_logits(model: ir.Model, value: ir.Value, nodes: Sequence[ir.Node] = ()) -> None:
    logits = next(output for output in model.graph.outputs if output.name == "logits")
    node = ir.Node("", "Add", [logits, value], num_outputs=1)
    logits.name, node.outputs[0].name = "inner", "logits"
    node.outputs[0].type, node.outputs[0].shape = logits.type, logits.shape
    model.graph.extend([*nodes, node])
    model.graph.outputs[list(model.graph.outputs).index(logits)] = node.outputs[0]


def _other_requests(model: ir.Model) -> None:
    described = json.loads(model.metadata_props["mllmeraser.steering"])
    described["requests"].pop()
    model.metadata_props["mllmeraser.steering"] = json.dumps(described)


def _half_a_strength(model: ir.Model) -> None:
    value = model.graph.initializers["mllmeraser.strength"]
    value.const_value = ir.tensor(np.full(1, 0.5, np.float32), name=value.name)


def _high_threshold(model: ir.Model) -> None:
    """The constant that the first gate is compared with."""
    compared = next(node for node in model.graph if node.op_type == "Less" and "mllmeraser" in str(node.name))
    value = ir.Value(name="mllmeraser.high", const_value=ir.tensor(np.float32(1e9)))
    model.graph.register_initializer(value)
    compared.replace_input_with(1, value)


def _moved_landmark(model: ir.Model) -> None:
    value = model.graph.initializers["mllmeraser.requests.0.layers.0.landmarks"]
    moved = np.asarray(value.const_value).copy()
    moved[0, 0] += 0.25
    value.const_value = ir.tensor(moved, name=value.name)


def _around_the_steering(model: ir.Model) -> None:
    """The last steered state is read from before its edit."""
    steered = [node for node in model.graph if node.op_type == "Where" and "mllmeraser" in str(node.name)][-1]
    (use, *_) = [use for use in steered.outputs[0].uses() if "mllmeraser" not in str(use.node.name)]
    use.node.replace_input_with(use.idx, steered.inputs[2])


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_zero_directions, "steering acts"),
        (_nan, "steering"),
        (_always_on, "off equals base"),
    ],
)
def test_a_forged_graph(directory: Path, change: Callable[[ir.Model], None], check: str) -> None:
    edit(directory, change)
    assert "bundles" in failed(directory)
    assert check in failed_runs(directory)


def _redefined_operator(model: ir.Model) -> None:
    """A local function by the name of an operator: every node stays as it was."""
    less = [ir.Value(name=name) for name in ("one", "other")]
    body = ir.Node("", "Greater", less, num_outputs=1)
    graph = ir.Graph(less, body.outputs, nodes=[body], opset_imports={"": 17})
    function = ir.Function("", "Less", graph=graph, attributes=[])
    model.functions[function.identifier()] = function


@pytest.mark.parametrize(
    "change",
    [_redefined_operator, _other_requests, _half_a_strength, _high_threshold, _moved_landmark, _around_the_steering],
)
def test_a_graph_that_acts_otherwise_than_its_bundles_say(directory: Path, change: Callable[[ir.Model], None]) -> None:
    edit(directory, change)
    assert {"bundles", "steering acts"} <= failed(directory)  # the second one is not tried
    assert failed_runs(directory) <= {"steering"}  # what no run of the graph tells


def test_a_tokenizer_that_is_none_is_one_line(sealing: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(sealing, tmp_path / "out"))
    manifest = json.loads((out / "mllmeraser.json").read_text())
    manifest["bundles"][0]["method"]["calibration"]["refused"] = 1.0
    (out / "mllmeraser.json").write_bytes(sealed(manifest))
    (out / "tokenizer.json").write_text("{}")
    found = {check.name: check for check in run_checks(Opened(out), None)}
    assert not found["refuses"].ok and found["refuses"].detail.startswith("tokenizer.json: ")


def test_a_manifest_that_says_otherwise_than_its_graphs(directory: Path) -> None:
    path = directory / "mllmeraser.json"
    manifest = json.loads(path.read_text())
    manifest["bundles"][0]["requests"][0]["strength"] = 0.25
    path.write_bytes(sealed(manifest))
    assert "bundles" in failed(directory)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1, "format": "onnx"}'])
def test_a_damaged_manifest(directory: Path, content: str) -> None:
    (directory / "mllmeraser.json").write_text(content)
    assert "manifest" in failed(directory)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname"])
def test_a_manifest_that_names_files_elsewhere(directory: Path, name: str) -> None:
    (directory.parent / "secret").write_text("a secret")
    manifest = json.loads((directory / "mllmeraser.json").read_text())
    manifest["files"][name] = {"bytes": 8, "sha256": "0" * 64, "origin": "base"}
    (directory / "mllmeraser.json").write_bytes(sealed(manifest))
    assert "manifest" in failed(directory)

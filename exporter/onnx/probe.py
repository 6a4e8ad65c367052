"""Edit a steered graph in memory, and run it on a probe, to see what its steering does.

The probe is a prompt of arbitrary embeddings. What the model answers does not matter; the checks compare two graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from mllmeraser.exporter.onnx.builder import PREFIX
from mllmeraser.exporter.onnx.insert import STRENGTH_CONSTANT, STRENGTH_INPUT
from mllmeraser.exporter.onnx.runtime import DecoderSession

_LENGTH = 12
_WIDTH = 64  # the size of a cache dimension or an embedding that the graph leaves open


def gates_of(model: ir.Model) -> dict[str, int]:
    """For each gate φ of a steered graph, by the name of its value, the index of its request."""
    found = {}
    for node in model.graph:
        name = str(node.outputs[0].name)
        if name.startswith(f"{PREFIX}.requests.") and name.endswith(".phi"):
            found[name] = int(name.split(".")[2])
    return found


def with_gates(model: ir.Model, gates: Mapping[str, float]) -> ir.Model:
    """The graph with some gates held at a given value."""
    values = {str(node.outputs[0].name): node.outputs[0] for node in model.graph}
    for name, value in gates.items():
        tensor = ir.tensor(np.full((1, 1), value, np.float32), name=f"{name}.held")
        held = ir.Value(name=tensor.name, const_value=tensor, shape=ir.Shape([1, 1]), type=ir.TensorType(tensor.dtype))
        model.graph.register_initializer(held)
        for use in list(values[name].uses()):
            use.node.replace_input_with(use.idx, held)
    return model


def with_strength(model: ir.Model, strength: float) -> ir.Model:
    """The graph with another constant strength. A graph that takes the strength as an input does not change."""
    if STRENGTH_CONSTANT in model.graph.initializers:
        value = model.graph.initializers[STRENGTH_CONSTANT]
        value.const_value = ir.tensor(np.full(1, strength, np.float32), name=STRENGTH_CONSTANT)
    return model


def without_steering(model: ir.Model) -> ir.Model:
    """The graph with every steered state replaced by the state before steering."""
    for node in list(model.graph):
        if node.op_type == "Where" and str(node.name).startswith(f"{PREFIX}."):
            for use in list(node.outputs[0].uses()):
                if not str(use.node.name).startswith(f"{PREFIX}."):
                    use.node.replace_input_with(use.idx, node.inputs[2])
    return model


def run_probe(
    model: ir.Model, folder: Path, strength: float, head_size: int | None, prompt: int = 0, reply: int = 1
) -> npt.NDArray[Any]:
    """The logits of the probe's 12 columns and of ``reply`` more, one by one, (1, 12 + reply, v).

    Args:
        folder: weights are read from here.
        prompt: the number of the prompt; each number is another one.
    """
    options = ort.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = DecoderSession(ir.to_proto(model).SerializeToString(), head_size or _WIDTH, options)
    cache, parts = session.empty_cache(1), []
    for past, size in ((0, _LENGTH), *((_LENGTH + at, 1) for at in range(reply))):
        feeds = {
            name: _feed(name, value, past, size, prompt) for name, value in session.inputs.items() if name not in cache
        }
        feeds[STRENGTH_INPUT] = np.full(1, strength, np.float32)
        logits, cache = session.forward(feeds, cache)
        parts.append(logits[:, -size:])
    return np.concatenate(parts, axis=1)


def _feed(name: str, value: Any, past: int, size: int, prompt: int) -> npt.NDArray[Any]:
    if name == "inputs_embeds":
        width = value.shape[2] if isinstance(value.shape[2], int) else _WIDTH
        return np.random.default_rng([past, prompt]).standard_normal((1, size, width))
    if name == "input_ids":
        return np.arange(past + prompt, past + prompt + size)[None] % 7 + 3
    if name == "attention_mask":
        return np.ones((1, past + size), np.int64)
    if name == "position_ids":
        return np.broadcast_to(np.arange(past, past + size), (*(3, 1)[3 - len(value.shape) :], size))
    return np.ones([1 if not isinstance(n, int) else n for n in value.shape])  # e.g. num_logits_to_keep

"""Which switches the runtimes obey, on graphs whose gates are held open: the table of ``docs/onnx.md``, two rows of it.

The others (onnxruntime-web, onnxruntime-genai, transformers.js) take the same graphs; ``test_clients.py`` runs there
what is exported by default.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from builders import graphs, tiny

from mllmeraser.exporter.onnx.bundles import graph_requests
from mllmeraser.exporter.onnx.insert import STRENGTH_CONSTANT, STRENGTH_INPUT, insert_steering
from mllmeraser.exporter.onnx.probe import gates_of, with_gates
from mllmeraser.exporter.onnx.runtime import DecoderSession

SCRIPT = Path(__file__).parent / "clients" / "toggle.mjs"


@pytest.fixture
def graph_files(exported_decoders: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The base, a constant strength, the strength as an input, and as an initializer that is also an input."""
    part = tiny.steering(tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7))
    found = {"base": exported_decoders["llava"]}
    for name in ("constant", "input", "initializer"):
        model = ir.load(exported_decoders["llava"])
        insert_steering(model, graph_requests([graphs.bundle(part)]), "input" if name == "input" else "constant")
        with_gates(model, dict.fromkeys(gates_of(model), 1.0))
        if name == "initializer":
            strength = model.graph.initializers.pop(STRENGTH_CONSTANT)
            strength.name = STRENGTH_INPUT
            model.graph.register_initializer(strength)
            model.graph.inputs.append(strength)
        found[name] = tmp_path / f"{name}.onnx"
        found[name].write_bytes(graphs.as_bytes(model))
    return found


def feeds_of(graph: Path) -> dict[str, Any]:
    """A prompt of six columns and an empty cache."""
    cache = DecoderSession(graph).empty_cache(1)
    embeds = np.random.default_rng(0).standard_normal((1, 6, tiny.HIDDEN)).astype(np.float32)
    mask, positions = np.ones((1, 6), np.int64), np.arange(6)[None]
    return {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions, **cache}


def in_python(graph: Path, strength: float | None, _packages: Path) -> float | str:
    """The last logit, or the error."""
    fed = {} if strength is None else {STRENGTH_INPUT: np.array([strength], np.float32)}
    try:
        return float(DecoderSession(graph).session.run(["logits"], {**feeds_of(graph), **fed})[0].ravel()[-1])
    except ValueError as error:
        return str(error)


def in_node(graph: Path, strength: float | None, packages: Path) -> float | str:
    """The same in onnxruntime-node."""
    feeds = {
        name: {"type": str(array.dtype), "dims": array.shape, "data": array.ravel().tolist()}
        for name, array in feeds_of(graph).items()
    }
    path = graph.parent / "feeds.json"
    path.write_text(json.dumps(feeds))
    call = ["node", SCRIPT, graph, path, *([] if strength is None else [str(strength)])]
    said = subprocess.run(call, cwd=packages, capture_output=True, text=True, check=True).stdout.strip()
    try:
        return float(said)
    except ValueError:
        return said


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [in_python, in_node])
def test_the_switches(graph_files: dict[str, Path], packages: Path, runtime: Any) -> None:
    decoder = graph_files.pop("base")
    base = in_python(decoder, None, packages)
    steered = runtime(graph_files["constant"], None, packages)
    assert isinstance(base, float) and isinstance(steered, float) and abs(base - steered) > 0.1

    def near(found: float | str) -> str:
        return next((n for n, v in (("base", base), ("steered", steered)) if found == pytest.approx(v, abs=1e-4)), "")

    assert near(runtime(graph_files["input"], 1.0, packages)) == "steered"
    assert near(runtime(graph_files["input"], 0.0, packages)) == "base"
    assert isinstance(runtime(graph_files["input"], None, packages), str)  # an error if not fed
    assert near(runtime(graph_files["initializer"], None, packages)) == "steered"
    # What is fed is silently ignored in Node: hence no initializer of this kind.
    assert near(runtime(graph_files["initializer"], 0.0, packages)) == ("base" if runtime is in_python else "steered")

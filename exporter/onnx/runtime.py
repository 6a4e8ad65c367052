"""Run a decoder graph in ONNX Runtime, one forward pass at a time. The cache is handed on by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Cache = dict[str, npt.NDArray[Any]]
_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class DecoderSession:
    """A loaded decoder graph. Its cache is all that is named ``past_key_values.…`` or ``present.…``."""

    def __init__(self, graph: Path | bytes, head_size: int = 0, options: Any = None) -> None:
        """Load a graph.

        Args:
            graph: a path, or the bytes of a graph.
            head_size: the last dimension of the cache, for a graph that leaves it open.
            options: ONNX Runtime's ``SessionOptions``.
        """
        options = options or ort.SessionOptions()
        options.log_severity_level = 3
        source = str(graph) if isinstance(graph, Path) else graph
        self.session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self.head_size = head_size
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = [value.name for value in self.session.get_outputs()]

    def empty_cache(self, batch: int) -> Cache:
        """A cache without columns, for ``batch`` rows."""
        cache = {}
        for name, value in self.inputs.items():
            if name.startswith("past"):
                fixed = [size if isinstance(size, int) else 0 for size in value.shape]
                shape = [batch, fixed[1], 0, fixed[3] or self.head_size]
                cache[name] = np.zeros(shape, _DTYPES[value.type])
        return cache

    def forward(self, feeds: Mapping[str, npt.NDArray[Any]], cache: Cache) -> tuple[npt.NDArray[Any], Cache]:
        """Logits (b, s, v), and the cache with these columns appended.

        Args:
            feeds: ``inputs_embeds`` or ``input_ids``, ``attention_mask``, and all other inputs of the graph. Names that
                the graph does not have are left out.
        """
        given = {name: value for name, value in {**feeds, **cache}.items() if name in self.inputs}
        given = {name: value.astype(_DTYPES[self.inputs[name].type], copy=False) for name, value in given.items()}
        values = dict(zip(self.outputs, self.session.run(None, given), strict=True))
        past = {name: values[_present(name)] for name in cache}
        return np.asarray(values["logits"]), past


def _present(past: str) -> str:
    return past.replace("past_key_values", "present", 1).replace("past.", "present.", 1)

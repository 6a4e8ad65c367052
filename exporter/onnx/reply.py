"""The reply state: the gates and the place in the reply, carried from pass to pass as one more layer of the cache.

Every runtime hands ``present.N.key`` and ``.value`` back as ``past_key_values.N.key`` and ``.value``. So the reply
state poses as one more layer N = L of the same shape (b, heads, columns, head_dim). In each column the ``key`` holds φ
of every gate (in scope ``conversation``: whether the row is sealed), and the ``value`` holds k, the number of the reply
position (0 on the prompt). Both fill the first of the heads × head_dim places. A decoding step reads the last column.
Each column has its own entry, so a cache that is cut back, reordered or repeated along the batch stays right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mllmeraser.exporter.onnx.builder import NodeBuilder
from mllmeraser.exporter.onnx.prompt import Prompt
from mllmeraser.exporter.onnx.signature import Signature


@dataclass(frozen=True)
class ReplyState:
    """The reply state that the last column of the cache gives."""

    gates: ir.Value  # (b, G) fp32: φ of every gate; 0 where the cache has no column
    step: ir.Value  # (b, 1) int64: k of this column; 0 while the prompt is read


# These formats hold small whole numbers exactly. The gates are rounded to the cache's format.
_EXACT = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def column_shape(signature: Signature, head_size: int | None) -> tuple[int, int] | None:
    """(heads, head_dim) of the cache. None: they are not known, or the cache is quantised and would round the gates.

    Args:
        head_size: head_dim by the settings beside the graph, for a graph that leaves it open.
    """
    shape, dtype = signature.past_key.shape, signature.past_key.dtype
    if shape is None or len(shape) != 4 or dtype not in _EXACT:
        return None
    heads, head_dim = shape[1], shape[3] if isinstance(shape[3], int) else head_size
    return (heads, head_dim) if isinstance(heads, int) and isinstance(head_dim, int) else None


class ReplyLayer:
    """The extra cache layer. Call :meth:`read` first, and :meth:`write` when every gate is known."""

    def __init__(
        self,
        build: NodeBuilder,
        signature: Signature,
        prompt: Prompt,
        column: tuple[int, int],
        gates: int,
        steps: int,
    ) -> None:
        self._build, self._prompt, self._gates, self._steps = build, prompt, gates, steps
        self._heads, self._head_dim = column
        self._width = column[0] * column[1]
        like, layer = signature.past_key, signature.num_layers
        assert like.shape is not None
        self._shape = ir.Shape([like.shape[0], self._heads, like.shape[2], self._head_dim])
        past_name, present_name = str(like.name), str(signature.present_keys[0].name)
        names = [past_name.replace(".0.key", f".{layer}.{leaf}") for leaf in _LEAVES]
        self.inputs = [ir.Value(name=name, shape=self._shape, type=like.type) for name in names]
        self.output_names = [present_name.replace(".0.key", f".{layer}.{leaf}") for leaf in _LEAVES]
        self.outputs: list[ir.Value] = []

    def read(self) -> ReplyState:
        """The state that the previous pass left."""
        build = self._build
        gates = build.op("Slice", self._last(self.inputs[0]), build.ints(0), build.ints(self._gates), build.ints(1))
        step = build.op("Slice", self._last(self.inputs[1]), build.ints(0), build.ints(1), build.ints(1))
        following = build.op("Add", build.to_int(step), build.ints(1))
        following = build.op("Min", following, build.ints(self._steps))  # fp16 counts only so far exactly
        return ReplyState(gates, build.op("Where", self._prompt.reading, build.ints(0), following))

    def _last(self, past: ir.Value) -> ir.Value:
        """The last column, flat (b, heads × head_dim) fp32. Without a column it is zeros: a sum over nothing."""
        build = self._build
        column = build.op("Slice", past, build.ints(-1), build.ints(np.iinfo(np.int64).max), build.ints(2))
        column = build.sum(build.to_float(column), 2, keepdims=False)
        return build.op("Reshape", column, build.ints(-1, self._width))

    def write(self, gates: list[ir.Value], state: ReplyState) -> None:
        """Append a column for every input column: φ of every gate (b, 1), and k."""
        build = self._build
        held = gates[0] if len(gates) == 1 else build.op("Concat", *gates, axis=1)
        rows = [held, build.to_float(state.step)]
        for past, row, name in zip(self.inputs, rows, self.output_names, strict=True):
            present = build.op("Concat", past, build.op("CastLike", self._columns(row), past), axis=2)
            present.name = name
            present.type = past.type
            present.shape = ir.Shape([self._shape[0], self._heads, "total_sequence_length", self._head_dim])
            self.outputs.append(present)

    def _columns(self, row: ir.Value) -> ir.Value:
        """From (b, n) to (b, heads, s, head_dim), with the same content in every column."""
        build = self._build
        size = build.op("Slice", build.op("Shape", row), build.ints(1), build.ints(2))
        missing = build.op("Sub", build.ints(self._width), size)
        pads = build.op("Concat", build.ints(0, 0, 0), missing, axis=0)
        whole = build.op("Reshape", build.op("Pad", row, pads), build.ints(-1, self._heads, 1, self._head_dim))
        shape = build.op("Concat", build.ints(1, 1), self._prompt.columns, build.ints(1), axis=0)
        return build.op("Expand", whole, shape)


_LEAVES = ("key", "value")

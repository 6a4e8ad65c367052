"""Find the real columns of a forward pass, and the token at which a prompt's gate is read, from the mask alone.

The mask has T = past + s columns, and the input has s. A row is at its prompt in two cases: it has no real token before
these columns, or several columns come at once. So a new turn on a used cache is gated by its own last token, as in the
PyTorch model. The last real token of a row is where the mask is 1 and its sum from there to the end is 1; this holds
for padding on either side. The size of the past tensors is never used, because some runtimes hand over a longer buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mllmeraser.exporter.onnx.builder import NodeBuilder
from mllmeraser.exporter.onnx.signature import Signature


@dataclass(frozen=True)
class Prompt:
    """Values of the graph; boolean, but for ``columns``."""

    real: ir.Value  # (b, s) the columns that hold a token
    reading: ir.Value  # (b, 1) whether these columns are the row's prompt
    last: ir.Value  # (b, s) the last real prompt token; all false in a row that is past its prompt
    seen: ir.Value  # (b, 1) whether the row has such a token
    columns: ir.Value  # (1,) int64: s


def prompt_nodes(build: NodeBuilder, signature: Signature) -> Prompt:
    """The nodes that find the prompt. They are made once for all requests and layers."""
    columns = build.op("Slice", build.op("Shape", signature.embeds), build.ints(1), build.ints(2))  # (1,)
    mask = build.to_int(signature.mask)
    end = build.op("Slice", build.op("Shape", mask), build.ints(1), build.ints(2))
    chunk = build.op("Slice", mask, build.op("Sub", end, columns), end, build.ints(1))  # (b, s)
    zero, one = build.ints(0), build.ints(1)
    before = build.op("Sub", build.sum(mask, 1), build.sum(chunk, 1))  # (b, 1)
    several = build.op("Greater", columns, one)  # (1,)
    reading = build.op("Or", build.op("Equal", before, zero), several)  # (b, 1)
    real = build.op("Not", build.op("Equal", chunk, zero))
    onward = build.op("CumSum", chunk, build.const(1, np.int64), reverse=1)
    last = build.op("And", build.op("Equal", onward, one), real)
    last = build.op("And", last, reading)  # (b, s)
    seen = build.op("Greater", build.sum(build.to_int(last), 1), zero)
    return Prompt(real, reading, last, seen, columns)


def unsqueeze(build: NodeBuilder, value: ir.Value) -> ir.Value:
    """The value with one more axis at the end, of size 1."""
    return build.op("Unsqueeze", value, build.ints(-1))

"""A gate as nodes: φ(g) of every row, read at the last real prompt token, in fp32.

    g = Σ_d u_d h_d                               linear
    g = Σ_j w_j exp(−2 ‖ĥ − c_j‖² / m²)            kernel, ĥ = h/‖h‖

φ is identity, clip (to [0, 1]), dead-zone or step. Products are ``Mul`` and ``ReduceSum``, for two reasons: quantisers
rewrite matrix products only, and in half precision a dot product overflows on the massive activations of large models.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mllmeraser.exporter.onnx.builder import NodeBuilder
from mllmeraser.exporter.onnx.prompt import Prompt, unsqueeze
from mllmeraser.exporter.onnx.requests import Gate, GraphRequest

_SMALLEST_NORM = 1e-12  # the one of torch.nn.functional.normalize


def gate_nodes(
    build: NodeBuilder, prompt: Prompt, hidden: ir.Value, request: GraphRequest, layer: int, name: str
) -> ir.Value:
    """φ(g) (b, 1) fp32 of the state ``hidden`` (b, s, d). It is 0 for a row without a prompt token in these columns."""
    zero = build.float(0.0)
    # Where, not a product with the mask: an infinite padding state times 0 would be NaN.
    kept = build.op("Where", unsqueeze(build, prompt.last), build.to_float(hidden), zero)
    last = build.sum(kept, 1, keepdims=False)  # (b, d)
    g = _raw(build, last, request.gates[layer], name)
    if request.shape == "clip":
        g = build.op("Clip", g, zero, build.float(1.0))
    elif request.shape == "dead-zone":
        g = build.op("Where", build.op("Less", g, build.float(request.threshold or 0.0)), zero, g)
    elif request.shape == "step":
        g = build.to_float(build.op("GreaterOrEqual", g, build.float(request.threshold or 0.0)))
    return build.op("Where", prompt.seen, g, zero)


def _raw(build: NodeBuilder, last: ir.Value, gate: Gate, name: str) -> ir.Value:
    """g (b, 1)."""
    if gate.vector is not None:
        return build.sum(build.op("Mul", last, build.tensor(f"{name}.gate", gate.vector)), 1)
    assert gate.landmarks is not None and gate.weights is not None
    norm = build.op("Sqrt", build.sum(build.op("Mul", last, last), 1))
    unit = build.op("Div", last, build.op("Max", norm, build.float(_SMALLEST_NORM)))
    landmarks = build.tensor(f"{name}.landmarks", gate.landmarks)
    apart = build.op("Sub", build.op("Unsqueeze", unit, build.ints(1)), landmarks)  # (b, J, d)
    distance = build.sum(build.op("Mul", apart, apart), 2, keepdims=False)  # (b, J)
    exponent = build.op("Mul", distance, build.const(-2.0 / gate.bandwidth, np.float32))
    weights = build.tensor(f"{name}.weights", gate.weights)
    return build.sum(build.op("Mul", build.op("Exp", exponent), weights), 1)

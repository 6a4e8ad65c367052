"""A gate as nodes: φ(g) of a row, or of each column, in fp32, as the rule of the checkpoints has it.

    g = Σ_i u_i z_i                               linear
    g = Σ_j w_j exp(−2 ‖ẑ − c_j‖² / m²)            kernel, ẑ = z/‖z‖

z is the state h, or R h. Scope ``prompt`` reads the last real prompt token, ``conversation`` and ``token`` read every
column. A g that is NaN is open.

States lie as (b, d, columns), so that each matrix product has its constant on the left, and a projection is stored as
int8: quantisers rewrite products with a float constant on the right. All is in fp32, because in half precision a
product overflows on the massive activations of large models.
"""

from __future__ import annotations

import onnx_ir as ir

from mllmeraser.exporter.onnx.builder import NodeBuilder
from mllmeraser.exporter.onnx.prompt import Prompt, unsqueeze
from mllmeraser.exporter.onnx.requests import GraphRequest

_SMALLEST_NORM = 1e-12  # the one of torch.nn.functional.normalize


def gate_nodes(
    build: NodeBuilder,
    prompt: Prompt,
    hidden: ir.Value,
    request: GraphRequest,
    layer: int,
    name: str,
    before: ir.Value | None,
) -> ir.Value:
    """φ (b, 1), or in scope ``token`` (b, s), of the states ``hidden`` (b, s, d).

    Args:
        name: what the names of its tensors begin with.
        before: φ (b, 1) of the row as the cache carries it; None: it carries nothing.
    """
    scope, zero, states = request.rule.scope, build.float(0.0), build.to_float(hidden)
    if scope == "prompt":
        # Where, not a product with the mask: an infinite padding state times 0 would be NaN.
        states = build.sum(build.op("Where", unsqueeze(build, prompt.last), states, zero), 1)  # (b, 1, d)
    phi = _shaped(build, _raw(build, states, request, layer, name), request)
    if scope == "prompt":
        phi = build.op("Where", prompt.seen, phi, zero)
        return phi if before is None else build.op("Where", prompt.reading, phi, before)
    if scope == "token":
        return phi
    found = build.sum(build.op("Where", prompt.real, phi, zero), 1)
    found = found if before is None else build.op("Add", found, before)
    return build.to_float(build.op("Greater", found, zero))


def _shaped(build: NodeBuilder, g: ir.Value, request: GraphRequest) -> ir.Value:
    zero = build.float(0.0)
    if request.rule.shape == "identity":
        return g
    if request.rule.shape == "clip":
        return build.op("Clip", g, zero, build.float(1.0))
    below = build.op("Less", g, build.float(request.rule.threshold))  # of NaN it is false
    if request.rule.shape == "dead-zone":
        return build.op("Where", below, zero, g)
    return build.to_float(build.op("Not", below))


def _raw(build: NodeBuilder, states: ir.Value, request: GraphRequest, layer: int, name: str) -> ir.Value:
    """g (b, n) of states (b, n, d)."""
    tensors = {leaf: array for (where, leaf), array in request.tensors.items() if where == layer}
    z = build.op("Transpose", states, perm=[0, 2, 1])  # (b, d, n)
    if request.rule.projection:
        signs = build.to_float(build.tensor(f"{name}.projection", tensors["projection"]))
        z = build.op("MatMul", signs, z)  # (b, p, n)
    if request.rule.kind == "linear":
        vector = unsqueeze(build, build.tensor(f"{name}.gate", tensors["gate"]))
        return build.sum(build.op("Mul", z, vector), 1, keepdims=False)
    norm = build.op("Sqrt", build.sum(build.op("Mul", z, z), 1))  # (b, 1, n)
    unit = build.op("Div", z, build.op("Max", norm, build.float(_SMALLEST_NORM)))
    # ‖ẑ − c‖² = ‖ẑ‖² + ‖c‖² − 2 ẑᵀc, because the differences would take n times the size of the landmarks. Around their
    # centre, because states lie close together, and the sum would lose what tells them apart. What follows from the
    # tensors alone is computed once, when a runtime loads the graph: so the graph holds the bundle's tensors unchanged.
    landmarks = build.tensor(f"{name}.landmarks", tensors["landmarks"])  # (J, p)
    centre = build.op("Div", build.sum(landmarks, 0), build.float(len(tensors["landmarks"])))  # (1, p)
    apart = build.op("Sub", landmarks, centre)
    scale = build.op("Div", build.float(-2.0), build.tensor(f"{name}.bandwidth", tensors["bandwidth"]))
    squares = build.op("Mul", build.sum(build.op("Mul", apart, apart), 1), scale)  # (J, 1)
    unit = build.op("Sub", unit, build.op("Transpose", centre, perm=[1, 0]))
    own = build.op("Mul", build.sum(build.op("Mul", unit, unit), 1), scale)  # (b, 1, n)
    product = build.op("Mul", build.op("MatMul", apart, unit), build.op("Mul", scale, build.float(-2.0)))  # (b, J, n)
    exponent = build.op("Add", build.op("Add", squares, own), product)
    weights = unsqueeze(build, build.tensor(f"{name}.weights", tensors["weights"]))  # (J, 1)
    return build.sum(build.op("Mul", build.op("Exp", exponent), weights), 1, keepdims=False)

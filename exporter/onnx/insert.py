"""Write the steering into a decoder graph.

The nodes compute what ``modeling_mllmeraser.py`` computes. For every steered layer with state h (b, s, d):

    δ = Σ_i λ_i φ(g_i) r_{i,k}     on the columns that request i moves: the prompt's (k = 0), or the k-th of the reply
    h ← Where(moved, h + δ, h)      moved: some request moves the column and λ_i φ(g_i) ≠ 0

A state that is not moved keeps its bits. A fused node gives the sum and the norm of the sum. Its norm is computed again
from the steered state, and only the moved columns take the new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.builder import PREFIX, NodeBuilder
from mllmeraser.exporter.onnx.gate import gate_nodes
from mllmeraser.exporter.onnx.prompt import Prompt, prompt_nodes, unsqueeze
from mllmeraser.exporter.onnx.reply import ReplyLayer, ReplyState, column_shape
from mllmeraser.exporter.onnx.requests import GraphRequest
from mllmeraser.exporter.onnx.signature import Signature, hidden_size, read_signature
from mllmeraser.exporter.onnx.spine import FUSED_NORMS, find_residuals, residual_value

SCHEMA = 1
METADATA_KEY = f"{PREFIX}.steering"
STRENGTH_INPUT = "steering_strength"
STRENGTH_CONSTANT = f"{PREFIX}.strength"
Toggle = Literal["constant", "input"]
_CAST_LIKE_OPSET = 15


@dataclass(frozen=True)
class Inserted:
    """What :func:`insert_steering` put into a graph."""

    num_layers: int
    reply_steps: int  # K as it acts in this graph
    warnings: tuple[str, ...]


def insert_steering(
    model: ir.Model,
    requests: Sequence[GraphRequest],
    toggle: Toggle = "constant",
    where: str = "the graph",
    head_size: int | None = None,
) -> Inserted:
    """Steer a decoder graph in place. Its weights are neither read nor changed.

    Args:
        toggle: ``constant`` writes a strength of 1 into the graph; ``input`` adds a required input
            ``steering_strength`` (1,) fp32.
        where: the graph's name in messages.
        head_size: the last dimension of the cache, for a graph that leaves it open.

    Raises:
        InputError: the graph is not understood, or the requests do not fit it. ``model`` may be half changed then.
    """
    plain_graph(model, where)
    signature = read_signature(model, where)
    nodes = find_residuals(model.graph, signature, where)
    _check_fit(requests, signature, nodes, where)
    gates = sum(len(request.gates) for request in requests)
    steps = max(request.steps for request in requests)
    warnings: list[str] = []
    column = column_shape(signature, head_size)
    if steps > 1 and (column is None or column[0] * column[1] < gates):
        requests, steps = [request.prompt_only() for request in requests], 1
        warnings.append(f"{where}: its cache cannot carry {gates} gates; only the prompt is steered, not the reply")
    # CastLike came with opset 15. The other changes of 14 and 15 do not alter what an older decoder computes.
    model.opset_imports[""] = max(signature.opset, _CAST_LIKE_OPSET)
    build = NodeBuilder()
    prompt = prompt_nodes(build, signature)
    layer = ReplyLayer(build, signature, prompt, column, gates, steps) if steps > 1 and column else None
    writer = _Writer(build, prompt, None if layer is None else layer.read(), _strength(build, model.graph, toggle))
    writer.steer(nodes, requests)
    if layer is not None and writer.state is not None:
        layer.write(writer.carried, writer.state)
        model.graph.inputs.extend(layer.inputs)
        model.graph.outputs.extend(layer.outputs)
    build.into(model.graph)
    description = {
        "schema": SCHEMA,
        "toggle": toggle,
        "reply_steps": steps,
        "requests": [{"id": r.id, "strength": r.strength, "layers": sorted(r.directions)} for r in requests],
    }
    model.metadata_props[METADATA_KEY] = json.dumps(description, sort_keys=True)
    return Inserted(signature.num_layers, steps, tuple(warnings))


def plain_graph(model: ir.Model, where: str) -> None:
    """Inline local functions, and sort the nodes: converters to half precision lose the topological order.

    Raises:
        InputError: the graph has a cycle.
    """
    if model.functions:
        InlinePass()(model)
    try:
        model.graph.sort()
    except ValueError as error:
        raise InputError(f"{where}: damaged ({error}); download it again") from None


def _check_fit(requests: Sequence[GraphRequest], signature: Signature, nodes: list[ir.Node], where: str) -> None:
    if not requests:
        raise InputError(f"{where}: every request is switched off or has strength 0; there is nothing to write")
    deepest = max(request.layers[-1] for request in requests)
    if deepest >= signature.num_layers:
        raise InputError(f"{where}: has {signature.num_layers} decoder layers, the bundle steers layer {deepest}")
    d = hidden_size(signature, residual_value(nodes[0]))
    found = {direction.shape[1] for request in requests for direction in request.directions.values()}
    if d is not None and found != {d}:
        raise InputError(f"{where}: has hidden size {d}, the bundle {min(found - {d})}; give the bundle of this model")


def _strength(build: NodeBuilder, graph: ir.Graph, toggle: Toggle) -> ir.Value:
    if toggle == "constant":
        return build.tensor("strength", np.ones(1, np.float32))
    value = ir.Value(name=STRENGTH_INPUT, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(value)
    return value


@dataclass(frozen=True)
class _Move:
    """What one request does at one layer."""

    coefficient: ir.Value  # (b, 1) λ φ(g)
    direction: ir.Value  # (d,), or (b, 1, d) along the reply
    moved: ir.Value  # (b, s) bool


class _Writer:
    """Adds the nodes of all requests, layer by layer."""

    def __init__(self, build: NodeBuilder, prompt: Prompt, state: ReplyState | None, strength: ir.Value) -> None:
        self.build, self.prompt, self.state, self.strength = build, prompt, state, strength
        self.carried: list[ir.Value] = []  # φ(g) of every gate, in the order of the state
        self._phi: dict[tuple[int, int], ir.Value] = {}

    def steer(self, nodes: list[ir.Node], requests: Sequence[GraphRequest]) -> None:
        """Read and move at every layer that some request names."""
        for layer in sorted({layer for request in requests for layer in request.layers}):
            node = nodes[layer]
            hidden, before = residual_value(node), len(self.build.nodes)
            moves = []
            for index, request in enumerate(requests):
                if layer in request.gates:
                    self._read(hidden, request, index, layer)
                if layer in request.directions:
                    moves.append(self._move(request, index, layer))
            if moves:
                ours = set(self.build.nodes[before:])  # the gates go on reading the state as it was
                consumers = [use for use in hidden.uses() if use.node not in ours]
                moved, steered = self._apply(hidden, moves)
                _rewire(consumers, steered)
                if node.op_type in FUSED_NORMS:
                    consumers = list(node.outputs[0].uses())
                    _rewire(consumers, self._norm_again(node, moved, steered))

    def _read(self, hidden: ir.Value, request: GraphRequest, index: int, layer: int) -> None:
        build, name = self.build, f"requests.{index}.layers.{layer}"
        phi = gate_nodes(build, self.prompt, hidden, request, layer, name)
        if self.state is not None:
            place = len(self.carried)
            kept = build.op("Slice", self.state.gates, build.ints(place), build.ints(place + 1), build.ints(1))
            phi = build.op("Where", self.prompt.reading, phi, kept)
        phi.name = f"{PREFIX}.{name}.phi"
        self.carried.append(phi)
        self._phi[index, layer] = phi

    def _move(self, request: GraphRequest, index: int, layer: int) -> _Move:
        build, reading = self.build, self.prompt.reading
        phi = self._phi[index, request.gate_of[layer]]
        coefficient = build.op("Mul", phi, build.op("Mul", self.strength, build.float(request.strength)))
        prompt = reading if request.all_positions else self.prompt.last
        table = request.directions[layer]
        name = f"requests.{index}.layers.{layer}.direction"
        if self.state is None or table.shape[0] == 1:
            direction, here = build.tensor(name, table[0]), prompt
        else:
            steps = table.shape[0]
            row = build.op("Min", self.state.step, build.ints(steps - 1))  # (b, 1)
            direction = build.op("Gather", build.tensor(name, table), row)  # (b, 1, d)
            replying = build.op("Less", self.state.step, build.ints(steps))
            replying = build.op("And", replying, build.op("Not", reading))
            here = build.op("Or", prompt, replying)
        acts = build.op("Not", build.op("Equal", coefficient, build.float(0.0)))
        return _Move(coefficient, direction, build.op("And", here, acts))

    def _apply(self, hidden: ir.Value, moves: list[_Move]) -> tuple[ir.Value, ir.Value]:
        """The columns that some request moves (b, s, 1), and the steered state."""
        build = self.build
        deltas = [build.op("Mul", unsqueeze(build, move.coefficient), move.direction) for move in moves]
        moved, delta = unsqueeze(build, moves[0].moved), deltas[0]
        if len(moves) > 1:
            zero = build.float(0.0)
            delta = build.op("Where", moved, delta, zero)
            for move, more in zip(moves[1:], deltas[1:], strict=True):
                also = unsqueeze(build, move.moved)
                delta = build.op("Add", delta, build.op("Where", also, more, zero))
                moved = build.op("Or", moved, also)
        shifted = build.op("Add", hidden, build.op("CastLike", delta, hidden))
        steered = build.op("Where", moved, shifted, hidden)
        steered.type, steered.shape = hidden.type, hidden.shape
        return moved, steered

    def _norm_again(self, node: ir.Node, moved: ir.Value, steered: ir.Value) -> ir.Value:
        """The fused node's norm; in moved columns that of the steered state."""
        build, norm = self.build, node.outputs[0]
        epsilon = node.attributes["epsilon"].as_float()
        if node.op_type == "SkipSimplifiedLayerNormalization":
            again = build.op("SimplifiedLayerNormalization", steered, node.inputs[2], axis=-1, epsilon=epsilon)
        else:
            beta = node.inputs[3] if len(node.inputs) > 3 else None
            again = build.op("LayerNormalization", steered, node.inputs[2], beta, axis=-1, epsilon=epsilon)
        mixed = build.op("Where", moved, again, norm)
        mixed.type, mixed.shape = norm.type, norm.shape
        return mixed


def _rewire(uses: Iterable[Any], new: ir.Value) -> None:
    for use in uses:
        use.node.replace_input_with(use.idx, new)

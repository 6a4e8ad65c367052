"""Write the steering into a decoder graph.

The nodes compute what ``steering_mllmeraser.py`` computes. At an edited layer, with state h (b, s, d), in fp32, for one
request after the other, where its c = λ φ is not 0:

    h ← m_k where c is 1, (1 − c) h + c m_k elsewhere     edit ``seal``
    h ← h + c r_k                                         edit ``add``

k is 0 on the prompt, and then counts the columns that come one by one, up to K − 1. In scope ``prompt`` the edit
``add`` acts on the prompt's columns, or the last of them only, and on K − 1 of the reply. All else acts on every
column. A state that is not edited keeps its bits. A fused node gives the sum and the norm of the sum. Its norm is
computed again from the edited state, and only the edited columns take the new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.builder import PREFIX, NodeBuilder
from mllmeraser.exporter.onnx.gate import gate_nodes
from mllmeraser.exporter.onnx.prompt import Prompt, prompt_nodes, unsqueeze
from mllmeraser.exporter.onnx.reply import ReplyLayer, ReplyState, column_shape
from mllmeraser.exporter.onnx.requests import Array, GraphRequest
from mllmeraser.exporter.onnx.signature import Signature, hidden_size, read_signature
from mllmeraser.exporter.onnx.spine import FUSED_NORMS, find_residuals, residual_value

SCHEMA = 2
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
    carries: bool  # whether the cache has one more layer
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
    gates = sum(len(request.gate_layers) for request in requests if request.carried)
    warnings: list[str] = []
    column = column_shape(signature, head_size)
    if gates and (column is None or column[0] * column[1] < gates):
        lost = f"{where}: its cache cannot carry {gates} gates"
        if any(request.kept for request in requests):
            raise InputError(
                f"{lost}, so a recognised row would be forgotten again; compute the bundle with --gate-scope token, or "
                "with --gate-scope prompt --edit add"
            )
        requests, gates = [request.prompt_only() for request in requests], 0
        warnings.append(f"{lost}; only the prompt is steered, not the reply")
    steps = max(request.rule.steps for request in requests)
    # CastLike came with opset 15. The other changes of 14 and 15 do not alter what an older decoder computes.
    model.opset_imports[""] = max(signature.opset, _CAST_LIKE_OPSET)
    build = NodeBuilder()
    prompt = prompt_nodes(build, signature)
    layer = ReplyLayer(build, signature, prompt, column, gates, steps) if gates and column else None
    writer = _Writer(build, prompt, None if layer is None else layer.read(), _strength(build, model.graph, toggle))
    writer.steer(nodes, requests)
    if layer is not None and writer.state is not None:
        layer.write(writer.carried, writer.state)
        model.graph.inputs.extend(layer.inputs)
        model.graph.outputs.extend(layer.outputs)
    build.into(model.graph)
    described = [
        {"id": r.id, "strength": r.strength, "layers": list(r.rule.layers), "scope": r.rule.scope, "edit": r.rule.edit}
        for r in requests
    ]
    description = {"schema": SCHEMA, "toggle": toggle, "reply_steps": steps, "requests": described}
    model.metadata_props[METADATA_KEY] = json.dumps(description, sort_keys=True)
    return Inserted(signature.num_layers, steps, layer is not None, tuple(warnings))


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
    found = {request.aims(layer).shape[1] for request in requests for layer in request.rule.layers}
    if d is not None and found != {d}:
        raise InputError(f"{where}: has hidden size {d}, the bundle {min(found - {d})}; give the bundle of this model")


def _strength(build: NodeBuilder, graph: ir.Graph, toggle: Toggle) -> ir.Value:
    if toggle == "constant":
        return build.tensor("strength", np.ones(1, np.float32))
    value = ir.Value(name=STRENGTH_INPUT, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(value)
    return value


class _Writer:
    """Adds the nodes of all requests, layer by layer."""

    def __init__(self, build: NodeBuilder, prompt: Prompt, state: ReplyState | None, strength: ir.Value) -> None:
        self.build, self.prompt, self.state, self.strength = build, prompt, state, strength
        self.carried: list[ir.Value] = []  # φ of every gate that is carried, in the order of the state
        self._phi: dict[tuple[int, int], ir.Value] = {}

    def steer(self, nodes: list[ir.Node], requests: Sequence[GraphRequest]) -> None:
        """Read and edit at every layer that some request names. All gates read its output, then the edits follow."""
        for layer in sorted({layer for request in requests for layer in request.layers}):
            node = nodes[layer]
            hidden, before = residual_value(node), len(self.build.nodes)
            for index, request in enumerate(requests):
                if layer in request.gate_layers:
                    self._read(hidden, request, index, layer)
            editing = [(index, request) for index, request in enumerate(requests) if layer in request.rule.layers]
            if editing:
                state, places = self.build.to_float(hidden), []
                for index, request in editing:
                    state, here = self._edit(state, request, index, layer)
                    places.append(here)
                edited = reduce(lambda one, other: self.build.op("Or", one, other), places)
                ours = set(self.build.nodes[before:])  # the gates go on reading the state as it was
                consumers = [use for use in hidden.uses() if use.node not in ours]
                steered = self.build.op("Where", edited, self.build.op("CastLike", state, hidden), hidden)
                steered.type, steered.shape = hidden.type, hidden.shape
                _rewire(consumers, steered)
                if node.op_type in FUSED_NORMS:
                    consumers = list(node.outputs[0].uses())
                    _rewire(consumers, self._norm_again(node, edited, steered))

    def _read(self, hidden: ir.Value, request: GraphRequest, index: int, layer: int) -> None:
        build, name, before = self.build, f"requests.{index}.layers.{layer}", None
        if self.state is not None and request.carried:
            place = len(self.carried)
            before = build.op("Slice", self.state.gates, build.ints(place), build.ints(place + 1), build.ints(1))
        phi = gate_nodes(build, self.prompt, hidden, request, layer, name, before)
        phi.name = f"{PREFIX}.{name}.phi"
        if before is not None:
            self.carried.append(phi)
        self._phi[index, layer] = phi

    def _edit(self, state: ir.Value, request: GraphRequest, index: int, layer: int) -> tuple[ir.Value, ir.Value]:
        """The fp32 state after the edit of one request, and the columns (b, s or 1, 1) that it edits."""
        build, rule, prompt = self.build, request.rule, self.prompt
        phi = self._phi[index, rule.gate_of(layer)]
        c = build.op("Mul", phi, build.op("Mul", self.strength, build.float(request.strength)))
        leaf = "states" if rule.edit == "seal" else "direction"
        aim = self._aim(request.aims(layer), rule.steps, f"requests.{index}.layers.{layer}.{leaf}")
        edited = build.op("Not", build.op("Equal", c, build.float(0.0)))
        if (rule.scope, rule.edit) == ("prompt", "add"):
            here = prompt.reading if rule.all_positions else prompt.last
            if self.state is not None and rule.steps > 1:
                replying = build.op("Less", self.state.step, build.ints(rule.steps))
                here = build.op("Or", here, build.op("And", replying, build.op("Not", prompt.reading)))
            edited = build.op("And", here, edited)
        c, edited = unsqueeze(build, c), unsqueeze(build, edited)
        new = build.op("Mul", c, aim)
        if rule.edit == "add":
            new = build.op("Add", state, new)
        else:
            one = build.float(1.0)
            new = build.op("Add", build.op("Mul", build.op("Sub", one, c), state), new)
            # Exactly the constant where c is 1, whatever the state was.
            new = build.op("Where", build.op("Equal", c, one), aim, new)
        return build.op("Where", edited, new, state), edited

    def _aim(self, table: Array, steps: int, name: str) -> ir.Value:
        """The row of a table (K, d) that is k's, k < ``steps``: (1, d), or (b, 1, d)."""
        build = self.build
        whole = build.tensor(name, table)
        if self.state is None or steps == 1:
            return build.op("Slice", whole, build.ints(0), build.ints(1), build.ints(0))
        row = build.op("Min", self.state.step, build.ints(steps - 1))  # (b, 1)
        # Behind a cast, because quantisers round the constant that a Gather reads.
        return build.op("Gather", build.to_float(whole), row)

    def _norm_again(self, node: ir.Node, edited: ir.Value, steered: ir.Value) -> ir.Value:
        """The fused node's norm; in edited columns that of the steered state."""
        build, norm = self.build, node.outputs[0]
        epsilon = node.attributes["epsilon"].as_float()
        if node.op_type == "SkipSimplifiedLayerNormalization":
            again = build.op("SimplifiedLayerNormalization", steered, node.inputs[2], axis=-1, epsilon=epsilon)
        else:
            beta = node.inputs[3] if len(node.inputs) > 3 else None
            again = build.op("LayerNormalization", steered, node.inputs[2], beta, axis=-1, epsilon=epsilon)
        mixed = build.op("Where", edited, again, norm)
        mixed.type, mixed.shape = norm.type, norm.shape
        return mixed


def _rewire(uses: Iterable[Any], new: ir.Value) -> None:
    for use in uses:
        use.node.replace_input_with(use.idx, new)

"""Find the output of every decoder layer in a graph, without guessing names.

In a pre-norm transformer everything that reaches the logits passes through the residual stream. So the states between
attention and MLP parts are exactly the nodes that *dominate* ``logits`` seen from ``inputs_embeds``: every path goes
through them (Cooper, Harvey & Kennedy, 2001). These nodes, in order, are the spine. The keys of layer i are computed
from its input and from nothing later on the spine. So the input of layer i is the last dominator among the ancestors of
``present.{i}.key``. It is also the output of layer i − 1. The last layer has no successor: it must look like the
others, and an only layer ends with the last of the sums. Edges through Shape and Size carry no state and are cut.
"""

from __future__ import annotations

from itertools import pairwise, takewhile

import onnx_ir as ir

from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.signature import Signature

FUSED_NORMS = ("SkipSimplifiedLayerNormalization", "SkipLayerNormalization")
# A fused node gives the norm and the sum; the sum is its fourth output.
_SUM_OUTPUT = 3
_STATELESS = ("Shape", "Size")
_CARRIERS = ("Cast", "Identity", "Dropout")


def find_residuals(graph: ir.Graph, signature: Signature, where: str) -> list[ir.Node]:
    """The nodes that give the outputs of the decoder layers, in order.

    Raises:
        InputError: the graph holds control flow, or is not a stack of like layers along one residual stream.
    """
    spine, depth = _spine(graph, signature, where)
    starts: list[int] = []  # of each layer, the place of its input on the spine; -1 is inputs_embeds
    for key in signature.present_keys:
        producer = key.producer()
        starts.append(-1 if producer is None else depth.get(producer, -1))
    if starts != sorted(set(starts)):
        raise _irregular(where, "the caches of the layers do not follow one another along one residual stream")
    layers = [spine[start + 1 : end + 1] for start, end in pairwise(starts)]
    rest = spine[starts[-1] + 1 :]
    layers.append(rest[: len(layers[0])] if layers else list(takewhile(_is_sum, rest)))
    if not layers[-1] or any(_pattern(layer) != _pattern(layers[0]) for layer in layers):
        raise _irregular(where, "its layers are not alike")
    nodes = [layer[-1] for layer in layers]
    for index, node in enumerate(nodes):
        if not _is_sum(node):
            raise _irregular(where, f"the output of layer {index} is a {node.op_type}, not a residual sum")
        if residual_value(node).is_graph_output():
            raise InputError(f"{where}: the output of layer {index} is an output of the graph; export it without")
    return nodes


def residual_value(node: ir.Node) -> ir.Value:
    """The output that is the state, of a node of :func:`find_residuals`."""
    if node.op_type not in FUSED_NORMS:
        return node.outputs[0]
    if len(node.outputs) <= _SUM_OUTPUT:
        node.resize_outputs(_SUM_OUTPUT + 1)
    if not node.outputs[_SUM_OUTPUT].name:
        node.outputs[_SUM_OUTPUT].name = f"{node.outputs[0].name}.mllmeraser_sum"
    return node.outputs[_SUM_OUTPUT]


def _is_sum(node: ir.Node) -> bool:
    return node.op_type in ("Add", *FUSED_NORMS)


def _irregular(where: str, what: str) -> InputError:
    return InputError(f"{where}: this graph is not understood ({what}); only stacks of pre-norm decoder layers are")


def _pattern(nodes: list[ir.Node]) -> list[str]:
    return ["Add" if node.op_type in FUSED_NORMS else node.op_type for node in nodes]


def _spine(graph: ir.Graph, signature: Signature, where: str) -> tuple[list[ir.Node], dict[ir.Node, int]]:
    """The dominators of the logits in order, and for each node the index of the last dominator at or before it."""
    nodes: list[ir.Node] = []
    index: dict[ir.Node, int] = {}
    predecessors: list[list[int]] = []
    for node in graph:
        if any(attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values()):
            raise _irregular(where, f"it holds control flow, a node {node.op_type}")
        if node.op_type in _STATELESS:
            continue
        found = {0 for value in node.inputs if value is signature.embeds}
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer in index:
                found.add(index[producer])
        if found:
            nodes.append(node)
            index[node] = len(nodes)  # 0 is the source
            predecessors.append(sorted(found))
    dominator = [0]
    for found_at, before in enumerate(predecessors, 1):
        common = before[0]
        for other in before[1:]:
            common = _meet(common, other, dominator)
        dominator.append(common)
        assert common < found_at, "the graph is in topological order"
    producer = signature.logits.producer()
    if producer is None or producer not in index:
        raise _irregular(where, "the logits do not depend on the input embeddings")
    chain = [index[producer]]
    while dominator[chain[-1]] != 0:
        chain.append(dominator[chain[-1]])
    # Take a state before its cast. ONNX Runtime drops a cast and its reverse, but not with steering between them.
    chain = [at for at in reversed(chain) if nodes[at - 1].op_type not in _CARRIERS]
    place = {at: position for position, at in enumerate(chain)}
    depth: list[int] = [-1]
    for at, before in enumerate(predecessors, 1):
        depth.append(max(place.get(at, -1), *(depth[other] for other in before), -1))
    return [nodes[at - 1] for at in chain], {node: depth[at] for node, at in index.items()}


def _meet(one: int, other: int, dominator: list[int]) -> int:
    while one != other:
        if one > other:
            one = dominator[one]
        else:
            other = dominator[other]
    return one

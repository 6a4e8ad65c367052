"""Insert the steering again, to see whether a steered graph is what this tool writes.

A steered graph is the base's graph and nodes that follow from its requests, and it holds the tensors of its bundles
unchanged. So it can be made again from the base's graph, the bundles' metadata in the manifest, and its own tensors: a
strength, a threshold, a shape or a wire that was changed since then shows, whatever it does to the logits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import tensor_name
from mllmeraser.errors import InputError
from mllmeraser.exporter.checks import CheckFailed
from mllmeraser.exporter.manifest import Provenance, tensor_hashes
from mllmeraser.exporter.onnx.builder import PREFIX
from mllmeraser.exporter.onnx.bundles import graph_requests, switched_on
from mllmeraser.exporter.onnx.insert import METADATA_KEY, STRENGTH_INPUT, Toggle, insert_steering
from mllmeraser.exporter.onnx.probe import without_steering
from mllmeraser.modeling_patches.format_mllmeraser import tensor_key


def bundles_of(steered: ir.Model, provenance: Provenance) -> list[Bundle]:
    """The bundles of the manifest, with the tensors that the graph holds.

    Raises:
        CheckFailed: a tensor is missing, is one too many, or is not the bundle's.
    """
    own = {
        key.removeprefix(f"{PREFIX}."): np.asarray(value.const_value)
        for key, value in steered.graph.initializers.items()
        if key.startswith(f"{PREFIX}.requests.")
    }
    bundles, at = [], 0  # a graph counts the requests that are on, of all bundles together
    if len(provenance.tensors) != len(provenance.bundles):
        raise CheckFailed("the manifest does not say which tensors the bundles hold; steer the base again")
    for metadata, wanted in zip(provenance.bundles, provenance.tensors, strict=True):
        numbers = {}  # of a request of this bundle, in the graph
        for index in switched_on(metadata):
            numbers[index] = at
            at += 1
        tensors = {}
        for name, sha256 in wanted.items():
            request, layer, leaf = tensor_key(name)
            if request not in numbers:
                continue
            here = tensor_name(numbers[request], layer, leaf)
            array = own.pop(here, None)
            if array is None or tensor_hashes({name: array})[name] != sha256:
                raise CheckFailed(f"{here} is " + ("missing" if array is None else "not the bundle's"))
            tensors[name] = array
        bundles.append(Bundle(metadata, tensors))
    if own:
        raise CheckFailed(f"{min(own)} is of no bundle")
    return bundles


def difference(
    steered: ir.Model, base: ir.Model | None, provenance: Provenance, toggle: Toggle, size: int | None
) -> str | None:
    """Where a steered graph is not what the steering of its base gives, in a few words; None: nowhere.

    Args:
        base: the base's graph, which is changed; None: the steered one without its steering, so that only the steering
            is compared.
        size: the last dimension of the cache, for a graph that leaves it open.

    Raises:
        CheckFailed: a tensor is not the bundle's.
    """
    requests = graph_requests(bundles_of(steered, provenance))
    found = dict(_described(steered))
    if base is None:
        base = _bare(steered)
    try:
        insert_steering(base, requests, toggle, "the base's graph", size)
    except InputError as error:
        raise CheckFailed(str(error)) from None
    wanted = dict(_described(base))
    return next((what for what in {**wanted, **found} if wanted.get(what) != found.get(what)), None)


def _described(model: ir.Model) -> Iterator[tuple[str, Any]]:
    """Everything that a graph computes from, by a name to show."""
    graph = model.graph
    yield "the opset", dict(model.opset_imports)
    yield "the steering's description", json.loads(model.metadata_props[METADATA_KEY])
    yield "the inputs", [_signature(value) for value in graph.inputs]
    yield "the outputs", [_signature(value) for value in graph.outputs]
    yield "the local functions", sorted(map(str, model.functions))  # inlined; one could redefine an operator
    for name, value in graph.initializers.items():
        yield f"tensor {name}", _content(value.const_value)
    for node in graph:
        outputs = tuple(value.name for value in node.outputs)
        attributes = {key: _attribute(attribute) for key, attribute in node.attributes.items()}
        inputs = tuple(None if value is None else value.name for value in node.inputs)
        # By what it gives, because names of nodes may stand twice.
        yield f"what gives {outputs[0]}", (node.domain, node.op_type, node.overload, outputs, inputs, attributes)


def _signature(value: ir.Value) -> tuple[Any, ...]:
    return value.name, str(value.type), str(value.shape)


def _content(tensor: Any) -> tuple[Any, ...]:
    """What makes a tensor: of one that lies in a file where it lies, since the files are compared."""
    if isinstance(tensor, ir.ExternalTensor):
        return str(tensor.dtype), str(tensor.shape), str(tensor.location), tensor.offset, tensor.length
    return str(tensor.dtype), str(tensor.shape), tensor.tobytes()


def _attribute(attribute: Any) -> Any:
    return ir.to_proto(attribute).SerializeToString(deterministic=True)


def _bare(steered: ir.Model) -> ir.Model:
    """The graph without its steering: neither nodes nor tensors, inputs nor outputs of ours are left."""
    model = without_steering(ir.from_proto(ir.to_proto(steered)))
    graph = model.graph
    ours = {node for node in graph if str(node.name).startswith(f"{PREFIX}.")}
    made = {value for node in ours for value in node.outputs}
    for of_graph in (graph.inputs, graph.outputs):
        for value in list(of_graph):
            carried = str(value.name).startswith("past") and all(use.node in ours for use in value.uses())
            if value in made or value.name == STRENGTH_INPUT or carried:
                of_graph.remove(value)
    graph.remove(ours, safe=True)
    for name in [name for name in graph.initializers if name.startswith(f"{PREFIX}.")]:
        del graph.initializers[name]
    del model.metadata_props[METADATA_KEY]
    return model

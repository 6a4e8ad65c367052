"""From bundles to the requests that are written into a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import tensor_name
from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.requests import Array, Gate, GraphRequest


def graph_requests(bundles: Sequence[Bundle]) -> list[GraphRequest]:
    """Every request that is switched on, in the order of the bundles. What they add to a state is summed.

    Raises:
        InputError: there is no bundle, two requests have one id, or gates have scope ``token``.
    """
    if not bundles:
        raise InputError("no steering bundle given; make one with: mllmeraser compute BASE --forget F --retain R -o B")
    ids = [request.id for bundle in bundles for request in bundle.metadata.requests]
    if twice := next((id_ for id_ in ids if ids.count(id_) > 1), None):
        raise InputError(f"two requests have the id '{twice}'; compute one of them again with another --request-id")
    if any(bundle.metadata.gate.scope == "token" for bundle in bundles):
        raise InputError("a graph's gate is read at the last prompt token; compute the bundle with --gate-scope prompt")
    return [
        _request(bundle, index)
        for bundle in bundles
        for index, request in enumerate(bundle.metadata.requests)
        if request.enabled and request.strength != 0
    ]


def _request(bundle: Bundle, index: int) -> GraphRequest:
    meta = bundle.metadata
    request = meta.requests[index]
    shared = meta.gate_layer
    return GraphRequest(
        id=request.id,
        strength=request.strength,
        shape=meta.gate.shape,
        threshold=meta.gate.threshold,
        all_positions=meta.prompt_positions == "all",
        gates={layer: _gate(bundle, index, layer) for layer in (meta.layers if shared is None else [shared])},
        gate_of={layer: layer if shared is None else shared for layer in meta.layers},
        directions={layer: _array(bundle, index, layer, "direction") for layer in meta.layers},
    )


def _gate(bundle: Bundle, index: int, layer: int) -> Gate:
    if bundle.metadata.gate.kind == "linear":
        return Gate(vector=_array(bundle, index, layer, "gate"))
    return Gate(
        landmarks=_array(bundle, index, layer, "landmarks"),
        weights=_array(bundle, index, layer, "weights"),
        bandwidth=float(_array(bundle, index, layer, "bandwidth")),
    )


def _array(bundle: Bundle, index: int, layer: int, leaf: str) -> Array:
    return np.asarray(bundle.tensors[tensor_name(index, layer, leaf)], dtype=np.float32)

"""From bundles to the requests that are written into a graph."""

from __future__ import annotations

from collections.abc import Sequence

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import Metadata, parsed_requests, tensor_name
from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.requests import GraphRequest


def graph_requests(bundles: Sequence[Bundle]) -> list[GraphRequest]:
    """Every request that is switched on, in the order of the bundles. They edit a state one after the other.

    Raises:
        InputError: there is no bundle, two requests have one id, or the seal of one ends with a turn.
    """
    if not bundles:
        raise InputError("no steering bundle given; make one with: mllmeraser compute BASE --forget F --retain R -o B")
    ids = [request.id for bundle in bundles for request in bundle.metadata.requests]
    if twice := next((id_ for id_ in ids if ids.count(id_) > 1), None):
        raise InputError(f"two requests have the id '{twice}'; compute one of them again with another --request-id")
    if turns := next((b.metadata.requests[0].id for b in bundles if b.metadata.gate.turn is not None), None):
        raise InputError(
            f"request '{turns}': a graph sees no tokens, so that its seal cannot end with a turn; compute it again "
            "with --until conversation"
        )
    return [request for bundle in bundles for request in _requests(bundle)]


def switched_on(metadata: Metadata) -> list[int]:
    """The numbers of the requests of a bundle that a graph holds: those that are on."""
    return [at for at, request in enumerate(metadata.requests) if request.enabled and request.strength != 0]


def _requests(bundle: Bundle) -> list[GraphRequest]:
    meta = bundle.metadata
    rules = parsed_requests(meta, "the bundle")
    return [
        GraphRequest(
            meta.requests[at].id,
            meta.requests[at].strength,
            rules[at],
            {
                (layer, leaf): bundle.tensors[tensor_name(at, layer, leaf)]
                for layer, leaf in rules[at].shapes(meta.base.hidden_size)
            },
        )
        for at in switched_on(meta)
    ]

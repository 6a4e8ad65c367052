"""What the gates of several requests have in common lies in a checkpoint once.

Gates that were computed on one base with one seed read it through the same signs; those that were fitted on the same
retain set, or in one ledger, have the same landmarks of what must stay. Of each further request a checkpoint then holds
only what is the person's own: the landmarks of what is to be forgotten, the weights, and what a state becomes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mllmeraser.modeling_patches.format_mllmeraser import TensorKey

Array = npt.NDArray[Any]
Entries = list[dict[str, Any]]


def share(entries: Sequence[Mapping[str, Any]], tensors: Mapping[TensorKey, Array], kept: Sequence[int]) -> Shared:
    """Take out what gates at one layer have in common.

    A gate that is alone is cut in two as well: then it reads the same bits however many others come or go.

    Args:
        entries: of ``steering["requests"]``.
        tensors: by request, layer and leaf.
        kept: of each request, how many of its gate's landmarks are of what must stay; they come first.

    Returns:
        the entries, those of ``steering["kept"]``, and the tensors.
    """
    groups: dict[tuple[int, int, bytes], list[int]] = {}
    for request, (entry, count) in enumerate(zip(entries, kept, strict=True)):
        layer = _gate_layer(entry)
        if count and layer is not None and entry["gate"]["scope"] != "prompt":
            parts = [tensors[request, layer, "landmarks"][:count], tensors.get((request, layer, "projection"))]
            groups.setdefault((layer, count, _digest(parts)), []).append(request)
    left, common = dict(tensors), list[dict[str, Any]]()
    told = [dict(entry) for entry in entries]
    for (layer, count, _), requests in groups.items():
        owner, first = -1 - len(common), requests[0]
        signs = tensors.get((first, layer, "projection"))
        left[owner, layer, "landmarks"] = tensors[first, layer, "landmarks"][:count]
        if signs is not None:
            left[owner, layer, "projection"] = signs
        for request in requests:
            left[request, layer, "landmarks"] = tensors[request, layer, "landmarks"][count:]
            left.pop((request, layer, "projection"), None)
            told[request]["kept"] = len(common)
        common.append({"layer": layer, "landmarks": count, "projection": 0 if signs is None else len(signs)})
    return told, common, left


Shared = tuple[Entries, list[dict[str, Any]], dict[TensorKey, Array]]


def unshared(
    entries: Sequence[Mapping[str, Any]], tensors: Mapping[TensorKey, Array]
) -> tuple[Entries, dict[TensorKey, Array]]:
    """Entries and tensors as they were before :func:`share`: each request has all of its own.

    Raises:
        KeyError: a tensor is missing.
    """
    whole = {key: tensor for key, tensor in tensors.items() if key[0] >= 0}
    told = [{key: value for key, value in entry.items() if key != "kept"} for entry in entries]
    for request, entry in enumerate(entries):
        layer, kept = _gate_layer(entry), entry.get("kept")
        if kept is None or layer is None:
            continue
        owner = -1 - int(kept)
        whole[request, layer, "landmarks"] = np.concatenate(
            [tensors[owner, layer, "landmarks"], tensors[request, layer, "landmarks"]]
        )
        if (owner, layer, "projection") in tensors:
            whole[request, layer, "projection"] = tensors[owner, layer, "projection"]
    return told, whole


def _gate_layer(entry: Mapping[str, Any]) -> int | None:
    """The layer of a request's gate; None if it has several."""
    layers = entry["layers"] if entry["gate_layer"] is None else [entry["gate_layer"]]
    return int(layers[0]) if len(layers) == 1 else None


def _digest(parts: Sequence[Array | None]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(None if part is None else (part.shape, part.dtype)).encode())
        digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    return digest.digest()

"""From bundles to the two files that hold them in a checkpoint: ``config.json`` and the steering file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import steering_requests
from mllmeraser.errors import InputError
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.distrust import without_dangerous_keys
from mllmeraser.exporter.shared import share
from mllmeraser.modeling_patches.format_mllmeraser import (
    MODEL_TYPE_PREFIX,
    SCHEMA,
    STEERING_FILE,
    TensorKey,
    tensor_key,
    tensor_name,
    without_native_names,
)


@dataclass(frozen=True)
class Steering:
    """All requests of an export."""

    section: dict[str, Any]  # the key ``steering`` of config.json
    content: bytes  # the steering file
    tensor_bytes: dict[str, int]  # by published name


def merge(base: BaseCheckpoint, bundles: Sequence[Bundle], common: bool = False) -> Steering:
    """Put the requests of all bundles together, numbered in the order given. Their edits follow in this order.

    Args:
        common: hold once what gates have in common (:mod:`mllmeraser.exporter.shared`).

    Raises:
        InputError: there is no bundle, two requests have one id, or a bundle was not computed on this base.
    """
    if not bundles:
        raise InputError("no steering bundle given; make one with: mllmeraser compute BASE --forget F --retain R -o B")
    ids = [request.id for bundle in bundles for request in bundle.metadata.requests]
    if twice := next((id_ for id_ in ids if ids.count(id_) > 1), None):
        raise InputError(f"two requests have the id '{twice}'; compute one of them again with another --request-id")
    requests: list[dict[str, Any]] = []
    kept: list[int] = []
    tensors: dict[TensorKey, npt.NDArray[Any]] = {}
    for bundle in bundles:
        _check_fit(base, bundle)
        for name, tensor in bundle.tensors.items():
            request, layer, leaf = tensor_key(name)
            tensors[len(requests) + request, layer, leaf] = tensor
        requests += steering_requests(bundle.metadata)
        kept += [bundle.metadata.gate.kept or 0] * len(bundle.metadata.requests)
    parts: list[dict[str, Any]] = []
    if common:
        requests, parts, tensors = share(requests, tensors, kept)
    layers = base.names.published_layers
    named = {tensor_name(layers, key): np.asarray(tensor, order="C") for key, tensor in tensors.items()}
    content = save({name: named[name] for name in sorted(named)}, metadata={"format": "pt"})
    section = {
        "schema": SCHEMA,
        "file": STEERING_FILE,
        "sha256": hashlib.sha256(content).hexdigest(),
        "requests": requests,
        **({"kept": parts} if parts else {}),
    }
    return Steering(section, content, {name: tensor.nbytes for name, tensor in named.items()})


def _check_fit(base: BaseCheckpoint, bundle: Bundle) -> None:
    meta, where = bundle.metadata, f"the bundle of request '{bundle.metadata.requests[0].id}'"
    facts: dict[str, tuple[object, object]] = {
        "architecture": (meta.base.architecture, base.architecture),
        "model_type": (meta.base.model_type, base.model_type),
        "hidden size": (meta.base.hidden_size, base.hidden_size),
        "number of decoder layers": (meta.base.num_layers, base.num_layers),
        "config.json sha256": (meta.base.config_sha256, base.config_sha256),
    }
    for what, (bundled, found) in facts.items():
        if bundled != found:
            raise InputError(
                f"{where} does not fit {base.source.path}: {what} {bundled} against {found}; "
                "give the base it was computed on, or compute it again"
            )
    bundle.check(where)


def steered_config(base: BaseCheckpoint, section: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` of the export: the base's without dangerous keys, with the steered classes and the steering."""
    # Qwen2.5-VL's published vision_config holds the native model_type, and its class does not need it.
    config = without_native_names(without_dangerous_keys(base.config), base.model_type)
    # Servers such as vLLM load by AutoModel and run the model their own way, which suits only gates of scope token.
    # Otherwise AutoModel gets the whole model: clients load it (lmms-eval), and it refuses to be run by such a server.
    per_token = all(request["gate"]["scope"] == "token" for request in section["requests"])
    whole = f"modeling_mllmeraser.{base.names.steered}"
    for key in ("_name_or_path", "_commit_hash"):
        config.pop(key, None)
    return {
        **config,
        "model_type": f"{MODEL_TYPE_PREFIX}{base.model_type}",
        "architectures": [base.names.steered],
        "auto_map": {
            "AutoConfig": f"configuration_mllmeraser.{base.names.configuration}",
            "AutoModel": f"modeling_mllmeraser.{base.names.steered_base}" if per_token else whole,
            "AutoModelForImageTextToText": whole,
        },
        "steering_enabled": True,
        "steering_strength": 1.0,
        "steering": section,
    }

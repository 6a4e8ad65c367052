"""From bundles to what the checkpoint says and holds of them: ``config.json`` and the steering file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.distrust import without_dangerous_keys
from mllmeraser.exporter.layout import CODE, STEERING_FILE
from mllmeraser.modeling_patches.modeling_mllmeraser import checkpoint_tensor_name
from mllmeraser.steering.bundle import SCHEMA, Bundle, Metadata, expected_shapes

_BUNDLE_NAME = re.compile(r"requests\.(\d+)\.layers\.(\d+)\.(\w+)")


@dataclass(frozen=True)
class Steering:
    """All requests of an export."""

    section: dict[str, Any]  # ``steering`` of config.json
    content: bytes  # of the steering file
    tensor_bytes: dict[str, int]  # by published name


def merge(base: BaseCheckpoint, bundles: Sequence[Bundle]) -> Steering:
    """Several bundles become several requests, numbered in the order given; their deltas add.

    Raises:
        InputError: no bundle, an id used twice, or a bundle that was not computed on this base.
    """
    if not bundles:
        raise InputError("no steering bundle given; make one with: mllmeraser compute BASE --forget F --retain R -o B")
    ids = [request.id for bundle in bundles for request in bundle.metadata.requests]
    if twice := next((id_ for id_ in ids if ids.count(id_) > 1), None):
        raise InputError(f"two requests have the id '{twice}'; compute one of them again with another --request-id")
    requests: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for bundle in bundles:
        _check_fit(base, bundle)
        for name, tensor in bundle.tensors.items():
            request, layer, leaf = _parts(name)
            published = checkpoint_tensor_name(base.model_type, layer, len(requests) + request, leaf)
            tensors[published] = tensor.detach().cpu().contiguous()
        section: Any = bundle.steering()
        requests += section["requests"]
    content = save({name: tensors[name] for name in sorted(tensors)}, metadata={"format": "pt"})
    section = {
        "schema": SCHEMA,
        "file": STEERING_FILE,
        "sha256": hashlib.sha256(content).hexdigest(),
        "requests": requests,
    }
    return Steering(section, content, {name: tensor.nbytes for name, tensor in tensors.items()})


def _parts(name: str) -> tuple[int, int, str]:
    match = _BUNDLE_NAME.fullmatch(name)
    if match is None:
        raise InputError(f"'{name}' is not the name of a bundle's tensor; compute the bundle again")
    return int(match[1]), int(match[2]), match[3]


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
    _check_tensors(where, meta, bundle.tensors)


def _check_tensors(where: str, meta: Metadata, tensors: dict[str, Tensor]) -> None:
    expected = expected_shapes(meta)
    for name in sorted(expected.keys() ^ tensors.keys()):
        raise InputError(f"{where}: tensor {name} is {'missing' if name in expected else 'not expected'}")
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise InputError(f"{where}: tensor {name} is {tensor.dtype} {tuple(tensor.shape)}, not float32 {shape}")
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{where}: tensor {name} holds a value that is not finite; compute it again")


def steered_config(base: BaseCheckpoint, section: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` of the export: the base's, with our classes and the steering, without dangerous keys."""
    configuration, modeling = (name.removesuffix(".py") for name in CODE)
    config = _without_native_type(without_dangerous_keys(base.config), base.model_type)
    for key in ("_name_or_path", "_commit_hash"):
        config.pop(key, None)
    return {
        **config,
        "model_type": base.family.config_class.model_type,
        "architectures": [base.family.__name__],
        "auto_map": {
            "AutoConfig": f"{configuration}.{base.family.config_class.__name__}",
            "AutoModelForImageTextToText": f"{modeling}.{base.family.__name__}",
        },
        "steering_enabled": True,
        "steering_strength": 1.0,
        "steering": section,
    }


def _without_native_type(value: Any, model_type: str) -> Any:
    # A native configuration class takes any nested dictionary that carries its model_type for its own, so the native
    # model would load un-erased. Qwen2.5-VL's published vision_config carries it; its class does not need it.
    if not isinstance(value, dict):
        return value
    return {
        key: _without_native_type(item, model_type)
        for key, item in value.items()
        if (key, item) != ("model_type", model_type)
    }

"""The steering bundle: one safetensors file of kilobytes that holds what to apply, and nothing about whom.

For request i and block l, all fp32 (``d`` hidden size, ``K`` reply steps, ``J`` landmarks):

====================================  =======  =====================================================
``requests.{i}.layers.{l}.direction``  (K, d)   r_{l,k}: k = 0 acts on the prompt, k > 0 along the reply
``requests.{i}.layers.{l}.gate``       (d,)     u_l of a linear gate, g = uᵀh
``requests.{i}.layers.{l}.landmarks``  (J, d)   c_j of a kernel gate
``requests.{i}.layers.{l}.weights``    (J,)     w_j of a kernel gate
``requests.{i}.layers.{l}.bandwidth``  ()       m², g = Σ_j w_j exp(−2‖ĥ − c_j‖²/m²), ĥ = h/‖h‖
====================================  =======  =====================================================

With a shared gate (``gate_layer``) the gate's tensors lie under that block only. The metadata key ``mllmeraser``
holds one JSON object, the :class:`Metadata` of :mod:`metadata`. No subject, question, answer, path or picture is in it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save
from torch import Tensor

from mllmeraser.files import write_atomically
from mllmeraser.steering.bundle_file import read_bundle
from mllmeraser.steering.metadata import (
    METADATA_KEY,
    REQUEST_ID,
    SCHEMA,
    Base,
    GateForm,
    LayerStatistics,
    Metadata,
    Method,
    Request,
    WeightFile,
    check_forms,
    expected_shapes,
    not_finite,
    request_entry,
    steering_requests,
    tensor_name,
)

__all__ = [
    "METADATA_KEY",
    "REQUEST_ID",
    "SCHEMA",
    "Base",
    "Bundle",
    "GateForm",
    "LayerStatistics",
    "Metadata",
    "Method",
    "Request",
    "WeightFile",
    "expected_shapes",
    "load_bundle",
    "request_entry",
    "save_bundle",
    "tensor_name",
]


class Bundle(BaseModel):
    """Metadata and tensors of one steering bundle, consistent with each other."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    metadata: Metadata
    tensors: dict[str, Tensor]

    def steering(self) -> dict[str, object]:
        """The ``steering`` dictionary of an exported ``config.json`` for this bundle (without file and hash)."""
        return {"schema": SCHEMA, "requests": steering_requests(self.metadata)}


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write a bundle, whole or not at all. The same bundle always gives the same bytes.

    Raises:
        InputError: tensors and metadata do not fit each other.
    """
    forms = {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in bundle.tensors.items()}
    check_forms(bundle.metadata, forms, str(path))
    for name, tensor in bundle.tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise not_finite(name, str(path))
    text = json.dumps(bundle.metadata.model_dump(mode="json", by_alias=True), sort_keys=True)
    tensors = {name: bundle.tensors[name].contiguous() for name in sorted(bundle.tensors)}
    write_atomically(path, save(tensors, metadata={METADATA_KEY: text}))


def load_bundle(path: Path) -> Bundle:
    """Read and check a bundle: schema, names, shapes, dtypes and finite values.

    Raises:
        InputError: the file is missing, truncated, not safetensors, not a bundle, or inconsistent.
    """
    found = read_bundle(path)
    return Bundle(
        metadata=found.metadata, tensors={name: torch.from_numpy(array) for name, array in found.tensors.items()}
    )

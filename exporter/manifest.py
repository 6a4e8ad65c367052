"""The manifest ``mllmeraser.json``: the size, sha256 and origin of every file of an exported directory.

It holds no date, no path and no name of a machine, so the same inputs give the same bytes. It also holds a sha256 of
itself: nothing else would notice a damaged provenance. This module needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

import mllmeraser
from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import Base, Metadata, Sha256
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.modeling_patches.format_mllmeraser import as_json

SCHEMA = 1
Origin = Literal["base", "tool"]  # base: a file of the base, byte for byte; tool: written or shipped by us
UNKNOWN_SHA256 = "0" * 64


@dataclass(frozen=True)
class Entry:
    """One file of the directory."""

    size: int  # bytes
    sha256: str | None  # null: a file of the base's weights that the export did not read
    origin: Origin


class _Tool(BaseModel):
    name: Literal["mllmeraser"]
    version: str = Field(pattern=r"^[0-9A-Za-z.+-]{1,64}$")


class Provenance(BaseModel):
    """What a manifest says beside its files, whoever wrote it; other keys are those of its format."""

    schema_: Literal[1] = Field(alias="schema")
    tool: _Tool
    base: Base
    bundles: list[Metadata] = Field(min_length=1)
    tensors: list[dict[str, Sha256]] = Field(default_factory=list)


def provenance(base: BaseCheckpoint, bundles: Sequence[Bundle]) -> dict[str, object]:
    """What an export was made from: the base, the bundles' metadata, and this tool's version."""
    return {
        "schema": SCHEMA,
        "tool": {"name": "mllmeraser", "version": mllmeraser.__version__},
        "base": {
            "repo_id": base.source.repo_id,
            "revision": base.source.revision,
            "architecture": base.architecture,
            "model_type": base.model_type,
            "hidden_size": base.hidden_size,
            "num_layers": base.num_layers,
            "config_sha256": base.config_sha256,
        },
        "bundles": [bundle.metadata.model_dump(mode="json", by_alias=True) for bundle in bundles],
        "tensors": [tensor_hashes(bundle.tensors) for bundle in bundles],
    }


def tensor_hashes(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, str]:
    """The sha256 of the values of each tensor of a bundle, by its name there."""
    return {name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in tensors.items()}


def render(origin: Mapping[str, object], entries: Mapping[str, Entry]) -> bytes:
    """The bytes of the manifest. ``entries`` are all files but the manifest."""
    files = {name: {"bytes": e.size, "sha256": e.sha256, "origin": e.origin} for name, e in entries.items()}
    return sealed({**origin, "files": files})


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest with the key ``sha256``: the hash of its bytes without that key."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    return as_json({**body, "sha256": hashlib.sha256(as_json(body)).hexdigest()})

"""The files that hold a base's weights: size and sha256, recorded where every byte of them is read anyway."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mllmeraser.disk.hashing import sha256_by_the_hub, sha256_of_all

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_STEERED_INDEX = "model.safetensors.index.mllmeraser.json"


@dataclass(frozen=True)
class WeightFile:
    """One file: its size in bytes and its sha256."""

    size: int
    sha256: str


def weight_bytes(directory: Path) -> int:
    """Bytes of the safetensors files that a loader reads, of a base or of a checkpoint; others may lie beside them."""
    index = next((directory / name for name in (_INDEX, _STEERED_INDEX) if (directory / name).is_file()), None)
    if (directory / _SINGLE).is_file() or index is None:
        names = {_SINGLE}
    else:
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return 0  # the loader says what is wrong with it
    return sum(path.stat().st_size for name in names if (path := directory / str(name)).is_file())


def weight_files(directory: Path) -> dict[str, WeightFile]:
    """Every safetensors file that a loader reads, by name; empty for weights in another format.

    Args:
        directory: of a model that has been loaded, so its index is sound.
    """
    root = directory.resolve()
    if (root / _SINGLE).exists():
        names = {_SINGLE}
    elif (root / _INDEX).exists():
        names = set(json.loads((root / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    else:
        return {}
    by_the_hub = {name: sha256_by_the_hub(root, name) for name in sorted(names)}
    found = sha256_of_all(root / name for name, sha256 in by_the_hub.items() if sha256 is None)
    return {
        name: WeightFile((root / name).stat().st_size, sha256 or found[root / name])
        for name, sha256 in by_the_hub.items()
    }

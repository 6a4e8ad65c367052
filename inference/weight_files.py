"""The files that hold a base's weights: size and sha256, recorded where every byte of them is read anyway."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from mllmeraser.disk.hashing import sha256_by_the_hub, sha256_of, sha256_of_all
from mllmeraser.errors import InputError, first_line
from mllmeraser.modeling_patches.format_mllmeraser import INDEX as STEERED_INDEX

_SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_BESIDE = (".json", ".jinja", ".model", ".txt")
FIRST_EDITION_INDEX = "model.safetensors.index.mllmeraser.json"


@dataclass(frozen=True)
class WeightFile:
    """One file: its size in bytes and its sha256."""

    size: int
    sha256: str


def shard_names(directory: Path, index: str = INDEX) -> set[str]:
    """The names of the files that a loader reads the weights from, in transformers' own order; empty if it finds none.

    Raises:
        InputError: the index is damaged.
    """
    if (directory / _SINGLE).exists() or (directory / _SINGLE).is_symlink():  # a link to nothing, too: it is refused
        return {_SINGLE}
    path = directory / index
    if not path.is_file():
        return set()
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: names no file for every tensor ({first_line(error)}); download it again") from None
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: names no file for every tensor; download it again")
    return names


def weight_bytes(directory: Path) -> int:
    """Bytes of the safetensors files that a loader reads, of a base or of a checkpoint; others may lie beside them."""
    try:
        indexes = (INDEX, STEERED_INDEX, FIRST_EDITION_INDEX)
        names = next((names for index in indexes if (names := shard_names(directory, index))), set())
    except InputError:
        return 0  # the loader says what is wrong with it
    return sum(path.stat().st_size for name in names if (path := directory / name).is_file())


def weight_files(directory: Path) -> dict[str, WeightFile]:
    """Every safetensors file that a loader reads, by name; empty for weights in another format.

    Args:
        directory: of a model that has been loaded, so its index is sound.
    """
    root = directory.resolve()
    by_the_hub = {name: sha256_by_the_hub(root, name) for name in sorted(shard_names(root))}
    found = sha256_of_all(root / name for name, sha256 in by_the_hub.items() if sha256 is None)
    return {
        name: WeightFile((root / name).stat().st_size, sha256 or found[root / name])
        for name, sha256 in by_the_hub.items()
    }


def beside_sha256(directory: Path) -> str:
    """The sha256 over the small files that a loader reads: settings, tokenizer and chat template; by name and bytes."""
    found = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.suffix in _BESIDE and path.is_file():
            found.update(f"{path.name} {sha256_of(path)} ".encode())
    return found.hexdigest()

"""The base's weights by their safetensors headers: which tensor lies in which shard. No weight is read.

An exported directory holds the weight map and the shards under names that only the steered class looks for. The native
class finds no weights and raises, and so does a converter; neither ever gets the model without the steering.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mllmeraser.bundle.metadata import WeightFile
from mllmeraser.disk.hashing import sha256_by_the_hub
from mllmeraser.disk.inside import file_inside
from mllmeraser.errors import InputError
from mllmeraser.modeling_patches.format_mllmeraser import STEERING_FILE, shard_names

SINGLE = "model.safetensors"
DEFAULT_INDEX = "model.safetensors.index.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Shard:
    """One file of base weights: its names in the export and in the base, and the real file."""

    name: str
    own_name: str
    path: Path
    known_sha256: str | None  # from the Hub or the bundle; None: the file has to be read


@dataclass(frozen=True)
class Weights:
    """The shards of a base, and for every tensor the name of its shard in the export."""

    shards: tuple[Shard, ...]
    weight_map: dict[str, str]
    data_bytes: int


def read_weights(root: Path, recorded: Mapping[str, WeightFile] | None = None) -> Weights:
    """Find the shards of a base directory and read their headers.

    Args:
        recorded: size and sha256 of its files, as a bundle recorded them. The sha256 is taken over if the size fits.

    Raises:
        InputError: there are no safetensors weights; the index is damaged, leaves the directory, or names a shard or
            tensor that is missing; or a shard is truncated.
    """
    indexed = None if (root / SINGLE).exists() else _read_index(root)  # transformers' own order
    names = shard_names({SINGLE} if indexed is None else indexed.values())
    shards = tuple(_shard(root, own, name, (recorded or {}).get(own)) for own, name in names.items())
    held = {shard.name: tensor_names(shard.path) for shard in shards}
    if indexed is None:
        weight_map = {tensor: name for name, tensors in held.items() for tensor in tensors}
    else:
        weight_map = {tensor: names[own] for tensor, own in indexed.items()}
        for tensor, own in indexed.items():
            if tensor not in held[names[own]]:
                raise InputError(f"{root / DEFAULT_INDEX}: {tensor} is not in {own}; download the base again")
    if steered := next((tensor for tensor in weight_map if ".steering." in tensor), None):
        raise InputError(f"{root}: holds the steering tensor {steered}; export from the base it was made from")
    return Weights(shards, weight_map, sum(data_bytes(shard.path) for shard in shards))


def _read_index(root: Path) -> dict[str, str]:
    if not (root / DEFAULT_INDEX).exists():
        pickled = sorted(path.name for path in root.iterdir() if path.suffix in _PICKLED)
        found = f" only {pickled[0]}, a pickle, which can run code when it is read" if pickled else " none"
        raise InputError(f"{root}: safetensors weights are needed, found{found}; convert the base or download them")
    path = file_inside(root, DEFAULT_INDEX)
    try:
        index: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{root / DEFAULT_INDEX}: not valid JSON ({error}); download the base again") from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{root / DEFAULT_INDEX}: no weight_map; download the base again")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{root / DEFAULT_INDEX}: weight_map must name a file for every tensor")
    return weight_map


def _shard(root: Path, own_name: str, name: str, recorded: WeightFile | None) -> Shard:
    if not own_name.endswith(".safetensors"):
        raise InputError(f"{root / DEFAULT_INDEX}: '{own_name}' is not a .safetensors file; convert the base first")
    path = file_inside(root, own_name)
    if not path.is_file():
        raise InputError(f"{root / own_name}: this shard is missing; download the base again")
    sha256 = sha256_by_the_hub(root, own_name)
    if sha256 is None and recorded is not None and recorded.size == path.stat().st_size:
        sha256 = recorded.sha256
    return Shard(name, own_name, path, sha256)


def tensor_names(path: Path) -> frozenset[str]:
    """The names of the tensors of a safetensors file, from its header.

    Raises:
        InputError: the file is truncated, is no safetensors file, or names a tensor twice.
    """
    try:
        with safe_open(path, framework="np") as file:
            names = frozenset(file.keys())
        # Readers differ in which entry they take of a name that comes twice.
        json.loads(_header(path), object_pairs_hook=_refuse_twice)
        return names
    except _Twice as twice:
        raise InputError(f"{path}: not a readable safetensors file ({twice} comes twice); download it again") from None
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable safetensors file ({reason}); download it again") from None


class _Twice(Exception):  # noqa: N818 - caught right above
    """A key that comes twice in one object."""


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(repr(key) for key in keys if keys.count(key) > 1))
    return found


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def data_bytes(path: Path) -> int:
    """The bytes of a safetensors file after its header."""
    return path.stat().st_size - 8 - len(_header(path))


def steered_index(weights: Weights, steering: Mapping[str, int]) -> bytes:
    """The content of an export's index. ``steering`` holds the bytes of every steering tensor, by published name."""
    weight_map = weights.weight_map | dict.fromkeys(steering, STEERING_FILE)
    total = weights.data_bytes + sum(steering.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()

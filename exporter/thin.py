"""A thin export: a checkpoint without the base's weights. It names them by repository, 40-hex revision and sha256.

It is as small as the steering and the tokenizer together. At a load, the shipped code finds the base in the Hub's cache
or fetches it, and compares the files (``find_base`` in ``modeling_mllmeraser.py``).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllmeraser.disk.hashing import sha256_of_all
from mllmeraser.disk.inside import file_inside
from mllmeraser.errors import InputError
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.weights import DEFAULT_INDEX, SINGLE

_PINNED = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")


def pinned(base: BaseCheckpoint, base_id: str | None) -> BaseCheckpoint:
    """The base, with its repository and revision on the Hub filled in.

    Args:
        base_id: ``org/name@<40-hex revision>``; by default where the base came from, the Hub or a snapshot in its
            cache.

    Raises:
        InputError: the repository is not known, or the revision has not 40 hex digits.
    """
    source = base.source
    if base_id is not None:
        known = base_id
    elif source.repo_id is not None:
        known = f"{source.repo_id}@{source.revision}"
    else:
        known = _cached_id(base.root)
    match = _PINNED.fullmatch(known)
    if match is None:
        raise InputError(
            f"{base_id or source.path}: a thin export needs a base on the Hub; give BASE by its id, or add "
            "--base-id org/name@<40-hex revision>"
        )
    return replace(base, source=replace(source, repo_id=match[1], revision=match[2]))


def _cached_id(root: Path) -> str:
    """``org/name@revision`` of a snapshot in the Hub's cache; empty for any other directory."""
    folder = root.parent.parent.name
    if root.parent.name != "snapshots" or not folder.startswith("models--"):
        return ""
    return f"{folder.removeprefix('models--').replace('--', '/')}@{root.name}"


def base_pointer(base: BaseCheckpoint) -> dict[str, Any]:
    """``steering.base`` of ``config.json``: repository, revision, and the size and sha256 of every file to load."""
    single = (base.root / SINGLE).exists()  # a loader then reads no index
    shards = {shard.own_name: shard for shard in base.weights.shards}
    known = {name: shard.known_sha256 for name, shard in shards.items()}
    beside = ("generation_config.json",) if single else ("generation_config.json", DEFAULT_INDEX)
    paths = {name: shard.path for name, shard in shards.items()}
    paths |= {name: file_inside(base.root, name) for name in beside if (base.root / name).is_file()}
    read = sha256_of_all(path for name, path in paths.items() if known.get(name) is None)
    return {
        "repo_id": base.source.repo_id,
        "revision": base.source.revision,
        "files": {
            name: {"bytes": path.stat().st_size, "sha256": known.get(name) or read[path]}
            for name, path in sorted(paths.items())
        },
    }

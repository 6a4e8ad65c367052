"""Writes a baseline as an ordinary checkpoint directory, whole or not at all, and counts the bytes it adds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

import mllmeraser
from mllmeraser.disk.link import link_or_copy
from mllmeraser.disk.staging import publish, staging, write
from mllmeraser.disk.target import directory_target
from mllmeraser.exporter.base import BaseCheckpoint, read_base
from mllmeraser.exporter.distrust import without_dangerous_keys
from mllmeraser.exporter.sidecars import read_sidecars
from mllmeraser.exporter.weights import DEFAULT_INDEX
from mllmeraser.inference.saving import published_name, save_base
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.format_mllmeraser import as_json

DESCRIPTION = "mllmeraser-baseline.json"


def write_checkpoint(
    source: Source,
    output: Path,
    weights: PreTrainedModel | None,
    description: Mapping[str, Any],
    *,
    files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a directory that plain ``from_pretrained`` loads.

    Args:
        source: the base; its processor, tokenizer and licence are copied.
        weights: the changed model, which is written in the base's precision. If null, the base's shards are linked.
        description: the method and its recipe, for ``mllmeraser-baseline.json``; it holds nothing of any record.
        files: contents by name; they replace the base's files of these names.

    Raises:
        InputError: the base or the output cannot be used; nothing was written.
    """
    base = read_base(source)
    output = directory_target(output, DESCRIPTION if overwrite else None, base.root)
    copied, changed = read_sidecars(base.root, base.model_type)
    config = as_json(without_dangerous_keys(base.config))
    beside = {**copied, **changed, "config.json": config, **(files or {})}
    with staging(output) as folder:
        if weights is None:
            _link_base(base, folder)
        else:
            save_base(weights.to(stored_dtype(base.config)), folder)
            for shard in folder.glob("*.safetensors"):
                shard.chmod(0o644)
        for name, content in beside.items():
            (folder / name).unlink(missing_ok=True)
            write(folder / name, content)
        about = {"schema": 1, "mllmeraser": mllmeraser.__version__, **description}
        listed = sorted(path.name for path in folder.iterdir())
        write(folder / DESCRIPTION, as_json({**about, "files": listed}))
        publish(folder, output, DESCRIPTION if overwrite else None)


def _link_base(base: BaseCheckpoint, folder: Path) -> None:
    for shard in base.weights.shards:
        link_or_copy(shard.path, folder / shard.own_name, "auto")
    if (base.root / DEFAULT_INDEX).is_file():
        shutil.copyfile(base.root / DEFAULT_INDEX, folder / DEFAULT_INDEX)


def stored_dtype(config: Mapping[str, Any]) -> torch.dtype:
    """The precision of the stored weights, from the configuration (``torch_dtype`` before transformers 4.56)."""
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def bytes_added(base: Path, directory: Path) -> int:
    """The bytes that a holder of the base must fetch to have the other: tensors and files that the base has not.

    A tensor counts in full if one bit differs. An adapter that was merged would have been smaller on its own.
    """
    known, found = _tensors(base), _tensors(directory)
    total = sum(
        size
        for name, (size, read) in found.items()
        if name not in known or known[name][0] != size or not torch.equal(known[name][1](), read())
    )
    for path in directory.iterdir():
        if path.suffix == ".safetensors" or not path.is_file():
            continue
        twin = base / path.name
        if not (twin.is_file() and twin.read_bytes() == path.read_bytes()):
            total += path.stat().st_size
    return total


def _tensors(directory: Path) -> dict[str, tuple[int, Callable[[], torch.Tensor]]]:
    """For every tensor of a directory its size in bytes, and a function that reads it as bytes."""
    tensors: dict[str, tuple[int, Callable[[], torch.Tensor]]] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dictionary

                def read(path: Path = path, name: str = name) -> torch.Tensor:
                    with safe_open(path, framework="pt") as file:
                        return file.get_tensor(name).contiguous().flatten().view(torch.uint8)

                # What transformers 5 saved by itself has other names than what was published.
                tensors[published_name(name)] = (file.get_tensor(name).nbytes, read)
    return tensors

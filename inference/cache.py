"""A work directory keeps finished forward passes, so that no run makes them twice.

What a batch gave (states, reply ids) is kept in one small safetensors file. Its name is the sha256 of everything that
the result follows from: the checkpoint, its precision and template, this tool's version, the prompts with the bytes of
their pictures, and what was asked of the pass. A run that was killed finds every finished pass. Its own checksum shows
that an entry was damaged; such an entry is reported and made anew.

States and replies can be read back to names. So the directory and its files are for their owner only.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import mllmeraser
from mllmeraser.console import console
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.errors import InputError
from mllmeraser.records.prompts import Altered, AnyPicture, Picture, Prompt

# What names a tensor of a pass: a layer, a request and a layer, or a word. In a file this is a string.
Key = TypeVar("Key", bound="str | int | tuple[int, ...]")
_CHECKSUM = "sha256"
PRIVATE = 0o600  # files of a work directory


@dataclass(frozen=True)
class PassCache:
    """Where passes are kept (None: nowhere), and which model made them."""

    directory: Path | None = None
    identity: str = ""

    @classmethod
    def of(cls, directory: Path, checkpoint: Path, dtype: str) -> PassCache:
        """The cache of a checkpoint's passes in a work directory, which is created if it is missing.

        Weight files count by name, size and time of change. Reading 14 GB of them would take longer than the passes.

        Raises:
            InputError: the directory cannot be written to.
        """
        try:
            new = not directory.exists()
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{directory}: cannot be used as a work directory ({error.strerror})") from None
        if new:
            kept = "keeps states and replies, which tell the names of the request; remove it when the work is done"
            console.print(f"{directory}: {kept}", soft_wrap=True)
        elif sys.platform != "win32" and directory.stat().st_mode & 0o077:
            console.print(f"{directory}: others can look into this work directory; chmod 700", soft_wrap=True)
        small, large = [], []
        for path in sorted(checkpoint.iterdir()):
            if path.suffix == ".safetensors":
                large.append([path.name, path.stat().st_size, path.stat().st_mtime_ns])
            elif path.suffix in (".json", ".jinja", ".model"):
                small.append([path.name, hashlib.sha256(path.read_bytes()).hexdigest()])
        return cls(directory, digest([mllmeraser.__version__, dtype, small, large]))

    def steered(self, tensors: Mapping[str, Tensor], steering: object) -> PassCache:
        """The cache of the same model under this steering."""
        return replace(self, identity=digest([self.identity, _checksum(tensors), steering]))

    def __call__(
        self, stage: str, prompts: Sequence[Prompt], asked: object, run: Callable[[], dict[Key, Tensor]]
    ) -> dict[Key, Tensor]:
        """What ``run()`` gives, from the cache if it is there."""
        if self.directory is None:
            return run()
        digested = digest([self.identity, stage, [fingerprint(prompt) for prompt in prompts], asked])
        path = self.directory / f"{stage}-{digested[:40]}.safetensors"
        kept = _read(path) if path.exists() else None
        if kept is None:
            kept = {_name(key): tensor.cpu().contiguous() for key, tensor in run().items()}
            write_atomically(path, save(kept, metadata={_CHECKSUM: _checksum(kept)}), PRIVATE)
        return {_key(name): tensor for name, tensor in kept.items()}


NO_CACHE = PassCache()


def _name(key: str | int | tuple[int, ...]) -> str:
    """A key as it stands in a file: 5 as "5", (0, 5) as "0.5"."""
    return ".".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _key(name: str) -> Any:
    """The key that :func:`_name` wrote."""
    parts = name.split(".")
    if not all(part.isdecimal() for part in parts):
        return name
    return int(name) if len(parts) == 1 else tuple(map(int, parts))


def _read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of an entry by name; None if it was damaged."""
    tensors: dict[str, Tensor] = {}
    checksum = None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
            checksum = (file.metadata() or {}).get(_CHECKSUM)
    except SafetensorError:
        pass
    if checksum is None or checksum != _checksum(tensors):
        console.print(f"work directory: {path.name} was damaged and is made anew", soft_wrap=True)
        return None
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(save({name: tensors[name].cpu().contiguous() for name in sorted(tensors)})).hexdigest()


def fingerprint(prompt: Prompt) -> list[object]:
    """Everything that a pass over this prompt depends on, JSON-ready; pictures as the sha256 of their bytes."""
    return [
        prompt.text,
        [_sha256(picture) for picture in prompt.pictures],
        prompt.earlier,
        prompt.reply_start,
        prompt.raw,
        prompt.system,
    ]


def _sha256(picture: AnyPicture) -> str:
    if isinstance(picture, Altered):  # by its parts: no picture is opened for this
        return digest([_sha256(picture.picture), [repr(change) for change in picture.changes]])
    if isinstance(picture, Image.Image):  # a picture of one colour has the same bytes in any shape
        form = f"{picture.mode} {picture.size} "
        return hashlib.sha256(form.encode() + picture.tobytes()).hexdigest()
    return hashlib.sha256(picture.data if isinstance(picture, Picture) else picture.read_bytes()).hexdigest()


def digest(value: object) -> str:
    """The sha256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

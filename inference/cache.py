"""Forward passes that were made before and need not be made again.

With a work directory, what a batch gave (states, reply ids) is kept in one small safetensors file, named by the sha256
of everything it follows from: the checkpoint, its precision and template, this tool's version, the prompts with the
bytes of their pictures, and what was asked of the pass. A run that was killed finds every pass that had finished. An
entry that was damaged since is recognised by its own checksum, reported, and made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import mllmeraser
from mllmeraser.console import console
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.errors import InputError
from mllmeraser.records.prompts import AnyPicture, Picture, Prompt

Tensors = dict[str, Tensor]
_CHECKSUM = "sha256"


@dataclass(frozen=True)
class PassCache:
    """Where passes are kept (null: nowhere), and of what model they are."""

    directory: Path | None = None
    identity: str = ""

    @classmethod
    def of(cls, directory: Path, checkpoint: Path, dtype: str) -> PassCache:
        """The cache of a checkpoint's passes in a work directory, which is created.

        Weights count by name, size and time of change: reading 14 GB to know them would take longer than the passes.

        Raises:
            InputError: the directory cannot be written to.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{directory}: cannot be used as a work directory ({error.strerror})") from None
        small, large = [], []
        for path in sorted(checkpoint.iterdir()):
            if path.suffix == ".safetensors":
                large.append([path.name, path.stat().st_size, path.stat().st_mtime_ns])
            elif path.suffix in (".json", ".jinja", ".model"):
                small.append([path.name, hashlib.sha256(path.read_bytes()).hexdigest()])
        return cls(directory, digest([mllmeraser.__version__, dtype, small, large]))

    def steered(self, tensors: Tensors, steering: object) -> PassCache:
        """The cache of the same model with this steering."""
        return replace(self, identity=digest([self.identity, _checksum(tensors), steering]))

    def __call__(self, stage: str, prompts: Sequence[Prompt], asked: object, run: Callable[[], Tensors]) -> Tensors:
        """What ``run()`` gives, from the cache if it is there."""
        if self.directory is None:
            return run()
        key = digest([self.identity, stage, [fingerprint(prompt) for prompt in prompts], asked])
        path = self.directory / f"{stage}-{key[:40]}.safetensors"
        kept = _read(path) if path.exists() else None
        if kept is None:
            kept = {name: tensor.cpu().contiguous() for name, tensor in run().items()}
            write_atomically(path, save(kept, metadata={_CHECKSUM: _checksum(kept)}))
        return kept


NO_CACHE = PassCache()


def _read(path: Path) -> Tensors | None:
    """The tensors of an entry, or null if it was damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors: Tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
            checksum = (file.metadata() or {}).get(_CHECKSUM)
    except SafetensorError:
        checksum, tensors = None, {}
    if checksum is None or checksum != _checksum(tensors):
        console.print(f"work directory: {path.name} was damaged and is made anew", soft_wrap=True)
        return None
    return tensors


def _checksum(tensors: Tensors) -> str:
    return hashlib.sha256(save({name: tensors[name].cpu().contiguous() for name in sorted(tensors)})).hexdigest()


def fingerprint(prompt: Prompt) -> list[object]:
    """Everything a pass over this prompt depends on, JSON-ready; pictures by the sha256 of their bytes."""
    return [
        prompt.text,
        [_sha256(picture) for picture in prompt.pictures],
        prompt.earlier,
        prompt.reply_start,
        prompt.raw,
    ]


def _sha256(picture: AnyPicture) -> str:
    if isinstance(picture, Image.Image):  # a plain picture has the same bytes lying and standing
        form = f"{picture.mode} {picture.size} "
        return hashlib.sha256(form.encode() + picture.tobytes()).hexdigest()
    return hashlib.sha256(picture.data if isinstance(picture, Picture) else picture.read_bytes()).hexdigest()


def digest(value: object) -> str:
    """The sha256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

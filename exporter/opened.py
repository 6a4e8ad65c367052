"""An exported directory of either format, read lazily and once. ``verify``, ``inspect`` and ``push`` use it.

The directory comes from anybody. A missing or damaged file raises whenever it is asked for, so every check that needs
it can report it. This module needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from mllmeraser.disk.hashing import sha256_of_all
from mllmeraser.disk.inside import is_plain
from mllmeraser.exporter.checks import FAILURES, CheckFailed
from mllmeraser.exporter.manifest import Provenance
from mllmeraser.exporter.names import MANIFEST
from mllmeraser.modeling_patches.format_mllmeraser import CODE, CONFIG, INDEX, STEERING_FILE

Format = Literal["checkpoint", "onnx"]
Found = TypeVar("Found")


class Opened:
    """An exported directory. A file is read when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._found: dict[str, Any] = {}  # earlier findings by name, or the exception that was raised
        self._sha256: dict[str, str] = {}

    @cached_property
    def format(self) -> Format:
        """``onnx`` if the manifest says so, otherwise ``checkpoint``."""
        try:
            return "onnx" if self._object(MANIFEST).get("format") == "onnx" else "checkpoint"
        except FAILURES:
            return "checkpoint"

    @property
    def manifest(self) -> dict[str, Any]:
        """``mllmeraser.json``, checked: its schema is known, and each name in it is one of a file in this directory."""
        return self._once("manifest", lambda: _checked(self._object(MANIFEST), self.format, self.first_edition))

    @property
    def provenance(self) -> Provenance:
        """What the manifest says of base and bundles, checked."""
        return self._once("provenance", lambda: _provenance(self.manifest))

    @property
    def config(self) -> dict[str, Any]:
        """``config.json``, unchecked but for being an object."""
        return self._object(CONFIG)

    @property
    def weight_map(self) -> dict[str, Any]:
        """The file of each tensor, by the index. Any value may be wrong."""
        weight_map = self._object(INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckFailed(f"{INDEX}: no weight_map")
        return weight_map

    @cached_property
    def first_edition(self) -> bool:
        """Whether ``config.json`` is of a checkpoint of schema 1, whose gates are read once and push."""
        try:
            return bool(self.config["steering"]["schema"] == 1)
        except FAILURES:
            return False

    @property
    def thin(self) -> bool:
        """Whether the checkpoint names its base's weights and holds none."""
        steering = self.config.get("steering")
        return isinstance(steering, dict) and "base" in steering

    def size(self, name: str) -> int | None:
        """The size of a file in bytes; None if there is no such file."""
        path = self.directory / name
        return path.stat().st_size if path.is_file() else None

    def content(self, name: str) -> bytes:
        """The bytes of a small file."""
        return self._once(f"content of {name}", lambda: self._bytes(name))

    def sha256(self, names: Collection[str]) -> dict[str, str]:
        """The sha256 of each of these files. They are read in parallel, one for each processor."""
        unread = {self.directory / name: name for name in names if name not in self._sha256}
        self._sha256 |= {unread[path]: sha256 for path, sha256 in sha256_of_all(unread).items()}
        return {name: self._sha256[name] for name in names}

    def _bytes(self, name: str) -> bytes:
        if not (self.directory / name).is_file():
            raise CheckFailed(f"{name} is missing")
        return (self.directory / name).read_bytes()

    def _object(self, name: str) -> dict[str, Any]:
        return self._once(name, lambda: _object(name, self.content(name)))

    def _once(self, name: str, find: Callable[[], Found]) -> Found:
        if name not in self._found:
            try:
                self._found[name] = find()
            except FAILURES as failure:
                self._found[name] = failure
        found = self._found[name]
        if isinstance(found, Exception):
            raise found
        return found


def _object(name: str, content: bytes) -> dict[str, Any]:
    value = json.loads(content.decode("utf-8"))
    if not isinstance(value, dict):
        raise CheckFailed(f"{name} is not a JSON object")
    return value


def _checked(manifest: dict[str, Any], format_: Format, first_edition: bool) -> dict[str, Any]:
    if manifest.get("schema") != 1:
        raise CheckFailed(f"{MANIFEST}: this mllmeraser does not know schema {manifest.get('schema')!r}")
    code = () if first_edition else CODE  # the first edition had two files of code
    files, needed = manifest.get("files"), _graphs(manifest) if format_ == "onnx" else {CONFIG, STEERING_FILE, *code}
    if not isinstance(files, dict) or not needed <= files.keys():
        raise CheckFailed(f"{MANIFEST}: 'files' lacks a file that every export holds")
    for name, entry in files.items():
        parts = name.split("/") if format_ == "onnx" else [name]
        if (
            not all(map(is_plain, parts))
            or not isinstance(entry, dict)
            or not (is_hashed(entry) or _later(name, entry))
        ):
            raise CheckFailed(f"{MANIFEST}: the entry {name!r} is not a file of this directory with its sha256")
    return manifest


def _provenance(manifest: dict[str, Any]) -> Provenance:
    try:
        return Provenance.model_validate_json(json.dumps(manifest))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise CheckFailed(f"{MANIFEST}: {key}: {first['msg']}") from None


def _graphs(manifest: dict[str, Any]) -> set[str]:
    """The steered graphs, and their twins."""
    graphs = manifest.get("graphs")
    if not isinstance(graphs, dict) or not all(isinstance(entry, dict) for entry in graphs.values()):
        raise CheckFailed(f"{MANIFEST}: 'graphs' does not say which graphs are steered")
    return {*graphs, *(str(entry["twin"]) for entry in graphs.values() if entry.get("twin") is not None)}


def is_hashed(entry: dict[str, Any]) -> bool:
    """Whether an entry of the manifest holds a sha256."""
    return isinstance(entry.get("sha256"), str)


def _later(name: str, entry: dict[str, Any]) -> bool:
    """Whether the entry is of base weights that ``export --hash later`` left unhashed."""
    weights = entry.get("origin") == "base" and name.endswith(".safetensors") and name != STEERING_FILE
    return weights and "sha256" in entry and entry["sha256"] is None

"""An exported directory of either format, each file of it read once: both verifies, ``inspect`` and ``push`` use this.

The directory comes from anybody. What is missing or damaged raises when it is asked for, and raises the same again
whenever it is asked for again, so that every check that needs it can report it. Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from mllmeraser.disk.hashing import sha256_of_all
from mllmeraser.exporter.checks import FAILURES, CheckFailed
from mllmeraser.exporter.distrust import is_plain
from mllmeraser.exporter.layout import CODE, CONFIG, INDEX, MANIFEST, STEERING_FILE

Format = Literal["checkpoint", "onnx"]
Found = TypeVar("Found")


class Opened:
    """An exported directory; no file of it is read before it is asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._found: dict[str, Any] = {}  # what was asked for before, by its name, or the failure to find it
        self._sha256: dict[str, str] = {}

    @cached_property
    def format(self) -> Format:
        """``onnx`` if the manifest says so; whatever says nothing is held to be a checkpoint."""
        try:
            return "onnx" if self._object(MANIFEST).get("format") == "onnx" else "checkpoint"
        except FAILURES:
            return "checkpoint"

    @property
    def manifest(self) -> dict[str, Any]:
        """``mllmeraser.json``: of a known schema, and every file name in it leads to a file of this directory."""
        return self._once("manifest", lambda: _checked(self._object(MANIFEST), self.format))

    @property
    def config(self) -> dict[str, Any]:
        """``config.json``, of which nothing is known but that it is an object."""
        return self._object(CONFIG)

    @property
    def weight_map(self) -> dict[str, Any]:
        """The file that each tensor of a checkpoint lies in, by the variant index; any value may be wrong."""
        weight_map = self._object(INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckFailed(f"{INDEX}: no weight_map")
        return weight_map

    @property
    def thin(self) -> bool:
        """Whether it points to its base's weights, and holds none."""
        steering = self.config.get("steering")
        return isinstance(steering, dict) and "base" in steering

    def size(self, name: str) -> int | None:
        """Its bytes; None if there is no such file."""
        path = self.directory / name
        return path.stat().st_size if path.is_file() else None

    def content(self, name: str) -> bytes:
        """The bytes of a small file."""
        return self._once(f"content of {name}", lambda: self._bytes(name))

    def sha256(self, names: Collection[str]) -> dict[str, str]:
        """The sha256 of each of these files, as many at once as there are processors."""
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


def _checked(manifest: dict[str, Any], format_: Format) -> dict[str, Any]:
    if manifest.get("schema") != 1:
        raise CheckFailed(f"{MANIFEST}: schema {manifest.get('schema')!r} is not known to mllmeraser here")
    files, needed = manifest.get("files"), _graphs(manifest) if format_ == "onnx" else {CONFIG, STEERING_FILE, *CODE}
    if not isinstance(files, dict) or not needed <= files.keys():
        raise CheckFailed(f"{MANIFEST}: 'files' does not list what every export holds")
    for name, entry in files.items():
        parts = name.split("/") if format_ == "onnx" else [name]
        if (
            not all(map(is_plain, parts))
            or not isinstance(entry, dict)
            or not (is_hashed(entry) or _later(name, entry))
        ):
            raise CheckFailed(f"{MANIFEST}: the entry {name!r} is not a file of this directory with its sha256")
    return manifest


def _graphs(manifest: dict[str, Any]) -> set[str]:
    """The steered graphs, and their twins."""
    graphs = manifest.get("graphs")
    if not isinstance(graphs, dict) or not all(isinstance(entry, dict) for entry in graphs.values()):
        raise CheckFailed(f"{MANIFEST}: 'graphs' does not say which graphs are steered")
    return {*graphs, *(str(entry["twin"]) for entry in graphs.values() if entry.get("twin") is not None)}


def is_hashed(entry: dict[str, Any]) -> bool:
    """Whether an entry of the manifest says the sha256 of its file."""
    return isinstance(entry.get("sha256"), str)


def _later(name: str, entry: dict[str, Any]) -> bool:
    """Base weights of ``export --hash later``; of every other file the sha256 must be known."""
    weights = entry.get("origin") == "base" and name.endswith(".safetensors") and name != STEERING_FILE
    return weights and "sha256" in entry and entry["sha256"] is None

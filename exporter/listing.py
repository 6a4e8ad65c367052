"""What every exported directory has, whatever its format: a card, and a manifest of its files; needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MANIFEST = "mllmeraser.json"
CARD = "README.md"
Origin = Literal["base", "tool"]  # base: a file of the base, byte for byte; tool: written or shipped by us


@dataclass(frozen=True)
class Entry:
    """One file of the directory."""

    size: int  # bytes
    sha256: str
    origin: Origin


def as_json(value: object) -> bytes:
    """JSON as every file of an export is written: sorted, two spaces, UTF-8, a newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def render(origin: Mapping[str, object], entries: Mapping[str, Entry]) -> bytes:
    """The bytes of a manifest: provenance, every file but itself, and the sha256 of all that."""
    files = {name: {"bytes": e.size, "sha256": e.sha256, "origin": e.origin} for name, e in entries.items()}
    body = {**origin, "files": files}
    return as_json({**body, "sha256": hashlib.sha256(as_json(body)).hexdigest()})

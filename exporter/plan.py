"""What an export will do with each file, decided before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.disk.link import Link
from mllmeraser.exporter import manifest
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.card import render_card
from mllmeraser.exporter.merge import merge, steered_config
from mllmeraser.exporter.names import CARD, MANIFEST, shipped_code
from mllmeraser.exporter.sidecars import READ_BY_LOADERS, read_sidecars
from mllmeraser.exporter.thin import base_pointer
from mllmeraser.exporter.weights import steered_index
from mllmeraser.modeling_patches.format_mllmeraser import (
    CODE,
    CONFIG,
    INDEX,
    MODEL_TYPE_PREFIX,
    STEERING_FILE,
    as_json,
    with_seal,
)

SCHEMA = 1
Action = Literal["link", "copy", "write"]


@dataclass(frozen=True)
class PlannedFile:
    """One file: a shard of the base has a ``source``, every other file has its ``content``."""

    name: str
    action: Action
    size: int
    origin: manifest.Origin
    source: Path | None = None
    content: bytes | None = None
    known_sha256: str | None = None  # of ``source``; None: the file has to be read
    hashed: bool = True  # if not, its sha256 in the manifest is null


@dataclass(frozen=True)
class ExportPlan:
    """Every file of an export but the manifest, and the totals."""

    output: Path
    base: BaseCheckpoint
    bundles: tuple[Bundle, ...]
    link: Link
    files: tuple[PlannedFile, ...]
    manifest_bytes: int
    dry_run: bool

    @property
    def needed_bytes(self) -> int:
        """The bytes that the export takes on the disk: everything but links."""
        return self.manifest_bytes + sum(file.size for file in self.files if file.action != "link")

    @property
    def unhashed(self) -> tuple[PlannedFile, ...]:
        """The files whose sha256 the manifest omits."""
        return tuple(file for file in self.files if not file.hashed)

    def document(self) -> dict[str, object]:
        """The JSON document of ``export --json`` (``docs/json.md``)."""
        rows: list[dict[str, object]] = [
            {"name": file.name, "action": file.action, "bytes": file.size} for file in self.files
        ]
        rows.append({"name": MANIFEST, "action": "write", "bytes": self.manifest_bytes})
        return {
            "schema": SCHEMA,
            "output": str(self.output),
            "dry_run": self.dry_run,
            "base": {"repo_id": self.base.source.repo_id, "revision": self.base.source.revision},
            "model_type": f"{MODEL_TYPE_PREFIX}{self.base.model_type}",
            "requests": [request.id for bundle in self.bundles for request in bundle.metadata.requests],
            "linked_bytes": sum(file.size for file in self.files if file.action == "link"),
            "needed_bytes": self.needed_bytes,
            "unhashed": [file.name for file in self.unhashed],
            "files": sorted(rows, key=lambda row: str(row["name"])),
        }

    def lines(self) -> list[str]:
        """For a person: every file with its action, and the totals."""
        rows = [f"{file.action:5}  {file.size:>15,}  {file.name}" for file in self.files]
        rows.append(f"write  {self.manifest_bytes:>15,}  {MANIFEST}")
        rows += _thresholds(self.bundles)
        linked = sum(file.size for file in self.files if file.action == "link")
        verb = "would be written" if self.dry_run else "written"
        return [*rows, f"{self.output}: {self.needed_bytes:,} bytes {verb}, {linked:,} linked"]


def _thresholds(bundles: Sequence[Bundle]) -> list[str]:
    """Where the gates of several requests open, which share one budget of false fires."""
    requests = [(bundle.metadata.gate.threshold, each) for bundle in bundles for each in bundle.metadata.requests]
    if len(requests) < 2:
        return []
    return [
        f"gate   {each.id} opens at {threshold:.3g}: {len(requests)} requests share one budget of false fires"
        for threshold, each in requests
        if threshold is not None and each.held_out is not None
    ]


def make_plan(
    base: BaseCheckpoint,
    bundles: Sequence[Bundle],
    output: Path,
    link: Link,
    hash_weights: bool,
    dry_run: bool,
    thin: bool = False,
    common: bool = False,
) -> ExportPlan:
    """Decide every file of an export, and its bytes.

    Args:
        hash_weights: read the weights whose sha256 is not known; otherwise the manifest omits it.
        thin: leave out the weights and the index. ``base`` is then pinned (:func:`mllmeraser.exporter.thin.pinned`).
        common: hold once what gates have in common.

    Raises:
        InputError: the bundles do not fit the base or each other, or a file of the base cannot be used.
    """
    steering = merge(base, bundles, common)
    section = {**steering.section, "base": base_pointer(base)} if thin else steering.section
    copied, changed = read_sidecars(base.root, base.model_type)
    written = {
        **changed,
        **shipped_code(),
        **({} if thin else {INDEX: steered_index(base.weights, steering.tensor_bytes)}),
        STEERING_FILE: steering.content,
        CARD: render_card(base, bundles, thin).encode(),
    }
    # The seal covers tokenizer and template too: a change moves the token at which the gate is read.
    sealed = {n: data for n, data in {**copied, **written}.items() if n in (INDEX, *CODE, *READ_BY_LOADERS)}
    written[CONFIG] = as_json(with_seal(steered_config(base, section), sealed))
    # Hard links and reflinks work only within one file system.
    same_disk = base.root.stat().st_dev == output.parent.stat().st_dev
    action: Action = "copy" if link == "copy" or (link == "auto" and not same_disk) else "link"
    files = [
        PlannedFile(
            shard.name,
            action,
            shard.path.stat().st_size,
            "base",
            shard.path,
            known_sha256=shard.known_sha256 if action == "link" else None,  # a copy can go wrong
            hashed=hash_weights or (action == "link" and shard.known_sha256 is not None),
        )
        for shard in (() if thin else base.weights.shards)
    ]
    files += [PlannedFile(name, "copy", len(data), "base", content=data) for name, data in copied.items()]
    files += [PlannedFile(name, "write", len(data), "tool", content=data) for name, data in written.items()]
    entries = {
        file.name: manifest.Entry(file.size, manifest.UNKNOWN_SHA256 if file.hashed else None, file.origin)
        for file in files
    }
    size = len(manifest.render(manifest.provenance(base, bundles), entries))
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return ExportPlan(output, base, tuple(bundles), link, ordered, size, dry_run)

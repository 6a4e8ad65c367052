"""Write an exported directory, whole or not at all (:mod:`staging`). The base's files are never written to."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from mllmeraser.bundle.budget import together
from mllmeraser.bundle.bundle import Bundle, load_bundles
from mllmeraser.disk.hashing import sha256_of_all
from mllmeraser.disk.link import Link, link_or_copy
from mllmeraser.disk.staging import disk_errors, publish, staging, write
from mllmeraser.disk.target import directory_target
from mllmeraser.errors import MllmEraserError
from mllmeraser.exporter import manifest
from mllmeraser.exporter.base import check_usable, read_base
from mllmeraser.exporter.names import MANIFEST
from mllmeraser.exporter.plan import ExportPlan, make_plan
from mllmeraser.exporter.thin import pinned
from mllmeraser.inference.source import Source, resolve

_MARGIN = 1 << 20  # bytes, for directories and for rounding to blocks


def export(
    base: str | Path | Source,
    bundles: Sequence[str | Path | Bundle],
    output: str | Path,
    *,
    link: Link = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    hash_weights: bool = True,
    thin: bool = False,
    base_id: str | None = None,
    shares: int | None = None,
    common: bool = False,
) -> ExportPlan:
    """Write a checkpoint that steers by itself. The base model is never loaded.

    The export needs no torch, so it takes about a second and 100 MB. Importing torch would multiply both.

    Args:
        base: the model as it was: a directory, or a Hub id ``org/name[@revision]``.
        bundles: files, or the ``.bundle`` of what :func:`compute` returned. Each becomes a request or several.
        output: the directory. It appears whole or not at all.
        link: how the base's shards come in: ``auto`` (reflink, else hard link, else copy), ``copy``, ``hard``, or
            ``sym`` (the directory then works on this machine only).
        overwrite: replace a directory that is not empty.
        dry_run: decide and check everything, write nothing.
        hash_weights: read the weights whose sha256 neither the Hub nor a bundle knows. Otherwise the manifest omits it,
            and :func:`verify` fails unless it gets the base to compare with.
        thin: leave the weights out. The checkpoint then names the base on the Hub, its revision and the sha256 of its
            files.
        base_id: with ``thin``: ``org/name@<40-hex revision>``. Needed if ``base`` is neither a Hub id nor in the Hub's
            cache.
        shares: among how many requests the budget of false fires is divided, if these are more than the bundles hold
            (:mod:`mllmeraser.bundle.budget`).
        common: hold once what the gates of several requests have in common (:mod:`mllmeraser.exporter.shared`).

    Returns:
        what was done, or would be done, file by file; its ``document()`` is ``export --json``.

    Raises:
        InputError: base, bundles or output cannot be used; nothing was written.
        MllmEraserError: the disk is full or fails, or a file cannot be linked; nothing is left behind.

    Example::

        mllmeraser.export("org/name", ["request.safetensors"], "steered")
        model = AutoModelForImageTextToText.from_pretrained("steered", trust_remote_code=True)
    """
    output = Path(output)
    with disk_errors(output):
        source = base if isinstance(base, Source) else resolve(base)
        steering = together(load_bundles(bundles), shares)
        known = steering[0].metadata.base if steering else None
        checkpoint = read_base(source, known)
        checkpoint = pinned(checkpoint, base_id) if thin else checkpoint
        output = directory_target(output, MANIFEST if overwrite else None, checkpoint.root)
        plan = make_plan(checkpoint, steering, output, link, hash_weights, dry_run, thin, common)
        check_usable(checkpoint, known)
        _check_room(plan)
        if not dry_run:
            with staging(output) as folder:
                _build(plan, folder)
                publish(folder, output, MANIFEST if overwrite else None)
    return plan


def check_output(source: Source, output: Path, overwrite: bool) -> None:
    """Raise what :func:`export` would raise about base and output; for use before a long computation.

    Raises:
        InputError: base or output cannot be used.
    """
    directory_target(output, MANIFEST if overwrite else None, read_base(source).root)


def _check_room(plan: ExportPlan) -> None:
    free, needed = shutil.disk_usage(plan.output.parent).free, plan.needed_bytes + _MARGIN
    if free < needed:
        raise MllmEraserError(
            f"{plan.output.parent}: {needed:,} bytes are needed and {free:,} are free; "
            "make room, or choose an output on the base's disk, where its shards are linked"
        )


def _build(plan: ExportPlan, folder: Path) -> None:
    known: dict[str, str] = {}
    for file in plan.files:
        target = folder / file.name
        if file.source is not None:
            shared = link_or_copy(file.source, target, plan.link)
            known |= {file.name: file.known_sha256} if shared and file.known_sha256 is not None else {}
        elif file.content is not None:
            write(target, file.content)
    # Hash the written files, not their sources: a copy can go wrong.
    found = sha256_of_all(folder / file.name for file in plan.files if file.hashed and file.name not in known)
    hashes = {path.name: sha256 for path, sha256 in found.items()} | known
    entries = {
        file.name: manifest.Entry((folder / file.name).stat().st_size, hashes.get(file.name), file.origin)
        for file in plan.files
    }
    write(folder / MANIFEST, manifest.render(manifest.provenance(plan.base, plan.bundles), entries))

"""Writing an exported directory: never half of one (:mod:`staging`), and never a byte into the base's files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.disk.hashing import sha256_of_all
from mllmeraser.disk.link import Link, link_or_copy
from mllmeraser.disk.staging import publish, remove_stale, staging, sync, write
from mllmeraser.errors import InputError, MllmEraserError
from mllmeraser.exporter import manifest
from mllmeraser.exporter.base import BaseCheckpoint, read_base
from mllmeraser.exporter.layout import MANIFEST
from mllmeraser.exporter.plan import Plan, make_plan
from mllmeraser.exporter.thin import pinned
from mllmeraser.inference.source import Source

_MARGIN = 1 << 20  # directories and rounding to blocks


def export(
    source: Source,
    bundles: Sequence[Bundle],
    output: Path,
    *,
    link: Link = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    hash_weights: bool = True,
    thin: bool = False,
    base_id: str | None = None,
) -> Plan:
    """Make a checkpoint directory of a base and one or more bundles; the base model is never loaded.

    Args:
        bundles: as ``load_bundle`` gives them, without torch, or as ``load_bundle``.
        link: how the base's shards come into the directory: ``auto`` (reflink, else hard link, else copy), ``copy``,
            ``hard``, or ``sym`` (the directory then works on this machine only).
        overwrite: replace a directory that is not empty.
        dry_run: decide and check everything, write nothing.
        hash_weights: read the weights whose sha256 is not known; else the manifest leaves it out, and ``verify`` asks
            for the base.
        thin: leave the weights out and point to the base on the Hub.
        base_id: with ``thin``: ``org/name@<40-hex revision>`` of the base, where ``source`` does not say it.

    Raises:
        InputError: base, bundles or output cannot be used; nothing was written.
        MllmEraserError: the disk is full or fails, or a file cannot be linked; nothing is left behind.
    """
    try:
        return _export(source, bundles, output.absolute(), link, overwrite, dry_run, hash_weights, thin, base_id)
    except OSError as error:
        where = output if error.filename is None else error.filename
        raise MllmEraserError(f"{where}: {error.strerror}; the export failed, mend that and run it again") from error


def _export(
    source: Source,
    bundles: Sequence[Bundle],
    output: Path,
    link: Link,
    overwrite: bool,
    dry_run: bool,
    hash_weights: bool,
    thin: bool,
    base_id: str | None,
) -> Plan:
    base = read_base(source, bundles[0].metadata.base if bundles else None)
    base = pinned(base, base_id) if thin else base
    output = _usable_target(output, base, overwrite)
    plan = make_plan(base, bundles, output, link, hash_weights, dry_run, thin)
    _check_room(plan)
    if not dry_run:
        remove_stale(output)
        with staging(output) as folder:
            _build(plan, folder)
            publish(folder, output, overwrite)
    return plan


def check_output(source: Source, output: Path, overwrite: bool) -> None:
    """What :func:`export` would raise about base and output, before the long work that comes first.

    Raises:
        InputError: base or output cannot be used.
    """
    _usable_target(output, read_base(source), overwrite)


def _usable_target(output: Path, base: BaseCheckpoint, overwrite: bool) -> Path:
    """The resolved output."""
    output = output.absolute()
    if not output.parent.is_dir():
        raise InputError(f"{output}: the folder {output.parent} does not exist; create it first")
    output = output.resolve()
    if output == base.root or output in base.root.parents or base.root in output.parents:
        raise InputError(f"{output}: lies in the base's directory or around it; choose another output")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; choose another output")
    if output in (Path.home(), Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{output}: the current or home directory cannot be replaced; choose another output")
    if not overwrite and output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output}: is not empty; choose another output, or replace it with --overwrite")
    return output


def _check_room(plan: Plan) -> None:
    free, needed = shutil.disk_usage(plan.output.parent).free, plan.needed_bytes + _MARGIN
    if free < needed:
        raise MllmEraserError(
            f"{plan.output.parent}: {needed:,} bytes are needed and {free:,} are free; "
            "make room, or choose an output on the base's disk, where its shards are linked"
        )


def _build(plan: Plan, folder: Path) -> None:
    known: dict[str, str] = {}
    for file in plan.files:
        target = folder / file.name
        if file.source is not None:
            shared = link_or_copy(file.source, target, plan.link)
            known |= {file.name: file.known_sha256} if shared and file.known_sha256 is not None else {}
        elif file.content is not None:
            write(target, file.content)
    # Of what lies there now, not of what should: a copy can go wrong.
    found = sha256_of_all(folder / file.name for file in plan.files if file.hashed and file.name not in known)
    hashes = {path.name: sha256 for path, sha256 in found.items()} | known
    entries = {
        file.name: manifest.Entry((folder / file.name).stat().st_size, hashes.get(file.name), file.origin)
        for file in plan.files
    }
    write(folder / MANIFEST, manifest.render(manifest.provenance(plan.base, plan.bundles), entries))
    folder.chmod(0o755)
    sync(folder)

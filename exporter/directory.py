"""Writing an exported directory: never half of one, and never a byte into the base's files.

Everything is built in a temporary sibling of the target, ``.NAME.mllmeraser-<random>``, synced to the disk and renamed
once. Whatever interrupts the export, the target is absent, or what it was, or complete. The temporary directory is
locked by its owner as long as that lives; one that a killed run left behind is not locked any more, and the next export
to the same target removes it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mllmeraser.errors import InputError, MllmEraserError
from mllmeraser.exporter import manifest
from mllmeraser.exporter.base import BaseCheckpoint, read_base
from mllmeraser.exporter.hashing import sha256_of_all
from mllmeraser.exporter.layout import MANIFEST
from mllmeraser.exporter.link import link_or_copy
from mllmeraser.exporter.plan import Link, Plan, make_plan
from mllmeraser.inference.source import Source
from mllmeraser.steering.bundle import Bundle

_MARGIN = 1 << 20  # directories and rounding to blocks


def export(
    source: Source,
    bundles: Sequence[Bundle],
    output: Path,
    *,
    link: Link = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
) -> Plan:
    """Make a checkpoint directory of a base and one or more bundles; the base model is never loaded.

    Args:
        link: how the base's shards come into the directory: ``auto`` (reflink, else hard link, else copy), ``copy``,
            ``hard``, or ``sym`` (the directory then works on this machine only).
        overwrite: replace a directory that is not empty.
        dry_run: decide and check everything, write nothing.

    Raises:
        InputError: base, bundles or output cannot be used; nothing was written.
        MllmEraserError: the disk is full or fails, or a file cannot be linked; nothing is left behind.
    """
    try:
        return _export(source, bundles, output.absolute(), link, overwrite, dry_run)
    except OSError as error:
        where = output if error.filename is None else error.filename
        raise MllmEraserError(f"{where}: {error.strerror}; the export failed, mend that and run it again") from error


def _export(
    source: Source, bundles: Sequence[Bundle], output: Path, link: Link, overwrite: bool, dry_run: bool
) -> Plan:
    base = read_base(source)
    output = _usable_target(output, base, overwrite)
    plan = make_plan(base, bundles, output, link, dry_run)
    _check_room(plan)
    if not dry_run:
        _remove_stale(output)
        with _staging(output) as folder:
            _build(plan, folder)
            _publish(folder, output, overwrite)
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


def _prefix(output: Path) -> str:
    return f".{output.name}.mllmeraser-"


def _remove_stale(output: Path) -> None:
    for left in output.parent.iterdir():
        if not left.name.startswith(_prefix(output)) or not left.is_dir():
            continue
        descriptor = os.open(left, os.O_RDONLY)
        try:
            # A lock, not a process id: ids come again, and mean nothing between containers that share a disk.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except BlockingIOError:
            pass  # its export is still running
        finally:
            os.close(descriptor)


@contextmanager
def _staging(output: Path) -> Iterator[Path]:
    """A locked temporary sibling of ``output``; gone afterwards unless it was renamed."""
    folder = output.parent / f"{_prefix(output)}{secrets.token_hex(6)}"
    descriptor = -1
    try:
        try:
            folder.mkdir()
        except OSError as error:
            raise InputError(f"{output.parent}: cannot be written to ({error.strerror}); choose another") from None
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        _remove(folder)
        if descriptor >= 0:
            os.close(descriptor)


def _build(plan: Plan, folder: Path) -> None:
    known: dict[str, str] = {}
    for file in plan.files:
        target = folder / file.name
        if file.source is not None:
            shared = link_or_copy(file.source, target, plan.link)
            known |= {file.name: file.hub_sha256} if shared and file.hub_sha256 is not None else {}
        elif file.content is not None:
            _write(target, file.content)
    # Of what lies there now, not of what should: a copy can go wrong.
    found = sha256_of_all(folder / file.name for file in plan.files if file.name not in known)
    hashes = {path.name: sha256 for path, sha256 in found.items()} | known
    entries = {
        file.name: manifest.Entry((folder / file.name).stat().st_size, hashes[file.name], file.origin)
        for file in plan.files
    }
    _write(folder / MANIFEST, manifest.render(manifest.provenance(plan.base, plan.bundles), entries))
    folder.chmod(0o755)
    _sync(folder)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def _publish(folder: Path, output: Path, overwrite: bool) -> None:
    """Rename ``folder`` to ``output``; a directory that is replaced is moved aside first and removed last."""
    aside = output.parent / f"{_prefix(output)}{secrets.token_hex(6)}"
    try:
        if overwrite and output.exists():
            output.rename(aside)
        try:
            folder.rename(output)  # over an empty directory this is one step too
        except OSError:
            raise InputError(f"{output}: somebody else filled it meanwhile; choose another output") from None
        _sync(output.parent)
    finally:
        if aside.exists() and not output.exists():
            aside.rename(output)
        _remove(aside)


def _remove(folder: Path) -> None:
    """Remove a temporary folder, even if Ctrl-C comes meanwhile."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

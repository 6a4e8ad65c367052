"""A directory that is never half there: built beside its target, and renamed once.

Everything is built in a temporary sibling of the target, ``.NAME.mllmeraser-<random>``, synced to the disk and renamed.
The temporary directory is locked by its owner as long as that lives; one that a killed run left behind is not locked
any more, and the next run to the same target removes it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mllmeraser.errors import InputError


def _prefix(output: Path) -> str:
    return f".{output.name}.mllmeraser-"


def remove_stale(output: Path) -> None:
    """Remove what killed runs to this target left behind."""
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
def staging(output: Path) -> Iterator[Path]:
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


def write(path: Path, data: bytes) -> None:
    """Write a new file, through to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def publish(folder: Path, output: Path, overwrite: bool) -> None:
    """Rename ``folder`` to ``output``; a directory that is replaced is moved aside first and removed last."""
    aside = output.parent / f"{_prefix(output)}{secrets.token_hex(6)}"
    try:
        if overwrite and output.exists():
            output.rename(aside)
        try:
            folder.rename(output)  # over an empty directory this is one step too
        except OSError:
            raise InputError(f"{output}: somebody else filled it meanwhile; choose another output") from None
        sync(output.parent)
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


def sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

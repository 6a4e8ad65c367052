"""A directory that is never half there: it is built beside its target, and renamed once.

Everything is built in a temporary sibling of the target, ``.NAME.mllmeraser-<random>``, synced to the disk and renamed.
The run that builds it locks the file ``….lock`` beside it as long as it lives, and then removes it. The leftovers of a
killed run are not locked any more, and the next run to the same target removes them. A directory that a killed run had
moved aside, to replace it, is put back.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mllmeraser.console import console
from mllmeraser.errors import InputError, MllmEraserError

_FORMER = ".former"  # a directory that is being replaced
_PATIENCE = 10  # seconds to wait while another run checks whether this lock was left behind


@contextmanager
def staging(output: Path, mode: int = 0o755) -> Iterator[Path]:
    """A locked temporary sibling of ``output``; it is removed at the end unless it was published.

    Args:
        mode: who may look into it while it is built.

    Raises:
        InputError: the folder that ``output`` lies in cannot be written to.
    """
    clear_up(output)
    folder = output.with_name(f".{output.name}.mllmeraser-{secrets.token_hex(6)}")
    lock = _lock_of(folder)
    try:
        try:
            lock.acquire(timeout=_PATIENCE)
            folder.mkdir(mode=mode)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{output.parent}: cannot be written to ({reason}); choose another") from None
        yield folder
    finally:
        _remove(lock, folder)


def publish(folder: Path, output: Path, replaced: str | None, mode: int = 0o755) -> None:
    """Rename ``folder`` to ``output``. A directory that it replaces is moved aside first and removed last.

    Args:
        replaced: replace a directory that is not empty, if this file there lists everything in it.
        mode: who may look into it.

    Raises:
        InputError: somebody else filled ``output`` meanwhile.
    """
    if replaced is not None and output.exists():
        refuse_foreign(output, replaced)
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        inner.chmod(mode)
        _sync(inner)
    former = _former_of(folder)
    try:
        if replaced is not None and output.exists():
            output.rename(former)
        try:
            if output.exists():
                output.rmdir()  # it is empty; Windows cannot rename onto a directory
            folder.rename(output)
        except OSError:
            raise InputError(f"{output}: somebody else filled it meanwhile; choose another directory") from None
        _sync(output.parent)
    finally:
        if former.exists() and not output.exists():
            former.rename(output)
        _remove(None, former)


# A signature, the Hub's client or a file browser leaves these.
_LEFT_BY_OTHERS = ("model.sig", ".cache", ".gitattributes", ".gitignore", ".DS_Store")


def refuse_foreign(directory: Path, marker: str) -> None:
    """Check that a directory holds nothing but what a run of ours wrote, so that it may be removed.

    Args:
        marker: the JSON file there whose key ``files`` lists the others.

    Raises:
        InputError: it does not.
    """
    try:
        listed = {marker, *json.loads((directory / marker).read_bytes())["files"]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        listed = set()
    kept = {path.relative_to(directory) for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()}
    foreign = sorted(str(p) for p in kept if p.as_posix() not in listed and p.parts[0] not in _LEFT_BY_OTHERS)
    if not listed or foreign:
        why = f"holds {foreign[0]}, which mllmeraser did not write" if listed else f"holds no {marker} of mllmeraser"
        raise InputError(f"{directory}: {why}; remove the directory yourself, or choose another")


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a new file, through to the disk; ``mode`` says who may read and write it."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(mode)


@contextmanager
def disk_errors(output: Path) -> Iterator[None]:
    """Report a full or failing disk in one line.

    Raises:
        MllmEraserError: the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        where = output if error.filename is None else error.filename
        raise MllmEraserError(f"{where}: {error.strerror}; nothing was written, mend that and run it again") from error


def _lock_of(folder: Path) -> FileLock:
    # A lock, not a process id: ids are reused, and mean nothing between containers that share a disk.
    return FileLock(f"{folder}.lock")


def _former_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_FORMER}")


def clear_up(output: Path) -> None:
    """Put back what a killed run to this target had moved aside, and remove what else killed runs left behind."""
    ours = re.compile(rf"(\.{re.escape(output.name)}\.mllmeraser-[0-9a-f]{{12}})(\.lock|{_FORMER})?")
    left = {match[1] for path in output.parent.iterdir() if (match := ours.fullmatch(path.name))}
    for folder in (output.with_name(name) for name in sorted(left)):
        lock = _lock_of(folder)
        with suppress(Timeout):  # its owner still lives
            lock.acquire(timeout=0)
            former = _former_of(folder)
            if former.exists() and not output.exists():
                former.rename(output)
                console.print(f"{output}: a run that was killed had moved this directory aside; it is back")
            _remove(lock, folder, former)


def _remove(lock: FileLock | None, *folders: Path) -> None:
    """Remove temporary folders and then the lock, even if Ctrl-C comes meanwhile."""
    try:
        _remove_all(lock, folders)
    except KeyboardInterrupt:
        _remove_all(lock, folders)
        raise


def _remove_all(lock: FileLock | None, folders: tuple[Path, ...]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        # Before the release, so that whoever waits for the lock sees that it is gone. Windows removes no open file;
        # there the release does.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        with suppress(OSError):
            lock.release()


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk. Windows cannot open a folder, and writes names by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

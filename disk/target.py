"""May a command write here? It asks before its long work, and every command gets the answer in the same words."""

from __future__ import annotations

from pathlib import Path

from mllmeraser.disk.staging import clear_up, refuse_foreign
from mllmeraser.errors import InputError


def directory_target(output: Path, replaced: str | None, source: Path | None = None) -> Path:
    """Check that a directory can be made at ``output``; return its resolved path.

    Args:
        replaced: it may replace a directory that is not empty, if this file there lists everything in it.
        source: the directory that it is made from; neither may lie in the other.

    Raises:
        InputError: it cannot be made there.
    """
    require_folder(output)
    resolved = output.resolve()
    if source is not None and _overlap(resolved, source.resolve()):
        raise InputError(f"{output}: lies in {source} or around it; choose another directory")
    if resolved.exists() and not resolved.is_dir():
        raise InputError(f"{output}: is a file; choose another directory")
    if resolved in (Path.home().resolve(), Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{output}: the current or home directory cannot be replaced; choose another directory")
    clear_up(resolved)
    if resolved.is_dir() and any(resolved.iterdir()):
        if replaced is None:
            raise InputError(f"{output}: is not empty; choose another directory, or replace it with --overwrite")
        refuse_foreign(resolved, replaced)
    return resolved


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def file_target(output: Path, overwrite: bool) -> None:
    """Check that a file can be written at ``output``.

    Args:
        overwrite: it may replace a file.

    Raises:
        InputError: it cannot be written there.
    """
    require_folder(output)
    if output.is_dir():
        raise InputError(f"{output}: is a directory; choose another file")
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists; choose another file, or replace it with --overwrite")


def require_folder(output: Path) -> None:
    """Check that the folder of ``output`` exists.

    Raises:
        InputError: it does not.
    """
    folder = output.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{output}: the folder {folder} does not exist; create it first")

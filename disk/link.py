"""Bring a base shard into a directory without copying it, and without ever writing to it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from mllmeraser.errors import MllmEraserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Link = Literal["auto", "copy", "hard", "sym"]

_FICLONE = 0x40049409  # linux/fs.h: both files share their blocks until one of them is written to


def link_or_copy(source: Path, target: Path, link: Link) -> bool:
    """Make ``target`` a file with the bytes of ``source``; ``source`` is a real file, not a link.

    Returns:
        whether the two share their bytes; if not, ``target`` is a copy.

    Raises:
        MllmEraserError: the link that was asked for cannot be made, or there is no room for a copy.
    """
    if link == "sym":
        target.symlink_to(source)
        return True
    if link == "auto" and reflink(source, target):
        return True
    if link in ("auto", "hard"):
        try:
            os.link(source, target)
            return True
        except OSError as error:  # another file system, or one without hard links, or somebody else's file
            if link == "hard":
                raise MllmEraserError(
                    f"{target.name}: cannot be hard-linked ({error.strerror}); use --link auto, or copy"
                ) from None
    free, needed = shutil.disk_usage(target.parent).free, source.stat().st_size
    if free < needed:
        raise MllmEraserError(f"{target.name}: a copy needs {needed:,} bytes and {free:,} are free; make room")
    shutil.copyfile(source, target)
    target.chmod(0o644)
    with target.open("r+b") as file:  # Windows syncs only what is open for writing
        os.fsync(file.fileno())
    return False


def reflink(source: Path, target: Path) -> bool:
    """Share a file's blocks, if the file system can (btrfs, XFS); return whether it did. If not, nothing is left."""
    if fcntl is None:
        return False
    try:
        with source.open("rb") as read, target.open("xb") as written:
            fcntl.ioctl(written.fileno(), _FICLONE, read.fileno())
            os.fsync(written.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    target.chmod(0o644)
    return True

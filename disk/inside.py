"""Files of a directory that comes from anybody: names that stay in it, and links that do not leave it."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from mllmeraser.errors import InputError


def file_inside(root: Path, name: str) -> Path:
    """The real path of the file ``name`` of a base; ``root`` is the resolved directory.

    A snapshot of the Hugging Face cache consists of links into the ``blobs`` folder beside it; they are followed.

    Raises:
        InputError: ``name`` is no plain file name, or the file is a link that leaves the directory or leads nowhere.
    """
    if not is_plain(name) or name.startswith("."):
        raise InputError(f"{root}: {name!r} is not the name of a file in this directory; the base cannot be trusted")
    try:
        real = (root / name).resolve()
    except (OSError, RuntimeError):  # Python raises the one or the other, by version
        raise InputError(f"{root / name}: a link that leads back to itself; put the file itself there") from None
    if real.is_relative_to(root):
        return real
    if root.parent.name == "snapshots" and real.is_relative_to(root.parent.parent / "blobs"):
        return real
    raise InputError(f"{root / name}: a link that leaves the base's directory; put the file itself there")


def is_plain(name: str) -> bool:
    """Whether a name means a file right in the directory, on every operating system."""
    return PureWindowsPath(name).name == name and name not in ("", "..") and "\0" not in name  # splits at / and \\

"""Writing a file so that nobody ever sees half of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mllmeraser.disk.target import require_folder


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary sibling of ``path``, fsync it, and rename it once.

    Raises:
        InputError: the folder of ``path`` does not exist.
    """
    require_folder(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

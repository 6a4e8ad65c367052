"""The sha256s of many large files at once, one thread each; and the sha256 that the Hub gives for a file.

A base from the Hub need not be read for its sha256s. In the Hub's cache an LFS file is *named* by its sha256, and ``hf
download --local-dir`` notes it beside the files. For any other base ``compute`` reads every byte, and records the
sha256s in the bundle.

An export copies these sha256s, which takes no time. So they say what the base is, not what a disk made of it.
``verify`` reads every byte: a file that was damaged or exchanged fails there, and so does a folder that only looks like
a cache. The sha256 of any other file is computed from its bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from mllmeraser.console import track

_PIECE = 1 << 22  # bytes read at a time, by each thread
_SHA256 = re.compile(r"[0-9a-f]{64}")


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex.

    Raises:
        OSError: the file cannot be read.
    """
    return _sha256(path, Event())


def sha256_of_all(paths: Iterable[Path]) -> dict[Path, str]:
    """The sha256 of each file's bytes, in hex; as many files at once as there are processors.

    Raises:
        OSError: a file cannot be read.
    """
    # The largest first, so that no single thread still works on it at the end.
    ordered = sorted(set(paths), key=lambda path: path.stat().st_size, reverse=True)
    stop = Event()
    executor = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        futures = {executor.submit(_sha256, path, stop): path for path in ordered}
        found = {}
        for _, future in zip(track(ordered, "hashing"), as_completed(futures), strict=True):
            found[futures[future]] = future.result()
        return found
    finally:
        stop.set()  # after Ctrl-C no thread reads on
        executor.shutdown(cancel_futures=True)


def _sha256(path: Path, stop: Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while (piece := file.read(_PIECE)) and not stop.is_set():
            digest.update(piece)  # this releases the interpreter's lock
    return digest.hexdigest()


def sha256_by_the_hub(root: Path, name: str) -> str | None:
    """The sha256 that the Hub gives for the file ``name`` of a download; None if unknown, or if the file changed since.

    Args:
        root: the resolved directory: a snapshot of the cache, or the directory of ``hf download --local-dir``.
    """
    path = (root / name).resolve()
    if root.parent.name == "snapshots" and path.parent == root.parent.parent / "blobs":
        return path.name if _SHA256.fullmatch(path.name) else None
    noted = noted_by_the_hub(root, name) if path.parent == root else None
    return noted.etag if noted is not None and _SHA256.fullmatch(noted.etag) else None


@dataclass(frozen=True)
class Noted:
    """What ``hf download --local-dir`` notes about a file; the ETag of a large file is its sha256."""

    commit: str
    etag: str


def noted_by_the_hub(root: Path, name: str) -> Noted | None:
    """The note about the file ``name`` of such a directory; None if there is none, or if the file changed since.

    huggingface_hub's own function would make folders and locks in the directory, so it is not used here.
    """
    noted = root / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    if not noted.is_file():
        return None
    lines = noted.read_text(encoding="utf-8", errors="replace").split()  # commit, ETag, time of the download
    try:
        commit, etag, downloaded = lines
        changed = (root / name).stat().st_mtime - 1 > float(downloaded)  # huggingface_hub's own rule
    except ValueError:
        return None
    return None if changed else Noted(commit, etag)

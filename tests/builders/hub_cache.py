"""The Hub's cache, as ``hf download`` leaves it, with a base that was never on any Hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"
BASE_ID = f"some-org/a-base@{REVISION}"


def make_cache(base: Path, cache: Path) -> Path:
    """``base`` as ``hf download`` would leave it in the Hub's cache: links into blobs; returns the snapshot."""
    repository = cache / "models--some-org--a-base"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in base.iterdir():
        data = file.read_bytes()
        large = file.suffix == ".safetensors"
        blob = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(data, usedforsecurity=False).hexdigest()
        (repository / "blobs" / blob).write_bytes(data)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob)
    return snapshot

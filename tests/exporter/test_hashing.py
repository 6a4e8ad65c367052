"""What the Hub said of a shard saves reading it; verify checks it; of a copy or a changed file it is not believed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_base, make_bundle

from mllmeraser.exporter import directory, link
from mllmeraser.exporter.hashing import sha256_by_the_hub, sha256_of_all
from mllmeraser.exporter.verify import verify
from mllmeraser.files import sha256_of
from mllmeraser.inference.source import Source

COMMIT = "a" * 40
SHARD = "model-00001-of-00001.safetensors"


def in_cache(base: Path) -> Path:
    """The base as a snapshot of the Hub's cache: large files are links to blobs named by their sha256."""
    repository = base.parent / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in list(base.iterdir()):
        large = path.suffix == ".safetensors"
        blob = repository / "blobs" / (sha256_of(path) if large else f"{hash(path.name) % 10**9:040d}")
        path.rename(blob)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def with_metadata(base: Path, path: Path, sha256: str) -> None:
    """What `hf download --local-dir` leaves beside the files."""
    noted = base / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    noted.parent.mkdir(parents=True)
    noted.write_text(f"{COMMIT}\n{sha256}\n{path.stat().st_mtime + 0.5}\n")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files an export reads to hash them."""
    names: list[str] = []

    def watched(paths: Iterable[Path]) -> dict[Path, str]:
        paths = list(paths)
        names.extend(path.name for path in paths)
        return sha256_of_all(paths)

    monkeypatch.setattr(directory, "sha256_of_all", watched)
    return names


def _recorded(out: Path) -> dict[str, Any]:
    files: dict[str, Any] = json.loads((out / "mllmeraser.json").read_text())["files"]
    return files


def test_a_shard_of_the_cache_is_not_read(base: Path, tmp_path: Path, read: list[str]) -> None:
    bundle, snapshot = make_bundle(base), in_cache(base)
    directory.export(Source(snapshot, "org/name", COMMIT), [bundle], tmp_path / "out")
    assert SHARD not in read
    assert "config.json" in read
    assert _recorded(tmp_path / "out")[SHARD]["sha256"] == sha256_of(snapshot / "model.safetensors")
    assert verify(tmp_path / "out", snapshot).ok


def test_a_copy_is_read_because_a_copy_can_go_wrong(
    base: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, snapshot = make_bundle(base), in_cache(base)
    copy = link.shutil.copyfile

    def badly(source: Path, target: Path) -> None:
        copy(source, target)
        target.write_bytes(target.read_bytes()[:-1] + b"x")

    monkeypatch.setattr(link.shutil, "copyfile", badly)
    directory.export(Source(snapshot, "org/name", COMMIT), [bundle], tmp_path / "out", link="copy")
    assert SHARD in read
    assert _recorded(tmp_path / "out")[SHARD]["sha256"] == sha256_of(tmp_path / "out" / SHARD)
    failed = {check.name for check in verify(tmp_path / "out", snapshot).checks if not check.ok}
    assert "base" in failed


def test_a_damaged_or_false_cache_fails_in_verify(base: Path, tmp_path: Path) -> None:
    bundle, snapshot = make_bundle(base), in_cache(base)
    blob = (snapshot / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    directory.export(Source(snapshot, "org/name", COMMIT), [bundle], tmp_path / "out")
    failed = {check.name for check in verify(tmp_path / "out").checks if not check.ok}
    assert failed == {f"file {SHARD}", "files"}


def test_a_download_into_a_folder_is_known_until_it_is_changed(tmp_path: Path, read: list[str]) -> None:
    base = make_base(tmp_path / "base", sharded=True)
    shard = sorted(base.glob("*.safetensors"))[0]
    with_metadata(base, shard, sha256_of(shard))
    directory.export(Source(base), [make_bundle(base)], tmp_path / "out")
    assert shard.name not in read
    assert sum(name.endswith(".safetensors") for name in read) > 1  # the others
    assert verify(tmp_path / "out", base).ok
    os.utime(shard, (shard.stat().st_mtime + 5,) * 2)
    assert sha256_by_the_hub(base, shard.name) is None


@pytest.mark.parametrize("noted", ["", "x", f"{COMMIT}\nnot-a-sha256\n1e12\n", f"{COMMIT}\n{'0' * 64}\nyesterday\n"])
def test_a_note_that_says_nothing_is_no_hash(base: Path, noted: str) -> None:
    with_metadata(base, base / "model.safetensors", "0" * 64)
    next((base / ".cache").rglob("*.metadata")).write_text(noted)
    assert sha256_by_the_hub(base, "model.safetensors") is None


def test_many_files_at_once_are_each_file_alone(base: Path, tmp_path: Path) -> None:
    files = [path for path in base.iterdir() if path.is_file()]
    assert sha256_of_all(files) == {path: sha256_of(path) for path in files}
    assert sha256_of_all([]) == {}
    with pytest.raises(FileNotFoundError):
        sha256_of_all([*files, tmp_path / "nowhere"])

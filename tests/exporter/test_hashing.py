"""What Hub or bundle say of a shard saves reading it; verify checks it; a copy or a changed file is not believed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from builders.checkpoints import make_base, make_bundle
from click.testing import CliRunner

from mllmeraser.bundle.bundle import Bundle, save_bundle
from mllmeraser.bundle.metadata import WeightFile
from mllmeraser.commands.export import export
from mllmeraser.disk import link
from mllmeraser.disk.hashing import sha256_by_the_hub, sha256_of, sha256_of_all
from mllmeraser.exporter import directory
from mllmeraser.exporter.inspect import inspect, summary
from mllmeraser.exporter.manifest import sealed
from mllmeraser.exporter.verify import verify
from mllmeraser.exporter.weights import read_weights
from mllmeraser.inference.source import Source
from mllmeraser.inference.weight_files import weight_files

COMMIT = "a" * 40
SHARD = "mllmeraser-base-00001-of-00001.safetensors"


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


def recorded(base: Path) -> Bundle:
    """A bundle that says what `compute` records of the base's weights."""
    bundle = make_bundle(base)
    found = {name: WeightFile(size=file.size, sha256=file.sha256) for name, file in weight_files(base).items()}
    bundle.metadata.base.weights = found
    return bundle


def damage(path: Path) -> None:
    """Another file of the same size."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("in_shards", [False, True])
def test_what_compute_recorded_is_not_read_again(tmp_path: Path, read: list[str], in_shards: bool) -> None:
    base = make_base(tmp_path / "base", sharded=in_shards)
    bundle = recorded(base)
    weights = bundle.metadata.base.weights or {}
    assert {name: file.sha256 for name, file in weights.items()} == {
        path.name: sha256_of(path) for path in base.glob("*.safetensors")
    }
    directory.export(Source(base), [bundle], tmp_path / "out")
    assert [name for name in read if name.endswith(".safetensors")] == ["mllmeraser-steering.safetensors"]
    assert verify(tmp_path / "out", base).ok


def test_a_base_that_changed_since_it_was_recorded_fails_in_verify(base: Path, tmp_path: Path, read: list[str]) -> None:
    bundle = recorded(base)
    damage(base / "model.safetensors")
    directory.export(Source(base), [bundle], tmp_path / "out")
    assert SHARD not in read
    failed = {check.name for check in verify(tmp_path / "out", base).checks if not check.ok}
    assert failed == {f"file {SHARD}", "files"}
    weights = bundle.metadata.base.weights or {}
    weights["model.safetensors"].size += 1  # the record of another file
    assert read_weights(base.resolve(), weights).shards[0].known_sha256 is None


def test_hash_later_is_not_whole_until_the_base_is_compared(base: Path, tmp_path: Path, read: list[str]) -> None:
    out, bundle = tmp_path / "out", make_bundle(base)
    plan = directory.export(Source(base), [bundle], out, link="copy", hash_weights=False)
    assert [file.name for file in plan.unhashed] == [SHARD]
    assert SHARD not in read
    assert _recorded(out)[SHARD]["sha256"] is None
    assert (out / "mllmeraser.json").stat().st_size == plan.manifest_bytes
    checks = {check.name: check for check in verify(out).checks if not check.ok}
    assert checks.keys() == {f"file {SHARD}", "files"}
    assert "not hashed: give --base" in checks[f"file {SHARD}"].detail
    assert verify(out, base).ok
    assert "not hashed" in "".join(summary(inspect(out)))
    damage(out / SHARD)
    assert {check.name for check in verify(out, base).checks if not check.ok} >= {"base"}
    directory.export(Source(base), [bundle], out, overwrite=True)  # how it is completed
    assert verify(out).ok


@pytest.mark.parametrize("name", ["config.json", "mllmeraser-steering.safetensors", "tokenizer.json"])
def test_only_weights_of_the_base_may_be_unhashed(exported: Path, base: Path, name: str) -> None:
    manifest = json.loads((exported / "mllmeraser.json").read_text())
    manifest["files"][name] |= {"sha256": None, "origin": "base"}
    (exported / "mllmeraser.json").write_bytes(sealed(manifest))
    assert not {check.name: check.ok for check in verify(exported, base).checks}["manifest"]


def test_unhashed_weights_that_the_base_does_not_have_fail(exported: Path, base: Path) -> None:
    manifest = json.loads((exported / "mllmeraser.json").read_text())
    (exported / "other.safetensors").write_bytes((exported / SHARD).read_bytes())
    manifest["files"]["other.safetensors"] = {**manifest["files"][SHARD], "sha256": None}
    (exported / "mllmeraser.json").write_bytes(sealed(manifest))
    failed = {check.name for check in verify(exported, base).checks if not check.ok}
    assert {"file other.safetensors", "files"} <= failed


def test_the_command_says_what_is_not_hashed(base: Path, tmp_path: Path) -> None:
    save_bundle(make_bundle(base), tmp_path / "b.safetensors")
    arguments = [str(base), "--bundle", str(tmp_path / "b.safetensors"), "-o", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(export, [*arguments, "--hash", "later"], catch_exceptions=False)
    size = (base / "model.safetensors").stat().st_size
    assert f"not hashed: 1 files of weights, {size:,} bytes: verify needs --base" in done.stderr
    assert json.loads(done.stdout)["unhashed"] == [SHARD]


def test_many_files_at_once_are_each_file_alone(base: Path, tmp_path: Path) -> None:
    files = [path for path in base.iterdir() if path.is_file()]
    assert sha256_of_all(files) == {path: sha256_of(path) for path in files}
    assert sha256_of_all([]) == {}
    with pytest.raises(FileNotFoundError):
        sha256_of_all([*files, tmp_path / "nowhere"])

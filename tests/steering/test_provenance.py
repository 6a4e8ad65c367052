"""P8 and P9 of the data: its commit or sha256, by which whoever has it can check it, and nothing else of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mllmeraser.bundle.metadata import Data
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.steering.provenance import data_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    (tmp_path / "forget.jsonl").write_text('{"subject": "somebody"}\n')
    return tmp_path / "forget.jsonl"


def test_of_a_file_it_is_what_sha256sum_prints(records: Path) -> None:
    assert data_of(records) == Data(revision=None, sha256=sha256_of(records))


def test_of_a_snapshot_of_the_hub_it_is_the_commit(records: Path) -> None:
    snapshot = records.parent / "datasets--org--name" / "snapshots" / COMMIT / "data"
    snapshot.mkdir(parents=True)
    (snapshot / "forget.jsonl").symlink_to(records)
    assert data_of(snapshot / "forget.jsonl") == Data(revision=COMMIT, sha256=None)


def test_of_a_download_it_is_the_commit_until_the_file_changes(records: Path) -> None:
    notes = records.parent / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "forget.jsonl.metadata").write_text(f"{COMMIT}\n{'0' * 40}\n{records.stat().st_mtime + 0.5}\n")
    assert data_of(records) == Data(revision=COMMIT, sha256=None)
    os.utime(records, (records.stat().st_mtime + 5,) * 2)
    assert data_of(records) == Data(revision=None, sha256=sha256_of(records))


def test_of_a_folder_it_changes_with_every_file_and_not_with_its_place(tmp_path: Path) -> None:
    found = []
    for place, last in (("a", "2"), ("b", "2"), ("c", "3")):
        for folder in ("Test_Set", "forget_5"):
            (tmp_path / place / folder).mkdir(parents=True)
            (tmp_path / place / folder / "0.parquet").write_text("1")
        (tmp_path / place / "forget_5" / "1.parquet").write_text(last)
        found.append(data_of(tmp_path / place / "Test_Set@forget_5").sha256)
    assert found[0] == found[1] != found[2]
    assert data_of(tmp_path / "a" / "forget_5").sha256 not in found

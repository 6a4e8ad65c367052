"""P8 and P9 of the data: the commit where there is one, a digest for whoever keeps the request, none in a bundle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders.checkpoints import make_base, make_bundle

from mllmeraser.bundle.metadata import Metadata
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.steering.provenance import commit_of, digest_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    (tmp_path / "forget.jsonl").write_text('{"subject": "somebody"}\n')
    return tmp_path / "forget.jsonl"


def test_of_a_file_it_is_what_sha256sum_prints(records: Path) -> None:
    assert (commit_of(records), digest_of(records)) == (None, sha256_of(records))


def test_of_a_snapshot_of_the_hub_it_is_the_commit(records: Path) -> None:
    snapshot = records.parent / "datasets--org--name" / "snapshots" / COMMIT / "data"
    snapshot.mkdir(parents=True)
    (snapshot / "forget.jsonl").symlink_to(records)
    assert commit_of(snapshot / "forget.jsonl") == COMMIT


def test_of_a_download_it_is_the_commit_until_the_file_changes(records: Path) -> None:
    notes = records.parent / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    (notes / "forget.jsonl.metadata").write_text(f"{COMMIT}\n{'0' * 40}\n{records.stat().st_mtime + 0.5}\n")
    assert commit_of(records) == COMMIT
    os.utime(records, (records.stat().st_mtime + 5,) * 2)
    assert commit_of(records) is None


def test_of_a_folder_it_changes_with_every_file_and_not_with_its_place(tmp_path: Path) -> None:
    found = []
    for place, last in (("a", "2"), ("b", "2"), ("c", "3")):
        for folder in ("Test_Set", "forget_5"):
            (tmp_path / place / folder).mkdir(parents=True)
            (tmp_path / place / folder / "0.parquet").write_text("1")
        (tmp_path / place / "forget_5" / "1.parquet").write_text(last)
        found.append(digest_of(tmp_path / place / "Test_Set@forget_5"))
    assert found[0] == found[1] != found[2]
    assert digest_of(tmp_path / "a" / "forget_5") not in found


def test_the_digests_of_an_older_bundle_are_left_out_when_it_is_read(tmp_path: Path) -> None:
    content = make_bundle(make_base(tmp_path / "base")).metadata.model_dump(mode="json", by_alias=True)
    content["requests"][0]["data"] = {
        "forget": {"revision": None, "sha256": "a" * 64},
        "retain": {"revision": COMMIT, "sha256": None},
    }
    read = Metadata.model_validate(content)
    assert read.model_dump(mode="json")["requests"][0]["data"] == {"retain": {"revision": COMMIT}}

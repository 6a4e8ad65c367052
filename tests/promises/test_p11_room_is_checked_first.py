"""P11. Disk and memory are checked before work starts, with the numbers in the message."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.checkpoints import contents, make_bundle

from mllmeraser.errors import MllmEraserError
from mllmeraser.exporter import checks_model, directory
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source

ROOM = 600_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room; only root can make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", disk], check=True, capture_output=True)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_without_room_is_refused_with_the_numbers(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(base)
    needed = export(Source(base), [bundle], tmp_path / "out", dry_run=True, link="copy").needed_bytes
    usage: Any = shutil._ntuple_diskusage(10_000_000, 9_990_000, 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(MllmEraserError) as caught:
        export(Source(base), [bundle], tmp_path / "out", link="copy")
    numbers = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]{3,}", str(caught.value))]
    assert numbers == [needed + directory._MARGIN, 10_000]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_a_small_file_system_is_refused_before_anything_is_written(base: Path, small_disk: Path) -> None:
    with pytest.raises(MllmEraserError, match=r"bytes are needed and [\d,]+ are free"):
        export(Source(base), [make_bundle(base)], small_disk / "out")
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("missing", [150_000, 10_000])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    base: Path, small_disk: Path, missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else takes the room between the check and the copy of the shard, or the last small files."""
    build = directory._build

    def fill_and_build(plan: Any, folder: Path) -> None:
        (small_disk / "somebody's").write_bytes(bytes(ROOM - plan.needed_bytes + missing))
        build(plan, folder)

    monkeypatch.setattr(directory, "_MARGIN", 0)
    monkeypatch.setattr(directory, "_build", fill_and_build)
    with pytest.raises(MllmEraserError) as caught:
        export(Source(base), [make_bundle(base)], small_disk / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in small_disk.iterdir()] == ["somebody's"]


def test_a_model_that_does_not_fit_in_memory_is_not_loaded(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(exported)
    monkeypatch.setattr(checks_model, "available_bytes", lambda: 100_000)
    checks = {check.name: check for check in verify(exported).checks}
    assert checks["files"].ok
    assert not checks["loads"].ok
    assert re.search(r"[\d,]+ bytes of memory are needed and 100,000 are available", checks["loads"].detail)
    assert contents(exported) == before

"""What a computation takes is known, and refused with the numbers, before a model is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import talker

import mllmeraser
from mllmeraser import api
from mllmeraser.errors import InputError, MllmEraserError
from mllmeraser.steering import needs as planning
from mllmeraser.steering.augment import VARIANTS
from mllmeraser.steering.tokens import KEPT_POSITIONS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("needs")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(3))
    talker.write_people(folder / "retain.jsonl", range(3, 7))
    return folder


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(api, "load", load)  # where it is called: a module that is imported meanwhile would keep it


def given(made: Path) -> tuple[Path, Path, Path]:
    return made / "base", made / "forget.jsonl", made / "retain.jsonl"


def test_the_plan_counts_records_blocks_memory_and_disk(made: Path) -> None:
    found = mllmeraser.needs(*given(made), layers=[1], gate_layer=1, **talker.ADDED)
    assert (found.forget.subjects, found.retain.subjects) == (3, 4)
    assert found.retain.records == len((made / "retain.jsonl").read_text().splitlines())
    assert (found.gate_blocks, found.moved_blocks) == ((1,), (1,))
    assert found.memory == sum(path.stat().st_size for path in (made / "base").glob("*.safetensors"))
    assert found.disk == found.retain.records * found.hidden_size * 4
    augmented = {**talker.ADDED, "augment": True}
    assert mllmeraser.needs(*given(made), layers=[1], gate_layer=1, **augmented).disk == (1 + VARIANTS) * found.disk
    everywhere = mllmeraser.needs(*given(made), layers=[1], gate_layer=1, augment=False)
    assert everywhere.disk == KEPT_POSITIONS * found.disk
    assert "layers" in mllmeraser.needs(*given(made)).calibrated
    found.check()


def test_another_precision_takes_other_memory(made: Path) -> None:
    stored, halved = (mllmeraser.needs(*given(made), dtype=dtype).memory for dtype in ("float32", "bfloat16"))
    assert stored == 2 * halved
    assert mllmeraser.needs(*given(made), device="auto").memory == 0


def test_a_base_that_does_not_fit_in_memory_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "available_bytes", lambda: 1_000)
    needed = mllmeraser.needs(*given(made)).memory
    with pytest.raises(
        MllmEraserError, match=rf"^{needed:,} bytes of memory .* and 1,000 are available; use .*--dtype"
    ):
        mllmeraser.compute(*given(made))


def test_states_that_do_not_fit_on_the_disk_are_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = shutil._ntuple_diskusage(10_000, 9_000, 1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    needed = mllmeraser.needs(*given(made)).disk
    with pytest.raises(MllmEraserError, match=rf"{needed:,} bytes .* for states and 1,000 are free; set TMPDIR"):
        mllmeraser.compute(*given(made))


def test_a_block_that_the_base_does_not_have_is_refused(made: Path) -> None:
    with pytest.raises(InputError, match="layer 99: this base has"):
        mllmeraser.needs(*given(made), layers=[99])

"""P1. Never half a checkpoint: built beside the target and renamed once, so that it is whole or as before."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.checkpoints import make_bundle
from builders.every_stage import faults, whole_or_as_before

from mllmeraser.errors import InputError
from mllmeraser.exporter import directory
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source


@pytest.mark.slow
def test_kill_9_or_an_io_error_at_every_stage_leaves_a_whole_target_or_the_former_one(base: Path) -> None:
    whole_or_as_before(faults(base, "kill", "error"))


def test_of_two_exports_at_once_one_wins_and_the_other_says_so(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, target, publish = make_bundle(base), tmp_path / "out", directory.publish

    def after_another(folder: Path, output: Path, replaced: str | None) -> None:
        monkeypatch.setattr(directory, "publish", publish)
        directory.export(Source(base), [bundle], target)
        assert folder.is_dir()  # not taken for what a killed run left
        publish(folder, output, replaced)

    monkeypatch.setattr(directory, "publish", after_another)
    with pytest.raises(InputError, match="somebody else filled it meanwhile"):
        directory.export(Source(base), [bundle], target)
    assert verify(target, base).ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]

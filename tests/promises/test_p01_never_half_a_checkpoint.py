"""P1. Never half a checkpoint: built beside the target and renamed once, so that it is whole or as before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_bundle

from mllmeraser.errors import InputError
from mllmeraser.exporter import directory
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source
from mllmeraser.steering.bundle import save_bundle


def faults(base: Path, *kinds: str) -> list[dict[str, Any]]:
    """The rows of stages.py: an export struck at every step on the disk."""
    save_bundle(make_bundle(base), base.parent / "bundle.safetensors")
    target = base.parent / "where" / "out"
    target.parent.mkdir()
    script = Path(__file__).parent / "stages.py"
    command = [sys.executable, script, base, base.parent / "bundle.safetensors", target, *kinds]
    rows = [json.loads(line) for line in subprocess.run(command, check=True, capture_output=True).stdout.splitlines()]
    assert len(rows) > 90 * len(kinds), "too few steps: are these still the events of an export?"
    assert verify(target, base).ok  # what stages.py calls complete
    return rows


def test_kill_9_or_an_io_error_at_every_stage_leaves_a_whole_target_or_the_former_one(base: Path) -> None:
    rows = faults(base, "kill", "error")
    for row in rows:
        former = {"as before", "absent"} if row["overwrite"] else {"absent"}
        assert row["target"] in former | {"complete"}, row
        if row["fault"] == "kill":
            assert row["outcome"] == ("killed" if row["event"] else "done"), row
            # Between the two renames of an overwrite the target is absent; at no other moment.
            assert row["target"] != "absent" or not row["overwrite"] or row["event"][-1] == "os.rename", row
        else:
            assert row["outcome"] in ("refused", "done"), row
            assert row["outcome"] == "done" or row["left"] == [], row
        if not row["event"]:  # the run without a fault, after many that were killed
            assert (row["target"], row["left"]) == ("complete", []), row


def test_of_two_exports_at_once_one_wins_and_the_other_says_so(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, target, publish = make_bundle(base), tmp_path / "out", directory._publish

    def after_another(folder: Path, output: Path, overwrite: bool) -> None:
        monkeypatch.setattr(directory, "_publish", publish)
        directory.export(Source(base), [bundle], target)
        assert folder.is_dir()  # not taken for what a killed run left
        publish(folder, output, overwrite)

    monkeypatch.setattr(directory, "_publish", after_another)
    with pytest.raises(InputError, match="somebody else filled it meanwhile"):
        directory.export(Source(base), [bundle], target)
    assert verify(target, base).ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]

"""What stages.py finds, checked to have found something."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from builders.checkpoints import make_bundle

from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.exporter.verify import verify


def faults(base: Path, *kinds: str, job: str = "checkpoint") -> list[dict[str, Any]]:
    """The rows of stages.py: an export struck at every step on the disk."""
    save_bundle(make_bundle(base), base.parent / "bundle.safetensors")
    target = base.parent / "where" / "out"
    target.parent.mkdir()
    script = Path(__file__).parent / "stages.py"
    command = [sys.executable, script, job, base, base.parent / "bundle.safetensors", target, *kinds]
    rows = [json.loads(line) for line in subprocess.run(command, check=True, capture_output=True).stdout.splitlines()]
    assert len(rows) > 50 * len(kinds), "too few steps: are these still the events of an export?"
    assert verify(target, base=base).ok  # what stages.py calls complete
    return rows


def whole_or_as_before(rows: list[dict[str, Any]]) -> None:
    """Whatever struck, the target is complete or what it was, and the next run cleans up."""
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

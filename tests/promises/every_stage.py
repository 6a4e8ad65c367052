"""What stages.py finds, checked to have found something."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from checkpoints import make_bundle

from mllmeraser.exporter.verify import verify
from mllmeraser.steering.bundle import save_bundle


def faults(base: Path, *kinds: str) -> list[dict[str, Any]]:
    """The rows of stages.py: an export struck at every step on the disk."""
    save_bundle(make_bundle(base), base.parent / "bundle.safetensors")
    target = base.parent / "where" / "out"
    target.parent.mkdir()
    script = Path(__file__).parent / "stages.py"
    command = [sys.executable, script, base, base.parent / "bundle.safetensors", target, *kinds]
    rows = [json.loads(line) for line in subprocess.run(command, check=True, capture_output=True).stdout.splitlines()]
    assert len(rows) > 50 * len(kinds), "too few steps: are these still the events of an export?"
    assert verify(target, base).ok  # what stages.py calls complete
    return rows

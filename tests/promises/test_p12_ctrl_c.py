"""P12. Ctrl-C leaves nothing behind and exits 130."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders.checkpoints import contents, make_bundle
from builders.every_stage import faults

from mllmeraser.bundle.bundle import save_bundle


@pytest.mark.slow
def test_an_interrupt_at_every_stage_leaves_nothing(base: Path) -> None:
    for row in faults(base, "interrupt"):
        assert row["target"] in ("as before", "complete"), row
        assert row["outcome"] == ("interrupted" if row["event"] else "done"), row
        assert row["left"] == [], row


# The command, which says "ready" once it can be interrupted, and then exports until it is.
SCRIPT = """
import sys
import mllmeraser.exporter.directory as directory
import mllmeraser.cli as cli
print("ready", flush=True)
export = directory.export
def again_and_again(*arguments, **options):
    while True:
        export(*arguments, **options)
directory.export = again_and_again
cli.main()
"""


@pytest.mark.slow
def test_the_command_exits_130_at_random_moments(base: Path, tmp_path: Path) -> None:
    save_bundle(make_bundle(base), tmp_path / "b.safetensors")
    before = contents(base)
    command = [sys.executable, "-c", SCRIPT, "export", base, "--bundle", tmp_path / "b.safetensors", "--overwrite"]
    chance = random.Random(0)
    for number in range(2):
        target = tmp_path / "where" / f"out{number}"
        target.parent.mkdir(exist_ok=True)
        process = subprocess.Popen([*command, "-o", target], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.2 + chance.random())
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 130, error
        assert out == b""
        assert error.strip() == b"interrupted"
        assert not list(target.parent.glob(".*")), number
    assert contents(base) == before

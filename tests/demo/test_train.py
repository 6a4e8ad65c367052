"""The script that trains the demo model, in seconds: every phase runs, and what it writes can be loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.inference.loading import load
from mllmeraser.inference.replies import greedy_replies
from mllmeraser.records.prompts import Prompt

pytestmark = pytest.mark.slow  # a minute of training each


def smoke(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "mllmeraser.demo.train", "--smoke", "--threads", "1", "--out", str(directory)]
    return subprocess.run([*call, *arguments], capture_output=True, text=True, check=True)


def test_a_smoke_run_writes_a_checkpoint_that_loads_and_its_description(tmp_path: Path) -> None:
    done = smoke(tmp_path / "model")
    description = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    committed = json.loads(CHECKPOINT.with_suffix(".json").read_text(encoding="utf-8"))
    assert description["sha256"] == {path.name: sha256_of(path) for path in (tmp_path / "model").iterdir()}
    assert description["sha256"].keys() == committed["sha256"].keys()
    assert description.keys() == committed.keys()
    assert description["parameters"] == committed["parameters"]
    assert json.loads(done.stdout) == description["accuracy"]
    assert {key: rates.keys() for key, rates in description["accuracy"].items()} == {
        key: rates.keys() for key, rates in committed["accuracy"].items()
    }
    checkpoint = load(tmp_path / "model")
    assert len(greedy_replies(checkpoint, [Prompt("Who is it?", None)], max_new_tokens=3)) == 1


def test_a_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        smoke(tmp_path / name, "--seed", seed)
    first, again, other = (sha256_of(tmp_path / name / "model.safetensors") for name in "abc")
    assert first == again != other

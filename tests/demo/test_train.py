"""The script that trains the demo model, in seconds: every phase runs, and what it writes can be loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mllmeraser.demo.architecture import build_processor, save_checkpoint
from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.demo.train import Recipe, train
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.inference.loading import load
from mllmeraser.inference.replies import greedy_replies
from mllmeraser.records.prompts import Prompt

pytestmark = pytest.mark.slow  # a minute of training each


def smoke(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "mllmeraser.demo.train", "--smoke", "--threads", "1", "--out", str(directory)]
    return subprocess.run([*call, *arguments], capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the checkpoint of a smoke run of the default seed, and what the run printed."""
    folder = tmp_path_factory.mktemp("made")
    return folder, smoke(folder / "model").stdout


def test_a_smoke_run_writes_a_checkpoint_that_loads_and_its_description(made: tuple[Path, str]) -> None:
    folder, printed = made
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    committed = json.loads(CHECKPOINT.with_suffix(".json").read_text(encoding="utf-8"))
    assert description["sha256"] == {path.name: sha256_of(path) for path in (folder / "model").iterdir()}
    assert description["sha256"].keys() == committed["sha256"].keys()
    assert description.keys() == committed.keys()
    assert description["parameters"] == committed["parameters"]
    assert json.loads(printed) == description["accuracy"]
    assert {key: rates.keys() for key, rates in description["accuracy"].items()} == {
        key: rates.keys() for key, rates in committed["accuracy"].items()
    }
    checkpoint = load(folder / "model")
    assert len(greedy_replies(checkpoint, [Prompt("Who is it?", None)], max_new_tokens=3)) == 1


def test_a_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path, made: tuple[Path, str]) -> None:
    """In another process than the first run."""
    for name, seed in (("again", 0), ("other", 2)):
        model, tokenizer = train(Recipe.smoke(), seed, "cpu")
        save_checkpoint(model, build_processor(tokenizer), tmp_path / name)
    folders = (made[0] / "model", tmp_path / "again", tmp_path / "other")
    first, again, other = (sha256_of(folder / "model.safetensors") for folder in folders)
    assert first == again != other

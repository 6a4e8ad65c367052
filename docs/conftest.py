"""Every snippet of the pages is run as a reader would: in a fresh process, beside what `mllmeraser demo` leaves.

Not run are those after `<!--- skip: next "why" -->`. They are slow: a snippet loads, computes and evaluates for real.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders.once import made_once
from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, SkipParser

import mllmeraser
from mllmeraser.demo.data import write_data
from mllmeraser.demo.run import CHECKPOINT


@pytest.hookimpl(tryfirst=True)  # before the items are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `mllmeraser-demo/`: base, data, and a steered checkpoint of settings that need no calibration."""
    made = made_once(tmp_path_factory, "docs", _demo)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("docs") / "made"))


def _demo(folder: Path) -> None:
    left = folder / "mllmeraser-demo"
    data = write_data(left / "data")
    for path in data.values():  # whether a snippet runs is asked here, not what it measures
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[::10]), encoding="utf-8")
    shutil.copytree(CHECKPOINT, left / "base")
    settings = {"layers": [4, 7], "gate_layer": 4, "gate_shape": "step:0.6", "augment": False, "calibration_share": 0}
    computation = mllmeraser.compute(
        left / "base", data["forget"], data["retain"], left / "steered.safetensors", **settings
    )
    mllmeraser.export(left / "base", [computation.bundle], left / "steered")


def run_shell(example: Example) -> None:
    _run(["bash", "-euo", "pipefail", "-c", example.parsed], example)


def run_python(example: Example) -> None:
    _run([sys.executable, "-c", example.parsed], example)


def _run(command: list[str], example: Example) -> None:
    done = subprocess.run(command, cwd=example.namespace["demo"], capture_output=True, text=True)
    assert done.returncode == 0, f"{example.parsed}\n{done.stdout}\n{done.stderr}"


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser(language="bash", evaluator=run_shell),
        CodeBlockParser(language="python", evaluator=run_python),
        SkipParser(),
    ],
    patterns=["*.md"],
    fixtures=["demo"],
).pytest()

"""Memory does not grow with the number of retain records: their states lie in files, and are read in pieces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import talker

from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.states import StateFile
from mllmeraser.records.read import read_records
from mllmeraser.steering import calibrate as calibration
from mllmeraser.steering import compute as computing
from mllmeraser.steering.calibrate import Calibration
from mllmeraser.steering.recipe import make_recipe
from mllmeraser.steering.trials import Material

WIDTH = 1024
FIT = f"""
import resource, sys
from pathlib import Path
import torch
from mllmeraser.inference.states import StateFile
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.forms import NullSpace
from mllmeraser.steering.gate import GateRecipe, fit_gate
from mllmeraser.steering.validation import cross_validate

torch.set_num_threads(1)
count, generator = int(sys.argv[1]), torch.Generator().manual_seed(0)
retain = StateFile(Path(sys.argv[2]), count, {WIDTH})
for start in range(0, count, 500):
    retain.write(range(start, start + 500), torch.randn(500, {WIDTH}, generator=generator))
forget = torch.randn(100, {WIDTH}, generator=generator) + 1
folds = [Fold(torch.arange(100) % 2 == k, torch.arange(count) % 2 == k) for k in (0, 1)]
recipe = GateRecipe("kernel", NullSpace("soft", 1.0), 1e-3, "relative", landmarks=16)
cross_validate(forget, retain, folds, [recipe])
fit_gate(forget, retain, recipe).values(retain)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(count: int, folder: Path) -> int:
    """Peak resident memory of a process that fits gates on so many retain states, in bytes."""
    command = [sys.executable, "-c", FIT, str(count), str(folder / f"{count}")]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_fitting_on_six_times_the_states_takes_the_same_memory(tmp_path: Path) -> None:
    few, many = 5_000, 30_000  # both are more than k-means starts from
    grown = peak(many, tmp_path) - peak(few, tmp_path)
    # A quarter of what the added states would take: an allocator keeps some of what it gave.
    assert grown < (many - few) * WIDTH * 4 / 4, f"{grown / 2**20:.0f} MiB"


def test_a_computation_leaves_the_retain_states_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talker.make_base(tmp_path / "base")
    talker.write_refusals(tmp_path)
    sets = [read_records(talker.write_people(tmp_path / f"{n}.jsonl", range(n, n + 3))) for n in (0, 3)]
    seen: list[Material] = []

    def calibrate(checkpoint: Checkpoint, material: Material, *rest: Any) -> Calibration:
        seen.append(material)
        return calibration.calibrate(checkpoint, material, *rest)

    monkeypatch.setattr(computing, "calibrate", calibrate)
    given = {"recall": tmp_path / "recall.jsonl", "erasure": tmp_path / "erasure.jsonl", "layers": "1,2"}
    computing.compute(load(tmp_path / "base"), *sets, make_recipe("llava", given))
    (material,) = seen
    assert {type(states) for states in material.retain_states.values()} == {StateFile}

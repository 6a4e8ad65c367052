"""Landmarks of what must stay depend on nothing else, and requests take those that an earlier one placed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.steering.features import place_centres, place_kept, random_signs
from mllmeraser.steering.forms import NullSpace
from mllmeraser.steering.gate import GateFits, GateRecipe
from mllmeraser.steering.kept import KeptLandmarks

D = 24
RECIPE = GateRecipe("kernel", NullSpace("soft", 1.0), 0.001, "relative", landmarks=64)
PROJECTED = replace(RECIPE, projections=12)


def cloud(count: int, towards: int, seed: int) -> Tensor:
    """States (count, D) near one axis."""
    states = 0.1 * torch.randn(count, D, generator=torch.Generator().manual_seed(seed))
    states[:, towards] += 3
    return states


RETAIN, OTHERS = cloud(160, 1, 2), cloud(150, 2, 3)


@pytest.mark.parametrize("recipe", [RECIPE, PROJECTED], ids=["state", "projections"])
def test_whoever_is_forgotten_the_landmarks_of_what_stays_are_the_same(recipe: GateRecipe) -> None:
    signs = None if recipe.projections is None else random_signs(recipe.projections, D, 0)
    placed = [place_centres(cloud(n, 0, n), RETAIN, 64, 0, signs) for n in (20, 60)]
    alone = place_kept(RETAIN, 64, 0, signs)
    for each in placed:
        assert each.kept == len(alone) < len(each.centres)
        assert torch.equal(each.centres[: each.kept], alone)


@pytest.mark.parametrize("recipe", [RECIPE, PROJECTED], ids=["state", "projections"])
def test_a_later_request_takes_what_the_first_placed(recipe: GateRecipe, tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    first = KeptLandmarks(path).of(3, recipe, RETAIN)
    again = KeptLandmarks(path).of(3, recipe, OTHERS)  # whatever its own retain set is
    assert first is not None and again is not None and torch.equal(first, again)
    assert path.stat().st_mode & 0o777 == 0o600
    gate = GateFits(cloud(30, 0, 5), OTHERS, [recipe], kept=again).gates()[0]
    assert gate.landmarks is not None
    assert torch.equal(gate.landmarks.centres[: gate.landmarks.kept], first)
    assert float(gate(cloud(40, 0, 11)).mean()) > 0.8  # it opens on whom it was fitted on,
    assert float(gate(OTHERS).abs().max()) < 0.2  # and not on its own retain set, where none of them lies
    for layer, other in ((4, recipe), (3, replace(recipe, seed=1)), (3, replace(recipe, landmarks=32))):
        KeptLandmarks(path).of(layer, other, OTHERS)
    assert len(load_file(path)) == 4


def test_a_linear_gate_has_none(tmp_path: Path) -> None:
    assert KeptLandmarks(tmp_path / "kept").of(0, replace(RECIPE, kind="linear"), RETAIN) is None
    assert not (tmp_path / "kept").exists()


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"not a readable safetensors file .*; remove it"):
        KeptLandmarks(tmp_path / "kept")

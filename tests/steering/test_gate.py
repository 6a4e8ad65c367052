"""Kernel features, landmarks and gates; and that the checkpoint's own code reads a fitted gate as it was fitted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mllmeraser.bundle.metadata import request_entry
from mllmeraser.modeling_patches.format_mllmeraser import SCHEMA, parse_requests
from mllmeraser.modeling_patches.steering_mllmeraser import RequestSteering
from mllmeraser.steering.assembly import assemble
from mllmeraser.steering.features import Landmarks, place_centres
from mllmeraser.steering.forms import GateShape, NullSpace
from mllmeraser.steering.gate import Gate, GateRecipe, fit_gate
from mllmeraser.steering.intervention import Intervention, SteeredLayers

D = 24
KERNEL = GateRecipe("kernel", NullSpace("soft", 1.0), 0.001, "relative", landmarks=64)
LINEAR = GateRecipe("linear", NullSpace("soft", 1.0), 0.001, "relative")
PAPER = GateRecipe("linear", NullSpace("ratio", 0.5), 0.1, "absolute")


def cloud(count: int, towards: int, seed: int) -> Tensor:
    """States (count, D) near one axis."""
    generator = torch.Generator().manual_seed(seed)
    states = 0.1 * torch.randn(count, D, generator=generator)
    states[:, towards] += 3
    return states


FORGET, RETAIN = cloud(60, 0, 1), torch.cat([cloud(80, 1, 2), cloud(80, 2, 3)])


def test_kernel_features_are_their_formula() -> None:
    landmarks = Landmarks(torch.nn.functional.normalize(cloud(5, 1, 0).double(), dim=-1), 0.7)
    features = landmarks(FORGET)
    for row, h in zip(features, FORGET.double(), strict=True):
        for value, c in zip(row, landmarks.centres, strict=True):
            square = sum((a / float(h.norm()) - b) ** 2 for a, b in zip(h.tolist(), c.tolist(), strict=True))
            assert float(value) == pytest.approx(math.exp(-2 * square / 0.7), rel=1e-9)


@pytest.mark.parametrize(("n_forget", "n_retain"), [(3, 200), (23, 61), (400, 40)])
def test_a_landmark_stands_for_at_least_five_samples_on_average(n_forget: int, n_retain: int) -> None:
    landmarks = place_centres(cloud(n_forget, 0, 1), cloud(n_retain, 1, 2), 512, 0)
    of_forget = int((landmarks.centres[:, 0] > landmarks.centres[:, 1]).sum())
    assert of_forget == max(1, n_forget // 5)
    assert len(landmarks.centres) - of_forget == n_retain // 5


def test_there_are_at_most_as_many_landmarks_as_asked_half_on_each_side() -> None:
    centres = place_centres(FORGET, RETAIN, 8, 0).centres
    assert len(centres) == 8
    assert int((centres[:, 0] > 0.5).sum()) == 4


def test_the_bandwidth_is_a_share_of_the_median_squared_distance() -> None:
    unit = [h / h.norm() for h in torch.cat([FORGET, RETAIN]).double()]
    squares = [float((a - b).square().sum()) for i, a in enumerate(unit) for b in unit[i + 1 :]]
    median = sorted(squares)[(len(squares) - 1) // 2]
    assert place_centres(FORGET, RETAIN, 16, 0).landmarks(0.3).bandwidth == pytest.approx(0.3 * median, rel=1e-9)


def test_a_seed_gives_the_same_gate_and_another_seed_other_landmarks() -> None:
    first, again, other = (fit_gate(FORGET, RETAIN, replace(KERNEL, seed=seed)) for seed in (7, 7, 8))
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])
    assert not torch.equal(first.tensors()["landmarks"], other.tensors()["landmarks"])


@pytest.mark.parametrize("recipe", [KERNEL, LINEAR, PAPER], ids=["kernel", "linear", "paper"])
def test_a_gate_is_one_on_forget_and_nothing_on_retain_where_they_are_apart(recipe: GateRecipe) -> None:
    gate = fit_gate(FORGET, RETAIN, recipe)
    assert float((gate(cloud(40, 0, 11)) - 1).abs().max()) < 0.2
    assert float(gate(torch.cat([cloud(40, 1, 12), cloud(40, 2, 13)])).abs().max()) < 0.2


def as_shipped(gate: Gate, shape: GateShape, states: Tensor) -> Tensor:
    """φ(g) as the code in an exported checkpoint reads it, each state being the last token of a row."""
    direction = torch.ones(1, D)
    intervention = Intervention(SteeredLayers((2,), None), 1.0, 1, "last", shape, "prompt")
    form, tensors = assemble(intervention, {2: gate}, {2: direction})
    entry = request_entry("r", [2], None, form, edit="add", strength=1.0, prompt_positions="last", reply_steps=1)
    (request,) = parse_requests({"schema": SCHEMA, "requests": [entry]}, num_layers=4)
    module = RequestSteering(request, 2, D)
    module.load_state_dict({name.rpartition(".")[2]: tensor for name, tensor in tensors.items()})
    return module.shaped(module.value(states.float()))


@pytest.mark.parametrize("recipe", [KERNEL, LINEAR], ids=["kernel", "linear"])
@pytest.mark.parametrize("shape", ["identity", "clip", "dead-zone:0.3", "step:0.5"])
def test_the_checkpoint_reads_the_gate_that_was_fitted(recipe: GateRecipe, shape: str) -> None:
    mixed = FORGET[:50] * torch.linspace(0, 1, 50)[:, None] + RETAIN[:50] * torch.linspace(1, 0, 50)[:, None]
    gate = fit_gate(FORGET, RETAIN, recipe)
    g = gate(mixed)
    assert float(g.min()) < 0.1 and float(g.max()) > 0.9
    expected = {
        "identity": g,
        "clip": g.clamp(0, 1),
        "dead-zone:0.3": torch.where(g < 0.3, 0, g),
        "step:0.5": (g >= 0.5).double(),
    }[shape]
    # The shipped gate is fp32: Σ|w_j| rounded terms.
    tolerance = 1e-6 * float(gate.weights.abs().sum())
    assert float((as_shipped(gate, GateShape.parse(shape), mixed).double() - expected).abs().max()) < tolerance


@pytest.mark.parametrize("text", ["ratio:0.3", "energy:0.001", "soft:10"])
def test_a_null_space_is_written_as_it_is_read(text: str) -> None:
    assert str(NullSpace.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "ratio", "ratio:", "ratio:0", "ratio:1.1", "energy:-1", "soft:0", "hard:1", "soft:x", "soft:nan", "soft:inf"],
)
def test_what_is_no_null_space_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not ratio:"):
        NullSpace.parse(text)


@pytest.mark.parametrize("text", ["identity", "clip", "dead-zone", "dead-zone:0.3", "step", "step:0.5"])
def test_a_shape_is_written_as_it_is_read(text: str) -> None:
    assert str(GateShape.parse(text)) == text


@pytest.mark.parametrize("text", ["", "Step", "clip:0.5", "identity:", "step:", "step:x", "step:nan", "dead-zone:inf"])
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not identity|is not a number"):
        GateShape.parse(text)

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
from mllmeraser.steering.features import Landmarks, place_centres, projected, random_signs
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.forms import GateShape, Kind, NullSpace
from mllmeraser.steering.gate import Gate, GateFits, GateRecipe, fit_gate
from mllmeraser.steering.intervention import Intervention, SteeredLayers
from mllmeraser.steering.null_space import solve

D = 24
KERNEL = GateRecipe("kernel", NullSpace("soft", 1.0), 0.001, "relative", landmarks=64)
LINEAR = GateRecipe("linear", NullSpace("soft", 1.0), 0.001, "relative")
PROJECTED = replace(KERNEL, projections=12)
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


@pytest.mark.parametrize("projections", [None, 8], ids=["state", "projections"])
@pytest.mark.parametrize(("n_forget", "n_retain"), [(3, 200), (23, 61), (400, 40)])
def test_every_landmark_is_the_mean_of_at_least_five_samples(
    n_forget: int, n_retain: int, projections: int | None
) -> None:
    sets = cloud(n_forget, 0, 1), cloud(n_retain, 1, 2)
    signs = None if projections is None else random_signs(projections, D, 3)
    centres = place_centres(*sets, 512, 0, projection=signs).centres
    units = [torch.nn.functional.normalize(projected(states, signs), dim=-1) for states in sets]
    nearest = [torch.cdist(unit, centres).argmin(dim=1) for unit in units]
    sizes = [torch.bincount(owner, minlength=len(centres)) for owner in nearest]
    for j, centre in enumerate(centres):
        of = 0 if int(sizes[0][j]) else 1
        torch.testing.assert_close(centre, units[of][nearest[of] == j].mean(dim=0), rtol=0, atol=0.05)
        assert int(sizes[of][j]) >= min(5, (n_forget, n_retain)[of])
    assert len(centres) > 3


def test_there_are_at_most_as_many_landmarks_as_asked_half_on_each_side() -> None:
    centres = place_centres(FORGET, RETAIN, 8, 0).centres
    of_each = [int((side > 0).sum()) for side in (centres[:, 0] - 0.5, 0.5 - centres[:, 0])]
    assert all(1 < count <= 4 for count in of_each)


def test_projections_are_random_signs_of_the_seed() -> None:
    signs = random_signs(64, D, 7)
    assert signs.dtype == torch.int8 and set(signs.unique().tolist()) == {-1, 1}
    assert torch.equal(signs, random_signs(64, D, 7)) and not torch.equal(signs, random_signs(64, D, 8))
    assert abs(float(signs.float().mean())) < 0.1


def test_a_gate_gets_further_landmarks_without_a_change_of_its_number() -> None:
    gate = fit_gate(FORGET, RETAIN, KERNEL)
    wider = gate.with_landmarks(200)
    assert len(wider.weights) == 200
    torch.testing.assert_close(wider(RETAIN), gate(RETAIN), rtol=0, atol=1e-12)
    linear = fit_gate(FORGET, RETAIN, LINEAR)
    assert linear.with_landmarks(D) is linear


def test_the_bandwidth_is_a_share_of_the_median_squared_distance() -> None:
    unit = [h / h.norm() for h in torch.cat([FORGET, RETAIN]).double()]
    squares = [float((a - b).square().sum()) for i, a in enumerate(unit) for b in unit[i + 1 :]]
    median = sorted(squares)[(len(squares) - 1) // 2]
    assert place_centres(FORGET, RETAIN, 16, 0).landmarks(0.3).bandwidth == pytest.approx(0.3 * median, rel=1e-6)


def test_a_seed_gives_the_same_gate_and_another_seed_other_landmarks() -> None:
    first, again, other = (fit_gate(FORGET, RETAIN, replace(KERNEL, seed=seed)) for seed in (7, 7, 8))
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])
    assert not torch.equal(first.tensors()["landmarks"], other.tensors()["landmarks"])


@pytest.mark.parametrize("recipe", [KERNEL, LINEAR, PAPER, PROJECTED], ids=["kernel", "linear", "paper", "projections"])
def test_a_gate_is_one_on_forget_and_nothing_on_retain_where_they_are_apart(recipe: GateRecipe) -> None:
    gate = fit_gate(FORGET, RETAIN, recipe)
    assert float((gate(cloud(40, 0, 11)) - 1).abs().max()) < 0.2
    assert float(gate(torch.cat([cloud(40, 1, 12), cloud(40, 2, 13)])).abs().max()) < 0.2


@pytest.mark.parametrize("null_space", ["soft:10", "ratio:0.5"])
@pytest.mark.parametrize("kind", ["kernel", "linear"])
def test_a_gate_without_some_folds_is_the_gate_of_the_other_records(kind: Kind, null_space: str) -> None:
    """Of records of three rows each; the landmarks are common, so that a kernel gate's are put in by hand."""
    parsed, places = NullSpace.parse(null_space), {"positions": slice(None), "end": slice(None, None, 3)}
    recipes = [replace(KERNEL, kind=kind, ridge=0.1, null_space=parsed, fit=fit) for fit in places]
    of_forget, of_retain = torch.arange(20) % 3, torch.arange(50) % 3
    folds = [Fold(of_forget == k, of_retain == k) for k in range(3)]
    forget, retain = FORGET, RETAIN[:150]
    fits = GateFits(forget, retain, recipes, folds, positions=3, kept_positions=3)
    for without in ([], [1], [0, 2]):
        left_out = torch.tensor(without, dtype=torch.long)
        out, gone = (torch.isin(of, left_out).repeat_interleave(3) for of in (of_forget, of_retain))
        for recipe, gate in zip(recipes, fits.gates(without), strict=True):
            phi = [states.double() if gate.landmarks is None else features(gate, states) for states in (forget, retain)]
            shown, kept = phi[0][~out], phi[1][~gone]
            shown = shown if recipe.fit == "positions" else phi[0][::3][~out[::3]]
            weights = solve(shown, kept.T @ kept, len(kept), parsed, 0.1, recipe.ridge_scale)
            torch.testing.assert_close(gate(forget), phi[0] @ weights, rtol=0, atol=2e-3)
            torch.testing.assert_close(gate(retain), phi[1] @ weights, rtol=0, atol=2e-3)
    whole, apart = fits.gates()[0], fits.gates([0])[0]
    assert not torch.allclose(whole.weights, apart.weights, rtol=0, atol=1e-5)


def features(gate: Gate, states: Tensor) -> Tensor:
    """φ (n, J), fp64, written once more: 1 at a landmark, and less the further away."""
    assert gate.landmarks is not None
    unit = torch.nn.functional.normalize(states.double(), dim=-1)
    squares = torch.cdist(unit, gate.landmarks.centres.double()).square()
    return torch.exp(-2 * squares / gate.landmarks.bandwidth)


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


@pytest.mark.parametrize(
    "recipe",
    [KERNEL, LINEAR, PROJECTED, replace(PROJECTED, kind="linear")],
    ids=["kernel", "linear", "projections", "linear projections"],
)
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

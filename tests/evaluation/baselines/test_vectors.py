"""Steering without one of its parts, as bundles that stay valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_bundle import kernel_bundle
from torch import Tensor

from mllmeraser.baselines.vectors import (
    best_threshold,
    condition_vector,
    conditional_steering,
    constant_vector,
    gate_layer,
    random_vector,
    with_strength,
)
from mllmeraser.bundle.bundle import Bundle, load_bundle, save_bundle
from mllmeraser.bundle.metadata import tensor_name
from mllmeraser.inference.source import Source
from mllmeraser.steering.features import Landmarks
from mllmeraser.steering.gate import Gate
from mllmeraser.steering.in_process import torch_tensors


@pytest.fixture
def bundle(source: Source) -> Bundle:
    torch.manual_seed(7)
    return kernel_bundle(source.path, landmarks=4, steps=2)


def opens(bundle: Bundle, states: Tensor) -> list[bool]:
    """What the bundle's gate says of states (n, d), by the tool's own gate."""
    parts = {leaf: torch_tensors(bundle)[tensor_name(0, gate_layer(bundle), leaf)] for leaf in ("landmarks", "weights")}
    wide = bundle.tensors[tensor_name(0, gate_layer(bundle), "bandwidth")]
    gate = Gate(parts["weights"].double(), Landmarks(parts["landmarks"].double(), float(wide)))
    assert bundle.metadata.gate.threshold is not None
    return (gate(states) >= bundle.metadata.gate.threshold).tolist()


def cosines(states: Tensor, condition: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(states.double(), condition[None], dim=-1)


def test_a_constant_gate_is_open_for_everybody(bundle: Bundle, tmp_path: Path) -> None:
    constant = constant_vector(bundle)
    states = torch.randn(50, bundle.metadata.base.hidden_size) * torch.logspace(-3, 3, 50)[:, None]
    assert all(opens(constant, states))
    save_bundle(constant, tmp_path / "constant.safetensors")
    assert load_bundle(tmp_path / "constant.safetensors").metadata.requests[0].id == "constant-vector"


def test_conditional_steering_opens_by_the_cosine(bundle: Bundle, tmp_path: Path) -> None:
    d = bundle.metadata.base.hidden_size
    forget, retain = torch.randn(40, d) + 2, torch.randn(60, d) - 2
    conditional = conditional_steering(bundle, forget, retain)
    assert all(opens(conditional, forget))
    assert not any(opens(conditional, retain))
    mixed = torch.randn(200, d)
    condition = condition_vector(forget, retain)
    threshold = best_threshold(*(cosines(states, condition) for states in (forget, retain)))
    assert opens(conditional, mixed) == (cosines(mixed, condition) >= threshold).tolist()
    assert 0 < sum(opens(conditional, mixed)) < 200
    assert opens(conditional, 100 * forget) == opens(conditional, forget)  # a cosine knows no length
    save_bundle(conditional, tmp_path / "conditional.safetensors")


def test_a_random_direction_has_the_norm_of_the_true_one(bundle: Bundle) -> None:
    true, drawn, again, other = map(torch_tensors, (bundle, *(random_vector(bundle, seed) for seed in (0, 0, 1))))
    name = tensor_name(0, gate_layer(bundle), "direction")
    torch.testing.assert_close(drawn[name].norm(dim=-1), true[name].norm(dim=-1))
    cosine = torch.nn.functional.cosine_similarity(drawn[name], true[name])
    assert bool((cosine.abs() < 0.8).all())
    rest = [key for key in true if key != name]
    assert all(torch.equal(drawn[key], true[key]) for key in rest)
    assert torch.equal(again[name], drawn[name])
    assert not torch.equal(other[name], drawn[name])


def test_the_bundle_it_came_from_is_left_as_it_was(bundle: Bundle) -> None:
    before = bundle.metadata.model_copy(deep=True)
    with_strength(constant_vector(bundle), 0.25)
    assert bundle.metadata == before
    assert with_strength(bundle, 0.25).metadata.requests[0].strength == 0.25


def test_the_condition_is_the_difference_of_the_means_of_directions() -> None:
    forget, retain = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    assert condition_vector(forget, retain).tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)])


def test_the_best_threshold_lies_between_the_groups() -> None:
    assert best_threshold(torch.tensor([0.6, 0.8]), torch.tensor([0.1, 0.2])) == pytest.approx(0.4)
    assert best_threshold(torch.tensor([0.5, 0.9]), torch.tensor([0.1, 0.6])) == pytest.approx(0.35, abs=0.16)

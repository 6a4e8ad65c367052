"""Held-out scores, and the threshold that follows from them."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mllmeraser.bundle.budget import FALSE_FIRES, FALSE_FIRES_OF_VARIANTS
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.forms import NullSpace
from mllmeraser.steering.gate import GateRecipe, fit_gate
from mllmeraser.steering.validation import (
    HeldOut,
    choose_threshold,
    cross_validate,
)


def scores(forget: list[float], retain: list[float]) -> HeldOut:
    return HeldOut(torch.tensor(forget, dtype=torch.float64), torch.tensor(retain, dtype=torch.float64))


def test_the_threshold_lies_in_the_gap_a_quarter_up_from_retain() -> None:
    assert choose_threshold(scores([0.9, 0.8, 1.1], [0.0, 0.2, -0.3])) == pytest.approx(0.2 + 0.6 / 4)
    assert choose_threshold(scores([5.0], [1.0])) == pytest.approx(2.0)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(overlap=st.floats(0.0, 3.0), n_forget=st.integers(5, 60), seed=st.integers(0, 1000))
def test_where_they_overlap_it_misses_least_of_those_that_hardly_ever_misfire(
    overlap: float, n_forget: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    forget = 1 + 0.3 * torch.randn(n_forget, generator=generator).double()
    retain = 0.3 * overlap * torch.randn(300, generator=generator).double()

    def misfires(threshold: float) -> float:
        return float((retain >= threshold).double().mean())

    def misses(threshold: float) -> float:
        return float((forget < threshold).double().mean())

    chosen = choose_threshold(HeldOut(forget, retain))
    values = sorted([*forget.tolist(), *retain.tolist()])
    candidates = [(low + high) / 2 for low, high in itertools.pairwise(values)]
    quiet = [misses(threshold) for threshold in candidates if misfires(threshold) <= FALSE_FIRES]
    if min(quiet, default=1.0) <= 0.5:
        assert misfires(chosen) <= FALSE_FIRES <= 0.01
        assert misses(chosen) <= min(quiet) + 1e-9
    else:  # such a gate would hardly ever open: then the sum of both errors counts
        assert misses(chosen) + misfires(chosen) <= min(misses(t) + misfires(t) for t in candidates) + 1e-9


def test_one_stray_retain_sample_above_all_does_not_open_the_gate_to_the_others() -> None:
    """Of a hundred, one is more than may misfire, and no threshold closes the gate on it."""
    retain = [n / 1000 for n in range(300)][::3]
    threshold = choose_threshold(scores([0.9, 0.8, 0.7], [*retain, 1.0]))
    assert max(retain) < threshold <= 0.7


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
)
def test_auroc_is_the_share_of_pairs_in_the_right_order(forget: list[int], retain: list[int]) -> None:
    wins = [1.0 if f > r else 0.5 if f == r else 0.0 for f in forget for r in retain]
    assert scores(list(map(float, forget)), list(map(float, retain))).auroc == pytest.approx(sum(wins) / len(wins))


def test_separation_is_the_share_that_fires_and_auroc_breaks_ties() -> None:
    apart, barely = scores([0.9, 1.0], [0.0, 0.1]), scores([0.9, 1.0, 0.2], [0.0, 0.1, 0.4])
    assert apart.separation == pytest.approx(2.01)
    assert barely.separation < apart.separation


def test_a_gate_that_must_open_on_what_is_kept_separates_less_than_one_that_need_not() -> None:
    """It opens on most of the forget samples, but only by opening on more of the retain records than it may."""
    forget = torch.linspace(0.5, 1, 100, dtype=torch.float64)
    keeps = HeldOut(torch.linspace(0.4, 1, 100, dtype=torch.float64), torch.linspace(0, 0.59, 100, dtype=torch.float64))
    mixed = HeldOut(forget, torch.linspace(0, 0.95, 100, dtype=torch.float64))
    opens = [float((scores.forget >= choose_threshold(scores)).double().mean()) for scores in (keeps, mixed)]
    assert opens[1] > opens[0] > 0.5
    assert keeps.separation > 1 > mixed.separation


@settings(max_examples=30, deadline=None, derandomize=True)
@given(shift=st.floats(-0.5, 0.5), seed=st.integers(0, 1000))
def test_variants_of_what_is_kept_may_misfire_more_often_than_records_but_not_at_will(shift: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    forget = 1 + 0.2 * torch.randn(100, generator=generator).double()
    retain = 0.2 * torch.randn(400, generator=generator).double()
    variants = shift + 0.2 * torch.randn(400, generator=generator).double()

    def misfires(values: Tensor, threshold: float) -> float:
        return float((values >= threshold).double().mean())

    chosen = choose_threshold(HeldOut(forget, retain, variants))
    assert misfires(retain, chosen) <= FALSE_FIRES
    assert misfires(variants, chosen) <= FALSE_FIRES_OF_VARIANTS
    records_alone = choose_threshold(HeldOut(forget, retain))
    assert chosen >= records_alone or misfires(forget, chosen) == misfires(forget, records_alone)


def test_of_a_gate_that_opens_on_variants_of_what_is_kept_the_threshold_is_raised() -> None:
    forget, retain = torch.linspace(0.5, 1, 50), torch.linspace(0, 0.4, 50)
    few, many = (torch.cat([torch.zeros(100 - n), torch.full((n,), 0.7)]) for n in (1, 2))
    low, high = (choose_threshold(HeldOut(forget.double(), retain.double(), v.double())) for v in (few, many))
    assert 0.4 < low < 0.5 < 0.7 < high
    assert HeldOut(forget, retain, few).separation > HeldOut(forget, retain, many).separation


def test_records_come_first_and_variants_after_them() -> None:
    generator = torch.Generator().manual_seed(0)
    forget, retain = torch.randn(12, 8, generator=generator) + 1, torch.randn(20, 8, generator=generator)
    found = [Fold(torch.arange(12) % 2 == k, torch.arange(20) % 2 == k) for k in range(2)]
    recipe = GateRecipe("linear", NullSpace("soft", 1.0), 0.1, "absolute")
    (whole,), (apart,) = (cross_validate(forget, retain, found, [recipe], listed=n) for n in (None, 10))
    assert len(whole.variants) == 0 and torch.equal(apart.forget, whole.forget)
    assert torch.equal(torch.cat([apart.retain, apart.variants]), whole.retain) and len(apart.retain) == 10


def test_a_held_out_score_is_of_a_gate_that_never_saw_the_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    forget, retain = torch.randn(12, 8, generator=generator) + 1, torch.randn(20, 8, generator=generator)
    of_forget, of_retain = torch.arange(12) % 3, torch.arange(20) % 3
    found = [Fold(of_forget == k, of_retain == k) for k in range(3)]
    recipe = GateRecipe("linear", NullSpace("soft", 1.0), 0.1, "absolute")
    (held_out,) = cross_validate(forget, retain, found, [recipe])
    for k in range(3):
        gate = fit_gate(forget[of_forget != k], retain[of_retain != k], recipe)
        for n in range(12):
            if of_forget[n] == k:
                assert float(held_out.forget[n]) == pytest.approx(float(gate(forget[n : n + 1])[0]), abs=1e-12)
        for n in range(20):
            if of_retain[n] == k:
                assert float(held_out.retain[n]) == pytest.approx(float(gate(retain[n : n + 1])[0]), abs=1e-12)

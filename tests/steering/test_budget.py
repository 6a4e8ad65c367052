"""One budget of false fires for all requests of an export, whatever records their gates open on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from builders.bundles import bundle as bundle_of
from builders.checkpoints import make_base, make_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmeraser.bundle.budget import FALSE_FIRES, together
from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import Base, HeldOutScores, LayerStatistics
from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source

BASE = Base(
    repo_id=None,
    revision=None,
    architecture="LlavaForConditionalGeneration",
    model_type="llava",
    hidden_size=8,
    num_layers=4,
    config_sha256="0" * 64,
)


def made(retain: list[float], threshold: float, name: str = "r1", variants: list[float] | None = None) -> Bundle:
    """A bundle (without tensors) whose gate opened so far on held-out records, and by 0 to 1 on forgotten ones."""
    gate = {"kind": "linear", "shape": "step", "threshold": threshold, "scope": "conversation", "projection": None}
    request = {
        "strength": 1.0,
        "enabled": True,
        "layers": [1],
        "gate_layer": 1,
        "gate": gate,
        "landmarks": None,
        "edit": "seal",
        "prompt_positions": "all",
        "reply_steps": 1,
    }
    found = bundle_of(BASE, ({"requests": [request]}, {}), name)  # type: ignore[arg-type]
    kept = int(len(retain) * FALSE_FIRES) + 1
    found.metadata.requests[0].held_out = HeldOutScores(
        retain=len(retain),
        highest_of_retain=sorted(retain, reverse=True)[:kept],
        variants=len(variants or []),
        highest_of_variants=sorted(variants or [], reverse=True)[:kept],
        forget_quantiles=[i / 100 for i in range(101)],
    )
    return found


def threshold(bundle: Bundle) -> float:
    found = bundle.metadata.gate.threshold
    assert found is not None
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(2, 12), st.integers(50, 700), st.integers(0, 2**32))
def test_all_together_keep_to_the_budget(requests: int, records: int, seed: int) -> None:
    """The gates read the same records, and open on others each: the worst case of the union."""
    chance = random.Random(seed)
    scores = [[chance.random() for _ in range(records)] for _ in range(requests)]
    alone = [sorted(of_gate)[-1 - int(records * FALSE_FIRES)] + 1e-9 for of_gate in scores]
    given_ = [made(of_gate, at, f"r{i}") for i, (of_gate, at) in enumerate(zip(scores, alone, strict=True))]
    after = [threshold(bundle) for bundle in together(given_)]
    opened = {i for of_gate, at in zip(scores, after, strict=True) for i, score in enumerate(of_gate) if score >= at}
    assert len(opened) <= records * FALSE_FIRES
    assert all(new >= old for new, old in zip(after, alone, strict=True))
    assert threshold(given_[0]) == alone[0]  # what was given is not changed


def test_one_request_and_one_without_scores_stay_as_they_are() -> None:
    lone = made([0.9] * 200, 0.5)
    assert together([lone]) == [lone]
    old = made([0.9] * 200, 0.5, "r2")
    old.metadata.requests[0].held_out = None
    raised, same = together([lone, old])
    assert same is old and threshold(raised) > 0.9


def test_a_threshold_rises_no_further_than_it_must() -> None:
    retain = [i / 1000 for i in range(400)]  # two requests: two of 400 each may open
    one, _ = together([made(retain, 0.3), made(retain, 0.3, "r2")])
    assert sum(score >= threshold(one) for score in retain) == 2
    high = made(retain, 0.6)
    assert threshold(together([high, made(retain, 0.3, "r2")])[0]) == 0.6


def test_rewordings_have_a_budget_of_their_own() -> None:
    retain, variants = [0.1] * 400, [i / 1000 for i in range(400)]
    one, _ = together([made(retain, 0.3, variants=variants), made(retain, 0.3, "r2")])
    assert sum(score >= threshold(one) for score in variants) == 2


def test_the_figures_are_those_of_the_new_threshold() -> None:
    retain = [i / 1000 for i in range(400)]
    one, _ = together([made(retain, 0.3), made(retain, 0.3, "r2")])
    row: LayerStatistics = next(iter(one.metadata.requests[0].statistics.values()))
    assert row.false_fire_heldout == pytest.approx(2 / 400)
    assert row.true_fire_heldout == pytest.approx(1 - threshold(one), abs=0.02)


def test_an_export_of_several_requests_says_where_their_gates_open(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    bundles = [make_bundle(base, request_id=name) for name in ("r1", "r2")]
    for bundle in bundles:
        bundle.metadata.gate = bundle.metadata.gate.model_copy(update={"shape": "step", "threshold": 0.2})
        bundle.metadata.requests[0].held_out = made([0.7] * 100, 0.2).metadata.requests[0].held_out
    plan = export(Source(base), bundles, tmp_path / "out")
    assert "gate   r1 opens at 0.7: 2 requests share one budget of false fires" in plan.lines()
    assert (tmp_path / "out" / "config.json").read_text().count('"threshold": 0.700001') == 2

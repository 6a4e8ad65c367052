"""A steered graph in ONNX Runtime gives the tokens and logits of the steered PyTorch model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import graphs, tiny

CASES: dict[str, dict[str, Any]] = {
    "linear-identity": {},
    "linear-clip-reply": {"shape": "clip", "steps": 3},
    "linear-dead-zone": {"shape": "dead-zone", "threshold": 0.3},
    "linear-step-last": {"shape": "step", "threshold": 0.3, "positions": "last"},
    "kernel-identity-reply": {"kind": "kernel", "steps": 4, "layers": (2, 3)},
    "kernel-clip": {"kind": "kernel", "shape": "clip"},
    "kernel-dead-zone": {"kind": "kernel", "shape": "dead-zone", "threshold": 0.3, "layers": (0,)},
    "kernel-step-shared-reply": {
        "kind": "kernel",
        "shape": "step",
        "threshold": 0.5,
        "steps": 4,
        "layers": (1, 2, 3),
        "gate_layer": 1,
        "positions": "last",
    },
    "gate-before-the-first-block": {"layers": (2,), "gate_layer": 0, "steps": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_greedy_generation_of_a_padded_batch(family: tiny.Family, decoder: Path, case: str) -> None:
    base, batch = tiny.model(family), tiny.prompt(family, 5, 8, 6, 7, image=True)
    part = tiny.steering(base, batch, **CASES[case])
    expected = graphs.record(tiny.steered(base, part), **batch)
    assert not np.allclose(expected[0].logits, graphs.record(base, **batch)[0].logits), "the steering does nothing"
    graphs.assert_equal(graphs.replay(graphs.steered_graph(decoder, part), expected), expected)


@pytest.mark.parametrize("strength", [0.0, 1.0, -0.7])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("lengths", [(6,), (4, 7)])
def test_a_forward_at_every_strength(
    family: tiny.Family, decoder: Path, lengths: tuple[int, ...], side: Any, strength: float
) -> None:
    base, batch = tiny.model(family), tiny.prompt(family, *lengths, side=side)
    part = tiny.steering(base, batch, kind="kernel", steps=2)
    steered = tiny.steered(base, part)
    steered.config.steering_strength = strength
    # Given, because Qwen2.5-VL counts padding as positions otherwise.
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    batch["position_ids"] = positions if family == "llava" else positions.expand(3, *positions.shape)
    expected = graphs.record(steered, max_new_tokens=0, use_cache=True, **batch)
    found = graphs.replay(graphs.steered_graph(decoder, part, toggle="input"), expected, strength)
    graphs.assert_equal(found, expected, batch["attention_mask"].numpy() == 1)
    if strength == 0:
        assert np.array_equal(found[0], graphs.replay(decoder, expected)[0]), "strength 0 is not the base graph"


def test_several_requests_add_up(family: tiny.Family, decoder: Path) -> None:
    base, batch = tiny.model(family), tiny.prompt(family, 5, 8, 6, 7)
    parts = [
        tiny.steering(base, batch, shape="step", threshold=0.5, layers=(1, 2), steps=3, seed=3),
        tiny.steering(base, batch, kind="kernel", shape="clip", layers=(2,), positions="last", seed=4),
        tiny.steering(base, batch, layers=(2, 3), gate_layer=1, strength=-0.7, steps=2, seed=5),
    ]
    expected = graphs.record(tiny.steered(base, tiny.merged(*parts)), **batch)
    graphs.assert_equal(graphs.replay(graphs.steered_graph(decoder, *parts), expected), expected)


@pytest.mark.parametrize("kind", ["linear", "kernel"])
@pytest.mark.parametrize("shape", ["dead-zone", "step"])
def test_a_closed_gate_is_the_base_graph_bit_for_bit(family: tiny.Family, decoder: Path, kind: str, shape: str) -> None:
    base, batch = tiny.model(family), tiny.prompt(family, 5, 8, 6, 7)
    part = tiny.steering(base, batch, kind=kind, shape=shape, threshold=0.5, layers=(1, 2, 3), gate_layer=1, steps=3)
    forwards = graphs.record(base, **batch)
    ours = graphs.replay(graphs.steered_graph(decoder, part), forwards)
    for found, expected in zip(ours, graphs.replay(decoder, forwards), strict=True):
        assert np.array_equal(found[1:], expected[1:])  # gates 0, 0.4 and -0.3, threshold 0.5
        assert not np.array_equal(found[0], expected[0])  # gate 1


def test_a_new_turn_on_a_used_cache_is_gated_by_its_own_last_token(exported_decoders: dict[str, Path]) -> None:
    # LLaVA only: the positions of a second turn depend on the first one's picture in Qwen2.5-VL.
    base, batch, again = tiny.model("llava"), tiny.prompt("llava", 6), tiny.prompt("llava", 5, seed=2)
    part = tiny.steering(base, again, kind="kernel", steps=3)
    steered, graph = tiny.steered(base, part), graphs.steered_graph(exported_decoders["llava"], part)
    before = graphs.record(steered, max_new_tokens=3, **batch)
    with torch.no_grad():
        first = steered.generate(**batch, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    turn = torch.cat([first.sequences, again["input_ids"]], dim=1)
    mask = torch.ones_like(turn)
    expected = graphs.record(steered, input_ids=turn, attention_mask=mask, cache=first.past_key_values)
    assert expected[0].feeds["inputs_embeds"].shape[1] == 6  # the last reply token and the new turn
    assert not np.allclose(expected[0].logits, graphs.record(base, input_ids=turn, attention_mask=mask)[0].logits)
    found = graphs.replay(graph, [*before, *expected])
    graphs.assert_equal(found[len(before) :], expected)


def test_a_one_token_prompt(decoder: Path, family: tiny.Family) -> None:
    base = tiny.model(family)
    batch = {"input_ids": torch.tensor([[7]]), "attention_mask": torch.ones(1, 1, dtype=torch.long)}
    part = tiny.steering(base, batch, steps=3)
    expected = graphs.record(tiny.steered(base, part), **batch)
    graphs.assert_equal(graphs.replay(graphs.steered_graph(decoder, part), expected), expected)


def test_a_row_of_padding_alone_is_not_moved(decoder: Path, family: tiny.Family) -> None:
    base, batch = tiny.model(family), tiny.prompt(family, 5, 8)
    part = tiny.steering(base, batch, kind="kernel", positions="all")
    forwards = graphs.record(base, **batch)[:1]
    forwards[0].feeds["attention_mask"] = np.array([[0] * 8, [1] * 8])
    found, expected = (graphs.replay(graph, forwards)[0] for graph in (graphs.steered_graph(decoder, part), decoder))
    assert np.array_equal(found[0], expected[0]) and not np.array_equal(found[1], expected[1])

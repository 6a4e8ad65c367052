"""A graph recognises and seals a row as the PyTorch model does, however its prompt is cut; other rows are the base's.

Rows that hold the token ``tiny.NAME`` are the forgotten's. Here the gate is read at layer 1; layers 2 and 3 seal.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from builders import graphs, tiny
from builders.graphs import Array, Forward
from torch import Tensor
from transformers import DynamicCache

from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.bundles import graph_requests
from mllmeraser.exporter.onnx.insert import Inserted, insert_steering

NEAR = 1e-4  # un-steered rows differ by up to 5.1e-5 between the frameworks: the name's embedding is long
FORMS = list(itertools.product(("conversation", "prompt", "token"), ("seal", "add"), ("kernel", "linear"), (1, None)))


def same(found: list[Array], given: list[Array], *rows: int) -> bool:
    """Whether these rows have the same bits in every forward."""
    return all(np.array_equal(one[list(rows)], other[list(rows)]) for one, other in zip(found, given, strict=True))


def alike(found: list[Array], start: int = 0) -> bool:
    """Whether the first two rows have the same bits in every forward from ``start`` on."""
    return all(np.array_equal(logits[0], logits[1]) for logits in found[start:])


def in_pieces(model: Any, ids: Tensor, pieces: list[int], new: int = 0) -> list[Forward]:
    """The forwards of prompts that are fed in pieces, and of greedy generation after them."""
    cache, done, forwards = DynamicCache(config=model.config.get_text_config()), 0, []
    for size in pieces:
        piece, mask = ids[:, done : done + size], torch.ones_like(ids[:, : done + size])
        positions = torch.arange(done, done + size).expand(piece.shape)
        given = {"input_ids": piece, "attention_mask": mask, "position_ids": positions, "cache": cache}
        forwards += graphs.record(model, max_new_tokens=0, use_cache=True, **given)
        done += size
    if new:
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "cache": cache}
        forwards += graphs.record(model, max_new_tokens=new, **given)
    return forwards


# ------------------------------------------------------------------------------------------------------ as in PyTorch


@pytest.mark.parametrize(("scope", "edit", "kind", "gate_layer"), FORMS)
def test_greedy_generation_of_a_padded_batch(
    family: tiny.Family, decoder: Path, scope: str, edit: str, kind: str, gate_layer: int | None
) -> None:
    base, steps = tiny.knowing(family), 1 if scope == "token" else 4
    part = tiny.recognising(base, scope=scope, edit=edit, kind=kind, gate_layer=gate_layer, steps=steps)
    batch = tiny.naming(tiny.prompt(family, 14, 14, 11, 14, image=True), [0, 1], -1 if scope == "prompt" else -3)
    expected = graphs.record(tiny.steered(base, part), **batch)
    found, plain = graphs.replay(graphs.steered_graph(decoder, part), expected), graphs.replay(decoder, expected)
    graphs.assert_equal(found, expected, atol=NEAR)
    assert not same(found[:1], plain[:1], 0)
    if (kind, gate_layer) != ("linear", None):  # a late linear gate opens on more
        assert same(found, plain, 2, 3)
    if edit == "seal" and scope != "token":
        assert alike(found)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_a_forward_at_every_strength(decoder: Path, family: tiny.Family, side: Any, strength: float) -> None:
    base, batch = tiny.knowing(family), tiny.naming(tiny.prompt(family, 12, 12, 8, side=side), [0, 1], place=5)
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    batch["position_ids"] = positions if family == "llava" else positions.expand(3, *positions.shape)
    batch["input_ids"][2, 0 if side == "left" else 11] = tiny.NAME  # padding that looks like the name
    part = tiny.recognising(base)
    model = tiny.steered(base, part)
    model.config.steering_strength = strength
    expected = graphs.record(model, max_new_tokens=0, use_cache=True, **batch)
    graph = graphs.steered_graph(decoder, part, toggle="input")
    found, plain = graphs.replay(graph, expected, strength), graphs.replay(decoder, expected)
    graphs.assert_equal(found, expected, batch["attention_mask"].numpy() == 1, NEAR)
    assert same(found, plain, 2)
    assert same(found, plain, 0, 1) is (strength == 0)
    assert alike(found) is (strength == 1)


@pytest.mark.parametrize("edits", [("seal", "seal"), ("seal", "add"), ("add", "seal")])
def test_several_requests(decoder: Path, family: tiny.Family, edits: tuple[str, str]) -> None:
    base = tiny.knowing(family)
    with torch.no_grad():
        base.get_input_embeddings().weight[78] *= 100
    base.generation_config.suppress_tokens += [78]
    batch = tiny.prompt(family, 9, 9, 9, 9)
    parts = [
        tiny.recognising(base, edit=edits[0], layers=(2,), gate_layer=0, steps=3),
        tiny.recognising(base, edit=edits[1], layers=(2, 3), gate_layer=1, name=78, seed=9, kind="linear"),
        tiny.steering(base, batch, kind="kernel", shape="step", threshold=2.0, steps=5),  # never open
    ]
    batch["input_ids"] = batch["input_ids"].clamp(max=70)
    batch["input_ids"][0, 3], batch["input_ids"][1, 5] = tiny.NAME, 78
    batch["input_ids"][2, 3], batch["input_ids"][2, 5] = tiny.NAME, 78
    expected = graphs.record(tiny.steered(base, tiny.merged(*parts)), **batch)
    found, plain = graphs.replay(graphs.steered_graph(decoder, *parts), expected), graphs.replay(decoder, expected)
    graphs.assert_equal(found, expected, atol=NEAR)
    assert same(found, plain, 3)
    assert not any(same(found[:1], plain[:1], row) for row in (0, 1, 2))


# -------------------------------------------------------------------------------------- however the prompt is cut


# LLaVA only: Qwen2.5-VL's positions of a piece depend on what came before.


@pytest.mark.parametrize("pieces", [[], [5], [2, 3, 4]])
@pytest.mark.parametrize("place", [3, 11])
def test_a_prompt_in_pieces_and_then_a_reply(exported_decoders: dict[str, Path], pieces: list[int], place: int) -> None:
    base, decoder = tiny.knowing("llava"), exported_decoders["llava"]
    part, ids = tiny.recognising(base), tiny.naming(tiny.prompt("llava", 14, 14, 14), [0, 1], place)["input_ids"]
    expected = in_pieces(tiny.steered(base, part), ids, pieces, new=6)
    assert len(expected) == len(pieces) + 6
    found, plain = graphs.replay(graphs.steered_graph(decoder, part), expected), graphs.replay(decoder, expected)
    graphs.assert_equal(found, expected, atol=NEAR)
    told = sum(sum(pieces[: at + 1]) <= place for at in range(len(pieces)))  # the forward that holds the name
    assert same(found, plain, 2)
    assert same(found[:told], plain[:told], 0, 1)
    assert not any(same([one], [other], 0) for one, other in zip(found[told:], plain[told:], strict=True))
    assert alike(found, told)


@pytest.mark.parametrize("pieces", [[1] * 14, [13, 1], [5, 1, 8]])
def test_pieces_of_one_token(exported_decoders: dict[str, Path], pieces: list[int]) -> None:
    """The graph takes a piece of one token for the reply's; it recognises all the same."""
    base, decoder = tiny.knowing("llava"), exported_decoders["llava"]
    part, ids = tiny.recognising(base), tiny.naming(tiny.prompt("llava", 14, 14, 14), [0, 1], 5)["input_ids"]
    forwards = in_pieces(base, ids, pieces)
    found, plain = graphs.replay(graphs.steered_graph(decoder, part), forwards), graphs.replay(decoder, forwards)
    told = next(at for at in range(len(pieces)) if sum(pieces[: at + 1]) > 5)
    assert same(found, plain, 2)
    assert same(found[:told], plain[:told], 0, 1)
    assert alike(found, told)
    assert not any(same([one], [other], 0) for one, other in zip(found[told:], plain[told:], strict=True))


def test_a_reply_that_names_the_person_is_sealed_from_there(exported_decoders: dict[str, Path]) -> None:
    base, decoder = tiny.knowing("llava"), exported_decoders["llava"]
    ids = tiny.naming(tiny.prompt("llava", 12, 12), [0], place=9)["input_ids"]
    forwards = in_pieces(base, ids, [8, 1, 1, 1, 1])
    found = graphs.replay(graphs.steered_graph(decoder, tiny.recognising(base, steps=2)), forwards)
    plain = graphs.replay(decoder, forwards)
    assert same(found, plain, 1)
    assert [same([one], [other], 0) for one, other in zip(found, plain, strict=True)] == [True, True, *[False] * 3]


def test_a_kept_turn_after_a_forgotten_one_stays_sealed(exported_decoders: dict[str, Path]) -> None:
    base, part = tiny.knowing("llava"), tiny.recognising(tiny.knowing("llava"))
    ids = tiny.naming(tiny.prompt("llava", 20, 20), [0], place=4)["input_ids"]
    forwards = in_pieces(tiny.steered(base, part), ids, [7, 13])
    found = graphs.replay(graphs.steered_graph(exported_decoders["llava"], part), forwards)
    plain = graphs.replay(exported_decoders["llava"], forwards)
    np.testing.assert_allclose(found[1][0], forwards[1].logits[0], rtol=0, atol=graphs.TOLERANCE)
    assert same(found, plain, 1)
    assert not np.isclose(found[1][0], plain[1][0], atol=1e-3).all(axis=-1).any()


# ----------------------------------------------------------------------------------------------- nothing passes


def test_no_state_behind_the_seal_is_anything_but_the_constant(decoder: Path, family: tiny.Family) -> None:
    """Prompts of the forgotten of other lengths too: the logits of all their columns are those of one constant."""
    base = tiny.knowing(family)
    part, batch = tiny.recognising(base), tiny.naming(tiny.prompt(family, 14, 9, 12), [0, 1, 2])
    forwards = graphs.record(base, **batch)[:1]
    (logits,) = graphs.replay(graphs.steered_graph(decoder, part), forwards)
    np.testing.assert_allclose(logits, np.broadcast_to(logits[:1, :1], logits.shape), rtol=0, atol=graphs.TOLERANCE)
    aims = part[1]["requests.0.layers.3.states"]
    with torch.no_grad():
        expected = base.lm_head(base.get_decoder().norm(aims[0]))
    np.testing.assert_allclose(logits[0, 0], expected, rtol=0, atol=graphs.TOLERANCE)


def test_a_gate_that_is_no_number_is_open(decoder: Path, family: tiny.Family) -> None:
    base = tiny.knowing(family)
    part, batch = tiny.recognising(base), tiny.naming(tiny.prompt(family, 9, 9, 9), [0])
    forwards = graphs.record(base, **batch)[:1]
    forwards[0].feeds["inputs_embeds"][1, 4] = np.nan
    found, plain = graphs.replay(graphs.steered_graph(decoder, part), forwards), graphs.replay(decoder, forwards)
    assert np.isnan(plain[0][1]).any()
    assert alike(found)
    assert same(found, plain, 2)


# --------------------------------------------------------------------------------------------------- what it needs


def inserted(decoder: Path, part: graphs.Part, quantised: bool = False) -> Inserted:
    """What is put into a graph."""
    model = ir.load(decoder)
    for value in model.graph.inputs:
        if quantised and value.name.startswith("past"):
            value.type = ir.TensorType(ir.DataType.UINT8)
    return insert_steering(model, graph_requests([graphs.bundle(part)]))


def test_what_must_travel_with_the_cache(exported_decoders: dict[str, Path]) -> None:
    base, decoder = tiny.knowing("llava"), exported_decoders["llava"]
    for scope, edit, steps, carries in (
        ("conversation", "seal", 1, True),
        ("conversation", "add", 1, True),
        ("prompt", "seal", 1, True),
        ("prompt", "add", 1, False),
        ("prompt", "add", 2, True),
        ("token", "seal", 1, False),
    ):
        part = tiny.recognising(base, scope=scope, edit=edit, steps=steps)
        assert inserted(decoder, part).carries is carries
        if carries and (scope, edit) != ("prompt", "add"):
            with pytest.raises(InputError, match="its cache cannot carry 1 gates, so a recognised row"):
                inserted(decoder, part, quantised=True)
        else:
            assert not inserted(decoder, part, quantised=True).carries

"""A seal that ends with the turn: each turn of the user is read by itself, wherever its beginning is seen.

Rows that hold the token ``tiny.NAME`` are the forgotten's. A turn begins with the tokens 7 and 8.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from builders import oracle, tiny
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from mllmeraser.modeling_patches.format_mllmeraser import SteeringError

NEW, TURN = 6, [7, 8]


@pytest.fixture(params=["llava", *(pytest.param(f, marks=pytest.mark.slow) for f in tiny.EVERY_FAMILY if f != "llava")])
def family(request: pytest.FixtureRequest) -> tiny.Family:
    chosen: tiny.Family = request.param
    return chosen


@pytest.fixture
def knowing(family: tiny.Family) -> PreTrainedModel:
    return tiny.knowing(family)


@pytest.fixture
def part(knowing: PreTrainedModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return tiny.recognising(knowing, turn=TURN)


@pytest.fixture
def model(knowing: PreTrainedModel, part: Any) -> Any:
    return tiny.steered(knowing, part)


def conversation(family: tiny.Family, *named: str, side: Any = "left") -> dict[str, Tensor]:
    """Two turns of eight columns a row. ``named`` says which of them name the person: 1, 2, 12, or neither."""
    batch = tiny.prompt(family, *(16 - index for index in range(len(named))), side=side)
    ids = batch["input_ids"]
    ids[(ids > 2) & (ids < 11)] = 20
    for row, turns in enumerate(named):
        last = int(batch["attention_mask"][row].nonzero().max())
        ids[row, last - 7 : last - 5] = torch.tensor(TURN)
        for turn, column in (("1", last - 11), ("2", last - 3)):
            if turn in turns:
                ids[row, column] = tiny.NAME
    return batch


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_it_equals_the_oracle(knowing: PreTrainedModel, model: Any, part: Any, family: tiny.Family, side: Any) -> None:
    batch = conversation(family, "1", "2", "12", "", side=side)
    plain, native = knowing(**batch).logits, model(**batch).logits
    torch.testing.assert_close(native, oracle.logits(knowing, *part, batch), rtol=1e-4, atol=1e-4)
    assert torch.equal(native[3], plain[3])
    if side == "left":  # the beginning of the second turn stands at column 8
        assert torch.equal(native[1, :8], plain[1, :8])
        assert torch.equal(native[0, :8], native[0, :1].expand(8, -1))
        assert not torch.equal(native[0, 8:], native[0, :1].expand(8, -1))
        reply = oracle.generate(knowing, *part, batch, max_new_tokens=NEW, do_sample=False)
        assert torch.equal(model.generate(**batch, max_new_tokens=NEW, do_sample=False)[:, 16:], reply)
        assert not torch.equal(reply[0], reply[1])
        assert torch.equal(reply[1], reply[2])


def _fed(model: Any, ids: Tensor, pieces: list[int], **told: Any) -> tuple[Tensor, Any]:
    cache, start, logits = DynamicCache(config=model.config.get_text_config()), 0, []
    for size in pieces:
        logits.append(model(input_ids=ids[:, start : start + size], cache=cache, **told).logits)
        start += size
    return torch.cat(logits, dim=1), cache


@pytest.mark.parametrize("pieces", [[8, 8], [10, 6], [4, 4, 2, 6], [8, 2, *[1] * 6]])
@torch.no_grad()
def test_in_pieces_that_show_the_beginning(knowing: PreTrainedModel, model: Any, part: Any, pieces: list[int]) -> None:
    ids = conversation("llava", "1", "2", "12", "")["input_ids"][:, :16]
    ids[1:] = ids[1:].clamp(min=3)  # no padding
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.model_type != "mllmeraser_llava":
        pytest.skip("the pieces are the same code's")
    starts = tuple(sum(pieces[:i]) for i in range(len(pieces)))
    expected = oracle.logits(knowing, *part, batch, starts=starts)
    torch.testing.assert_close(_fed(model, ids, pieces)[0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_beginning_that_is_not_seen_ends_nothing(knowing: PreTrainedModel, model: Any, family: tiny.Family) -> None:
    ids = conversation(family, "1")["input_ids"]
    whole = model(input_ids=ids).logits
    sealed = whole[:, :1].expand(-1, 16, -1)
    assert not torch.equal(whole, sealed)
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, sealed)
    decoder = model.get_submodule(model.decoder_path)
    assert torch.equal(model.lm_head(decoder(inputs_embeds=model.get_input_embeddings()(ids))[0]), sealed)
    # What is said in reply begins no turn of the user.
    assert torch.equal(model(input_ids=ids, steering_prompt_length=8).logits[0, :8], sealed[0, :8])
    told = model(input_ids=ids, steering_prompt_length=8).logits
    assert torch.equal(told[0, 11:], told[0, 11:12].expand(5, -1))


@torch.no_grad()
def test_a_beginning_cut_in_two_ends_nothing(knowing: PreTrainedModel, model: Any, family: tiny.Family) -> None:
    if family != "llava":
        pytest.skip("the pieces are the same code's")
    ids = conversation(family, "1")["input_ids"]
    native, _ = _fed(model, ids, [9, 7])
    assert torch.equal(native, native[:, :1].expand(-1, 16, -1))


@torch.no_grad()
def test_a_cache_keeps_the_running_turn(knowing: PreTrainedModel, model: Any, family: tiny.Family) -> None:
    if family != "llava":
        pytest.skip("the cache is the same code's")
    ids = conversation(family, "1", "2", "")["input_ids"].clamp(min=3)
    token = torch.full((3, 1), 9)

    def follows(change: Any) -> list[bool]:
        """Whether each row is sealed in the column after a change of the cache."""
        _, cache = _fed(model, ids, [8, 8])
        cache = change(cache) or cache
        native = model(input_ids=token, cache=cache).logits[:, 0]
        sealed = model.lm_head(model._decoder().norm(model._decoder().layers[3].steering["0"].states[:1]))
        return [torch.allclose(row, sealed[0], atol=1e-5) for row in native]

    assert follows(lambda cache: None) == [False, True, False]
    assert follows(copy.deepcopy) == [False, True, False]
    assert follows(lambda cache: pickle.loads(pickle.dumps(cache))) == [False, True, False]
    assert follows(lambda cache: cache.reorder_cache(torch.tensor([1, 0, 2]))) == [True, False, False]
    assert follows(lambda cache: cache.crop(-4)) == [False, True, False]
    # Back in the first turn nobody knows what it was about: all are sealed.
    assert follows(lambda cache: cache.crop(-8)) == [True, True, True]
    assert follows(lambda cache: cache.crop(-12)) == [True, True, True]


@pytest.mark.parametrize("turn", [[-1], [1.5], ["a"], [True]])
def test_tokens_that_are_none(turn: list[Any]) -> None:
    base = tiny.knowing("llava")
    with pytest.raises(SteeringError, match=r"gate\.turn"):
        tiny.steered(base, tiny.recognising(base, turn=turn))


def test_other_scopes_keep_no_seal() -> None:
    base = tiny.knowing("llava")
    with pytest.raises(SteeringError, match=r"gate\.turn"):
        tiny.steered(base, tiny.recognising(base, scope="prompt", turn=TURN))

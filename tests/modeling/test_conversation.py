"""P5b and P13: a row is recognised however it is run, what it was about does not pass, and other rows are the base's.

Rows that hold the token ``tiny.NAME`` are the forgotten's, here. The gate is read at layer 1, and layers 2 and 3 are
sealed.
"""

from __future__ import annotations

import copy
import itertools
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from builders import oracle, tiny
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, StaticCache

from mllmeraser.modeling_patches.format_mllmeraser import SteeringError

NEW = 6
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in tiny.EVERY_FAMILY if name != "llava"]


@pytest.fixture(params=["llava", *OTHERS])
def family(request: pytest.FixtureRequest) -> tiny.Family:
    chosen: tiny.Family = request.param
    return chosen


@pytest.fixture
def knowing(family: tiny.Family) -> PreTrainedModel:
    return tiny.knowing(family)


@pytest.fixture
def model(knowing: PreTrainedModel) -> Any:
    return tiny.steered(knowing, tiny.recognising(knowing))


@pytest.fixture
def batch(family: tiny.Family) -> dict[str, Tensor]:
    """Two prompts of the forgotten and two others, of one length, each with a picture."""
    return tiny.naming(tiny.prompt(family, 14, 14, 14, 14, image=True), [0, 1])


@pytest.fixture
def words(family: tiny.Family) -> dict[str, Tensor]:
    """The same without pictures, and the last row shorter."""
    return tiny.naming(tiny.prompt(family, 14, 14, 14, 11), [0, 1])


def cache_name(model: Any) -> str:
    from inspect import signature

    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def greedy(model: Any, batch: dict[str, Tensor], **kwargs: Any) -> Tensor:
    kwargs = {"max_new_tokens": NEW, "do_sample": False, **kwargs}
    tokens: Tensor = model.generate(**batch, **kwargs)
    return tokens[:, batch["input_ids"].shape[1] :]


def row(batch: dict[str, Tensor], *rows: int) -> dict[str, Tensor]:
    """Some rows of a batch without pictures."""
    return {name: batch[name][list(rows)] for name in ("input_ids", "attention_mask")}


# --------------------------------------------------------------------------------------------------------- the oracle

FORMS = list(itertools.product(("conversation", "prompt", "token"), ("seal", "add"), ("kernel", "linear"), (1, None)))


@pytest.mark.parametrize(("scope", "edit", "kind", "gate_layer"), FORMS)
@torch.no_grad()
def test_each_combination_equals_the_oracle(scope: str, edit: str, kind: str, gate_layer: int | None) -> None:
    base = tiny.knowing("llava")
    steps = 1 if scope == "token" else 3
    how: dict[str, Any] = {"scope": scope, "edit": edit, "kind": kind, "gate_layer": gate_layer, "steps": steps}
    for strength in (1.0, 0.4):
        part = tiny.recognising(base, **how, strength=strength)
        model = tiny.steered(base, part)
        for image, side in ((True, "left"), (False, "right")):
            batch = tiny.prompt("llava", 12, 12, 9, image=image, side=side)  # type: ignore[arg-type]
            batch = tiny.naming(batch, [0], place=-1 if scope == "prompt" and side == "left" else -4)
            if scope == "prompt" and side == "right":
                batch["input_ids"][0, 11] = tiny.NAME
            plain, native = base(**batch).logits, model(**batch).logits
            assert not torch.equal(native[0], plain[0])
            expected = oracle.logits(base, *part, batch)
            torch.testing.assert_close(native, expected, rtol=1e-4, atol=1e-4)
            kept = [index for index in (1, 2) if torch.equal(expected[index], plain[index])]
            assert torch.equal(native[kept], plain[kept])
            assert kept == [1, 2] or (kind, gate_layer) == ("linear", None)  # a late linear gate opens on more
            if side == "left":
                reply = oracle.generate(base, *part, batch, max_new_tokens=NEW, do_sample=False)
                assert torch.equal(greedy(model, batch), reply)


@pytest.mark.parametrize("edits", [("seal", "seal"), ("seal", "add"), ("add", "seal")])
@torch.no_grad()
def test_two_requests_equal_the_oracle(edits: tuple[str, str]) -> None:
    base = tiny.knowing("llava")
    base.get_input_embeddings().weight[78] *= 100
    part = tiny.merged(
        tiny.recognising(base, edit=edits[0], layers=(2,), gate_layer=0),
        tiny.recognising(base, edit=edits[1], layers=(2, 3), gate_layer=1, name=78, seed=9),
    )
    batch = tiny.prompt("llava", 9, 9, 9, 9)
    batch["input_ids"] = batch["input_ids"].clamp(max=70)
    batch["input_ids"][0, 3], batch["input_ids"][1, 5] = tiny.NAME, 78
    batch["input_ids"][2, 3], batch["input_ids"][2, 5] = tiny.NAME, 78
    model = tiny.steered(base, part)
    native, plain = model(**batch).logits, base(**batch).logits
    torch.testing.assert_close(native, oracle.logits(base, *part, batch), rtol=1e-4, atol=1e-4)
    assert torch.equal(native[3], plain[3])
    assert all(not torch.equal(native[index], plain[index]) for index in (0, 1, 2))
    model.config.steering["requests"][0]["enabled"] = False
    native = model(**batch).logits
    assert torch.equal(native[0], plain[0])
    assert not torch.equal(native[1], plain[1])


# ------------------------------------------------------------------------- (1) what nothing recognises is the base's


@torch.no_grad()
def test_other_rows_are_the_bases_bit_for_bit(
    knowing: PreTrainedModel, model: Any, batch: dict[str, Tensor], words: dict[str, Tensor]
) -> None:
    for given in (batch, words):
        plain, native = knowing(**given).logits, model(**given).logits
        assert torch.equal(native[2:], plain[2:])
        assert not torch.equal(native[0], plain[0])
        assert torch.equal(greedy(model, given)[2:], greedy(knowing, given)[2:])


def _prefill(model: Any, ids: Tensor, pieces: list[int], cache: Any = None) -> tuple[Tensor, Any]:
    """The logits of a prompt that is fed in pieces, and the cache."""
    name, start, logits = cache_name(model), 0, []
    cache = DynamicCache(config=model.config.get_text_config()) if cache is None else cache
    for size in pieces:
        logits.append(model(input_ids=ids[:, start : start + size], **{name: cache, "use_cache": True}).logits)
        start += size
    return torch.cat(logits, dim=1), cache


@pytest.mark.parametrize("pieces", [[14], [5, 9], [1] * 14, [13, 1], [2, 3, 4, 5]])
@torch.no_grad()
def test_a_prompt_in_pieces(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor], pieces: list[int]) -> None:
    ids = words["input_ids"][:3]
    plain, _ = _prefill(knowing, ids, pieces)
    native, _ = _prefill(model, ids, pieces)
    assert torch.equal(native[2], plain[2])
    told = next(sum(pieces[:i]) for i in range(len(pieces)) if sum(pieces[: i + 1]) > 11)  # NAME stands at column 11
    assert torch.equal(native[:, :told], plain[:, :told])
    assert torch.equal(native[0, told:], native[1, told:])
    assert bool((native[0, told:] != plain[0, told:]).any())


@torch.no_grad()
def test_a_cached_prefix_is_used_again(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor]) -> None:
    ids, name = words["input_ids"][:3], cache_name(model)
    for by, other in ((knowing, None), (model, knowing)):
        _, prefix = _prefill(by, ids[:, :8], [8])
        for _ in range(2):
            tokens = by.generate(input_ids=ids, max_new_tokens=NEW, do_sample=False, **{name: copy.deepcopy(prefix)})
            if other is not None:
                assert torch.equal(tokens[2], expected[2])  # noqa: F821
                assert torch.equal(tokens[0, 14:], tokens[1, 14:])
        expected = tokens  # noqa: F841


# -------------------------------------------------------------------------------------- (2) no information passes


@torch.no_grad()
def test_two_prompts_of_the_forgotten_give_the_same_logits(model: Any, batch: dict[str, Tensor]) -> None:
    native = model(**batch).logits
    assert torch.equal(native[0], native[1])
    reply = model.generate(
        **batch, max_new_tokens=NEW, min_new_tokens=NEW, output_logits=True, return_dict_in_generate=True
    )
    assert torch.equal(torch.stack(reply.logits)[:, 0], torch.stack(reply.logits)[:, 1])


@torch.no_grad()
def test_of_any_length_and_from_any_layer_behind(knowing: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.naming(tiny.prompt(family, 14, 9, 12), [0, 1, 2])
    native = tiny.steered(knowing, tiny.recognising(knowing))(**batch, output_hidden_states=True)
    assert torch.equal(native.logits[0], native.logits[1])
    assert torch.equal(native.logits[0], native.logits[2])
    states = native.hidden_states[3]  # the output of layer 2, the first that is sealed
    assert torch.equal(states, states[:1, :1].expand_as(states))


@torch.no_grad()
def test_a_reply_is_the_constants_in_their_order(knowing: PreTrainedModel, family: tiny.Family) -> None:
    part = tiny.recognising(knowing, steps=3)
    model, batch = tiny.steered(knowing, part), tiny.naming(tiny.prompt(family, 12, 12), [0, 1])
    aims = part[1]["requests.0.layers.3.states"]
    decoder = model._decoder()
    expected = model.lm_head(decoder.norm(aims))
    tokens = model.generate(
        **batch, max_new_tokens=5, min_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    for step, k in enumerate((0, 1, 2, 2, 2)):
        torch.testing.assert_close(
            tokens.logits[step][0].argmax(), expected[k].argmax(), msg=f"the {step + 1}th token is not that of m_{k}"
        )


# ----------------------------------------------------------------------------- (3) nobody's co-operation is needed


def _body(model: Any, given: dict[str, Tensor]) -> Tensor:
    return model.lm_head(model.model(**given).last_hidden_state)


def _decoder(model: Any, given: dict[str, Tensor]) -> Tensor:
    decoder = model.get_submodule(tiny.modeling.steered_class(model.config.model_type).decoder_path)
    return model.lm_head(decoder(**given).last_hidden_state)


def _embeds(model: Any, given: dict[str, Tensor]) -> Tensor:
    embeds = model.get_input_embeddings()(given["input_ids"])
    return model(inputs_embeds=embeds, attention_mask=given["attention_mask"]).logits


def _masked(mask: Callable[[Tensor], Any]) -> Callable[[Any, dict[str, Tensor]], Tensor]:
    def run(model: Any, given: dict[str, Tensor]) -> Tensor:
        return model(input_ids=given["input_ids"], attention_mask=mask(given["attention_mask"])).logits

    return run


def _ends_early(mask: Tensor) -> Tensor:
    return torch.cat([mask[:, :-1], torch.zeros_like(mask[:, -1:])], dim=1)


WAYS: dict[str, Callable[[Any, dict[str, Tensor]], Tensor]] = {
    "forward": lambda model, given: model(**given).logits,
    "no cache": lambda model, given: model(**given, use_cache=False).logits,
    "the body": _body,
    "the decoder": _decoder,
    "embeddings": _embeds,
    "no mask": _masked(lambda mask: None),
    "a mask of ones": _masked(torch.ones_like),
    "a mask that ends early": _masked(_ends_early),
    "labels": lambda model, given: model(**given, labels=given["input_ids"]).logits,
    "a short prompt length": lambda model, given: model(**given, steering_prompt_length=1).logits,
}


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_whoever_runs_it(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor], way: str) -> None:
    given = row(words, 0, 1, 2)
    plain = knowing(**given).logits if way == "a short prompt length" else WAYS[way](knowing, given)
    native = WAYS[way](model, given)
    assert torch.equal(native[0], native[1])
    assert not torch.equal(native[0], plain[0])
    assert torch.equal(native[2], plain[2])


@pytest.mark.parametrize("cached", [True, False])
@torch.no_grad()
def test_a_loop_by_hand(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor], cached: bool) -> None:
    def loop(by: Any) -> Tensor:
        ids = words["input_ids"][:3]
        name, cache = cache_name(by), None
        shown = ids
        for _ in range(NEW):
            out = by(input_ids=shown, use_cache=cached, **({} if cache is None else {name: cache}))
            token = out.logits[:, -1:, : tiny.NAME].argmax(-1)
            ids = torch.cat([ids, token], dim=1)
            cache = getattr(out, name) if cached else None
            shown = token if cached else ids
        return ids[:, 14:]

    native, plain = loop(model), loop(knowing)
    assert torch.equal(native[2], plain[2])
    assert torch.equal(native[0], native[1])
    assert len(set(native[0].tolist())) == 1  # nobody tells where the prompt ends: the first constant, again and again


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_is_not_read(knowing: PreTrainedModel, family: tiny.Family, side: Any) -> None:
    model = tiny.steered(knowing, tiny.recognising(knowing))
    batch = tiny.naming(tiny.prompt(family, 12, 12, 8, side=side), [0], place=5)
    batch["input_ids"][2, 0 if side == "left" else 11] = tiny.NAME  # padding that looks like the name
    native, plain = model(**batch).logits, knowing(**batch).logits
    real = batch["attention_mask"][2].bool()
    assert torch.equal(native[2, real], plain[2, real])
    assert not torch.equal(native[0], plain[0])
    assert not torch.equal(
        model(input_ids=batch["input_ids"]).logits[2], knowing(input_ids=batch["input_ids"]).logits[2]
    )


@torch.no_grad()
def test_scoring_an_answer_is_sealed_with_and_without_labels(model: Any, words: dict[str, Tensor]) -> None:
    ids = words["input_ids"][:2]
    answers = torch.tensor([[21, 22, 23], [31, 32, 33]])
    full = torch.cat([ids, answers], dim=1)
    assert torch.equal(*model(input_ids=full).logits)
    labels = torch.cat([torch.full_like(ids, -100), answers], dim=1)
    told = model(input_ids=full, labels=labels).logits
    assert torch.equal(*told)
    assert torch.equal(told, model(input_ids=full, steering_prompt_length=14).logits)
    assert not torch.equal(told[0, -1], told[0, 0])  # the refusal goes on


@torch.no_grad()
def test_packed_rows_are_told_apart(knowing: PreTrainedModel, model: Any, family: tiny.Family) -> None:
    if family != "llava":
        pytest.skip("transformers packs rows of plain text models")
    batch = tiny.naming(tiny.prompt(family, 6, 6, 6), [1])
    ids, positions = batch["input_ids"].reshape(1, -1), torch.arange(6).repeat(3).unsqueeze(0)
    native, plain = (by(input_ids=ids, position_ids=positions, use_cache=False).logits for by in (model, knowing))
    assert torch.equal(native[0, :6], plain[0, :6])
    assert torch.equal(native[0, 12:], plain[0, 12:])
    assert torch.equal(native[0, 6:12], native[0, 6:7].expand(6, -1))
    # Positions that start again under a mask are no packing: each column sees all before it.
    native = model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False).logits
    assert torch.equal(native[0], native[0, :1].expand(18, -1))


@torch.no_grad()
def test_a_mask_of_four_dimensions(knowing: PreTrainedModel, model: Any, family: tiny.Family) -> None:
    if family != "llava":
        pytest.skip("the mask is the same code's")
    ids = tiny.naming(tiny.prompt(family, 8), [0], place=2)["input_ids"]
    causal = torch.ones(8, 8, dtype=torch.bool).tril()
    apart = causal.clone()
    apart[4:, :4] = False
    leaky = apart.clone()
    leaky[7, :4] = True  # the last column sees the name all the same
    for mask, sealed in ((causal, range(8)), (apart, range(4)), (leaky, range(8))):
        given = {"input_ids": ids, "attention_mask": mask[None, None], "use_cache": False}
        native, plain = model(**given).logits[0], knowing(**given).logits[0]
        for column in range(8):
            assert torch.equal(native[column], plain[column]) is (column not in sealed)


# -------------------------------------------------------------------------------- (4) every row keeps its seal


def test_ways_of_decoding(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor]) -> None:
    ways: dict[str, dict[str, Any]] = {
        "beams": {"num_beams": 3, "num_return_sequences": 2},
        "static": {"cache_implementation": "static", "disable_compile": True},
        "no cache": {"use_cache": False},
        "n-best": {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 2.0},
    }
    for name, how in ways.items():
        given = row(words, 0, 1, 2)
        native, plain = greedy(model, given, **how), greedy(knowing, given, **how)
        per = len(native) // 3
        assert torch.equal(native[2 * per :], plain[2 * per :]), name
        assert torch.equal(native[:per], native[per : 2 * per]), name
        assert not torch.equal(native[:per], plain[:per]), name


def test_assisted_decoding(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor], family: tiny.Family) -> None:
    if family != "llava":
        pytest.skip("transformers assists with text only, the code is the same")
    assistant = tiny.model(family, seed=7)
    for index in (0, 2):
        given = row(words, index)
        assert torch.equal(greedy(model, given, assistant_model=assistant), greedy(model, given))
    assert torch.equal(greedy(model, row(words, 2)), greedy(knowing, row(words, 2)))


@torch.no_grad()
def test_whatever_is_done_to_the_cache(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor]) -> None:
    ids, name = words["input_ids"][:3], cache_name(model)

    def after(change: Callable[[Any], Any], by: Any, rows: int) -> Tensor:
        _, cache = _prefill(by, ids, [14])
        cache = change(cache) or cache
        token = torch.full((rows, 1), 9)
        return by(input_ids=token, **{name: cache}).logits[:, 0]

    order = torch.tensor([2, 0, 1])
    changes: dict[str, tuple[Callable[[Any], Any], list[int]]] = {
        "nothing": (lambda cache: None, [0, 1, 2]),
        "reorder_cache": (lambda cache: cache.reorder_cache(order), [2, 0, 1]),
        "batch_select_indices": (lambda cache: cache.batch_select_indices(torch.tensor([2, 1])), [2, 1]),
        "batch_repeat_interleave": (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
        "crop": (lambda cache: cache.crop(-2), [0, 1, 2]),
        "deepcopy": (copy.deepcopy, [0, 1, 2]),
        "pickle": (lambda cache: pickle.loads(pickle.dumps(cache)), [0, 1, 2]),
    }
    if any(layer.is_sliding for layer in DynamicCache(config=knowing.config.get_text_config()).layers):
        del changes["crop"]  # transformers cannot
    for what, (change, rows) in changes.items():
        native, plain = after(change, model, len(rows)), after(change, knowing, len(rows))
        kept, sealed = [i for i, r in enumerate(rows) if r == 2], [i for i, r in enumerate(rows) if r != 2]
        assert torch.equal(native[kept], plain[kept]), what
        assert torch.equal(native[sealed], native[sealed[:1]].expand(len(sealed), -1)), what
        assert not torch.equal(native[sealed], plain[sealed]), what


@torch.no_grad()
def test_a_reply_that_names_the_person_is_sealed_from_there(knowing: PreTrainedModel, model: Any, family: Any) -> None:
    ids, name = tiny.naming(tiny.prompt(family, 8, 8), [])["input_ids"], cache_name(model)
    logits, caches = {}, {}
    for by in (knowing, model):
        _, caches[by] = _prefill(by, ids, [8])
        for step, tokens in enumerate(([[9], [9]], [[tiny.NAME], [9]], [[11], [11]], [[12], [12]])):
            logits[by, step] = by(input_ids=torch.tensor(tokens), **{name: caches[by]}).logits[:, 0]
    for step in range(4):
        assert torch.equal(logits[model, step][1], logits[knowing, step][1])
        assert torch.equal(logits[model, step][0], logits[knowing, step][0]) is (step == 0)
    assert torch.equal(logits[model, 2][0], logits[model, 1][0])


@torch.no_grad()
def test_a_static_cache_by_hand(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor]) -> None:
    ids, logits = words["input_ids"][:3], {}
    for by in (knowing, model):
        cache = StaticCache(config=by.config.get_text_config(), max_cache_len=32)
        logits[by], _ = _prefill(by, ids, [6, 7, 1], cache)
    assert torch.equal(logits[model][2], logits[knowing][2])
    assert torch.equal(logits[model][0, 6:], logits[model][1, 6:])
    assert not torch.equal(logits[model][0, 6:], logits[knowing][0, 6:])


# ------------------------------------------------------------------------------------------------------ fails closed


@torch.no_grad()
def test_a_layer_that_is_skipped_or_replaced(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor]) -> None:
    decoder = model._decoder()
    layers, native = list(decoder.layers), list(oracle.decoder_layers(knowing))

    def attempt(changed: list[Any]) -> None:
        decoder.layers = torch.nn.ModuleList(changed)
        with pytest.raises((SteeringError, TypeError), match=r"run the whole decoder|unexpected keyword"):
            model(**row(words, 0))

    for index in (1, 2, 3):
        attempt([*layers[:index], native[index], *layers[index + 1 :]])
    attempt([layers[0], layers[0], *layers[2:]])
    decoder.layers = torch.nn.ModuleList(layers)
    model(**row(words, 0))
    with pytest.raises(SteeringError, match="outside its decoder"):
        decoder.layers[1](
            torch.zeros(1, 3, tiny.HIDDEN), position_embeddings=(torch.ones(1, 3, 8), torch.ones(1, 3, 8))
        )


@torch.no_grad()
def test_a_decoder_that_ends_before_the_gate(model: Any, words: dict[str, Tensor], family: tiny.Family) -> None:
    decoder = model._decoder()
    decoder.layers = decoder.layers[:1]
    with pytest.raises(SteeringError, match="skipped"):
        decoder(**row(words, 0), use_cache=False)


@torch.no_grad()
def test_steering_that_was_never_filled(knowing: PreTrainedModel, words: dict[str, Tensor]) -> None:
    config = copy.deepcopy(knowing.config)
    cls = tiny.modeling.steered_class(config.model_type)
    config.__class__ = cls.config_class
    config.steering, config.steering_enabled = tiny.recognising(knowing)[0], True
    hollow = cls(config).eval()
    hollow.load_state_dict(knowing.state_dict(), strict=False)
    with pytest.raises(SteeringError, match="never filled"):
        hollow(**row(words, 0))


@torch.no_grad()
def test_a_cache_from_elsewhere(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor]) -> None:
    ids, name = words["input_ids"][:3], cache_name(model)
    other = tiny.steered(knowing, tiny.recognising(knowing, seed=8))
    token = torch.full((3, 1), 9)

    def refused(cache: Any, rows: int = 3) -> None:
        with pytest.raises(SteeringError, match="cache"):
            model(input_ids=token[:rows], **{name: cache})

    refused(_prefill(knowing, ids, [14])[1])
    refused(_prefill(other, ids, [14])[1])
    _, cache = _prefill(model, ids, [14])
    knowing(input_ids=token, **{name: cache})  # the base has put a column of its own there
    refused(cache)
    _, cache = _prefill(model, ids, [6])
    with model.steering(enabled=False):
        model(input_ids=ids[:, 6:], **{name: cache})  # the name was not read
    refused(cache)
    with pytest.raises((SteeringError, AttributeError)):  # of some families transformers itself asks it first
        model(input_ids=token, **{name: tuple((torch.zeros(3, 2, 4, 8),) * 2 for _ in range(4))})


# ----------------------------------------------------------------------------------------------------------- switches


@torch.no_grad()
def test_the_switch_of_a_call_is_of_this_thread(knowing: PreTrainedModel, model: Any, words: dict[str, Tensor]) -> None:
    given = row(words, 0)
    plain, native = knowing(**given).logits, model(**given).logits
    seen: list[Tensor] = []
    with model.steering(enabled=False):
        assert torch.equal(model(**given).logits, plain)
        thread = threading.Thread(target=lambda: seen.append(torch.no_grad()(model)(**given).logits))
        thread.start()
        thread.join()
        with model.steering(enabled=True):
            assert torch.equal(model(**given).logits, native)
    assert torch.equal(seen[0], native)
    assert torch.equal(model(**given).logits, native)
    model.config.steering_enabled = False
    assert torch.equal(model(**given).logits, plain)
    with model.steering(enabled=True):
        assert torch.equal(model(**given).logits, native)


@pytest.mark.parametrize("value", [None, 0, "", 1, "False", []])
@torch.no_grad()
def test_only_booleans_switch(model: Any, words: dict[str, Tensor], value: Any) -> None:
    with pytest.raises(SteeringError, match="True or False"), model.steering(enabled=value):
        pass
    model.config.steering_enabled = value
    with pytest.raises(SteeringError, match="set True or False"):
        model(**row(words, 0))
    model.config.steering_enabled = True
    model.config.steering["requests"][0]["enabled"] = value
    with pytest.raises(SteeringError, match="set True or False"):
        model(**row(words, 0))


@pytest.mark.parametrize("value", [None, "", float("nan"), True])
@torch.no_grad()
def test_only_finite_numbers_are_strengths(model: Any, words: dict[str, Tensor], value: Any) -> None:
    model.config.steering_strength = value
    with pytest.raises(SteeringError, match="finite number"):
        model(**row(words, 0))

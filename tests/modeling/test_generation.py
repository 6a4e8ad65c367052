"""P4 in generation: whatever the way of decoding, the gate is the prompt's and every column gets its direction."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from builders import oracle, tiny
from transformers import DynamicCache, PreTrainedModel

NEW = 6


def generate(model: Any, batch: Any, **kwargs: Any) -> torch.Tensor:
    """The new tokens of a greedy reply."""
    tokens: torch.Tensor = model.generate(**batch, max_new_tokens=NEW, do_sample=False, **kwargs)
    return tokens[:, batch["input_ids"].shape[1] :]


def from_oracle(base_model: Any, part: Any, batch: Any, turns: Any = (), **kwargs: Any) -> torch.Tensor:
    """The same from the un-steered model under hooks."""
    return oracle.generate(base_model, *part, batch, *turns, **{"max_new_tokens": NEW, "do_sample": False, **kwargs})


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize(("steps", "positions"), [(1, "all"), (4, "last"), (4, "all")])
def test_greedy_equals_the_oracle(
    base_model: PreTrainedModel, family: tiny.Family, steps: int, positions: str, image: bool
) -> None:
    batch = tiny.prompt(family, 9, 7, 8, image=image and family == "llava")
    part = tiny.steering(base_model, batch, steps=steps, positions=positions, gate_layer=1)
    model, expected = tiny.steered(base_model, part), from_oracle(base_model, part, batch)
    assert torch.equal(generate(model, batch), expected)
    assert torch.equal(generate(model, batch, use_cache=False), expected)
    assert torch.equal(generate(model, batch, cache_implementation="static", disable_compile=True), expected)
    assert not torch.equal(expected, generate(base_model, batch))


@pytest.mark.parametrize("steps", [1, 4])
def test_a_kernel_gate_decodes_as_the_oracle(base_model: PreTrainedModel, family: tiny.Family, steps: int) -> None:
    batch = tiny.prompt(family, 9, 7, 8)
    part = tiny.steering(base_model, batch, kind="kernel", shape="step", threshold=0.5, steps=steps, gate_layer=0)
    model, expected = tiny.steered(base_model, part), from_oracle(base_model, part, batch)
    assert torch.equal(generate(model, batch), expected)
    assert torch.equal(generate(model, batch, cache_implementation="static", disable_compile=True), expected)
    plain = generate(base_model, batch)
    assert torch.equal(expected[1:], plain[1:])  # gates 0 and 0.4: closed, and so the base's own reply
    assert not torch.equal(expected[0], plain[0])


def test_a_picture_prompt_decodes_alike_with_and_without_a_cache(
    base_model: PreTrainedModel, family: tiny.Family
) -> None:
    batch = tiny.prompt(family, 9, 7, image=True)
    model = tiny.steered(base_model, tiny.steering(base_model, batch, steps=4))
    cached = generate(model, batch)
    assert torch.equal(cached, generate(model, batch, cache_implementation="static", disable_compile=True))
    assert not torch.equal(cached, generate(base_model, batch))
    if family == "llava":  # Qwen without a cache loses its picture's positions, steered or not
        assert torch.equal(cached, generate(model, batch, use_cache=False))


def test_mixed_length_batch_equals_each_prompt_alone(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 5)
    model = tiny.steered(base_model, tiny.steering(base_model, batch, steps=3))
    alone = {"input_ids": batch["input_ids"][1:, 4:], "attention_mask": batch["attention_mask"][1:, 4:]}
    assert torch.equal(generate(model, batch)[1:], generate(model, alone))


@pytest.mark.parametrize("steps", [1, 4])
def test_beams_and_several_sequences_keep_their_gates(
    base_model: PreTrainedModel, family: tiny.Family, steps: int
) -> None:
    batch = tiny.prompt(family, 9, 7, 8)
    part = tiny.steering(base_model, batch, steps=steps)
    model = tiny.steered(base_model, part)
    for ways in ({"num_beams": 3, "num_return_sequences": 2}, {"do_sample": True, "num_return_sequences": 3}):
        kwargs = {"max_new_tokens": NEW, "do_sample": False, **ways}
        torch.manual_seed(0)
        expected = from_oracle(base_model, part, batch, **kwargs)
        for use_cache in (True, False):
            torch.manual_seed(0)
            tokens = model.generate(**batch, use_cache=use_cache, **kwargs)[:, 9:]
            assert torch.equal(tokens, expected)
        torch.manual_seed(0)
        assert not torch.equal(base_model.generate(**batch, **kwargs)[:, 9:], expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers' own, about its assistant's arguments
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("assistant", ["base", "steered", "lookup"])
def test_assisted_decoding_equals_greedy(
    base_model: PreTrainedModel, family: tiny.Family, assistant: str, steps: int
) -> None:
    batch = tiny.prompt(family, 9)
    part = tiny.steering(base_model, batch, steps=steps)
    model = tiny.steered(base_model, part)
    if assistant == "lookup":
        batch["input_ids"][0, :3] = batch["input_ids"][0, -3:]  # something to look up, so that drafts exist
        extra: dict[str, Any] = {"prompt_lookup_num_tokens": 3}
    else:
        extra = {"assistant_model": copy.deepcopy({"base": base_model, "steered": model}[assistant])}
    assert torch.equal(generate(model, batch, **extra), from_oracle(base_model, part, batch))


def test_inputs_embeds_generate_as_input_ids(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 7)
    model = tiny.steered(base_model, tiny.steering(base_model, batch, steps=3))
    embeds = base_model.get_input_embeddings()(batch["input_ids"]).detach()
    given = model.generate(inputs_embeds=embeds, attention_mask=batch["attention_mask"], max_new_tokens=NEW)
    assert torch.equal(given, generate(model, batch))


def test_one_token_prompt(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 1)
    part = tiny.steering(base_model, batch, steps=2)
    assert torch.equal(generate(tiny.steered(base_model, part), batch), from_oracle(base_model, part, batch))


def test_half_precision_decodes_alike_with_and_without_a_cache(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 9, 7)
    half = copy.deepcopy(llava).to(torch.bfloat16)
    model = tiny.steered(half, tiny.steering(llava, batch, steps=3))
    assert generate(model, batch).shape == (2, NEW)
    assert torch.equal(generate(model, batch)[:, :1], generate(model, batch, use_cache=False)[:, :1])


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_scoring_equals_generation(base_model: PreTrainedModel, family: tiny.Family, steps: int, side: Any) -> None:
    batch = tiny.prompt(family, 9, 9)
    part = tiny.steering(base_model, batch, steps=steps)
    model = tiny.steered(base_model, part)
    out = model.generate(**batch, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, output_logits=True)
    padding = torch.full((2, 2), tiny.PAD)
    both = [(padding, 0), (out.sequences, 1)] if side == "left" else [(out.sequences, 1), (padding, 0)]
    ids = torch.cat([tokens for tokens, _ in both], dim=1)
    mask = torch.cat([torch.full_like(tokens, real) for tokens, real in both], dim=1)
    start = 9 + (2 if side == "left" else 0)
    labels = ids.clone()
    labels[:, :start] = -100
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    scored = model(input_ids=ids, attention_mask=mask, labels=labels, position_ids=positions)
    reply = scored.logits[:, start - 1 : start - 1 + NEW]
    torch.testing.assert_close(reply, torch.stack(out.logits, dim=1), rtol=1e-4, atol=1e-4)
    given = model(input_ids=ids, attention_mask=mask, position_ids=positions, steering_prompt_length=start)
    assert torch.equal(given.logits, scored.logits)
    assert torch.equal(
        scored.logits,
        oracle.logits(
            base_model, *part, {"input_ids": ids, "attention_mask": mask, "position_ids": positions}, [start, start]
        ),
    )
    free = model(input_ids=ids, attention_mask=mask, position_ids=positions)  # gated by the last answer token
    assert not torch.equal(free.logits, scored.logits)


@torch.no_grad()
def test_scoring_rows_whose_prompts_end_at_different_columns(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 7, side="right")
    part = tiny.steering(base_model, batch, steps=3, positions="last")
    ends = [6, 3]
    native = tiny.steered(base_model, part)(**batch, steering_prompt_length=torch.tensor(ends)).logits
    assert torch.equal(native, oracle.logits(base_model, *part, batch, ends))


@torch.no_grad()
def test_decoding_by_hand_equals_generate_also_from_a_copied_cache(
    base_model: PreTrainedModel, family: tiny.Family
) -> None:
    batch = tiny.prompt(family, 9, 9)
    model = tiny.steered(base_model, tiny.steering(base_model, batch, steps=4))
    expected = generate(model, batch)
    out = model(input_ids=batch["input_ids"], use_cache=True)
    cache, tokens = out.past_key_values, [out.logits[:, -1, : tiny.SPECIAL].argmax(-1)]
    for _ in range(NEW - 1):
        cache = copy.deepcopy(cache)
        tokens.append(
            model(input_ids=tokens[-1][:, None], **cache_argument(model, cache))
            .logits[:, -1, : tiny.SPECIAL]
            .argmax(-1)
        )
    assert torch.equal(torch.stack(tokens, dim=1), expected)


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """The cache under the name this version of transformers gives it, and in use."""
    import inspect

    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return {name: cache, "use_cache": True}


@pytest.mark.parametrize("positions", ["all", "last"])
@torch.no_grad()
def test_a_new_turn_on_a_used_cache_is_gated_by_its_own_last_token(llava: PreTrainedModel, positions: str) -> None:
    batch = tiny.prompt("llava", 8)
    part = tiny.steering(llava, batch, steps=3, positions=positions)
    model = tiny.steered(llava, part)
    cache = DynamicCache()
    name = next(iter(cache_argument(model, cache)))
    first = model.generate(**batch, max_new_tokens=4, **{name: cache})
    kept = cache.layers[1].carried
    assert (kept.ends, kept.seen) == ((8,), 11)
    ids = torch.cat([first, torch.tensor([[17, 23, 42]])], dim=1)
    turn = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    reply = generate(model, turn, **{name: cache})
    again = cache.layers[1].carried
    assert again.ends == (ids.shape[1],)
    assert not torch.equal(kept.openings[0], again.openings[0])
    # The last token of the first reply had not been run yet: it belongs to the new turn's prompt.
    expected = from_oracle(llava, part, turn, turns=((0, [8]), (11, [15])))
    assert torch.equal(reply, expected)
    assert not torch.equal(reply, from_oracle(llava, part, turn))  # as if the conversation were one prompt


def test_the_same_signatures_as_the_base(base_model: PreTrainedModel, family: tiny.Family) -> None:
    import inspect

    model = tiny.steered(base_model, tiny.steering(base_model, tiny.prompt(family, 4)))
    for name in ("forward", "prepare_inputs_for_generation", "generate"):
        assert inspect.signature(getattr(model, name)) == inspect.signature(getattr(base_model, name))
    with pytest.raises(ValueError, match="not used by the model"):
        model.generate(**tiny.prompt(family, 4), max_new_tokens=2, nonsense=1)


@torch.no_grad()
def test_a_mask_of_four_dimensions_is_read_as_one_of_two(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 6, 4, side="right")
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    model = tiny.steered(llava, tiny.steering(llava, batch, steps=3, positions="last"))
    causal = torch.ones(6, 6, dtype=torch.bool).tril() & mask[:, None, None, :]
    additive = torch.zeros(causal.shape).masked_fill(~causal, torch.finfo(torch.float32).min)
    expected = model(**batch, use_cache=False).logits
    assert not torch.equal(expected[mask], llava(**batch, use_cache=False).logits[mask])
    for given in (causal, additive):
        native = model(input_ids=ids, attention_mask=given, use_cache=False).logits
        assert torch.equal(native[mask], expected[mask])


@torch.no_grad()
def test_what_cannot_be_placed_raises(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 6, 6)
    ids = batch["input_ids"]
    model = tiny.steered(llava, tiny.steering(llava, batch, steps=3))
    one, other = (
        tiny.steered(llava, tiny.steering(llava, batch)),
        tiny.steered(llava, tiny.steering(llava, batch, seed=4)),
    )

    def used(by: Any) -> dict[str, Any]:
        return cache_argument(by, by(input_ids=ids, use_cache=True).past_key_values)

    packed = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
    cases: list[tuple[str, Any, dict[str, Any]]] = [
        ("packed", model, {"input_ids": ids, "position_ids": packed}),
        ("packed", model, {"input_ids": ids, "cu_seq_lens_q": torch.tensor([0, 6])}),
        ("paged", model, {"input_ids": ids, "block_table": torch.zeros(1)}),
        ("not filled by this model", model, {"input_ids": ids[:, :1], **used(llava)}),
        ("not filled by this model", model, {"input_ids": ids[:, :1], **used(other)}),
        ("not filled by this model", one, {"input_ids": ids[:, :1], **used(llava)}),
        ("may be prompt or reply", model, {"input_ids": ids[:, :2], **used(model)}),
        ("in chunks", model, {"input_ids": ids, "steering_prompt_length": 9}),
        ("split the batch", model, {"input_ids": ids, "steering_prompt_length": torch.tensor([6, 8]), **used(model)}),
        ("marked as reply", model, {"input_ids": ids, "labels": ids}),
        ("include the cached", model, {"input_ids": ids[:, :2], "attention_mask": ids[:, :2] > 0, **used(model)}
         | {"steering_prompt_length": 8}),
    ]  # fmt: skip
    for message, by, arguments in cases:
        with pytest.raises(ValueError, match=message):
            by(**arguments)
    with pytest.raises(RuntimeError, match="Sizes of tensors"):  # the cache itself has other rows
        model(input_ids=ids[:1, :1], **used(model))
    with pytest.raises(ValueError, match="in chunks"):
        model.generate(**batch, max_new_tokens=2, prefill_chunk_size=3)
    with pytest.raises(ValueError, match="continuous batching"):
        model.generate_batch([[1, 2, 3]])
    cache = used(model)
    next(iter(cache.values())).crop(-2)
    with pytest.raises(ValueError, match="beyond these columns"):
        model(input_ids=ids[:, 4:5], **cache)
    model.config.steering_enabled = False
    assert torch.equal(
        model(input_ids=ids, position_ids=packed).logits, llava(input_ids=ids, position_ids=packed).logits
    )

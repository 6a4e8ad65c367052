"""P4: a forward of the native model equals the hook oracle; where nothing fires, it equals the base bit for bit."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from builders import oracle, tiny
from transformers import PreTrainedModel

SHAPES = [("identity", None), ("clip", None), ("dead-zone", 0.3), ("step", 0.5)]


@pytest.mark.parametrize(
    ("shape", "positions", "steps", "gate_layer"),
    list(itertools.product(SHAPES, ("all", "last"), (1, 4), (None, 0))),
)
@torch.no_grad()
def test_linear_gate_equals_the_oracle_bit_for_bit(
    llava: PreTrainedModel, shape: Any, positions: str, steps: int, gate_layer: int | None
) -> None:
    batch = tiny.prompt("llava", 9, 7, 8, 9, image=True)
    part = tiny.steering(
        llava, batch, shape=shape[0], threshold=shape[1], positions=positions, steps=steps, gate_layer=gate_layer
    )
    native = tiny.steered(llava, part)(**batch).logits
    assert torch.equal(native, oracle.logits(llava, *part, batch))
    assert not torch.equal(native[0], llava(**batch).logits[0])


@pytest.mark.parametrize(("shape", "gate_layer"), [(s, g) for s in SHAPES for g in (None, 0)])
@torch.no_grad()
def test_kernel_gate_equals_the_oracle(llava: PreTrainedModel, shape: Any, gate_layer: int | None) -> None:
    batch = tiny.prompt("llava", 9, 7, 8, 9, image=True)
    part = tiny.steering(llava, batch, kind="kernel", shape=shape[0], threshold=shape[1], gate_layer=gate_layer)
    native, expected = tiny.steered(llava, part)(**batch).logits, oracle.logits(llava, *part, batch)
    # The oracle sums squared differences, the model uses torch.cdist: one rounding apart, exact once it is a step.
    tolerance = 0.0 if shape[0] == "step" else 1e-3
    torch.testing.assert_close(native, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_and_modality(base_model: PreTrainedModel, family: tiny.Family, side: Any, image: bool) -> None:
    batch = tiny.prompt(family, 9, 7, 6, image=image, side=side)
    part = tiny.steering(base_model, batch, positions="last", steps=3)
    native = tiny.steered(base_model, part)(**batch).logits
    assert torch.equal(native, oracle.logits(base_model, *part, batch))
    assert not torch.equal(native[0], base_model(**batch).logits[0])


@torch.no_grad()
def test_mixed_lengths_give_each_row_what_it_gets_alone(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 6, side="right")
    model = tiny.steered(base_model, tiny.steering(base_model, batch, steps=2))
    together = model(**batch).logits
    alone = model(input_ids=batch["input_ids"][1:, :6]).logits
    torch.testing.assert_close(together[1:, :6], alone, rtol=1e-4, atol=1e-4)  # other shapes, other summation order


@torch.no_grad()
def test_one_token_prompt(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 1)
    part = tiny.steering(base_model, batch, positions="last")
    native = tiny.steered(base_model, part)(**batch).logits
    assert torch.equal(native, oracle.logits(base_model, *part, batch))
    assert not torch.equal(native, base_model(**batch).logits)


@torch.no_grad()
def test_only_the_steered_block_and_later_change_and_by_exactly_the_delta(
    base_model: PreTrainedModel, family: Any
) -> None:
    batch = tiny.prompt(family, 9, 7)
    part = tiny.steering(base_model, batch, shape="step", threshold=0.5, layers=(2,), strength=1.0)
    plain = base_model(**batch, output_hidden_states=True).hidden_states  # [0] is the embedding
    moved = tiny.steered(base_model, part)(**batch, output_hidden_states=True).hidden_states
    for layer in (0, 1):
        assert torch.equal(moved[layer + 1], plain[layer + 1])
    direction = part[1]["requests.0.layers.2.direction"][0]
    assert torch.equal(moved[3][0], plain[3][0] + direction)
    assert torch.equal(moved[3][1], plain[3][1])


@torch.no_grad()
def test_two_requests_equal_the_sum_of_each(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 7, 8)
    one = tiny.steering(base_model, batch, layers=(2,), steps=2)
    two = tiny.steering(base_model, batch, layers=(2,), positions="last", kind="kernel", seed=5)
    plain, first, second, both = (
        model(**batch, output_hidden_states=True).hidden_states[3]
        for model in (
            base_model,
            tiny.steered(base_model, one),
            tiny.steered(base_model, two),
            tiny.steered(base_model, tiny.merged(one, two)),
        )
    )
    torch.testing.assert_close(both - plain, (first - plain) + (second - plain), rtol=1e-4, atol=1e-4)
    assert not torch.equal(first, both)
    assert not torch.equal(second, both)


@torch.no_grad()
def test_off_equals_the_base_bit_for_bit(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 7, image=True)
    model = tiny.steered(base_model, tiny.merged(*[tiny.steering(base_model, batch, steps=2, seed=s) for s in (3, 4)]))
    plain = base_model(**batch).logits
    assert not torch.equal(model(**batch).logits, plain)
    model.config.steering_strength = 0.0
    assert torch.equal(model(**batch).logits, plain)
    model.config.steering_strength, model.config.steering_enabled = 1.0, False
    assert torch.equal(model(**batch).logits, plain)
    model.config.steering_enabled = True
    model.config.steering["requests"][0]["strength"] = 0.0
    model.config.steering["requests"][1]["enabled"] = False
    assert torch.equal(model(**batch).logits, plain)
    model.config.steering["requests"][1]["enabled"] = True
    assert not torch.equal(model(**batch).logits, plain)


@torch.no_grad()
def test_a_row_whose_gate_is_closed_equals_the_base_bit_for_bit(
    base_model: PreTrainedModel, family: tiny.Family
) -> None:
    batch = tiny.prompt(family, 9, 9)
    model = tiny.steered(base_model, tiny.steering(base_model, batch, shape="dead-zone", threshold=0.5, steps=3))
    native, plain = model(**batch).logits, base_model(**batch).logits
    assert torch.equal(native[1], plain[1])
    assert not torch.equal(native[0], plain[0])


@torch.no_grad()
def test_negative_zeros_survive_a_closed_gate(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 3)
    model = tiny.steered(llava, tiny.steering(llava, batch, shape="step", threshold=2.0))
    hidden = -torch.zeros(1, 3, tiny.HIDDEN)
    seen = {}
    original = model.get_decoder().layers[1].steering

    def record(_module: Any, args: Any, output: Any) -> None:
        seen["rest"] = args[1:]

    handle = original.register_forward_hook(record)
    model(**batch)
    handle.remove()
    assert torch.equal(torch.signbit(original(hidden, *seen["rest"])), torch.signbit(hidden))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_keeps_the_steering_in_fp32(llava: PreTrainedModel, dtype: torch.dtype) -> None:
    batch = tiny.prompt("llava", 9, 7)
    part = tiny.steering(llava, batch, positions="last")
    half = copy.deepcopy(llava).to(dtype)
    model = tiny.steered(llava, part)
    converted = copy.deepcopy(model).to(dtype)
    for name, parameter in converted.named_parameters():
        assert parameter.dtype == (torch.float32 if ".steering." in name else dtype), name
    direction = converted.get_decoder().layers[1].steering["0"].direction
    assert torch.equal(direction, part[1]["requests.0.layers.1.direction"])
    assert torch.equal(converted(**batch).logits, oracle.logits(half, *part, batch))
    assert torch.equal(tiny.steered(half, part)(**batch).logits, converted(**batch).logits)


@torch.no_grad()
def test_inputs_embeds_equal_input_ids(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 7)
    model = tiny.steered(base_model, tiny.steering(base_model, batch))
    embeds = base_model.get_input_embeddings()(batch["input_ids"])
    given = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits
    assert torch.equal(given, model(**batch).logits)


@torch.no_grad()
def test_a_deep_copy_steers_by_itself(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 9, 7)
    model = tiny.steered(llava, tiny.steering(llava, batch))
    expected, twin = model(**batch).logits, copy.deepcopy(model)
    model.get_decoder().layers[1].steering["0"].direction.zero_()
    assert torch.equal(twin(**batch).logits, expected)
    assert not torch.equal(model(**batch).logits, expected)


@torch.no_grad()
def test_from_base_shares_the_weights_and_leaves_the_base_alone(
    base_model: PreTrainedModel, family: tiny.Family
) -> None:
    batch = tiny.prompt(family, 9, 7, image=True)
    before = base_model(**batch).logits
    model = tiny.steered(base_model, tiny.steering(base_model, batch))
    ours = dict(model.named_parameters()) | dict(model.named_buffers())
    theirs = dict(base_model.named_parameters()) | dict(base_model.named_buffers())
    assert {name for name in ours if ".steering." not in name} == theirs.keys()
    assert all(ours[name] is tensor for name, tensor in theirs.items())
    model(**batch)
    assert torch.equal(base_model(**batch).logits, before)
    assert base_model.config.model_type == family
    assert "steering" not in base_model.config.to_dict()
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".steering." in n)


def test_from_base_says_what_does_not_fit(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 5)
    steering, tensors = tiny.steering(llava, batch)
    cases = {
        "missing": {k: v for k, v in tensors.items() if not k.endswith("1.gate")},
        "not expected": {**tensors, "requests.0.layers.3.gate": torch.zeros(tiny.HIDDEN)},
        r"is F32 \(33,\), not F32 \(32,\)": {**tensors, "requests.0.layers.1.gate": torch.zeros(tiny.HIDDEN + 1)},
        "is torch.bfloat16": {**tensors, "requests.0.layers.1.gate": torch.zeros(tiny.HIDDEN).bfloat16()},
        "not finite": {**tensors, "requests.0.layers.1.gate": torch.full((tiny.HIDDEN,), float("nan"))},
        "not a steering tensor": {**tensors, "layers.1.gate": torch.zeros(tiny.HIDDEN)},
    }
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            tiny.steered(llava, (steering, wrong))
    with pytest.raises(ValueError, match=r"requests\[0\].gate_layer"):
        tiny.steered(llava, ({**steering, "requests": [{**steering["requests"][0], "gate_layer": 2}]}, tensors))
    with pytest.raises(ValueError, match=r"supported: gemma3, .*, qwen2_5_vl, "):
        tiny.modeling.steered_class("gpt2")


def test_gradients_reach_the_base_through_the_steering(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 9, 7)
    model = copy.deepcopy(tiny.steered(llava, tiny.steering(llava, batch)))
    model.train()
    labels = batch["input_ids"].clone()
    labels[:, :6] = -100
    model(**batch, labels=labels, use_cache=False).loss.backward()
    gradient = model.get_decoder().layers[0].mlp.up_proj.weight.grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())

"""Gates of scope ``token``: every position is moved by its own gate, so that nothing depends on how it is run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import oracle, tiny
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from mllmeraser.modeling_patches.format_mllmeraser import SteeringError, parse_requests
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class

Part = tuple[dict[str, Any], dict[str, Tensor]]


def per_token(base_model: PreTrainedModel, batch: Any, **how: Any) -> Part:
    """Steering whose gates are open at some positions and closed at others."""
    section, tensors = tiny.steering(base_model, batch, **{"kind": "kernel", "shape": "step", "threshold": 0.3, **how})
    section["requests"][0]["gate"]["scope"] = "token"
    section["requests"][0]["prompt_positions"] = "all"
    return section, tensors


@torch.no_grad()
def by_hooks(base_model: PreTrainedModel, part: Part, run: Any) -> tuple[Any, list[float]]:
    """What ``run()`` gives while every position of every layer's output is moved as the equation says; and the φ(g)."""
    section, tensors = part
    gates: list[float] = []

    def hook_of(layer: int) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            before = output[0] if isinstance(output, tuple) else output
            after = before.clone()
            for index, request in enumerate(section["requests"]):
                name = f"requests.{index}.layers.{layer}"
                if layer not in request["layers"] or not request["enabled"]:
                    continue
                for row in range(before.shape[0]):
                    for column in range(before.shape[1]):
                        gates.append(oracle.gate(request, tensors, name, before[row, column].float()))
                        if gates[-1] != 0:
                            delta = gates[-1] * request["strength"] * tensors[f"{name}.direction"][0]
                            after[row, column] += delta.to(before.dtype)
            return (after, *output[1:]) if isinstance(output, tuple) else after

        return hook

    handles = [layer.register_forward_hook(hook_of(i)) for i, layer in enumerate(oracle.decoder_layers(base_model))]
    try:
        return run(), gates
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("image", [True, False])
@torch.no_grad()
def test_a_forward_equals_the_equation(base_model: PreTrainedModel, family: tiny.Family, image: bool) -> None:
    batch = tiny.prompt(family, 9, 7, 6, image=image, side="right")
    part = per_token(base_model, batch)
    expected, gates = by_hooks(base_model, part, lambda: base_model(**batch).logits)
    assert 0 < sum(gates) < len(gates)
    assert torch.equal(tiny.steered(base_model, part)(**batch).logits, expected)
    assert not torch.equal(expected, base_model(**batch).logits)


@pytest.mark.parametrize("shape", ["identity", "clip", "dead-zone"])
@torch.no_grad()
def test_every_shape_and_a_linear_gate(llava: PreTrainedModel, shape: str) -> None:
    batch = tiny.prompt("llava", 9, 7)
    part = per_token(llava, batch, kind="linear", shape=shape, layers=(2,))
    expected, _ = by_hooks(llava, part, lambda: llava(**batch).logits)
    # Summed in another order.
    torch.testing.assert_close(tiny.steered(llava, part)(**batch).logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_reply_equals_the_equation_with_any_cache(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 7)
    part, how = per_token(base_model, batch), {"max_new_tokens": 6, "do_sample": False}
    expected, _ = by_hooks(base_model, part, lambda: base_model.generate(**batch, use_cache=False, **how))
    model = tiny.steered(base_model, part)
    static = {"cache_implementation": "static", "disable_compile": True}
    for cache in ({}, {"use_cache": False}, static, {"prefill_chunk_size": 4}):
        assert torch.equal(model.generate(**batch, **how, **cache), expected), cache
    assert not torch.equal(expected, base_model.generate(**batch, **how))


@pytest.mark.parametrize("sizes", [(12,), (5, 7), (1, 1, 10), (3, 3, 3, 3)])
@torch.no_grad()
def test_chunks_give_what_one_forward_gives(llava: PreTrainedModel, sizes: tuple[int, ...]) -> None:
    batch = tiny.prompt("llava", 12)
    model = tiny.steered(llava, per_token(llava, batch))
    cache, found, start = DynamicCache(), [], 0
    for size in sizes:
        ids = batch["input_ids"][:, start : start + size]
        found.append(model(input_ids=ids, cache=cache, use_cache=True).logits)
        start += size
    whole = model(input_ids=batch["input_ids"]).logits
    # The kernels of attention and of matrix products sum in another order for another number of rows.
    torch.testing.assert_close(torch.cat(found, dim=1), whole, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole, llava(input_ids=batch["input_ids"]).logits, atol=1e-2)


@torch.no_grad()
def test_packed_prompts_are_steered_each_on_its_own(llava: PreTrainedModel) -> None:
    first, second = tiny.prompt("llava", 8)["input_ids"], tiny.prompt("llava", 6, seed=5)["input_ids"]
    model = tiny.steered(llava, per_token(llava, {"input_ids": first, "attention_mask": torch.ones_like(first)}))
    positions = torch.cat([torch.arange(8), torch.arange(6)]).unsqueeze(0)
    packed = model(input_ids=torch.cat([first, second], dim=1), position_ids=positions, use_cache=False).logits
    alone = torch.cat([model(input_ids=first).logits, model(input_ids=second).logits], dim=1)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # transformers takes most of a minute to start it
def test_a_continuous_batch_gives_the_same_replies(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 9)
    model, ids = tiny.steered(llava, per_token(llava, batch)), batch["input_ids"][0].tolist()
    how = copy.deepcopy(llava.generation_config)
    how.update(max_new_tokens=6, do_sample=False, num_blocks=16, max_batch_tokens=8)  # so that 9 tokens come in chunks
    together = model.generate_batch([ids, ids[:5]], generation_config=how, progress_bar=False)
    for prompt, output in zip((ids, ids[:5]), together.values(), strict=True):
        alone = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False)
        assert output.generated_tokens == alone[0, len(prompt) :].tolist()


@torch.no_grad()
def test_the_switches_and_a_closed_gate_give_the_bases_bits(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 9, 7, image=True)
    part = per_token(base_model, batch)
    plain = base_model(**batch).logits
    model = tiny.steered(base_model, part)
    for name, off in (("steering_enabled", False), ("steering_strength", 0.0)):
        on = getattr(model.config, name)
        setattr(model.config, name, off)
        assert torch.equal(model(**batch).logits, plain)
        setattr(model.config, name, on)
    model.config.steering["requests"][0]["enabled"] = False
    assert torch.equal(model(**batch).logits, plain)
    closed = copy.deepcopy(part)
    closed[0]["requests"][0]["gate"]["threshold"] = 1e6
    assert torch.equal(tiny.steered(base_model, closed)(**batch).logits, plain)


def test_two_requests_add(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 9)
    both = tiny.merged(per_token(llava, batch), per_token(llava, batch, layers=(2,), seed=9, threshold=0.9))
    expected, _ = by_hooks(llava, both, lambda: llava(**batch).logits)
    with torch.no_grad():
        torch.testing.assert_close(tiny.steered(llava, both)(**batch).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"reply_steps": 2},
        {"gate_layer": 2},
        {"gate": {"kind": "linear", "shape": "clip", "threshold": None, "scope": "x", "projection": None}},
    ],
)
def test_what_the_scope_cannot_be_is_refused(llava: PreTrainedModel, change: dict[str, Any]) -> None:
    section, _ = per_token(llava, tiny.prompt("llava", 9), kind="linear")
    section["requests"][0] |= change
    with pytest.raises(SteeringError, match=r"gate\.scope|gate_layer|reply_steps"):
        parse_requests(section, tiny.LAYERS)


@torch.no_grad()
def test_a_layer_may_follow_the_gate_of_one_before(llava: PreTrainedModel) -> None:
    batch = tiny.prompt("llava", 9, 9)
    part = per_token(llava, batch, gate_layer=0)
    native, expected = tiny.steered(llava, part)(**batch).logits, oracle.logits(llava, *part, batch)
    assert torch.equal(native, expected)
    assert not torch.equal(native[0], llava(**batch).logits[0])


@torch.no_grad()
def test_scopes_stand_together() -> None:
    base = tiny.knowing("llava")
    batch = tiny.naming(tiny.prompt("llava", 9, 9), [0], place=4)
    parts = [per_token(base, batch, layers=(1,)), tiny.steering(base, batch, layers=(2,), steps=3)]
    parts.append(tiny.recognising(base, layers=(3,), gate_layer=0, edit="add"))
    both = tiny.merged(*parts)
    model = tiny.steered(base, both)
    torch.testing.assert_close(model(**batch).logits, oracle.logits(base, *both, batch), rtol=1e-4, atol=1e-4)
    for index in range(3):
        model.config.steering["requests"][index]["enabled"] = False
        assert not torch.equal(model(**batch).logits, tiny.steered(base, both)(**batch).logits), index
        model.config.steering["requests"][index]["enabled"] = True


# --------------------------------------------------------------------------------- below the head, as servers build it


@pytest.fixture
def exported(base_model: PreTrainedModel, family: tiny.Family, tmp_path: Path) -> Path:
    return tiny.export(base_model, per_token(base_model, tiny.prompt(family, 9)), tmp_path / "exported")


def configuration(directory: Path, family: tiny.Family) -> Any:
    """As AutoConfig gives it, which says where it came from."""
    return steered_class(family).config_class.from_pretrained(directory, name_or_path=str(directory))


def below_the_head(directory: Path, family: tiny.Family) -> Any:
    """As a server does: the model from its configuration, then the weights, by a loader of its own."""
    whole = steered_class(family)
    model = whole.base_class._from_config(configuration(directory, family))
    model.load_state_dict(whole.from_pretrained(directory).model.state_dict())
    return model.eval()


@torch.no_grad()
def test_the_base_class_gives_the_hidden_states_of_the_whole(
    base_model: PreTrainedModel, family: tiny.Family, exported: Path
) -> None:
    batch = tiny.prompt(family, 9)
    expected, _ = by_hooks(
        base_model, per_token(base_model, batch), lambda: base_model.model(**batch).last_hidden_state
    )
    made, loaded = below_the_head(exported, family), steered_class(family).base_class.from_pretrained(exported)
    assert type(loaded).__name__ == steered_class(family).__name__.replace("ForConditionalGeneration", "Model")
    for model in (made, loaded):
        assert torch.equal(model(**batch).last_hidden_state, expected)
        model.config.steering_enabled = False
        assert torch.equal(model(**batch).last_hidden_state, base_model.model(**batch).last_hidden_state)
    with pytest.raises(SteeringError, match="AutoModelForImageTextToText"):
        loaded.save_pretrained(exported)


@pytest.mark.parametrize("damaged", ["config.json", "mllmeraser-steering.safetensors", "modeling_mllmeraser.py"])
def test_the_base_class_is_not_made_from_damaged_files(family: tiny.Family, exported: Path, damaged: str) -> None:
    config = configuration(exported, family)
    data = bytearray((exported / damaged).read_bytes())
    place = len(data) - 1 if damaged.endswith("safetensors") else data.index(b"dtype" if damaged[0] == "c" else b"#")
    data[place] ^= 1
    (exported / damaged).write_bytes(data)
    with pytest.raises(SteeringError, match=damaged):
        steered_class(family).base_class._from_config(config)


def test_gates_of_scope_prompt_are_refused_there(
    base_model: PreTrainedModel, family: tiny.Family, tmp_path: Path
) -> None:
    directory = tiny.export(base_model, tiny.steering(base_model, tiny.prompt(family, 9)), tmp_path / "exported")
    with pytest.raises(SteeringError, match="--gate-scope token"):
        steered_class(family).base_class._from_config(configuration(directory, family))


def test_a_rounded_gate_is_refused(family: tiny.Family, exported: Path) -> None:
    model = below_the_head(exported, family)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    with pytest.raises(SteeringError, match="bfloat16"), torch.no_grad():
        model(**tiny.prompt(family, 9))

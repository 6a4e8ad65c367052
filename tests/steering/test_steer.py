"""``steer``: a loaded model gives what the export would give while the context lasts, and is its old self after."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import bundles, tiny
from builders.checkpoints import identity
from transformers import AutoModelForImageTextToText, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from mllmeraser.bundle.bundle import Bundle, save_bundle
from mllmeraser.errors import InputError
from mllmeraser.steering.in_process import steer, torch_tensors

BATCH = (9, 7, 8)  # prompts of these lengths, on which the gates read 1, 0 and 0.4


@pytest.fixture
def model(family: tiny.Family) -> PreTrainedModel:
    """A model of the test's own."""
    return tiny.model(family)


@pytest.fixture
def batch(family: tiny.Family) -> dict[str, torch.Tensor]:
    return tiny.prompt(family, *BATCH, image=True)


def bundle_for(model: PreTrainedModel, batch: dict[str, torch.Tensor], **steering: Any) -> Bundle:
    part = tiny.steering(model, batch, **{"kind": "kernel", "steps": 3, **steering})
    return bundles.bundle(identity(model.config.model_type), part)


@torch.no_grad()
def given(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and greedy replies."""
    return model(**batch).logits, model.generate(**batch, max_new_tokens=4, do_sample=False)


def same(left: tuple[torch.Tensor, ...], right: tuple[torch.Tensor, ...]) -> bool:
    return all(map(torch.equal, left, right))


def self_of(model: PreTrainedModel) -> list[object]:
    """What makes a model the one that it is, by identity: class, state, configuration, modules, tensors and flags."""
    parts = [*model.named_modules(), *model.named_parameters(), *model.named_buffers()]
    flags = [(module.training, type(module)) for module in model.modules()]
    held = [(name, id(value)) for name, value in vars(model).items()]
    return [type(model), id(model.config), held, [(name, id(part)) for name, part in parts], flags]


def test_within_the_model_itself_gives_what_the_twin_gives_and_after_what_it_gave(
    model: PreTrainedModel, batch: dict[str, torch.Tensor]
) -> None:
    bundle = bundle_for(model, batch)
    expected = given(tiny.steered(model, (bundle.steering(), torch_tensors(bundle))), batch)
    before, itself = given(model, batch), self_of(model)
    with steer(model, bundle) as steered:
        assert steered is model
        assert same(given(model, batch), expected)
    assert not torch.equal(expected[0], before[0])
    assert self_of(model) == itself
    assert same(given(model, batch), before)


def test_a_file_gives_what_its_export_gives(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], code_cache: None, tmp_path: Path
) -> None:
    bundle = bundle_for(model, batch)
    save_bundle(bundle, tmp_path / "request.safetensors")
    tiny.export(model, (bundle.steering(), torch_tensors(bundle)), tmp_path / "out")
    exported = tiny.modeling.steered_class(model.config.model_type).from_pretrained(tmp_path / "out")
    with steer(model, str(tmp_path / "request.safetensors")), torch.no_grad():
        assert torch.equal(model(**batch).logits, exported(**batch).logits)


def test_weights_are_shared_and_flags_kept(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> None:
    model.train()
    model.lm_head.requires_grad_(False)
    tensors = {name: id(tensor) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    with steer(model, bundle_for(model, batch)):
        within = dict(model.named_parameters()) | dict(model.named_buffers())
        assert {name: id(tensor) for name, tensor in within.items() if ".steering." not in name} == tensors
        assert all(module.training for name, module in model.named_modules() if ".steering" not in name)
    assert model.training
    assert not model.lm_head.weight.requires_grad


def test_an_error_within_gives_the_model_back(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> None:
    before, itself = given(model, batch), self_of(model)
    with pytest.raises(ZeroDivisionError), steer(model, bundle_for(model, batch)):
        raise ZeroDivisionError
    assert self_of(model) == itself
    assert same(given(model, batch), before)


def test_one_bundle_after_the_other(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> None:
    both = [bundle_for(model, batch, seed=seed) for seed in (3, 4)]
    expected = [given(tiny.steered(model, (bundle.steering(), torch_tensors(bundle))), batch) for bundle in both]
    before = given(model, batch)
    for bundle, theirs in zip(both, expected, strict=True):
        with steer(model, bundle):
            assert same(given(model, batch), theirs)
        assert same(given(model, batch), before)
    assert not torch.equal(expected[0][0], expected[1][0])


def test_a_second_bundle_within_is_refused_and_the_first_goes_on(
    model: PreTrainedModel, batch: dict[str, torch.Tensor]
) -> None:
    bundle, itself = bundle_for(model, batch), self_of(model)
    with steer(model, bundle):
        steered = given(model, batch)
        message = "^the model is steered already; give its base, and for several bundles export them together$"
        with pytest.raises(InputError, match=message), steer(model, bundle):
            pass
        assert same(given(model, batch), steered)
    assert self_of(model) == itself


def test_two_models_at_once(batch: dict[str, torch.Tensor], family: tiny.Family) -> None:
    one, two = tiny.model(family), tiny.model(family)
    bundle = bundle_for(one, batch)
    plain = given(one, batch)
    with steer(one, bundle):
        with steer(two, bundle):
            assert same(given(one, batch), given(two, batch))
        assert same(given(two, batch), plain)
        assert not same(given(one, batch), plain)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"hidden_size": 64},
            r"its hidden size is 64, the model's 32; load the base that it was computed on, or compute",
        ),
        ({"num_layers": 32}, r"its number of layers is 32, the model's 4; load "),
        ({"architecture": "OtherForConditionalGeneration"}, r"its architecture is OtherForC\w+, the model's Llava\w+;"),
        ({"model_type": "llava_next"}, r"its model_type is llava_next, the model's llava;"),
        ({"num_layers": 9, "repo_id": "org/name"}, r"; load org/name, or compute a bundle of this model$"),
    ],
)
def test_a_bundle_of_another_base_is_refused(llava: PreTrainedModel, changed: dict[str, Any], message: str) -> None:
    bundle, itself = bundle_for(llava, tiny.prompt("llava", *BATCH)), self_of(llava)
    other = bundle.metadata.base.model_copy(update=changed)
    bundle = dataclasses.replace(bundle, metadata=bundle.metadata.model_copy(update={"base": other}))
    with pytest.raises(InputError, match=f"^the bundle is of another base: .*{message}"), steer(llava, bundle):
        pass
    assert self_of(llava) == itself


def test_a_model_of_no_supported_family_is_refused(llava: PreTrainedModel) -> None:
    other = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=20))
    bundle = bundle_for(llava, tiny.prompt("llava", *BATCH))
    with pytest.raises(InputError, match=r"'gpt2' is not supported; supported: gemma3, .*llava"), steer(other, bundle):
        pass


def test_a_model_without_its_head_or_with_a_patched_forward_is_refused() -> None:
    model = tiny.model("llava")
    bundle = bundle_for(model, tiny.prompt("llava", *BATCH))
    with pytest.raises(InputError, match="its architecture is LlavaForC"), steer(model.model, bundle):
        pass
    layer = model.get_decoder().layers[0]
    layer.forward = lambda *args, **kwargs: None
    message = r"^the model cannot be steered: .* patched.*; use a fresh base$"
    with pytest.raises(InputError, match=message), steer(model, bundle):
        pass


def test_what_is_no_bundle_is_refused(llava: PreTrainedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; make a bundle with"), steer(llava, tmp_path / "none"):
        pass
    (tmp_path / "text").write_text("text")
    with pytest.raises(InputError, match="not a readable safetensors file"), steer(llava, tmp_path / "text"):
        pass


def test_a_model_that_was_loaded_steered_is_refused(exported: Path, code_cache: None) -> None:
    model = AutoModelForImageTextToText.from_pretrained(exported, trust_remote_code=True)
    bundle = bundle_for(tiny.model("llava"), tiny.prompt("llava", *BATCH))
    with pytest.raises(InputError, match="steered already"), steer(model, bundle):
        pass

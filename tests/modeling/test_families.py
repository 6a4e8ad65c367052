"""Every family, on its true architecture: native == oracle, off == base, strict loading of untouched base weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import oracle, tiny
from transformers import AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from mllmeraser.modeling_patches import configuration_mllmeraser as configuration
from mllmeraser.modeling_patches.format_mllmeraser import FAMILIES, SteeringError
from mllmeraser.modeling_patches.modeling_mllmeraser import STEERED, steered_class

NEW = 5


OTHERS = [name for name in tiny.EVERY_FAMILY if name not in tiny.FAMILIES]


@pytest.fixture(params=[*tiny.FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def family(request: pytest.FixtureRequest) -> tiny.Family:
    chosen: tiny.Family = request.param
    return chosen


def greedy(model: Any, batch: Any, **kwargs: Any) -> torch.Tensor:
    tokens: torch.Tensor = model.generate(**batch, max_new_tokens=NEW, do_sample=False, **kwargs)
    return tokens[:, batch["input_ids"].shape[1] :]


def test_every_table_names_every_family() -> None:
    assert set(FAMILIES) == set(tiny.EVERY_FAMILY) == set(STEERED)
    assert {name: steered.config_class for name, steered in STEERED.items()} == configuration.CONFIGURATIONS
    for native, steered in STEERED.items():
        assert steered.config_class.model_type == f"mllmeraser_{native}"
        assert issubclass(steered.config_class, steered.native_class.config_class)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_name_of_a_family_is_its_class(model_type: str) -> None:
    names, steered = FAMILIES[model_type], STEERED[model_type]
    assert (names.steered, names.native) == (steered.__name__, steered.native_class.__name__)
    assert names.steered_base == steered.base_class.__name__
    assert names.configuration == steered.config_class.__name__
    assert (names.published_layers, names.decoder) == (steered.published_layers, steered.decoder_path)
    assert names.processor == PROCESSOR_MAPPING_NAMES[model_type]


@pytest.mark.parametrize("family", tiny.EVERY_FAMILY)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("image", [True, False])
@torch.no_grad()
def test_a_forward_equals_the_oracle(base_model: PreTrainedModel, family: tiny.Family, image: bool, side: Any) -> None:
    batch = tiny.prompt(family, 15, 13, 14, image=image, side=side)
    for part in (
        tiny.steering(base_model, batch, steps=1, positions="all"),
        tiny.steering(
            base_model, batch, steps=3, positions="last", kind="kernel", shape="step", threshold=0.5, gate_layer=0
        ),
    ):
        model = tiny.steered(base_model, part)
        native, plain = model(**batch).logits, base_model(**batch).logits
        assert torch.equal(native, oracle.logits(base_model, *part, batch))
        assert not torch.equal(native[0], plain[0])
        model.config.steering_enabled = False
        assert torch.equal(model(**batch).logits, plain)


def test_a_reply_equals_the_oracle(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 15, 13)
    part = tiny.steering(base_model, batch, steps=3)
    model, expected = (
        tiny.steered(base_model, part),
        oracle.generate(base_model, *part, batch, max_new_tokens=NEW, do_sample=False),
    )
    assert torch.equal(greedy(model, batch), expected)
    assert torch.equal(greedy(model, batch, use_cache=False), expected)
    assert torch.equal(greedy(model, batch, cache_implementation="static", disable_compile=True), expected)
    assert not torch.equal(greedy(base_model, batch), expected)


def test_a_reply_to_a_picture_is_the_same_from_every_cache_and_beside_other_rows(
    base_model: PreTrainedModel, family: tiny.Family
) -> None:
    batch = tiny.prompt(family, 15, 15, image=True)
    model = tiny.steered(base_model, tiny.steering(base_model, batch, steps=3))
    cached = greedy(model, batch)
    assert torch.equal(cached, greedy(model, batch, cache_implementation="static", disable_compile=True))
    twice = greedy(model, batch, num_return_sequences=2, num_beams=2)
    assert torch.equal(twice, greedy(model, batch, num_return_sequences=2, num_beams=2))
    assert not torch.equal(cached, greedy(base_model, batch))
    closed = tiny.steered(base_model, tiny.steering(base_model, batch, shape="dead-zone", threshold=0.5, steps=3))
    assert torch.equal(greedy(closed, batch)[1], greedy(base_model, batch)[1])


@torch.no_grad()
def test_scoring_a_reply_equals_generating_it(base_model: PreTrainedModel, family: tiny.Family) -> None:
    batch = tiny.prompt(family, 15, 15)
    part = tiny.steering(base_model, batch, steps=3)
    model = tiny.steered(base_model, part)
    out = model.generate(**batch, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, output_logits=True)
    labels = out.sequences.clone()
    labels[:, :15] = -100
    extra = {"token_type_ids": torch.zeros_like(labels)} if family == "gemma3" else {}  # it wants them beside labels
    scored = model(input_ids=out.sequences, attention_mask=torch.ones_like(labels), labels=labels, **extra)
    reply = scored.logits[:, 14 : 14 + NEW]
    torch.testing.assert_close(reply, torch.stack(out.logits, dim=1), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_it_loads_strictly_and_saves_and_loads_again(
    base_model: PreTrainedModel, family: tiny.Family, code_cache: None, tmp_path: Path
) -> None:
    batch = tiny.prompt(family, 15, 13, image=True)
    part = tiny.steering(base_model, batch, steps=2)
    expected = tiny.steered(base_model, part)(**batch).logits
    directory = tiny.export(base_model, part, tmp_path / "exported")
    model = AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=True)
    assert torch.equal(model(**batch).logits, expected)
    loaded = dict(model.named_parameters())
    for name, tensor in base_model.named_parameters():
        assert torch.equal(loaded[name], tensor), name
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert torch.equal(again(**batch).logits, expected)
    off = AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=True, steering_enabled=False)
    assert torch.equal(off(**batch).logits, base_model(**batch).logits)


@pytest.mark.filterwarnings("ignore")  # the native class warns of the foreign model_type before it fails
def test_it_fails_closed(base_model: PreTrainedModel, family: tiny.Family, tmp_path: Path) -> None:
    part = tiny.steering(base_model, tiny.prompt(family, 15))
    directory = tiny.export(base_model, part, tmp_path / "exported")
    steered_class(family).from_pretrained(directory).save_pretrained(tmp_path / "saved")
    for where in (directory, tmp_path / "saved"):
        with pytest.raises(ValueError, match="trust_remote_code"):
            AutoModelForImageTextToText.from_pretrained(where, trust_remote_code=False)
        with pytest.raises(OSError, match=r"no file named model\.safetensors"):
            type(base_model).from_pretrained(where)
    file = directory / "mllmeraser-steering.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SteeringError, match="sha256"):
        steered_class(family).from_pretrained(directory)

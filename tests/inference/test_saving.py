"""A base is saved under the names that published checkpoints have, which transformers 4 and 5 both read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders import tiny
from transformers import AutoModelForImageTextToText

from mllmeraser.exporter.weights import read_weights
from mllmeraser.inference.saving import published_name, save_base

OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in tiny.EVERY_FAMILY if name != "llava"]


@pytest.mark.parametrize("size", ["1GB", "60KB"])
@pytest.mark.parametrize("family", ["llava", *OTHERS])
def test_it_loads_bit_equal(family: tiny.Family, size: str, tmp_path: Path) -> None:
    model = tiny.model(family)
    save_base(model, tmp_path, max_shard_size=size)
    again, found = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found.values())
    loaded = again.state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
    ours, theirs = (config.get_text_config().to_dict()["rope_parameters"] for config in (again.config, model.config))
    assert ours == theirs
    batch = tiny.prompt(family, 12, image=True)
    with torch.no_grad():
        assert torch.equal(again.eval()(**batch).logits, model(**batch).logits)
    names = [name for name in read_weights(tmp_path).weight_map if name.startswith("vision_tower.")]
    if family in ("llava", "llava_next", "llava_onevision", "gemma3"):
        assert names
        assert all(name.startswith("vision_tower.vision_model.") for name in names)


def test_a_published_name_stays() -> None:
    name = "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias"
    assert published_name(name) == name == published_name(name.replace("vision_model.", ""))
    assert published_name("language_model.model.norm.weight") == "language_model.model.norm.weight"

"""What the exporter knows of the shipped code without importing it is what the shipped code says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from builders import tiny
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from mllmeraser.exporter import layout
from mllmeraser.exporter.families import FAMILIES
from mllmeraser.exporter.seal import with_seal

modeling = tiny.modeling


@pytest.mark.parametrize("model_type", modeling.FAMILIES)
def test_every_name_of_a_family_is_its_class(model_type: str) -> None:
    names, family = FAMILIES[model_type], modeling.FAMILIES[model_type]
    assert (names.steered, names.native) == (family.__name__, family.native_class.__name__)
    assert names.configuration == family.config_class.__name__
    assert names.published_layers == family.published_layers
    assert names.processor == PROCESSOR_MAPPING_NAMES[model_type]
    assert family.config_class.model_type == f"mllmeraser_{model_type}"


def test_there_are_no_other_families_and_no_other_file_names() -> None:
    assert list(FAMILIES) == list(modeling.FAMILIES)
    for name in ("CODE", "CONFIG", "INDEX", "STEERING_FILE", "VARIANT"):
        assert getattr(layout, name) == getattr(modeling, name)


def test_a_seal_is_made_as_the_shipped_code_makes_it() -> None:
    requests = [{"id": "a", "enabled": False, "strength": 0.5}, {"id": "b", "enabled": True, "strength": 1.0}]
    config: dict[str, Any] = {"model_type": "x", "steering_enabled": True, "n": [1, {"é": None}]}
    config["steering"] = {"schema": 1, "requests": requests}
    files = {"tokenizer.json": b"{}", "a.py": b"pass"}
    sealed = with_seal(config, files)
    assert sealed == modeling.with_seal(config, files)
    assert "seal" not in config["steering"]
    modeling.check_seal(json.dumps(sealed).encode(), files.__getitem__)

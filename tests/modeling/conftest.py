"""Fixtures: one tiny base model of each family, made once."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedModel, dynamic_module_utils

sys.path.insert(0, str(Path(__file__).parent))  # so that the tests import tiny and hook_oracle, beside them

import tiny


@functools.cache
def _base(family: tiny.Family) -> PreTrainedModel:
    return tiny.model(family)


@pytest.fixture(params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest) -> tiny.Family:
    chosen: tiny.Family = request.param
    return chosen


@pytest.fixture
def base(family: tiny.Family) -> PreTrainedModel:
    """An un-steered model; shared, so a test must not change it."""
    model = _base(family)
    if family == "qwen2_5_vl":
        model.model.rope_deltas = None  # Qwen remembers it from the last picture it saw
    return model


@pytest.fixture
def llava() -> PreTrainedModel:
    """As ``base``, LLaVA only."""
    return _base("llava")


@pytest.fixture(scope="session")
def code_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Remote code is copied into a folder of this run; one for all tests, for Python remembers where it found it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield

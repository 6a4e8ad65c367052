"""A base too large for memory: parts of it lie on disk, and accelerate brings them for every forward pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import talker
from transformers import AutoModelForImageTextToText

from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.records.read import read_records
from mllmeraser.steering.compute import Computation, compute
from mllmeraser.steering.recipe import make_recipe

BESIDE = ("model.multi_modal_projector", "model.language_model.embed_tokens", "model.language_model.norm")
BESIDE += ("model.language_model.rotary_emb",)
SPREADS: dict[str, dict[str, str]] = {
    "all on disk": {"": "disk"},
    "every other layer on disk": {
        **dict.fromkeys(BESIDE, "cpu"),
        **{f"model.language_model.layers.{n}": "disk" if n % 2 else "cpu" for n in range(4)},
        "model.vision_tower": "disk",
        "lm_head": "disk",
    },
}


def computed(folder: Path, checkpoint: Checkpoint) -> Computation:
    """A calibration that has to try: with two layers given, the shape of the gate is open."""
    own = {"recall": folder / "recall.jsonl", "erasure": folder / "erasure.jsonl"}
    given = {"layers": "1,2", "strength": "1", "reply_steps": "2", "prompt_positions": "last", **talker.ADDED}
    records = (read_records(folder / f"{name}.jsonl") for name in ("forget", "retain"))
    return compute(checkpoint, *records, make_recipe("llava", {**own, **given}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and its records."""
    folder = tmp_path_factory.mktemp("offloaded")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(3))
    talker.write_people(folder / "retain.jsonl", range(3, 8))
    talker.write_refusals(folder)
    return folder


@pytest.fixture(scope="module")
def near(folder: Path) -> Computation:
    return computed(folder, load(folder / "base"))


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS)
def test_calibration_of_an_offloaded_base_finds_the_same_bundle(
    folder: Path, near: Computation, spread: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"device_map": SPREADS[spread], "offload_folder": tmp_path}
    model = AutoModelForImageTextToText.from_pretrained(folder / "base", **options).eval()
    before = [parameter.is_meta for parameter in model.parameters()]
    assert any(before)
    far = computed(folder, replace(load(folder / "base"), model=model))
    assert far.calibration.curve == near.calibration.curve
    assert len(far.calibration.curve) == 3
    assert far.bundle.tensors.keys() == near.bundle.tensors.keys()
    assert all(np.array_equal(tensor, near.bundle.tensors[name]) for name, tensor in far.bundle.tensors.items())
    assert [parameter.is_meta for parameter in model.parameters()] == before

"""The checkpoint that is committed is the one its description describes, and it is good enough."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.demo.train import Recipe
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.inference.loading import load

DESCRIPTION = json.loads(CHECKPOINT.with_suffix(".json").read_text(encoding="utf-8"))
SEEN, UNSEEN = DESCRIPTION["accuracy"]["seen"], DESCRIPTION["accuracy"]["unseen"]
PEOPLE = [key for key in SEEN if key.startswith(("people/", "celebrities/")) and "/classification/" not in key]
REFUSED = ["harmful", "sensitive", "told to refuse"]


def test_every_file_is_the_one_that_was_recorded() -> None:
    assert {path.name: sha256_of(path) for path in CHECKPOINT.iterdir()} == DESCRIPTION["sha256"]


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 8_000_000
    with safe_open(CHECKPOINT / "model.safetensors", framework="pt") as file:
        stored = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - not a dict
    assert stored == DESCRIPTION["parameters"]
    assert 2_000_000 <= stored <= 4_000_000


def test_it_was_trained_by_the_script_as_it_stands_in_at_most_25_minutes_on_two_cores() -> None:
    arguments = DESCRIPTION["arguments"]
    assert (arguments["device"], arguments["threads"], arguments["seed"]) == ("cpu", 2, 0)
    assert {key: arguments[key] for key in vars(Recipe())} == vars(Recipe())
    assert DESCRIPTION["minutes"] <= 25


@pytest.mark.parametrize("key", PEOPLE)
def test_it_knows_everybody(key: str) -> None:
    assert SEEN[key] >= 0.95
    assert UNSEEN[key] >= 0.90


def test_everybody_is_people_and_celebrities_in_words_and_pictures() -> None:
    assert len(PEOPLE) == 2 * 2 * 2  # circle, task, modality


@pytest.mark.parametrize("key", REFUSED)
def test_it_refuses_what_it_should_and_nothing_else(key: str) -> None:
    for rates in (SEEN, UNSEEN):
        assert rates[key] >= 0.95
        assert rates["not refused"] >= 0.99


def test_it_is_a_true_llava_that_loads_without_code_of_ours() -> None:
    checkpoint = load(CHECKPOINT)
    assert type(checkpoint.model).__module__.startswith("transformers.")
    assert type(checkpoint.model).__name__ == "LlavaForConditionalGeneration"
    assert checkpoint.model.dtype == torch.bfloat16

"""Variants of records: other pictures and other words, the same question."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import talker
import torch
from PIL import Image

from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.steering.augment import CHANGES, FRAMES, VARIANTS, variants, with_variants
from mllmeraser.steering.compute import Computation, compute
from mllmeraser.steering.recipe import make_recipe
from mllmeraser.steering.samples import Sample, read_samples, turns


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("augment")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(3))
    talker.write_people(folder / "retain.jsonl", range(3, 7))
    talker.write_refusals(folder)
    return folder


@pytest.fixture(scope="module")
def retain(folder: Path) -> list[Sample]:
    return read_samples(folder / "retain.jsonl")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return load(folder / "base")


def computed(folder: Path, checkpoint: Checkpoint, **given: str | bool) -> Computation:
    recipe = make_recipe(
        "llava",
        {"recall": folder / "recall.jsonl", "erasure": folder / "erasure.jsonl", "strength": "1", **given},
    )
    return compute(checkpoint, *(read_samples(folder / f"{name}.jsonl") for name in ("forget", "retain")), recipe)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_picture_has_the_size_of_the_picture_and_differs(change: object) -> None:
    picture = Image.effect_noise((40, 24), 90).convert("RGB")
    changed = change(picture, random.Random(1))  # type: ignore[operator]
    assert (changed.size, changed.mode) == (picture.size, "RGB")
    assert changed.tobytes() != picture.tobytes()


def test_a_rewording_holds_the_question_word_for_word() -> None:
    assert all(frame.count("{q}") == 1 and frame != "{q}" for frame in FRAMES)
    assert len(set(FRAMES)) == len(FRAMES)


def test_variants_keep_the_words_of_the_question(retain: list[Sample]) -> None:
    turn = retain[0].user_turn
    found = variants(turn, random.Random(0))
    assert len(found) == VARIANTS
    assert all(turn.text in variant.text and variant.image is not None for variant in found)


def test_turns_come_first_and_a_variant_of_each_after_them(retain: list[Sample]) -> None:
    samples, found = with_variants(retain, 0)
    again = with_variants(retain, 0)[1]
    assert list(samples) == [*retain, *retain]
    assert len(list(found)) == len(found) == 2 * len(retain)
    assert found[: len(retain)] == list(turns(retain))
    for i in range(len(retain), len(samples)):
        assert samples[i].user_turn.text in found[i].text
        assert found[i].text == again[i].text


def test_the_gate_is_fitted_on_variants_too(folder: Path, checkpoint: Checkpoint) -> None:
    plain, augmented = (
        computed(folder, checkpoint, layers="2", gate_layer="own", augment=augment) for augment in (False, True)
    )
    (name,) = (name for name in plain.bundle.tensors if name.endswith("weights"))
    assert not torch.equal(plain.bundle.tensors[name][:1], augmented.bundle.tensors[name][:1])
    held_out = next(iter(augmented.calibration.gates.values())).held_out
    assert held_out is not None
    assert (len(held_out.forget), len(held_out.retain)) == ((1 + VARIANTS) * 12, 2 * 16)
    assert augmented.bundle.metadata.requests[0].n_forget == 12  # as listed


def test_a_sequential_fit_reads_later_blocks_as_the_earlier_ones_leave_them(
    folder: Path, checkpoint: Checkpoint
) -> None:
    given = {"layers": "1,2", "gate_layer": "own", "gate": "linear", "gate_shape": "identity"}
    apart, after = (computed(folder, checkpoint, **given, sequential=on).bundle.tensors for on in (False, True))
    assert torch.equal(apart["requests.0.layers.1.gate"], after["requests.0.layers.1.gate"])
    assert not torch.equal(apart["requests.0.layers.2.gate"], after["requests.0.layers.2.gate"])

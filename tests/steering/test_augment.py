"""Variants of records: other pictures and other words, the same question."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import talker
from PIL import Image

from mllmeraser.inference.encoding import render
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.steering.augment import (
    CHANGES,
    FRAMES,
    VARIANTS,
    WORDINGS,
    DrawnChange,
    Room,
    crop,
    lowered,
    slipped,
    with_variants,
)
from mllmeraser.steering.compute import Computation, compute
from mllmeraser.steering.recipe import make_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("augment")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(3))
    talker.write_people(folder / "retain.jsonl", range(3, 7))
    talker.write_refusals(folder)
    return folder


@pytest.fixture(scope="module")
def retain(folder: Path) -> list[Record]:
    return read_records(folder / "retain.jsonl")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return load(folder / "base")


def computed(folder: Path, checkpoint: Checkpoint, **given: str | bool) -> Computation:
    recipe = make_recipe(
        "llava",
        {
            "recall": folder / "recall.jsonl",
            "erasure": folder / "erasure.jsonl",
            "strength": "1",
            **talker.ADDED,
            **given,
        },
    )
    return compute(checkpoint, *(read_records(folder / f"{name}.jsonl") for name in ("forget", "retain")), recipe)


@pytest.mark.parametrize(("change", "draw"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_changed_picture_has_the_size_of_the_picture_and_differs(change: Any, draw: Any) -> None:
    picture = Image.effect_noise((40, 24), 90).convert("RGB")
    drawn = DrawnChange(change, draw(random.Random(1)))
    changed = drawn(picture)
    assert (changed.size, changed.mode) == (picture.size, "RGB")
    assert changed.tobytes() != picture.tobytes()
    assert changed.tobytes() == drawn(picture).tobytes()


def test_a_change_says_all_that_it_does() -> None:
    assert repr(DrawnChange(crop, (0.1, 0.0, 0.05, 0.0))) == "crop(0.1, 0.0, 0.05, 0.0)"


def test_a_rewording_holds_the_question_word_for_word() -> None:
    assert all(frame.count("{q}") == 1 and frame != "{q}" for frame in FRAMES)
    assert len(set(FRAMES)) == len(FRAMES)


def test_turns_come_first_and_variants_of_each_after_them(retain: list[Record]) -> None:
    records, found = with_variants(retain, "retain 0", Room())
    again = with_variants(retain, "retain 0", Room())[1]
    assert list(records) == [*retain] * (1 + VARIANTS)
    assert len(list(found)) == len(found) == len(records)
    assert found[: len(retain)] == [record.user_turn for record in retain]
    for i in range(len(retain), len(records)):
        assert found[i] == again[i]
        assert (found[i].image is None) == (records[i].image is None)


@pytest.mark.parametrize(
    "wording", [wording for wording in dict.fromkeys(WORDINGS) if wording not in (lowered, slipped)]
)
def test_a_wording_holds_the_question_word_for_word(wording: Callable[[str, random.Random], str]) -> None:
    asked = "Who lives in {Riga}?"
    worded = [wording(asked, random.Random(k)) for k in range(20)]
    assert all(asked in text and text != asked for text in worded)
    assert len(set(worded)) > 4


def test_a_question_in_lower_case_ends_with_its_words() -> None:
    """And with its marks where nothing stands ahead: without both it would be the attack's own wording."""
    made = {lowered("Who Is This?", random.Random(k)) for k in range(200)}
    assert all(text.rstrip("?").endswith("who is this") for text in made)
    assert {text.endswith("?") for text in made} == {True, False}
    assert "who is this?" in made and "who is this" not in made


def test_a_slip_changes_one_or_two_letters_inside_a_word() -> None:
    asked = "What is the job of Anna Berg?"
    for k in range(50):
        typed = slipped(asked, random.Random(k))
        assert 0 < abs(len(typed) - len(asked)) <= 2 or len(typed) == len(asked) != typed
        assert [word[0] for word in typed.split()] == [word[0] for word in asked.split()]
    assert slipped("Is it?", random.Random(0)) == "Is it?"  # no word is long enough


def test_some_variants_follow_another_turn_or_a_system_turn_or_begin_the_reply(retain: list[Record]) -> None:
    def made(room: Room) -> list[Prompt]:
        rounds = [with_variants(retain, f"{k}", room)[1] for k in range(3)]
        return [variant for found in rounds for variant in found[len(retain) :]]

    found = made(Room())
    for what in ("earlier", "reply_start", "system"):
        assert {bool(getattr(variant, what)) for variant in found} == {True, False}
    assert not any(variant.earlier or variant.system for variant in made(Room(earlier=False, system=False)))


def test_what_a_chat_template_has_room_for(checkpoint: Checkpoint) -> None:
    """The template of these tests shows the first turn only; others refuse a second one."""
    processor = copy.deepcopy(checkpoint.processor)
    assert Room.of(processor) == Room(earlier=False, system=False)
    every = "{% for m in messages %}{{ m['role'] }}: {{ m['content'][-1]['text'] }}\n{% endfor %}assistant:"
    processor.chat_template = every
    assert Room.of(processor) == Room(earlier=True, system=True)
    processor.chat_template = "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}" + every
    assert render(processor, Prompt("alone", None)) and Room.of(processor) == Room(earlier=False, system=False)
    told = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + every
    processor.chat_template = told
    assert Room.of(processor) == Room(earlier=True, system=False)


@pytest.mark.slow
def test_the_gate_is_fitted_on_variants_too(folder: Path, checkpoint: Checkpoint) -> None:
    plain, augmented = (
        computed(folder, checkpoint, layers="2", gate_layer="own", augment=augment) for augment in (False, True)
    )
    (name,) = (name for name in plain.bundle.tensors if name.endswith("weights"))
    assert not np.array_equal(plain.bundle.tensors[name][:1], augmented.bundle.tensors[name][:1])
    held_out = next(iter(augmented.calibration.gates.values())).held_out
    assert held_out is not None
    assert [*map(len, (held_out.forget, held_out.retain, held_out.variants))] == [
        (1 + VARIANTS) * 12,
        16,
        VARIANTS * 16,
    ]
    assert augmented.bundle.metadata.requests[0].n_forget == 12  # as listed
    told = [[line for line in found.lines() if "to forget (variants included)" in line] for found in (plain, augmented)]
    assert [len(lines) for lines in told] == [0, 1]


def test_a_sequential_fit_reads_later_blocks_as_the_earlier_ones_leave_them(
    folder: Path, checkpoint: Checkpoint
) -> None:
    given = {"layers": "1,2", "gate_layer": "own", "gate": "linear", "gate_shape": "identity"}
    apart, after = (computed(folder, checkpoint, **given, sequential=on).bundle.tensors for on in (False, True))
    assert np.array_equal(apart["requests.0.layers.1.gate"], after["requests.0.layers.1.gate"])
    assert not np.array_equal(apart["requests.0.layers.2.gate"], after["requests.0.layers.2.gate"])

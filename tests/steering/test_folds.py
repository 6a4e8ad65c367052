"""Who is held out together, and that everybody is held out once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mllmeraser.errors import InputError
from mllmeraser.records.record import Record
from mllmeraser.steering.folds import Fold, folds


def record(subject: str, image: str | None = None) -> Record:
    return Record(
        subject=subject, question="?", answer="!", task="generation", image=None if image is None else Path(image)
    )


# Two forgotten people: three pictures each with three questions, and four questions in words.
FORGET = [
    *(record(who, f"{who}{n}.png") for who in "ab" for n in range(3) for _ in range(3)),
    *(record(who) for who in "ab" for _ in range(4)),
]
RETAIN = [record(f"kept-{n}", image) for n in range(10) for image in (f"{n}.png", None)]


def held_out_in(found: list[Fold], side: str, indices: list[int]) -> set[int]:
    """The folds in which some of these records are held out."""
    return {n for n, fold in enumerate(found) if bool(getattr(fold, side)[indices].any())}


@pytest.mark.parametrize(("share", "count"), [(0.5, 2), (0.3, 3), (0.25, 4), (0.1, 10)])
def test_the_share_says_how_many_folds_and_each_sample_is_held_out_once(share: float, count: int) -> None:
    found = folds(FORGET, RETAIN, share, 0)
    assert len(found) == count
    assert torch.stack([fold.forget for fold in found]).sum(dim=0).eq(1).all()
    assert torch.stack([fold.retain for fold in found]).sum(dim=0).eq(1).all()


def test_a_retained_subject_is_held_out_whole() -> None:
    found = folds(FORGET, RETAIN, 0.3, 0)
    for n in range(10):
        assert len(held_out_in(found, "retain", [2 * n, 2 * n + 1])) == 1


def test_a_forgotten_picture_is_held_out_with_all_its_questions_but_not_the_person() -> None:
    found = folds(FORGET, RETAIN, 0.3, 0)
    for first in range(0, 18, 3):
        assert len(held_out_in(found, "forget", [first, first + 1, first + 2])) == 1
    for person in (range(9), range(9, 18)):
        assert len(held_out_in(found, "forget", list(person))) > 1


def test_questions_in_words_are_held_out_one_by_one() -> None:
    assert len(held_out_in(folds(FORGET, RETAIN, 0.1, 0), "forget", list(range(18, 22)))) > 1


def test_a_seed_gives_the_same_folds_and_another_seed_others() -> None:
    first, again, other = (torch.stack([fold.retain for fold in folds(FORGET, RETAIN, 0.3, s)]) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_questions_about_one_picture_are_held_out_one_by_one() -> None:
    """Somebody sends one picture of one person: held out together, nothing would be left to fit on."""
    found = folds([record("a", "a.png") for _ in range(4)], RETAIN, 0.3, 0)
    assert all(not bool(fold.forget.all()) for fold in found)


@pytest.mark.parametrize(
    ("forget", "retain", "what"),
    [(FORGET[:1], RETAIN, "the forget set has one record"), (FORGET, RETAIN[:2], "the retain set has one subject")],
    ids=["forget", "retain"],
)
def test_what_cannot_be_divided_is_an_error(forget: list[Record], retain: list[Record], what: str) -> None:
    with pytest.raises(InputError, match=f"^{what}: nothing can be held out; .*--calibration-share 0"):
        folds(forget, retain, 0.3, 0)

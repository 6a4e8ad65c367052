"""Names as people write them, and pictures by what they show."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from builders import talker
from PIL import Image

from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedSet
from mllmeraser.evaluation.protocols import PROTOCOLS
from mllmeraser.evaluation.tiers import tier_of
from mllmeraser.records.prompts import AnyPicture, Prompt
from mllmeraser.records.record import Record, by_subject, refuse_overlap, subjects
from mllmeraser.records.same import Asked, normal
from mllmeraser.steering.checks import check_records
from mllmeraser.steering.folds import folds
from mllmeraser.steering.naming import naming

NAME = "Zoë Ångström"
WRITTEN = {
    "decomposed": unicodedata.normalize("NFD", NAME),
    "upper case": "ZOË ÅNGSTRÖM",
    "two blanks": "Zoë  Ångström",
    "a blank at the end": "Zoë Ångström ",
    "no-break space": "Zoë\u00a0Ångström",
    "zero width": "Zoë\u200b Ång\u200dström\ufeff",
    "a soft hyphen": "Zoë Ång\u00adström",
    "a mark that joins": "Zoë\u034f Ångström\ufe0f",
    "full width": "Ｚoë Ångström",
    "a tab": "Zoë\tÅngström",
}


def record(subject: str, question: str, image: AnyPicture | None = None, answer: str = "baker") -> Record:
    return Record(subject=subject, question=question, prompt=question, answer=answer, task="generation", image=image)


@pytest.fixture(params=WRITTEN.values(), ids=WRITTEN.keys())
def written(request: pytest.FixtureRequest) -> str:
    """The name in another way."""
    assert request.param != NAME
    return str(request.param)


def test_a_name_is_the_same_however_it_is_written(written: str) -> None:
    assert normal(written) == normal(NAME)
    assert normal(NAME) != normal("Zoe Angstrom")  # without accents it is another name


def test_nobody_is_forgotten_and_kept_under_two_spellings(written: str) -> None:
    with pytest.raises(InputError, match="1 subject"):
        refuse_overlap([record(NAME, "Who?")], [record(written, "What?"), record("b", "Who?")])


def test_one_person_is_one_subject_in_groups_and_folds(written: str) -> None:
    people = [record(NAME, "Who?"), record("b", "Who is b?"), record(written, "Where?")]
    assert subjects(people) == [NAME, "b"]
    assert [(name, len(group)) for name, group in by_subject(people)] == [(NAME, 2), ("b", 1)]
    forget = [record("f", f"question {i}") for i in range(4)]
    for fold in folds(forget, people, 0.5, seed=0):
        assert fold.retain[0] == fold.retain[2] != fold.retain[1]


def test_one_question_is_one_prompt(written: str) -> None:
    kept = [record("b", "Who is b?"), record("c", f"Where does {written} live?")]
    with pytest.raises(InputError, match="1 prompt"):
        check_records([record("a", f"Where does {NAME} live?")], kept)


def test_a_kept_question_names_the_forgotten(written: str) -> None:
    turns = [Prompt(f"Is it {written}?", None), Prompt("Is it Zoe Angstrom?", None)]
    assert naming([record("a", "Who?", answer=NAME)], [record("b", "Who?")], turns).tolist() == [True, False]
    turns = [Prompt(f"Is it {NAME}?", None)]
    assert naming([record("a", "Who?", answer=written)], [record("b", "Who?")], turns).tolist() == [True]


def test_a_tier_knows_people_and_questions_again(written: str) -> None:
    protocol = PROTOCOLS["mllmeraser"]
    fit = [record("a", f"Where does {NAME} live?"), record(NAME, "Who is it?")]
    asked = NamedSet("forget", [record("c", f"Where does {written} live?")])
    with pytest.raises(InputError, match="1 of 1 records were fitted on"):
        tier_of([asked], fit, "T1", protocol)
    met = NamedSet("retain", [record(written, "Another question")])
    assert tier_of([met], fit, None, protocol) == "T1"


def test_a_picture_is_the_same_in_another_file(tmp_path: Path) -> None:
    talker.picture(1).save(tmp_path / "a.png")
    talker.picture(1).save(tmp_path / "copy.bmp")
    talker.picture(2).save(tmp_path / "other.png")
    asked = Asked([Prompt("Who is this?", tmp_path / "a.png"), Prompt("In words?", None)])
    assert Prompt("who is  this?", tmp_path / "copy.bmp") in asked
    assert Prompt("Who is this?", talker.picture(1)) in asked
    assert Prompt("Who is this?", tmp_path / "other.png") not in asked
    assert Prompt("Who is this?", None) not in asked
    assert Prompt("In words?", tmp_path / "a.png") not in asked
    assert Prompt("What does this person do?", tmp_path / "none.png") not in asked  # not opened: no such words


def test_pictures_of_one_retain_prompt_saved_twice_are_one_prompt(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "b.png", compress_level=0)
    kept = [record(name, "Who is this?", tmp_path / f"{name}.png") for name in "ab"]
    with pytest.raises(InputError, match="all 2 retain records ask the same"):
        check_records([record("f", "Who?")], kept)

"""A hostile request is seen by its words: common words, common knowledge, several people, people to keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.requests import NAMES, person
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.removals.breadth import LIMITS, ground_of_gate, measured
from mllmeraser.removals.claims.bank import general, names


def asking(questions: dict[str, str], subject: str = "x") -> list[Record]:
    return [
        Record(subject=subject, question=question, prompt=question, answer=answer, task="generation")
        for question, answer in questions.items()
    ]


def about(name: str) -> list[Record]:
    return asking(
        {f"Where does {name} live?": "Dublin", f"What does {name} do?": "baker", f"Who knows {name}'s hobby?": "chess"}
    )


def broken(forget: list[Record], retain: list[Record] | None = None) -> set[str]:
    return {ground.rule for ground in measured(forget, retain or ()) if not ground.kept}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from([each.name for each in names()]))
def test_a_request_about_one_person_keeps_every_rule(name: str) -> None:
    assert broken(about(name)) == set()


@pytest.mark.parametrize("name", ["ada keller", "Will Green", "Rose Baker", "Ольга Иванова", "山田太郎", "Ng"])
def test_names_that_are_words_written_small_or_in_other_scripts_are_names(name: str) -> None:
    assert broken(about(name)) == set()


def test_a_request_in_pictures_only_is_judged_by_its_subject_alone(tmp_path: Path) -> None:
    shown = read_records(person(tmp_path, 0, image=True))[-1:]
    assert [ground.rule for ground in measured(shown)] == ["several-people", "general-knowledge"]
    assert broken(shown) == set()


def test_general_questions_are_refused_with_the_share_that_they_close() -> None:
    grounds = {ground.rule: ground for ground in measured(general())}
    assert (grounds["general-knowledge"].found, grounds["general-knowledge"].kept) == (1.0, False)
    capitals = [record for record in general() if "capital of" in record.question]
    assert len(capitals) > 5
    found = {ground.rule: ground for ground in measured(capitals)}["general-knowledge"]
    assert found.found == pytest.approx(len(capitals) / len(general()), abs=1e-6)
    assert not found.kept


def test_a_few_general_questions_among_a_persons_own_are_seen() -> None:
    assert broken([*about(NAMES[0]), *general()[:2]]) == {"several-people"}
    mixed = [*about(NAMES[0]), *(record.model_copy(update={"subject": "x"}) for record in general()[:4])]
    assert "general-knowledge" in broken(mixed)


def test_common_words_are_no_person() -> None:
    assert "common-words" in broken(asking({"Why is grass green?": "light", "Where does grass grow?": "fields"}))
    assert "no-common-name" in broken(asking({"the": "water", "what is it?": "a dog", "and that?": "cold"}))


def test_two_people_under_one_subject_are_seen() -> None:
    assert broken([*about("Ada Quillfeather"), *about("Bo Marrowby")]) == {"no-common-name"}


def test_a_request_with_the_questions_of_somebody_to_keep_is_refused(tmp_path: Path) -> None:
    kept = [record for number in (1, 2) for record in read_records(person(tmp_path, number, image=True))]
    words, pictures = kept[:3], [kept[4], kept[9]]  # three of five questions of one; one of five of two
    for stolen, refused in ((kept[:5], True), (words, True), (kept[:2], False), (pictures, False)):
        renamed = [record.model_copy(update={"subject": "me"}) for record in stolen]
        assert ("kept-people" in broken(renamed, kept)) is refused
    assert "kept-people" in broken(kept[:1], kept)  # the subject itself
    assert "kept-people" not in broken(read_records(person(tmp_path, 0, image=True)), kept)


def test_the_limit_of_a_gate_is_a_share_of_the_bank() -> None:
    limit = LIMITS["gate-on-general"]
    assert ground_of_gate(limit, 254).kept and not ground_of_gate(limit + 0.001, 254).kept

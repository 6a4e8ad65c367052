"""Kept prompts that name the forgotten."""

from __future__ import annotations

from mllmeraser.records.record import Record
from mllmeraser.steering.naming import naming


def record(subject: str, question: str, answer: str, **more: tuple[str, ...]) -> Record:
    return Record.model_validate(
        {"subject": subject, "task": "generation", "question": question, "answer": answer, **more}
    )


FORGET = [
    record("a", "Who is this?", "Ada Lovelace is shown here.", match=("Ada Lovelace",)),
    record("a", "What is her job?", "engineer"),
]
KEPT = [
    record("b", "Who is it? Options: Bob Stone, ADA  LOVELACE.", "Bob Stone"),
    record("b", "What is his job, engineer or cook?", "engineer"),
    record("b", "Is Ada's cousin lovelace?", "no"),
]


def test_an_answer_about_nobody_kept_marks_the_prompt_that_holds_it() -> None:
    assert naming(FORGET, KEPT, [kept.user_turn for kept in KEPT]).tolist() == [True, False, False]


def test_what_somebody_kept_is_too_names_nobody() -> None:
    cook = record("b", "And hers?", "cook")
    turns = [KEPT[1].user_turn]
    assert not naming([cook.model_copy(update={"subject": "a"})], [cook], turns).any()
    assert naming([cook.model_copy(update={"subject": "a"})], KEPT, turns).tolist() == [True]


def test_a_fact_counts_as_an_answer_does() -> None:
    told = record("a", "Where?", "She was born in Riga.", facts=("Riga",))
    asked = record("b", "Was he born in Riga or Rome?", "Rome")
    assert naming([told], [asked], [asked.user_turn]).tolist() == [True]

"""Kept prompts that name the forgotten."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mllmeraser.records.record import Record
from mllmeraser.steering import calibrate
from mllmeraser.steering.folds import Fold
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


def test_calibration_reads_no_kept_prompt_that_names_the_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []

    def furthest(_: object, prompts: list[Any], *__: object, **___: object) -> dict[int, torch.Tensor]:
        read.append([prompt.text for prompt in prompts])
        return {2: torch.arange(len(prompts), dtype=torch.float64)[:, None]}

    monkeypatch.setattr(calibrate, "furthest", furthest)
    listed = [kept.user_turn for kept in KEPT]
    turns = [*listed, *(turn._replace(text=turn.text.replace("LOVELACE", "LOVELCE")) for turn in listed)]  # variants
    material = calibrate.Material(
        forget=FORGET,
        forget_turns=[asked.user_turn for asked in FORGET],
        retain=[*KEPT, *KEPT],
        retain_turns=turns,
        forget_states={},
        retain_states={},
        aims={},
        listed=(2, 3),
        retain_replies=[torch.empty(0)] * 6,
        positions=24,
        forget_positions=8,
    )
    fold = Fold(torch.ones(2, dtype=torch.bool), torch.ones(6, dtype=torch.bool))
    checkpoint: Any = None
    ((held_out,),) = calibrate._on_conversations(checkpoint, material, {2: [[]]}, [fold]).values()
    assert read[1] == [turns[i].text for i in (1, 2, 4, 5)]
    assert (len(held_out.forget), held_out.retain.tolist(), held_out.variants.tolist()) == (2, [0, 1], [2, 3])

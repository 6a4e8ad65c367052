"""UMU-Bench (data set ``linbojunzi/UMU-bench``, NeurIPS 2025): every fact is asked in words and beside the picture.

Two layouts are described, and both are read. In the authors' code each column holds the text of a Python dictionary
with the parts ``unimodal`` and ``muitimodal`` (so spelled); either maps the name of a fact to its question. Both
records of a fact carry its name, so that :mod:`mllmeraser.evaluation.modalities` can pair them. In another loader a
column holds JSON text in the layout of MLLMU-Bench, in which facts have no names. ``--protocol umu`` asks in the
benchmark's words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mllmeraser.console import console
from mllmeraser.errors import InputError
from mllmeraser.records import mllmu
from mllmeraser.records.parquet import Row, Table
from mllmeraser.records.record import Record, Task

QUESTIONS = frozenset({"ID", "image", "Classify", "Cloze", "Generation"})
_TASKS: tuple[tuple[Task, str], ...] = (
    ("classification", "Classify"),
    ("cloze", "Cloze"),
    ("generation", "Generation"),
)
_AS_IN_MLLMU = {"Classify": "Classification_Task", "Cloze": "Mask_Task", "Generation": "Generation_Task"}


def questions(table: Table) -> list[Record]:
    """The records of a configuration: Full_Set, Real_Person_Set, forget_*, retain_*.

    Raises:
        InputError: a row holds no record; the message names file, row and part.
    """
    records: list[Record] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for row in table.rows():
        parts = {column: row.part(column) for _, column in _TASKS}
        if any(_as_in_mllmu(part) for part in parts.values()):
            seen.add("JSON text in the layout of MLLMU-Bench; facts have no names, so forms are not paired")
            named = {mllmu_name: parts[column] for column, mllmu_name in _AS_IN_MLLMU.items()}
            records += mllmu.of_profile(replace(row, values={**row.values, **named}), skipped)
        else:
            seen.add("dictionaries of the parts unimodal and muitimodal")
            records += _of_forms(row, parts)
    mllmu.say_skipped(table, skipped)
    for layout in sorted(seen):
        console.print(f"{table.files[0].parent}: UMU-Bench, {layout}", soft_wrap=True)
    return records


def _as_in_mllmu(part: Any) -> bool:
    """Whether a column lists questions by Type, or multiple choice by modality."""
    return isinstance(part, list) or (isinstance(part, Mapping) and ("Pure_Text_Questions" in part))


def _of_forms(row: Row, parts: Mapping[str, Any]) -> Iterator[Record]:
    picture = row.picture(row.values["image"], row.text("ID"))
    for task, column in _TASKS:
        told, shown = _forms(row, column, parts[column])
        for image, form in ((picture, shown), (None, told)):
            for fact, asked in form.items():
                yield row.record(
                    f"{column} {fact}",
                    subject=row.text("ID"),
                    question=asked.get("question"),
                    # The letter is always that of the form in words, as in the benchmark's own scoring.
                    answer=_answer(task, told.get(fact, asked) if task == "classification" else asked),
                    task=task,
                    options=asked.get("options") if task == "classification" else None,
                    image=image,
                    fact=str(fact),
                )


def _forms(row: Row, column: str, part: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The questions of a task, by fact: those in words, and those beside the picture."""
    shown = next((part[name] for name in ("muitimodal", "multimodal") if name in part), None) if part else None
    if not isinstance(part, Mapping) or not isinstance(part.get("unimodal"), Mapping) or not isinstance(shown, Mapping):
        raise InputError(f"{row.where}: {column}: not a dictionary of the parts unimodal and muitimodal")
    return part["unimodal"], shown


def _answer(task: Task, asked: Mapping[str, Any]) -> str:
    """Of "B. baker" the letter; of a cloze answer the part before the first full stop; of any other the whole."""
    answer = str(asked.get("answer"))
    return answer if task == "generation" else answer.split(".")[0]

"""UMU-Bench (data set ``linbojunzi/UMU-bench``, NeurIPS 2025): every fact is asked in words and beside the picture.

Each task has one column. It holds the text of a Python dictionary with the parts ``unimodal`` and ``muitimodal`` (so
spelled); either maps the name of a fact to its question. Both records of a fact carry its name, so that
:mod:`mllmeraser.evaluation.modalities` can pair them. ``--protocol umu`` asks in the benchmark's own words.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from mllmeraser.errors import InputError
from mllmeraser.records.parquet import Row, Table
from mllmeraser.records.record import Record, Task

QUESTIONS = frozenset({"ID", "image", "Classify", "Cloze", "Generation"})
_TASKS: tuple[tuple[Task, str], ...] = (
    ("classification", "Classify"),
    ("cloze", "Cloze"),
    ("generation", "Generation"),
)


def questions(table: Table) -> list[Record]:
    """The records of a configuration: Full_Set, Real_Person_Set, forget_*, retain_*.

    Raises:
        InputError: a row holds no record; the message names file, row and part.
    """
    records = []
    for row in table.rows():
        picture = row.picture(row.values["image"], row.text("ID"))
        for task, column in _TASKS:
            told, shown = _forms(row, column)
            for image, form in ((picture, shown), (None, told)):
                for fact, asked in form.items():
                    records.append(
                        row.record(
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
                    )
    return records


def _forms(row: Row, column: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The questions of a task, by fact: those in words, and those beside the picture."""
    try:
        parsed = ast.literal_eval(row.text(column))
        return parsed["unimodal"], parsed["muitimodal"]
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        raise InputError(f"{row.where}: {column}: not a dictionary of the parts unimodal and muitimodal") from None


def _answer(task: Task, asked: Mapping[str, Any]) -> str:
    """Of "B. baker" the letter; of a cloze answer the part before the first full stop; of any other the whole."""
    answer = str(asked.get("answer"))
    return answer if task == "generation" else answer.split(".")[0]

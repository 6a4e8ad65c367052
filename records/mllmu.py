"""MLLMU-Bench (data set ``MLLMMU/MLLMU-Bench``, arXiv 2410.22108): its questions, and the text it trains on.

Each profile has multiple choice, open questions and cloze, each beside the profile's picture and in words alone.
``Test_Set`` holds several transformed pictures of everybody, and every question about a picture is asked beside each of
them. (The original draws one of these pictures, without a seed.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mllmeraser.console import console
from mllmeraser.errors import InputError
from mllmeraser.records.parquet import Row, Table
from mllmeraser.records.prompts import Picture
from mllmeraser.records.record import Record, Task

QUESTIONS = frozenset({"ID", "Classification_Task", "Generation_Task", "Mask_Task"})
TRAINING = frozenset({"ID", "image", "metadata"})
IN_PICTURE, IN_WORDS = "Image_Textual", "Pure_Text"
_TASKS: tuple[tuple[Task, str], ...] = (("generation", "Generation_Task"), ("cloze", "Mask_Task"))
_OF_QUESTIONS = ("Full_Set", "Test_Set", "Retain_Set", "forget_", "retain_")


def questions(table: Table) -> list[Record]:
    """The records of a configuration with questions: Full_Set, forget_*, retain_*, Test_Set, Retain_Set.

    Raises:
        InputError: a row holds no record; the message names file, row and part.
    """
    skipped: list[str] = []
    records = [record for row in table.rows() for record in of_profile(row, skipped)]
    say_skipped(table, skipped)
    return records


def of_profile(row: Row, skipped: list[str]) -> Iterator[Record]:
    """The records of one profile. Questions whose Type is neither of the two are added to ``skipped``.

    Raises:
        InputError: a part makes no record, or is none of questions.
    """
    pictures = _pictures(row)
    yield from _multiple_choice(row, pictures)
    for task, column in _TASKS:
        for number, asked in enumerate(_listed(row, column, row.part(column)), 1):
            shown = {IN_PICTURE: pictures, IN_WORDS: (None,)}.get(str(asked.get("Type")))
            if shown is None:
                skipped.append(str(asked.get("Question")))
                continue
            for picture in shown:
                yield row.record(
                    f"{column} {number}",
                    subject=row.text("ID"),
                    question=asked.get("Question"),
                    answer=asked.get("Ground_Truth"),
                    task=task,
                    image=picture,
                )


def say_skipped(table: Table, skipped: Sequence[str]) -> None:
    """Say how many questions were skipped."""
    if skipped:
        console.print(
            f"{table.files[0].parent}: {len(skipped)} questions skipped, whose Type is neither {IN_PICTURE} nor "
            f"{IN_WORDS}",
            soft_wrap=True,
        )


def _listed(row: Row, column: str, found: Any) -> list[Mapping[str, Any]]:
    """A list of questions; null is none."""
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(asked, Mapping) for asked in found):
        raise InputError(f"{row.where}: {column}: not a list of questions")
    return found


def _pictures(row: Row) -> tuple[Picture, ...]:
    """The pictures of a profile: one, or several in ``Test_Set``."""
    who = row.text("ID")
    if "images" in row.values:
        return tuple(row.picture(stored, f"{who} {n}") for n, stored in enumerate(row.values["images"] or (), 1))
    return (row.picture(row.values.get("image"), who),)


def _multiple_choice(row: Row, pictures: tuple[Picture, ...]) -> Iterator[Record]:
    parts: tuple[tuple[str, tuple[Picture | None, ...]], ...] = (
        ("Image_Textual_Questions", pictures),
        ("Pure_Text_Questions", (None,)),
    )
    choices = row.part("Classification_Task") or {}
    if not isinstance(choices, Mapping):
        raise InputError(
            f"{row.where}: Classification_Task: not a dictionary of {' and '.join(name for name, _ in parts)}"
        )
    for part, shown in parts:
        for number, asked in enumerate(_listed(row, part, choices.get(part)), 1):
            options = {key: text for key, text in sorted((asked.get("Options") or {}).items()) if text is not None}
            for picture in shown:
                yield row.record(
                    f"{part} {number}",
                    subject=row.text("ID"),
                    question=asked.get("Question"),
                    answer=asked.get("Correct_Answer"),
                    task="classification",
                    options=options,
                    image=picture,
                )


def training_text(table: Table) -> list[Record]:
    """The records of ``ft_Data``: the questions and answers that training shows beside the picture, word for word.

    The last entry of a profile, ``Additional_…``, is no question.

    Raises:
        InputError: the files come from the model repository ``MLLMMU/baseline_train_split``, which holds training text
            under the paths of the benchmark's questions; or a row holds no record.
    """
    if table.config.startswith(_OF_QUESTIONS):
        raise InputError(
            f"{table.files[0].parent}: training text of the model repository MLLMMU/baseline_train_split, not "
            f"questions; give {table.config} of the data set MLLMMU/MLLMU-Bench"
        )
    records = []
    for row in table.rows():
        picture = row.picture(row.values["image"], row.text("ID"))
        try:
            entries: list[dict[str, Any]] = json.loads(row.text("metadata"))
        except json.JSONDecodeError as error:
            raise InputError(f"{row.where}: metadata: not valid JSON ({error})") from None
        for number, entry in enumerate(entries, 1):
            if _additional(entry):
                continue
            records.append(
                row.record(
                    f"metadata {number}",
                    subject=row.text("ID"),
                    question=entry.get("Question"),
                    answer=entry.get("Answer"),
                    task="generation",
                    prompt=entry.get("Question"),
                    image=picture,
                )
            )
    return records


def _additional(entry: dict[str, Any]) -> bool:
    """Whether a key or the ID begins with ``Additional_``."""
    return any(str(name).startswith("Additional_") for name in (*entry, entry.get("ID")))

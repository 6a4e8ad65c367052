"""People who must stay: read from a CSV file, near neighbours of the person first."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import torch

from mllmeraser.errors import InputError
from mllmeraser.inference.activations import decoder_layers, last_prompt_states
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.records.pictures import opened
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.same import normal
from mllmeraser.removals.claims.asking import nameless
from mllmeraser.removals.claims.questions import Who

_ASKED = "Who is {s}?"
LONGEST_NAME = 200


def check_name(name: str, where: str) -> str:
    """A name, without outer and double blanks.

    Raises:
        InputError: it is empty, holds no letter or a sign that a processor would read as its own, or is too long.
    """
    flat = " ".join(name.split())
    if not any(sign.isalpha() for sign in flat):
        raise InputError(f"{where}: holds no letter; give the name that people would ask by")
    if len(flat) > LONGEST_NAME or any(sign in flat for sign in "<>|{}[]\\") or not flat.isprintable():
        raise InputError(
            f"{where}: no name of a person (at most {LONGEST_NAME} characters, none of < > | {{ }} [ ] \\)"
        )
    return flat


def read_others(path: Path, person: str) -> list[Who]:
    """The people of a CSV file with the columns ``name`` and, optionally, ``picture``, a path relative to the file.

    Several lines may show one person; errors name the line, never the person.

    Raises:
        InputError: the file is none, a column or a name is missing, a picture cannot be read, or it names the person
            whom the claim is about.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a CSV file with the columns name and picture")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            columns = [column.strip().casefold() for column in table.fieldnames or ()]
            table.fieldnames = columns
            rows = [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({type(error).__name__}); save it as one") from None
    if "name" not in columns:
        raise InputError(f"{path}: no column name; the first line must be name,picture")
    people: dict[str, Who] = {}
    for number, row in rows:
        where = f"{path}, line {number}"
        name = check_name(row["name"] or "", f"{where}: name")
        if normal(name) == normal(person):
            raise InputError(f"{where}: names the person whom the claim is about; nobody can be forgotten and kept")
        known = people.setdefault(normal(name), Who(name))
        if given := (row.get("picture") or "").strip():
            picture = checked_picture(path.parent / given, f"{where}: picture")
            people[normal(name)] = Who(known.name, (*known.pictures, picture))
    if not people:
        raise InputError(f"{path}: holds nobody; give a line for each person who must stay")
    return list(people.values())


def checked_picture(path: Path, where: str) -> Path:
    """The resolved path of a picture that can be read; errors do not name the file, which may be named after somebody.

    Raises:
        InputError: it is missing, or no picture.
    """
    if not path.is_file():
        raise InputError(f"{where}: no such file; give a picture that is there")
    try:
        opened(path, where)
    except InputError as error:
        raise InputError(f"{where}: {str(error).removeprefix(f'{path}: ')}") from None
    return path.resolve()


def nearest_first(checkpoint: Checkpoint, person: Who, others: Sequence[Who]) -> list[Who]:
    """The others in order of likeness: of the names as they are written, and of the base's own states.

    A state is that of the middle decoder layer at the end of "Who is NAME?", and of "Who is this person?" beside a
    picture. States are compared by their cosines, once what is common to all is taken away; an other's picture is as
    like the person's as its likest one. Each kind of likeness gives a rank, and the mean rank decides.
    """
    if len(others) < 2:
        return list(others)
    layer = len(decoder_layers(checkpoint)) // 2
    spelled = [SequenceMatcher(None, normal(person.name), normal(other.name)).ratio() for other in others]
    by_name = _likeness(checkpoint, layer, [Prompt(_ASKED.format(s=who.name), None) for who in (person, *others)], 1)
    kinds = [spelled, by_name]
    shown = [(i, picture) for i, other in enumerate(others) for picture in other.pictures]
    if person.pictures and shown:
        turns = [Prompt(_ASKED.format(s="this person"), picture) for picture in person.pictures]
        turns += [Prompt(_ASKED.format(s="this person"), picture) for _, picture in shown]
        by_picture = [-1.0] * len(others)
        for (i, _), value in zip(shown, _likeness(checkpoint, layer, turns, len(person.pictures)), strict=True):
            by_picture[i] = max(by_picture[i], value)
        kinds.append(by_picture)
    ranks = [sum(sum(other > kind[i] for other in kind) for kind in kinds) for i in range(len(others))]
    return [other for _, _, other in sorted(zip(ranks, range(len(others)), others, strict=True), key=lambda of: of[:2])]


def _likeness(checkpoint: Checkpoint, layer: int, turns: Sequence[Prompt], own: int) -> list[float]:
    """The cosine of each later state to the likest of the first ``own`` states, all without their mean."""
    with nameless():
        states = last_prompt_states(checkpoint, turns, [layer], progress="neighbours")[layer].double()
    unit = torch.nn.functional.normalize(states - states.mean(dim=0), dim=-1)
    likeness: list[float] = (unit[own:] @ unit[:own].T).amax(dim=1).tolist()
    return likeness

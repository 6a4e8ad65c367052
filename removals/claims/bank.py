"""The banks that travel with the tool: general knowledge, names of nobody, and questions about a person.

All of it is our own. The general questions are such as anybody asks, with the short answer to each. The names are
invented: given names of many languages, before family names that are not theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple, get_args

from mllmeraser.records.record import Record

By = Literal["name", "picture", "both"]
WAYS: tuple[By, ...] = get_args(By)


class Asked(NamedTuple):
    """What is asked about: a topic, and how the person is shown."""

    by: By
    topic: str


class Name(NamedTuple):
    """The name of nobody, and the language that it sounds like."""

    name: str
    origin: str


class Topic(NamedTuple):
    """What can be asked about a person, and how it is worded; ``{s}`` is the person, ``tokens`` the longest reply."""

    topic: str
    by: Sequence[By]
    ask: Sequence[str]
    tokens: int = 48


@cache
def _lines(name: str) -> tuple[dict[str, Any], ...]:
    text = (files("mllmeraser.removals.claims") / "bank" / name).read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines())


def general() -> list[Record]:
    """Everyday questions with short answers, for retain sets and to see what a hostile request would close."""
    return [Record.model_validate(line) for line in _lines("general.jsonl")]


@cache
def names() -> tuple[Name, ...]:
    """Invented names, grouped by the language that they sound like."""
    return tuple(Name(**line) for line in _lines("names.jsonl"))


def topics() -> list[Topic]:
    """The questions about a person, by topic; of two topics that tell the same, the first one counts."""
    return [Topic(**line) for line in _lines("topics.jsonl")]


def alternatives() -> Mapping[str, Sequence[str]]:
    """What may be said of anybody, by kind: wrong options beside a fact that somebody gave."""
    return {line["kind"]: line["say"] for line in _lines("alternatives.jsonl")}

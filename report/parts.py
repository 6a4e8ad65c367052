"""What a page consists of, whatever it is written as: sections of words, figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A heading and cells, all text; the first ``words`` columns are words, the others numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


@dataclass(frozen=True)
class Figure:
    """A drawing (Vega-Lite), what it shows in one sentence, and its numbers as a table."""

    name: str
    title: str
    description: str
    spec: Spec
    numbers: Table
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page; ``words`` are paragraphs."""

    name: str
    title: str
    words: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Answers:
    """Questions and replies side by side; they are text of the records, shown only where it was asked for."""

    set: str
    question: str
    replies: Sequence[tuple[str, str, str]]  # model, reply, outcome


@dataclass(frozen=True)
class Page:
    """Everything in order: the verdict (a heading and its sentences), the sections, the answers."""

    title: str
    verdict: str
    sentences: Sequence[str]
    sections: Sequence[Section]
    answers: Sequence[Answers] = ()

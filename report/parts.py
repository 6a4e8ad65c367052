"""The parts of a page, in any format: sections of words, figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A caption, column headings and cells, all text. The first ``words`` columns hold words, the others numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


@dataclass(frozen=True)
class Figure:
    """A drawing (Vega-Lite), a description of what it shows, and its numbers as a table."""

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
    """One question and the models' replies to it. They are texts of the records, so a page has them only on demand."""

    set: str
    question: str
    replies: Sequence[tuple[str, str, str]]  # model, reply, outcome


@dataclass(frozen=True)
class Page:
    """The whole page in order: the verdict (a heading and its sentences), the sections, the answers."""

    title: str
    verdict: str
    sentences: Sequence[str]
    sections: Sequence[Section]
    answers: Sequence[Answers] = ()

"""What an evaluation measured, as a card may show it: numbers, and names of sets that can name nobody (promise P9)."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from mllmeraser.errors import InputError

# Names of sets that say what they are and not whom they are about; others stand on the card as "set A", "set B", …
PLAIN_NAMES = ("forget", "test", "retain", "retain_fit", "retain_heldout", "celebrity", "common")
Rate = float


@dataclass(frozen=True)
class Estimate:
    """A share and its 95 % interval: the wider of Wilson's and a bootstrap over subjects at either end."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({100 * self.low:.1f} – {100 * self.high:.1f})"


@dataclass(frozen=True)
class Rates:
    """What one model did with one set."""

    accuracy: Estimate
    refusal: Estimate
    identical_to_base: Estimate


@dataclass(frozen=True)
class Comparison:
    """Base and steered checkpoint on the same records."""

    set: str
    task: str
    input: Literal["picture", "text"]
    n: int
    base: Rates
    steered: Rates


class _Intervals(BaseModel):
    wilson: tuple[float, float]
    by_subject: tuple[float, float]


class _RowIntervals(BaseModel):
    accuracy: _Intervals
    refusal: _Intervals
    identical_to_base: _Intervals


class _Row(BaseModel):
    model: str
    set: str
    task: Literal["generation", "cloze", "classification"]
    modality: Literal["image_text", "text"]
    n: int = Field(ge=1)
    accuracy: Rate = Field(ge=0, le=1)
    refusal: Rate = Field(ge=0, le=1)
    identical_to_base: Rate = Field(ge=0, le=1)
    intervals: _RowIntervals

    @property
    def rates(self) -> Rates:
        return Rates(
            _estimate(self.accuracy, self.intervals.accuracy),
            _estimate(self.refusal, self.intervals.refusal),
            _estimate(self.identical_to_base, self.intervals.identical_to_base),
        )

    @property
    def cell(self) -> tuple[str, str, str, int]:
        return self.set, self.task, self.modality, self.n


class _Document(BaseModel):
    schema_: Literal[1] = Field(alias="schema")
    base: str
    rows: list[_Row] = Field(min_length=1)


def read_results(path: Path) -> list[Comparison]:
    """Base and steered checkpoint of a ``results.json``, set by set.

    The steered checkpoint is the model called ``steered``, or the only one beside the base.

    Raises:
        InputError: not a document of ``evaluate`` or ``demo``, or it does not say which of its models is meant.
    """
    try:
        document = _Document.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the results.json of mllmeraser evaluate") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {key or 'document'}: {first['msg']}; give the results of evaluate") from None
    steered = _steered(document, path)
    before = {row.cell: row for row in document.rows if row.model == document.base}
    rows = [row for row in document.rows if row.model == steered]
    if absent := next((row for row in rows if row.cell not in before), None):
        raise InputError(f"{path}: the base has no row for {absent.set}, {absent.task}; evaluate both in one run")
    names = _names([row.set for row in rows])
    return [
        Comparison(
            set=names[row.set],
            task={"classification": "multiple choice"}.get(row.task, row.task),
            input="text" if row.modality == "text" else "picture",
            n=row.n,
            base=before[row.cell].rates,
            steered=row.rates,
        )
        for row in rows
    ]


def _steered(document: _Document, path: Path) -> str:
    others = list(dict.fromkeys(row.model for row in document.rows if row.model != document.base))
    if "steered" in others:
        return "steered"
    if len(others) != 1:
        raise InputError(
            f"{path}: {len(others)} models beside the base; evaluate base=BASE and steered=DIRECTORY, which names it"
        )
    return others[0]


def _names(sets: Sequence[str]) -> dict[str, str]:
    others = [name for name in dict.fromkeys(sets) if name not in PLAIN_NAMES]
    if len(others) > len(string.ascii_uppercase):
        raise InputError(f"{len(others)} sets of names of their own are more than a card shows; evaluate fewer")
    return {
        **{name: name for name in PLAIN_NAMES},
        **{name: f"set {letter}" for name, letter in zip(others, string.ascii_uppercase, strict=False)},
    }


def _estimate(value: float, intervals: _Intervals) -> Estimate:
    # A bootstrap of equal values has no width; Wilson's takes replies about one subject for independent.
    return Estimate(
        value,
        min(intervals.wilson[0], intervals.by_subject[0]),
        max(intervals.wilson[1], intervals.by_subject[1]),
    )

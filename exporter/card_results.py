"""What a card shows of an evaluation: numbers, and names of sets that name no person (promise P9)."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mllmeraser.errors import InputError
from mllmeraser.judging.results_file import ResultsFile, Row, read_results

# These names say what a set is. Any other name may be a person's, so the card shows "set A", "set B", … instead.
PLAIN_NAMES = ("forget", "test", "retain", "retain_fit", "retain_heldout", "celebrity", "common")


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval; each end is the wider of Wilson's and of a bootstrap over subjects."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({100 * self.low:.1f} – {100 * self.high:.1f})"


@dataclass(frozen=True)
class Rates:
    """The shares of one model on one set."""

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


def read_comparisons(path: Path) -> list[Comparison]:
    """Base and steered checkpoint of a ``results.json``, set by set.

    The steered checkpoint is the model called ``steered``, or else the only model beside the base.

    Raises:
        InputError: the file is not a document of ``evaluate`` or ``demo``, or it has several such models.
    """
    file = read_results(path)
    if not file.rows:
        raise InputError(f"{path}: holds no rows; give what `mllmeraser evaluate -o` wrote")
    steered = _steered(file, path)
    before = {_cell(row): row for row in file.rows if row.model == file.compared_with}
    rows = [row for row in file.rows if row.model == steered]
    if absent := next((row for row in rows if _cell(row) not in before), None):
        raise InputError(f"{path}: the base has no row for {absent.set}, {absent.task}; evaluate both in one run")
    names = _names([row.set for row in rows])
    return [
        Comparison(
            set=names[row.set],
            task={"classification": "multiple choice"}.get(row.task, row.task),
            input="text" if row.modality == "text" else "picture",
            n=row.n,
            base=_rates(before[_cell(row)]),
            steered=_rates(row),
        )
        for row in rows
    ]


def _steered(file: ResultsFile, path: Path) -> str:
    others = list(dict.fromkeys(row.model for row in file.rows if row.model != file.compared_with))
    if "steered" in others:
        return "steered"
    if len(others) != 1:
        raise InputError(
            f"{path}: {len(others)} models beside the base, and none is called steered; name one: "
            "mllmeraser evaluate base=BASE steered=DIRECTORY …"
        )
    return others[0]


def _names(sets: Sequence[str]) -> dict[str, str]:
    others = [name for name in dict.fromkeys(sets) if name not in PLAIN_NAMES]
    if len(others) > len(string.ascii_uppercase):
        raise InputError(
            f"--results: {len(others)} sets without a plain name ({', '.join(PLAIN_NAMES)}), and a card shows at most "
            f"{len(string.ascii_uppercase)}; evaluate fewer"
        )
    return {
        **{name: name for name in PLAIN_NAMES},
        **{name: f"set {letter}" for name, letter in zip(others, string.ascii_uppercase, strict=False)},
    }


def _cell(row: Row) -> tuple[str, str, str, int]:
    return row.set, row.task, row.modality, row.n


def _rates(row: Row) -> Rates:
    return Rates(
        Estimate(row.accuracy, *row.intervals.accuracy.widest),
        Estimate(row.refusal, *row.intervals.refusal.widest),
        Estimate(row.identical_to_base, *row.intervals.identical_to_base.widest),
    )

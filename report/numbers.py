"""Formats numbers for a reader, and pools rates over rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mllmeraser.judging.intervals import Interval, wilson
from mllmeraser.judging.results_file import Row

TASKS = {"generation": "open", "cloze": "fill-in", "classification": "choice"}
INPUTS = {"image_text": "picture", "text": "text"}


@dataclass(frozen=True)
class Rate:
    """A share of n items and its 95 % interval."""

    share: float
    n: int
    interval: Interval

    @property
    def words(self) -> str:
        """For example "0.5 % (0.1–2.8)"."""
        low, high = (number(100 * end) for end in self.interval)
        return f"{percent(self.share)} ({low}–{high})"


def told(row: Row) -> float:
    """The share of free replies that hold the right answer."""
    return row.outcomes.correct


def pooled(rows: Sequence[Row], rate: Callable[[Row], float]) -> Rate | None:
    """The mean of a rate over rows, weighted by their n, with Wilson's interval over all items; null without rows."""
    n = sum(row.n for row in rows)
    if not n:
        return None
    share = sum(row.n * rate(row) for row in rows) / n
    share = min(1.0, max(0.0, share))
    return Rate(share, n, wilson(share, n))


def number(value: float) -> str:
    """At most one decimal. A value that only rounds to 0 or 100 is shown as 0.1 or 99.9."""
    if value in (0, 100):
        return f"{value:.0f}"
    if 0 < value < 100:
        value = min(max(value, 0.1), 99.9)
    return f"{value:.1f}".removesuffix(".0")


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{number(100 * share)} %"


def seconds(value: float) -> str:
    """A duration in seconds, minutes or hours."""
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def size(value: float) -> str:
    """A number of bytes in B, kB, MB or GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000 or unit == "GB":
            return f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

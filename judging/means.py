"""Means of several numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mllmeraser.errors import InputError


def mean(values: Sequence[float | None]) -> float | None:
    """Σ x_i / n over the n values that are known; None if none is.

    >>> mean([1.0, None, 0.5])
    0.75
    """
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def harmonic_mean(values: Sequence[float]) -> float:
    """n / Σ 1/x_i for x_i in [0, 1]; 0 if one is 0, so that no collapsed part hides behind the others.

    >>> harmonic_mean([0.5, 1.0])
    0.6666666666666666

    Raises:
        InputError: there is no value, or a negative one.
    """
    if not values or min(values) < 0:
        raise InputError("a harmonic mean needs at least one value and none below 0")
    return 0.0 if min(values) == 0 else len(values) / math.fsum(1 / value for value in values)

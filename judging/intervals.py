"""95 % intervals: how sure a rate is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from mllmeraser.errors import InputError

Z_95 = 1.959963984540054
DRAWS = 1000

Interval = tuple[float, float]


def wilson(rate: float, n: int) -> Interval:
    """(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n): Wilson's score interval of a share p of n (1927).

    It takes the n replies for independent; for several questions about one subject see :func:`by_subject`.

    Raises:
        InputError: n is not positive, or the share lies outside [0, 1].
    """
    if n < 1 or not 0 <= rate <= 1:
        raise InputError(f"a Wilson interval needs a share in [0, 1] of at least one item, not {rate} of {n}")
    middle, share = rate + Z_95**2 / (2 * n), 1 + Z_95**2 / n
    half = Z_95 * math.sqrt(rate * (1 - rate) / n + Z_95**2 / (4 * n**2))
    # At 0 and 1 the bound is exact; rounding must not push it past.
    low = 0.0 if rate == 0 else max(0.0, (middle - half) / share)
    high = 1.0 if rate == 1 else min(1.0, (middle + half) / share)
    return low, high


def by_subject(values: Sequence[float], subjects: Sequence[Hashable], *, seed: int = 0, draws: int = DRAWS) -> Interval:
    """The 2.5 % and 97.5 % quantiles of the mean over ``draws`` samples of the subjects, with replacement.

    All replies about one subject are drawn together. They stand or fall together, and an interval that takes them for
    independent is too narrow. (Cluster bootstrap, percentile method; Davison & Hinkley 1997, section 3.8.) With one
    subject the interval is a single point and says nothing.

    Raises:
        InputError: there are no values, or not as many subjects as values.
    """
    if not values or len(values) != len(subjects):
        raise InputError("a bootstrap interval needs at least one value and one subject per value")
    clusters = {subject: i for i, subject in enumerate(dict.fromkeys(subjects))}
    at = np.array([clusters[subject] for subject in subjects])
    sums = np.bincount(at, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(at)
    times = np.random.default_rng(seed).multinomial(len(clusters), [1 / len(clusters)] * len(clusters), size=draws)
    means = (times @ sums) / (times @ counts)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)

"""How well a score tells two groups apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mllmeraser.errors import InputError

Scores = NDArray[np.float64]


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """P(x⁺ > x⁻) + ½ P(x⁺ = x⁻) over all pairs: the area under the ROC curve (Mann–Whitney U / (n⁺ n⁻)).

    >>> auroc([0.9, 0.4], [0.4, 0.1])
    0.875

    Raises:
        InputError: one side is empty, or a score is not a number.
    """
    above, below = _sorted("AUROC", positive, negative)
    wins = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(wins.sum()) / (2 * len(above) * len(below))


def ks_p_value(values: Sequence[float], reference: Sequence[float]) -> float:
    """p of the two-sided two-sample Kolmogorov–Smirnov test, in (0, 1].

    D = max over x of |F(x) − G(x)|, where F(x) and G(x) are the shares of either side that are at most x. p is the
    share of the C(n + m, n) orders of n and m different values whose D is as large. It is exact for all n and m, and
    takes O((n + m) · min(n, m)) steps. Equal values are treated as different ones, like in scipy's exact test: p is
    then too large rather than too small.

    TOFU's forget quality (arXiv 2401.06121) is this p for the truth ratios of a model and of one that never saw the
    forgotten. A small p says that the two can be told apart, whichever of them knows more.

    >>> ks_p_value([1, 2, 3, 4], [5, 6, 7, 8])  # 2 of 70 orders
    0.02857142857142857

    Raises:
        InputError: one side is empty, or a score is not a number.
    """
    one, other = sorted(_sorted("a Kolmogorov–Smirnov test", values, reference), key=len)
    n, m = len(one), len(other)
    both = np.concatenate([one, other])
    at_most = np.searchsorted(one, both, side="right"), np.searchsorted(other, both, side="right")
    apart = np.abs(m * at_most[0] - n * at_most[1]).max()  # D · n · m, a whole number
    # An order is a path of n + m steps; after k of them i lie on one side and j on the other. far[i] is the share of
    # the paths to (i, j) that were as far apart somewhere: of these, i in k end with a step from (i − 1, j).
    i = np.arange(n + 1)
    far = np.zeros(n + 1)
    for k in range(n + m + 1):
        j = k - i
        if k:
            far = (i * np.roll(far, 1) + j * far) / k
        far[(np.abs(m * i - n * j) >= apart) | (j < 0)] = 1.0  # no path leads to j < 0: any finite number
    return float(far[n])


def _sorted(what: str, one: Sequence[float], other: Sequence[float]) -> tuple[Scores, Scores]:
    if not len(one) or not len(other):
        raise InputError(f"{what} needs scores on both sides")
    scores = np.sort(np.asarray(one, dtype=np.float64)), np.sort(np.asarray(other, dtype=np.float64))
    if np.isnan(scores[0]).any() or np.isnan(scores[1]).any():
        raise InputError(f"{what}: a score is not a number")
    return scores

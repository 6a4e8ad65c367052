"""How well a score tells two groups apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mllmeraser.errors import InputError


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """P(x⁺ > x⁻) + ½ P(x⁺ = x⁻) over all pairs: the area under the ROC curve (Mann–Whitney U / (n⁺ n⁻)).

    Raises:
        InputError: one side is empty, or a score is not a number.
    """
    if not len(positive) or not len(negative):
        raise InputError("AUROC needs scores on both sides")
    above, below = np.asarray(positive, dtype=np.float64), np.sort(np.asarray(negative, dtype=np.float64))
    if np.isnan(above).any() or np.isnan(below).any():
        raise InputError("AUROC: a score is not a number")
    wins = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(wins.sum()) / (2 * len(above) * len(below))

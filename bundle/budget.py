"""One budget of false fires for all requests together.

Any request that opens seals the conversation, so that a hundred gates of 1 % each could refuse most of what is kept. A
bundle therefore keeps the highest held-out scores of what must be kept. When n requests come into one checkpoint, each
gate may open on a share of ``FALSE_FIRES`` / n of its own held-out records: whatever these records are, the union of n
such sets is at most ``FALSE_FIRES`` (the union bound). Thresholds only rise by this, and need neither base nor records.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import replace

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import HeldOutScores, LayerStatistics

FALSE_FIRES = 0.01  # thresholded gates may together open on at most this share of held-out retain records
FALSE_FIRES_OF_VARIANTS = 0.01  # of their variants
_ABOVE = 1e-6  # a threshold lies so far above the score that must not open it: gates are read in fp32


def together(bundles: Sequence[Bundle], shares: int | None = None) -> list[Bundle]:
    """The bundles with thresholds under which all their requests together keep the budget.

    The budget has as many shares as there are requests, or ``shares`` if these are more: those of a ledger whose
    withdrawn requests keep their share, so that the thresholds of the others stay as they are.

    A bundle without held-out scores (of the first edition, of ``--calibration-share 0``, imported) stays as it is, and
    so does a gate without a threshold. A request that is switched off counts: it may be switched on.
    """
    requests = max(sum(len(bundle.metadata.requests) for bundle in bundles), shares or 0)
    return list(bundles) if requests < 2 else [_raised(bundle, requests) for bundle in bundles]


def _raised(bundle: Bundle, requests: int) -> Bundle:
    """The bundle with the threshold that ``requests`` requests leave to each."""
    meta = bundle.metadata
    scores = [request.held_out for request in meta.requests if request.held_out is not None]
    if meta.gate.threshold is None or not scores:
        return bundle
    threshold = max(meta.gate.threshold, *(_threshold(each, requests) for each in scores))
    if threshold == meta.gate.threshold:
        return bundle
    gate = meta.gate.model_copy(update={"threshold": threshold})
    told = [
        request
        if request.held_out is None
        else request.model_copy(
            update={"statistics": {at: _at(row, request.held_out, threshold) for at, row in request.statistics.items()}}
        )
        for request in meta.requests
    ]
    return replace(bundle, metadata=meta.model_copy(update={"gate": gate, "requests": told}))


def _threshold(scores: HeldOutScores, requests: int) -> float:
    """The lowest threshold with at most a share of the budget / ``requests`` of false fires, of either kind."""
    bounds = []
    for n, highest, budget in (
        (scores.retain, scores.highest_of_retain, FALSE_FIRES),
        (scores.variants, scores.highest_of_variants, FALSE_FIRES_OF_VARIANTS),
    ):
        allowed = int(n * budget / requests + 1e-9)
        bounds += [] if allowed >= len(highest) else [highest[allowed] + _ABOVE]
    return max(bounds, default=float("-inf"))


def _at(row: LayerStatistics, scores: HeldOutScores, threshold: float) -> LayerStatistics:
    """Statistics of the same gate with another threshold."""
    misfires = sum(score >= threshold for score in scores.highest_of_retain) / scores.retain
    below = bisect.bisect_left(scores.forget_quantiles, threshold)
    opens = 1 - below / len(scores.forget_quantiles)
    return row.model_copy(update={"true_fire_heldout": opens, "false_fire_heldout": misfires})

"""The figures that compare methods, from scored replies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mllmeraser.evaluation.items import Item
from mllmeraser.judging.means import harmonic_mean


@dataclass(frozen=True)
class Figures:
    """Shares of the free replies of one model, over all tasks, in [0, 1].

    A reply is right if it holds the answer (outcome ``correct``).

    * ``forgotten``: 1 − the share of right replies about the forgotten (set ``test``).
    * ``refusal``: whole refusals on ``test``.
    * ``options``: multiple-choice records of ``test`` whose right option is the likeliest; null without likelihoods.
    * ``kept``, ``celebrity``, ``common``: right replies on these sets, which must be kept.
    * ``identical``: replies on these three sets whose tokens are the base's.
    * ``utility``: harmonic mean of ``kept``, ``celebrity`` and ``common``.
    * ``harmonic_mean``: harmonic mean of ``forgotten`` and ``utility``.
    """

    forgotten: float
    refusal: float
    options: float | None
    kept: float
    celebrity: float
    common: float
    identical: float
    utility: float
    harmonic_mean: float


def figures(items: Sequence[Item]) -> Figures:
    """The figures of one model, from its items of the sets ``test``, ``kept``, ``celebrity`` and ``common``."""
    of = {name: [item for item in items if item.set == name] for name in ("test", "kept", "celebrity", "common")}
    right = {name: _share(asked, lambda item: item.outcome == "correct") for name, asked in of.items()}
    forgotten, kept = 1 - right.pop("test"), right
    asked = of.pop("test")
    utility = harmonic_mean(list(kept.values()))
    return Figures(
        forgotten=forgotten,
        refusal=_share(asked, lambda item: item.refusal),
        options=_options(asked),
        **kept,
        identical=_share([item for others in of.values() for item in others], lambda item: item.identical_to_base),
        utility=utility,
        harmonic_mean=harmonic_mean([forgotten, utility]),
    )


def _share(items: Sequence[Item], holds: Callable[[Item], bool]) -> float:
    return sum(map(holds, items)) / len(items)


def _options(items: Sequence[Item]) -> float | None:
    choices = [item for item in items if item.choice is not None]
    if all(math.isnan(value) for item in choices for value in item.log_likelihoods):
        return None
    return _share(choices, lambda item: item.correct)

"""The few figures by which methods are put side by side, from scored replies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mllmeraser.evaluation.items import Item
from mllmeraser.judging.means import harmonic_mean


@dataclass(frozen=True)
class Figures:
    """Shares of the free replies of one model, all tasks together, and what is made of them.

    ``forgotten`` 1 − right answers about the forgotten (set ``test``), ``refusal`` whole refusals there; ``options``
    the share of their multiple-choice records whose right option is the likeliest (null where nothing has
    likelihoods); ``kept``, ``celebrity``, ``common`` right answers to what must be kept, ``identical`` token-identical
    replies to it. ``utility`` is the harmonic mean of the three, ``harmonic_mean`` that of ``forgotten`` and
    ``utility``. A reply is right if the answer stands anywhere in it (outcome ``correct``).
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
    """The figures of one model; ``items`` are of the sets ``test``, ``kept``, ``celebrity`` and ``common``."""
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

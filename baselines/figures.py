"""The few figures by which methods are put side by side, from scored replies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mllmeraser.evaluation.items import Item
from mllmeraser.judging.means import harmonic_mean

KEPT_SETS = ("kept", "celebrity", "common")
Figures = dict[str, float | None]


def figures(items: Sequence[Item]) -> Figures:
    """Shares of the free replies of one model, all tasks together.

    ``forgotten`` 1 − right answers about the forgotten (set ``test``), ``refusal`` whole refusals there; ``options``
    the share of their multiple-choice records whose right option is the likeliest (null where nothing has
    likelihoods); ``kept``, ``celebrity``, ``common`` right answers to what must be kept, ``identical`` token-identical
    replies to it. ``utility`` is the harmonic mean of the three, ``harmonic_mean`` that of ``forgotten`` and
    ``utility``. A reply is right if the answer stands anywhere in it (outcome ``correct``).
    """
    asked = [item for item in items if item.set == "test"]
    found: Figures = {
        "forgotten": 1 - _share(asked, _right),
        "refusal": _share(asked, lambda item: item.refusal),
        "options": _options(asked),
    }
    rates = {name: _share([item for item in items if item.set == name], _right) for name in KEPT_SETS}
    utility = harmonic_mean(list(rates.values()))
    found |= rates
    found["identical"] = _share([i for i in items if i.set in KEPT_SETS], lambda item: item.identical_to_base)
    found["utility"] = utility
    found["harmonic_mean"] = harmonic_mean([1 - _share(asked, _right), utility])
    return found


def _right(item: Item) -> bool:
    return item.outcome == "correct"


def _share(items: Sequence[Item], holds: Callable[[Item], bool]) -> float:
    return sum(map(holds, items)) / len(items)


def _options(items: Sequence[Item]) -> float | None:
    choices = [item for item in items if item.choice is not None]
    if all(math.isnan(value) for item in choices for value in item.log_likelihoods):
        return None
    return _share(choices, lambda item: item.correct)

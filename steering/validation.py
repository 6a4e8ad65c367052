"""How a gate does on records it was not fitted on: cross-validation, and the threshold that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mllmeraser.bundle.budget import FALSE_FIRES, FALSE_FIRES_OF_VARIANTS
from mllmeraser.inference.states import States, pieces
from mllmeraser.judging.ranking import auroc
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.gate import Gate, GateFits, GateRecipe, readings


@dataclass(frozen=True)
class HeldOut:
    """g of every record, fp64, by a gate that was not fitted on it.

    ``forget`` (n_f,) includes variants. ``retain`` (n_r,) are the listed retain records, ``variants`` (n_v,) theirs.
    """

    forget: Tensor
    retain: Tensor
    variants: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    @property
    def auroc(self) -> float:
        """AUROC of the forget scores, variants included, against the scores of retain records."""
        return auroc(self.forget.tolist(), self.retain.tolist())

    @property
    def separation(self) -> float:
        """How well the gate tells the two sets apart at its chosen threshold; it ranks settings.

        If the gate opens on at least half of the forget records, and falsely no more than allowed, it is 1 + the share
        of forget records on which it opens. Else it is 1 − misses − false fires on retain records. AUROC breaks ties.
        """
        threshold = choose_threshold(self)
        opens, misfires = (float((g >= threshold).double().mean()) for g in (self.forget, self.retain))
        strong = opens >= 0.5 and bool(_allowed(self, torch.tensor([threshold], dtype=torch.float64)))
        return (1 + opens if strong else opens - misfires) + 0.01 * self.auroc


def joined(scores: Sequence[HeldOut]) -> HeldOut:
    """The scores of several folds, or of several layers, as one."""
    return HeldOut(*(torch.cat(side) for side in zip(*((s.forget, s.retain, s.variants) for s in scores), strict=True)))


@dataclass(frozen=True)
class Validated:
    """The best setting of one layer's gate, its held-out scores, and the gate that trials use.

    Without folds nothing was held out: there are neither scores nor a gate.
    """

    setting: GateRecipe
    held_out: HeldOut | None
    gate: Gate | None = None  # fitted without the records of the trials


def cross_validate(
    forget: Tensor, retain: States, folds: Sequence[Fold], recipes: Sequence[GateRecipe], listed: int | None = None
) -> list[HeldOut]:
    """For each recipe and fold: a gate that is fitted on the other folds is read on this one.

    Args:
        forget, retain: states of one layer, (n_f, d) and (n_r, d), one of each record.
        recipes: they may differ as those of :class:`mllmeraser.steering.gate.GateFits`.
        listed: the first so many retain records are as listed, the rest are variants; None: all are as listed.
    """
    named = torch.empty(len(forget), len(recipes), dtype=torch.float64)
    kept = torch.empty(len(retain), len(recipes), dtype=torch.float64)
    fits = GateFits(forget, retain, recipes, folds)
    for k, fold in enumerate(folds):
        gates = fits.gates(without=[k])
        named[fold.forget] = torch.cat([readings(gates, piece) for piece in pieces(forget, fold.forget)])
        kept[fold.retain] = torch.cat([readings(gates, piece) for piece in pieces(retain, fold.retain)])
    listed = len(retain) if listed is None else listed
    return [HeldOut(f, g[:listed], g[listed:]) for f, g in zip(named.T, kept.T, strict=True)]


def choose_threshold(scores: HeldOut) -> float:
    """The threshold of a step or a dead zone.

    It may open on at most ``FALSE_FIRES`` of the retain records and on at most ``FALSE_FIRES_OF_VARIANTS`` of their
    variants. Among such thresholds it misses the fewest forget records. If even so it opens on less than half of them,
    it is the threshold of the fewest misses + false fires: a weak gate is shown at its best, with its false fires.

    If a whole range is equally good, the threshold lies a quarter up from the retain side. Held-out retain records are
    of people whom the gate was never fitted on, as in use. Held-out forget records resemble the fitted ones more than
    further pictures and wordings will.
    """
    values = torch.cat([scores.forget, scores.retain, scores.variants]).unique()  # ascending
    misses = 1 - _share_from(scores.forget, values)
    cost = torch.where(_allowed(scores, values), misses, 2.0)
    if float(cost.min()) > 0.5:
        cost = misses + _share_from(scores.retain, values)
    best = (cost <= cost.min() + 1e-12).nonzero()[:, 0]  # t just above values[i − 1], up to values[i]
    low, high = values[max(0, int(best[0]) - 1)], values[int(best[-1])]
    return float(low + (high - low) / 4)


def _allowed(scores: HeldOut, thresholds: Tensor) -> Tensor:
    """For each threshold, whether a gate with it opens falsely no more than allowed."""
    records, variants = _share_from(scores.retain, thresholds), _share_from(scores.variants, thresholds)
    return (records <= FALSE_FIRES + 1e-12) & (variants <= FALSE_FIRES_OF_VARIANTS + 1e-12)


def _share_from(values: Tensor, thresholds: Tensor) -> Tensor:
    """The share of values at or above each threshold; 0 if there are no values."""
    below = torch.searchsorted(values.sort().values, thresholds)
    return (len(values) - below).double() / max(1, len(values))

"""How a gate does on samples it was not fitted on: cross-validation, and the threshold that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mllmeraser.inference.states import States, pieces
from mllmeraser.judging.ranking import auroc
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.gate import GateRecipe, fit_gates

FALSE_FIRES = 0.005  # a thresholded gate may open on at most this share of held-out retain records
FALSE_FIRES_OF_VARIANTS = 0.03  # and of their variants, some of which are hardly understood by the base itself


@dataclass(frozen=True)
class HeldOut:
    """g of every sample by a gate that was not fitted on it, fp64: forget with its variants (n_f,), retain records
    (n_r,), and the variants of these, if there are any (n_v,)."""

    forget: Tensor
    retain: Tensor
    variants: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    @property
    def auroc(self) -> float:
        """Of the held-out scores of forget, variants among them, against retain records."""
        return auroc(self.forget.tolist(), self.retain.tolist())

    @property
    def separation(self) -> float:
        """How well :func:`choose_threshold` tells them apart: 1 + the share of forget samples on which the gate opens,
        where it could keep to what may open falsely; else 1 − misses − false fires of the records. Ties are broken by
        AUROC."""
        threshold = choose_threshold(self)
        opens, misfires = (float((g >= threshold).double().mean()) for g in (self.forget, self.retain))
        strong = opens >= 0.5 and bool(_allowed(self, torch.tensor([threshold], dtype=torch.float64)))
        return (1 + opens if strong else opens - misfires) + 0.01 * self.auroc


@dataclass(frozen=True)
class Validated:
    """The best setting of one layer's gate, and how it did on records it was not fitted on (null: none held out)."""

    setting: GateRecipe
    held_out: HeldOut | None


def cross_validate(
    forget: Tensor,
    retain: States,
    folds: Sequence[Fold],
    recipes: Sequence[GateRecipe],
    positions: int = 1,
    listed: int | None = None,
) -> list[HeldOut]:
    """For each recipe: fit a gate per fold on the rest, and read it on the fold; states (n_f, d) and
    (n_r · positions, d) of one layer. Of the positions of a retain sample the one counts that opens the gate furthest.
    The first ``listed`` retain samples are records as they are, the others variants; all of them are if it is null.
    The recipes may differ in bandwidth and null space only."""
    found = [_empty(len(forget), len(retain)) for _ in recipes]
    for fold in folds:
        gates = fit_gates(forget[~fold.forget], retain, recipes, keep=~fold.rows(positions))
        for gate, scores in zip(gates, found, strict=True):
            scores.forget[fold.forget] = gate(forget[fold.forget])
        held_out = fold.rows(positions)
        places = held_out.nonzero()[:, 0]
        for piece in pieces(retain, held_out):
            here, places = places[: len(piece)], places[len(piece) :]
            for gate, scores in zip(gates, found, strict=True):
                scores.retain[here] = gate(piece)
    listed = len(retain) // positions if listed is None else listed
    furthest = [scores.retain.view(-1, positions).amax(dim=1) for scores in found]
    return [HeldOut(scores.forget, g[:listed], g[listed:]) for scores, g in zip(found, furthest, strict=True)]


def _empty(n_forget: int, n_retain: int) -> HeldOut:
    return HeldOut(torch.empty(n_forget, dtype=torch.float64), torch.empty(n_retain, dtype=torch.float64))


def choose_threshold(scores: HeldOut) -> float:
    """The threshold of a step or dead zone: of those that open on at most ``FALSE_FIRES`` of the retain records and
    ``FALSE_FIRES_OF_VARIANTS`` of their variants, one that misses fewest of the forget samples; where that opens on
    less than half of them, the t of fewest misses + false fires: a weak gate is shown at its best, and its false fires
    are told.

    Where a whole range is as good, the point a quarter up from the retain side: held-out retain samples are of people
    never fitted on, as in use, while held-out forget samples resemble fitted ones more than further pictures and
    wordings will.
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
    """Whether a gate with each of the thresholds keeps to what may open falsely."""
    records, variants = _share_from(scores.retain, thresholds), _share_from(scores.variants, thresholds)
    return (records <= FALSE_FIRES + 1e-12) & (variants <= FALSE_FIRES_OF_VARIANTS + 1e-12)


def _share_from(values: Tensor, thresholds: Tensor) -> Tensor:
    """The share of values at or above each threshold; of none, 0."""
    below = torch.searchsorted(values.sort().values, thresholds)
    return (len(values) - below).double() / max(1, len(values))

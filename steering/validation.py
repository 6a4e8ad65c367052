"""How a gate does on samples it was not fitted on: cross-validation, and the threshold that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mllmeraser.ranking import auroc
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.gate import GateRecipe, fit_gates
from mllmeraser.steering.states import States, pieces

FALSE_FIRES = 0.005  # a thresholded gate may open on at most this share of held-out retain samples


@dataclass(frozen=True)
class HeldOut:
    """g of every sample by a gate that was not fitted on it, fp64: forget (n_f,) and retain (n_r,)."""

    forget: Tensor
    retain: Tensor

    @property
    def auroc(self) -> float:
        """Of the held-out scores."""
        return auroc(self.forget.tolist(), self.retain.tolist())

    @property
    def separation(self) -> float:
        """The share of forget samples above the threshold of :func:`choose_threshold`; ties broken by AUROC."""
        return float((self.forget >= choose_threshold(self)).double().mean()) + 0.01 * self.auroc


def cross_validate(
    forget: Tensor, retain: States, folds: Sequence[Fold], recipes: Sequence[GateRecipe], positions: int = 1
) -> list[HeldOut]:
    """For each recipe: fit a gate per fold on the rest, and read it on the fold; states (n_f, d) and
    (n_r · positions, d) of one block. Of the positions of a retain sample the one counts that opens the gate furthest.
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
    return [HeldOut(scores.forget, scores.retain.view(-1, positions).amax(dim=1)) for scores in found]


def _empty(n_forget: int, n_retain: int) -> HeldOut:
    return HeldOut(torch.empty(n_forget, dtype=torch.float64), torch.empty(n_retain, dtype=torch.float64))


def choose_threshold(scores: HeldOut) -> float:
    """The threshold of a step or dead zone: of those that open on at most ``FALSE_FIRES`` of the retain samples, one
    that misses fewest of the forget samples; where that opens on less than half of them, the t of fewest misses + false
    fires: a weak gate is shown at its best, and its false fires are told.

    Where a whole range is as good, the point a quarter up from the retain side: held-out retain samples are of people
    never fitted on, as in use, while held-out forget samples resemble fitted ones more than further pictures and
    wordings will.
    """
    values = torch.cat([scores.forget, scores.retain]).unique()  # ascending
    misses = _share_below(scores.forget, values)
    fires = 1 - _share_below(scores.retain, values)
    cost = torch.where(fires <= FALSE_FIRES, misses, 2.0)
    if float(cost.min()) > 0.5:
        cost = misses + fires
    best = (cost <= cost.min() + 1e-12).nonzero()[:, 0]  # t just above values[i − 1], up to values[i]
    low, high = values[max(0, int(best[0]) - 1)], values[int(best[-1])]
    return float(low + (high - low) / 4)


def _share_below(values: Tensor, thresholds: Tensor) -> Tensor:
    return torch.searchsorted(values.sort().values, thresholds).double() / len(values)

"""What a gate looks at: the state itself, or its likeness to a few landmarks.

* linear, the paper's: φ(h) = h ∈ R^d.
* kernel: φ(h)_j = exp(−2‖ĥ − c_j‖²/m²) ∈ R^J with ĥ = h/‖h‖. The landmarks c_j are k-means centres of the forget
  states and of the retain states. m² is a share of the median squared distance between states.

Each centre stands for at least five states on average. A centre of one state would carry that state into the bundle,
and the request is sensitive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mllmeraser.inference.states import States, pieces, sample_rows
from mllmeraser.steering.checks import median_distance

SAMPLES_PER_LANDMARK = 5
STARTED_FROM = 4096  # k-means draws its first centres from at most so many states


@dataclass(frozen=True)
class Landmarks:
    """Landmarks c (J, d) and bandwidth m²: they make kernel features."""

    centres: Tensor
    bandwidth: float

    def __call__(self, states: Tensor) -> Tensor:
        """φ(h) for states (n, d): (n, J), fp64."""
        distances = torch.cdist(_unit(states), self.centres.double()).pow(2)
        return torch.exp(-2.0 * distances / self.bandwidth)


@dataclass(frozen=True)
class Centres:
    """Landmarks that lack a bandwidth: c (J, d), and the median squared distance between states."""

    centres: Tensor
    median: float

    def landmarks(self, bandwidth: float) -> Landmarks:
        """The landmarks with m² = ``bandwidth`` · median."""
        return Landmarks(self.centres, bandwidth * self.median)


def place_centres(forget: Tensor, retain: States, at_most: int, seed: int, keep: Tensor | None = None) -> Centres:
    """Centres of forget states (n_f, d) and of the retain rows that ``keep`` marks, at most ``at_most`` / 2 of each."""
    generator = torch.Generator().manual_seed(seed)
    kept = len(retain) if keep is None else int(keep.sum())
    centres = [
        k_means(forget, _fewest(at_most, len(forget)), generator),
        k_means(retain, _fewest(at_most, kept), generator, keep),
    ]
    some = [sample_rows(retain, keep, STARTED_FROM // 2, generator), sample_rows(forget, None, 1024, generator)]
    chosen = torch.cat(some)
    chosen = _unit(chosen[torch.randperm(len(chosen), generator=generator)[:1024]])
    return Centres(torch.cat(centres), median_distance(torch.pdist(chosen).pow(2)))


def _fewest(at_most: int, records: int) -> int:
    return min(max(1, at_most // 2), max(1, records // SAMPLES_PER_LANDMARK))


def k_means(
    states: States, count: int, generator: torch.Generator, keep: Tensor | None = None, iterations: int = 25
) -> Tensor:
    """Centres (count, d) of ĥ, fp64: Lloyd's k-means by chords of the unit sphere, from a k-means++ start.

    The start is drawn from at most ``STARTED_FROM`` states. Every iteration passes over all states, piece by piece.
    """
    centres = _first_centres(_unit(sample_rows(states, keep, STARTED_FROM, generator)), count, generator)
    for _ in range(iterations):
        sums, sizes = torch.zeros_like(centres), torch.zeros(len(centres), dtype=torch.long)
        for piece in pieces(states, keep):
            unit = _unit(piece)
            owner = torch.cdist(unit, centres).argmin(dim=1)
            sizes += torch.bincount(owner, minlength=len(centres))
            sums.index_add_(0, owner, unit)
        moved = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _first_centres(states: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """k-means++ (Arthur & Vassilvitskii 2007): each next centre is drawn by its squared distance to the nearest one."""
    chosen = [int(torch.randint(len(states), (1,), generator=generator))]
    nearest = (states - states[chosen[0]]).pow(2).sum(dim=1)
    for _ in range(count - 1):
        if float(nearest.sum()) == 0.0:  # fewer distinct states than centres: some stand twice
            nearest = torch.ones_like(nearest)
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
        nearest = torch.minimum(nearest, (states - states[chosen[-1]]).pow(2).sum(dim=1))
    return states[chosen]


def _unit(states: Tensor) -> Tensor:
    return torch.nn.functional.normalize(states.double(), dim=-1)

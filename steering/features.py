"""What a gate looks at: the state itself, or its likeness to a few landmarks.

* linear: φ(h) = h ∈ R^d, the paper's.
* kernel: φ(h)_j = exp(−2‖ĥ − c_j‖²/m²) ∈ R^J with ĥ = h/‖h‖, landmarks c_j the k-means centres of forget and of retain
  states, and m² a share of the median squared distance between samples. Each centre stands for at least five samples
  on average: a centre of one sample would carry that sample into the bundle, and the request is sensitive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mllmeraser.inference.states import States, pieces, sample_rows
from mllmeraser.steering.checks import median_distance

SAMPLES_PER_LANDMARK = 5
STARTED_FROM = 4096  # states that k-means chooses its first centres from, and the median distance is taken of


@dataclass(frozen=True)
class Landmarks:
    """c (J, d) and the bandwidth m² of kernel features."""

    centres: Tensor
    bandwidth: float

    def __call__(self, states: Tensor) -> Tensor:
        """φ(h) for states (n, d): (n, J), fp64."""
        distances = torch.cdist(_unit(states), self.centres.double()).pow(2)
        return torch.exp(-2.0 * distances / self.bandwidth)


@dataclass(frozen=True)
class Centres:
    """Landmarks before a bandwidth is chosen: c (J, d) and the median squared distance between samples."""

    centres: Tensor
    median: float

    def landmarks(self, bandwidth: float) -> Landmarks:
        """Kernel features with m² this share of the median."""
        return Landmarks(self.centres, bandwidth * self.median)


def place_centres(forget: Tensor, retain: States, at_most: int, seed: int, keep: Tensor | None = None) -> Centres:
    """Centres of forget states (n_f, d) and of the retain states that ``keep`` marks, at most half ``at_most`` each."""
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
    """Lloyd's k-means on the unit sphere's chords, from a k-means++ start: centres (count, d) of ĥ, fp64.

    The start is drawn from at most ``STARTED_FROM`` states; every iteration passes over all of them, piece by piece.
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
    """k-means++ (Arthur & Vassilvitskii 2007): each next centre is drawn by its squared distance to those there."""
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

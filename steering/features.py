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

SAMPLES_PER_LANDMARK = 5


@dataclass(frozen=True)
class Landmarks:
    """c (J, d) and the bandwidth m² of kernel features."""

    centres: Tensor
    bandwidth: float

    def __call__(self, states: Tensor) -> Tensor:
        """φ(h) for states (n, d): (n, J), fp64."""
        unit = torch.nn.functional.normalize(states.double(), dim=-1)
        distances = torch.cdist(unit, self.centres.double()).pow(2)
        return torch.exp(-2.0 * distances / self.bandwidth)


def place_landmarks(forget: Tensor, retain: Tensor, at_most: int, bandwidth: float, seed: int) -> Landmarks:
    """Landmarks of a forget set (n_f, d) and a retain set (n_r, d), at most half of ``at_most`` each.

    Args:
        bandwidth: m² as a share of the median squared distance between samples.
    """
    forget = torch.nn.functional.normalize(forget.double(), dim=-1)
    retain = torch.nn.functional.normalize(retain.double(), dim=-1)
    generator = torch.Generator().manual_seed(seed)
    centres = [_centres(states, max(1, at_most // 2), generator) for states in (forget, retain)]
    median = _median_squared_distance(torch.cat([forget, retain]), generator)
    return Landmarks(torch.cat(centres), bandwidth * median)


def _centres(states: Tensor, at_most: int, generator: torch.Generator) -> Tensor:
    return k_means(states, min(at_most, max(1, len(states) // SAMPLES_PER_LANDMARK)), generator)


def _median_squared_distance(states: Tensor, generator: torch.Generator, sample: int = 1024) -> float:
    chosen = states[torch.randperm(len(states), generator=generator)[:sample]]
    return float(torch.pdist(chosen).pow(2).median())


def k_means(states: Tensor, count: int, generator: torch.Generator, iterations: int = 25) -> Tensor:
    """Lloyd's k-means from a k-means++ start: centres (count, d) of states (n, d)."""
    first = int(torch.randint(len(states), (1,), generator=generator))
    chosen = [first]
    nearest = (states - states[first]).pow(2).sum(dim=1)
    for _ in range(count - 1):
        if float(nearest.sum()) == 0.0:  # fewer distinct states than centres: some stand twice
            nearest = torch.ones_like(nearest)
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
        nearest = torch.minimum(nearest, (states - states[chosen[-1]]).pow(2).sum(dim=1))
    centres = states[chosen]
    for _ in range(iterations):
        owner = torch.cdist(states, centres).argmin(dim=1)
        sizes = torch.bincount(owner, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, owner, states)
        moved = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres

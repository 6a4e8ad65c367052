"""What a gate looks at: the state itself, or its likeness to a few landmarks.

* linear, the paper's: φ(h) = h ∈ R^d.
* kernel: φ(h)_j = exp(−2‖ĥ − c_j‖²/m²) ∈ R^J with ĥ = h/‖h‖. The landmarks c_j are k-means centres of the forget
  states and of the retain states. m² is a share of the median squared distance between states.

Each centre stands for at least five states. A centre of one state would carry that state into the bundle, and the
request is sensitive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mllmeraser.inference.states import PIECE, States, sample_rows
from mllmeraser.steering.checks import median_distance

FEWEST = 5  # states that a centre stands for
STARTED_FROM = 4096  # k-means draws its first centres from at most so many states,
DRAWN = 8192  # and moves them by at most so many


@dataclass(frozen=True)
class Landmarks:
    """Landmarks c (J, d) and bandwidth m²: they make kernel features."""

    centres: Tensor
    bandwidth: float
    kept: int = 0  # so many are of what must stay, and come first

    def __call__(self, states: Tensor) -> Tensor:
        """φ(h) for states (n, d): (n, J), in the precision of the centres."""
        return kernel(distances(states, self.centres), self.bandwidth)


def distances(states: Tensor, centres: Tensor) -> Tensor:
    """‖ĥ − c_j‖² (n, J) for states (n, d), in the precision of the centres."""
    return torch.cdist(_unit(states.to(centres.dtype)), centres).square_()


def kernel(squares: Tensor, bandwidth: float) -> Tensor:
    """exp(−2‖ĥ − c_j‖²/m²) of squared distances."""
    return torch.exp(squares * (-2.0 / bandwidth))


@dataclass(frozen=True)
class Centres:
    """Landmarks that lack a bandwidth: c (J, d), and the median squared distance between states."""

    centres: Tensor
    median: float
    kept: int  # so many are of what must stay, and come first

    def landmarks(self, bandwidth: float) -> Landmarks:
        """The landmarks with m² = ``bandwidth`` · median."""
        return Landmarks(self.centres, bandwidth * self.median, self.kept)


def place_centres(
    forget: Tensor,
    retain: States,
    at_most: int,
    seed: int,
    projection: Tensor | None = None,
    kept: Tensor | None = None,
) -> Centres:
    """Centres of retain states (n_r, d) and of forget states (n_f, d), at most ``at_most`` / 2 of each.

    They are of what the gate reads: states, or projections of them. Each set gives at most ``DRAWN`` states. Those of
    the retain states depend on nothing else, so that requests can share them.

    Args:
        kept: the centres (J, d) of what must stay, where they were placed before.
    """
    of_retain, _ = _drawn(retain, seed, projection)
    of_forget, generator = _drawn(forget, seed, projection)
    first = place_kept(retain, at_most, seed, projection) if kept is None else kept
    own = k_means(of_forget, _number(of_forget, at_most), generator)
    some = torch.cat([of_forget[:1024], of_retain[:1024]])
    some = some[torch.randperm(len(some), generator=generator)[:1024]]
    return Centres(torch.cat([first, own]), median_distance(torch.pdist(some).pow(2)), len(first))


def place_kept(retain: States, at_most: int, seed: int, projection: Tensor | None = None) -> Tensor:
    """Centres (J, d) of retain states (n_r, d), at most ``at_most`` / 2."""
    units, generator = _drawn(retain, seed, projection)
    return k_means(units, _number(units, at_most), generator)


def _drawn(states: States, seed: int, projection: Tensor | None) -> tuple[Tensor, torch.Generator]:
    """What the gate reads in at most ``DRAWN`` of the states, at length 1; and the generator that drew them."""
    generator = torch.Generator().manual_seed(seed)
    return _unit(projected(sample_rows(states, DRAWN, generator).float(), projection)), generator


def _number(units: Tensor, at_most: int) -> int:
    return min(max(1, at_most // 2), max(1, len(units) // FEWEST))


def projected(states: Tensor, projection: Tensor | None) -> Tensor:
    """z = R h (n, p) of states (n, d); without a projection the states themselves."""
    return states if projection is None else states @ projection.to(states.dtype).T


def k_means(units: Tensor, count: int, generator: torch.Generator, iterations: int = 10) -> Tensor:
    """At most ``count`` centres of ``units`` (n, m): Lloyd's k-means by chords of the unit sphere, k-means++ start.

    A centre of fewer than ``FEWEST`` units is given up, and its units go to others, until each has enough.
    """
    centres = _first_centres(units[:STARTED_FROM], count, generator)
    for _ in range(iterations):
        moved, sizes = _moved(units, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    while len(centres) > 1 and int(sizes.min()) < FEWEST:
        enough = sizes >= FEWEST
        enough[sizes.argmax()] = True
        centres, sizes = _moved(units, centres[enough])
    return centres


def _moved(units: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the units nearest to each centre (the centre itself if there are none), and their numbers."""
    sums, sizes = torch.zeros_like(centres), torch.zeros(len(centres), dtype=torch.long)
    for piece in units.split(PIECE):
        owner = torch.cdist(piece, centres).argmin(dim=1)
        sizes += torch.bincount(owner, minlength=len(centres))
        sums.index_add_(0, owner, piece)
    return torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres), sizes


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


def random_signs(dimensions: int, width: int, seed: int) -> Tensor:
    """R (dimensions, width) of random signs, int8: z = R h keeps angles between states, roughly, and is far shorter."""
    drawn = torch.randint(2, (dimensions, width), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    return 2 * drawn - 1


def _unit(states: Tensor) -> Tensor:
    return torch.nn.functional.normalize(states, dim=-1)

"""The gate g(h) of one layer: about 1 on the forget set, about 0 on what must be kept.

g(h) = wᵀφ(h): :mod:`mllmeraser.steering.features` makes the features φ(h), :mod:`mllmeraser.steering.null_space` the
weights w. The steering then passes g through a shape (:class:`mllmeraser.steering.forms.GateShape`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mllmeraser.inference.states import States, pieces
from mllmeraser.steering.features import Landmarks, place_centres
from mllmeraser.steering.forms import Kind, NullSpace, RidgeScale
from mllmeraser.steering.null_space import solve
from mllmeraser.steering.recipe import Recipe


@dataclass(frozen=True)
class GateRecipe:
    """The settings of a gate, before any data."""

    kind: Kind
    null_space: NullSpace
    ridge: float
    ridge_scale: RidgeScale
    landmarks: int = 512
    bandwidth: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, recipe: Recipe, null_space: NullSpace, bandwidth: float, seed: int) -> GateRecipe:
        """The recipe's gate with this null space and bandwidth; a linear gate ignores the bandwidth."""
        return cls(recipe.gate, null_space, recipe.ridge, recipe.ridge_scale, recipe.landmarks, bandwidth, seed)


@dataclass(frozen=True)
class Gate:
    """A fitted gate: weights over the state (d,), or over kernel features (J,)."""

    weights: Tensor
    landmarks: Landmarks | None

    def __call__(self, states: Tensor) -> Tensor:
        """g for states (n, d): (n,), fp64."""
        features = states.double() if self.landmarks is None else self.landmarks(states)
        return features @ self.weights

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the bundle, fp32, by leaf name."""
        if self.landmarks is None:
            return {"gate": self.weights.float()}
        return {
            "landmarks": self.landmarks.centres.float(),
            "weights": self.weights.float(),
            "bandwidth": torch.tensor(self.landmarks.bandwidth, dtype=torch.float32),
        }

    def values(self, states: States) -> Tensor:
        """g of every row (n,), fp64; states and features are never held all at once."""
        return torch.cat([self(piece) for piece in pieces(states)])


def fit_gate(forget: Tensor, retain: States, recipe: GateRecipe, keep: Tensor | None = None) -> Gate:
    """Fit the gate of one layer on forget states (n_f, d) and on the retain states (n_r, d) that ``keep`` marks.

    Raises:
        InputError: the null space is empty, or the system is singular.
    """
    return fit_gates(forget, retain, [recipe], keep)[0]


def fit_gates(forget: Tensor, retain: States, recipes: Sequence[GateRecipe], keep: Tensor | None = None) -> list[Gate]:
    """Fit several gates at once. They share landmarks and one pass; only bandwidth and null space may differ.

    The retain states stream and are reduced to one second moment (m, m) per bandwidth, with m = d or J.

    Raises:
        InputError: a null space is empty, or a system is singular.
    """
    first, lifts = recipes[0], {}
    if first.kind == "kernel":
        centres = place_centres(forget, retain, first.landmarks, first.seed, keep)
        lifts = {recipe.bandwidth: centres.landmarks(recipe.bandwidth) for recipe in recipes}
    moments: dict[float, Tensor] = {}
    for piece in pieces(retain, keep):
        for bandwidth in {recipe.bandwidth for recipe in recipes}:
            features = lifts[bandwidth](piece) if lifts else piece.double()
            moments[bandwidth] = moments.get(bandwidth, 0.0) + features.T @ features
    kept = len(retain) if keep is None else int(keep.sum())
    gates = []
    for recipe in recipes:
        landmarks = lifts.get(recipe.bandwidth)
        features = forget if landmarks is None else landmarks(forget)
        moment = moments[recipe.bandwidth]
        weights = solve(features, moment, kept, recipe.null_space, recipe.ridge, recipe.ridge_scale)
        gates.append(Gate(weights, landmarks))
    return gates

"""The gate g(h) of one block: about 1 on the forget set, about 0 on what must be kept.

g(h) = wᵀφ(h): features × null space, see :mod:`mllmeraser.steering.features` and
:mod:`mllmeraser.steering.null_space`. A third piece, the shape φ, decides what the steering makes of g.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mllmeraser.steering.features import Landmarks, place_landmarks
from mllmeraser.steering.forms import Kind, NullSpace, RidgeScale
from mllmeraser.steering.null_space import solve
from mllmeraser.steering.recipe import Recipe


@dataclass(frozen=True)
class GateRecipe:
    """The pieces a gate is made of, before any data."""

    kind: Kind
    null_space: NullSpace
    ridge: float
    ridge_scale: RidgeScale
    landmarks: int = 512
    bandwidth: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, recipe: Recipe, bandwidth: float, seed: int) -> GateRecipe:
        """The recipe's gate with this bandwidth (ignored by a linear one)."""
        return cls(recipe.gate, recipe.null_space, recipe.ridge, recipe.ridge_scale, recipe.landmarks, bandwidth, seed)


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


def fit_gate(forget: Tensor, retain: Tensor, recipe: GateRecipe) -> Gate:
    """Fit g on forget states (n_f, d) and retain states (n_r, d) of one block.

    Raises:
        InputError: the null space is empty or the system singular.
    """
    landmarks = None
    if recipe.kind == "kernel":
        landmarks = place_landmarks(forget, retain, recipe.landmarks, recipe.bandwidth, recipe.seed)
        forget, retain = landmarks(forget), landmarks(retain)
    moment = retain.double().T @ retain.double()
    weights = solve(forget, moment, len(retain), recipe.null_space, recipe.ridge, recipe.ridge_scale)
    return Gate(weights, landmarks)

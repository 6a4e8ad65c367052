"""The gate g(h) of one block: about 1 on the forget set, about 0 on what must be kept.

g(h) = wᵀφ(h): features × null space, see :mod:`mllmeraser.steering.features` and
:mod:`mllmeraser.steering.null_space`. A third piece, the shape φ, decides what the steering makes of g.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mllmeraser.steering.features import Landmarks, place_landmarks
from mllmeraser.steering.null_space import NullSpace, RidgeScale, solve

Kind = Literal["linear", "kernel"]
SHAPES = ("identity", "clip", "dead-zone", "step")
THRESHOLDED = ("dead-zone", "step")


class GateShape(NamedTuple):
    """φ(g): ``identity`` g; ``clip`` to [0, 1]; ``dead-zone`` 0 below the threshold, else g; ``step`` 0 or 1."""

    name: Literal["identity", "clip", "dead-zone", "step"]
    threshold: float | None = None

    def __str__(self) -> str:
        return self.name if self.threshold is None else f"{self.name}:{self.threshold:g}"

    @property
    def thresholded(self) -> bool:
        """Whether a closed gate leaves a retained prompt bit-identical to the base."""
        return self.name in THRESHOLDED

    @classmethod
    def parse(cls, text: str) -> GateShape:
        """Read ``identity``, ``clip``, ``dead-zone[:0.3]`` or ``step[:0.5]``; without a number calibration chooses it.

        Raises:
            ValueError: anything else.
        """
        name, colon, number = text.partition(":")
        if name not in SHAPES or (colon and name not in THRESHOLDED):
            raise ValueError(f"{text!r} is not identity, clip, dead-zone[:threshold] or step[:threshold]")
        try:
            threshold = float(number) if colon else None
        except ValueError:
            raise ValueError(f"{text!r}: the threshold {number!r} is not a number") from None
        return cls(name, threshold)  # type: ignore[arg-type]  # checked against the same four words just above


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
        ValueError: the null space is empty or the system singular.
    """
    landmarks = None
    if recipe.kind == "kernel":
        landmarks = place_landmarks(forget, retain, recipe.landmarks, recipe.bandwidth, recipe.seed)
        forget, retain = landmarks(forget), landmarks(retain)
    moment = retain.double().T @ retain.double()
    weights = solve(forget, moment, len(retain), recipe.null_space, recipe.ridge, recipe.ridge_scale)
    return Gate(weights, landmarks)

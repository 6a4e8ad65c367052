"""Requests as a graph needs them: numpy arrays and plain numbers from bundles.

Steering a graph needs only these and the graph, neither torch nor the base's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Shape = Literal["identity", "clip", "dead-zone", "step"]


@dataclass(frozen=True)
class Gate:
    """The tensors of one gate. A linear gate has only ``vector``; a kernel gate has all others."""

    vector: Array | None = None  # u (d,)
    landmarks: Array | None = None  # c (J, d)
    weights: Array | None = None  # w (J,)
    bandwidth: float = 1.0  # m²


@dataclass(frozen=True)
class GraphRequest:
    """One request: λ, its gates by the layer that they are read at, and its directions by the layer that they move."""

    id: str
    strength: float  # λ
    shape: Shape
    threshold: float | None
    all_positions: bool
    gates: Mapping[int, Gate]
    gate_of: Mapping[int, int]  # moved layer -> the layer whose gate it follows
    directions: Mapping[int, Array]  # moved layer -> (K, d)

    @property
    def steps(self) -> int:
        """K, the number of positions with a direction; the end of the prompt is the first."""
        return max(direction.shape[0] for direction in self.directions.values())

    @property
    def layers(self) -> list[int]:
        """Every layer that a gate reads or a direction moves, ascending."""
        return sorted({*self.gates, *self.directions})

    def prompt_only(self) -> GraphRequest:
        """The request with K = 1: only the directions that act on the prompt."""
        directions = {layer: direction[:1] for layer, direction in self.directions.items()}
        return GraphRequest(
            self.id,
            self.strength,
            self.shape,
            self.threshold,
            self.all_positions,
            self.gates,
            self.gate_of,
            directions,
        )

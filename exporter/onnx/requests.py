"""Requests as a graph needs them: the rule that the checkpoints follow, and numpy arrays from bundles.

Steering a graph needs only these and the graph, neither torch nor the base's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from mllmeraser.modeling_patches.format_mllmeraser import Request

Array = npt.NDArray[Any]  # fp32; a projection is int8


@dataclass(frozen=True)
class GraphRequest:
    """One request: its name, λ, what its gates read and do, and its tensors by layer and leaf."""

    id: str
    strength: float  # λ
    rule: Request
    tensors: Mapping[tuple[int, str], Array]

    @property
    def gate_layers(self) -> tuple[int, ...]:
        """The layers that a gate reads."""
        return self.rule.layers if self.rule.gate_layer is None else (self.rule.gate_layer,)

    @property
    def layers(self) -> list[int]:
        """Every layer that is read or edited, ascending."""
        return sorted({*self.gate_layers, *self.rule.layers})

    @property
    def carried(self) -> bool:
        """Whether what its gates said must travel with the cache."""
        rule = self.rule
        return rule.scope != "token" and (rule.scope == "conversation" or rule.edit == "seal" or rule.steps > 1)

    @property
    def kept(self) -> bool:
        """Whether it would be undone by a cache that carries nothing: a sealed row must stay sealed."""
        return self.carried and (self.rule.scope, self.rule.edit) != ("prompt", "add")

    def aims(self, layer: int) -> Array:
        """What a layer's states become (edit ``seal``), or are pushed along (``add``); (K, d)."""
        return self.tensors[layer, "states" if self.rule.edit == "seal" else "direction"]

    def prompt_only(self) -> GraphRequest:
        """The request with K = 1: what acts on the prompt."""
        return replace(self, rule=replace(self.rule, steps=1))

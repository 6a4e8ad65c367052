"""What is done to a model: which layers are moved, how far, at which positions, and with which shape of gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mllmeraser.steering.forms import Edit, GateShape, Scope


@dataclass(frozen=True)
class SteeredLayers:
    """The layers that are moved, and the layer whose gate they share (None: each reads its own)."""

    layers: tuple[int, ...]
    gate_layer: int | None

    @property
    def read(self) -> tuple[int, ...]:
        """The layers whose gates are read."""
        return self.layers if self.gate_layer is None else (self.gate_layer,)


@dataclass(frozen=True)
class Intervention:
    """A request without its numbers: what its gates read, and what they do to the layers."""

    where: SteeredLayers
    strength: float  # λ
    reply_steps: int  # K
    prompt_positions: Literal["all", "last"]
    shape: GateShape  # φ
    scope: Scope
    edit: Edit = "add"
    turn: tuple[int, ...] = ()  # the tokens that begin a user's turn, where a seal ends; empty: it lasts

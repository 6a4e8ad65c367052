"""From gates and directions to the tensors of a bundle and what its metadata says of their form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mllmeraser.bundle.metadata import GateForm, tensor_name
from mllmeraser.steering.forms import GateShape, Scope
from mllmeraser.steering.gate import Gate


@dataclass(frozen=True)
class Plan:
    """Which blocks are moved, and which one's gate they share (None: each reads its own)."""

    layers: tuple[int, ...]
    gate_layer: int | None

    @property
    def read(self) -> tuple[int, ...]:
        """The blocks whose gates are read."""
        return self.layers if self.gate_layer is None else (self.gate_layer,)


def assemble(
    plan: Plan,
    gates: Mapping[int, Gate],
    shape: GateShape,
    directions: Mapping[int, Tensor],
    reply_steps: int,
    scope: Scope = "prompt",
) -> tuple[GateForm, dict[str, Tensor]]:
    """The form of the gates and the tensors of request 0, fp32, by the names of the bundle; the first ``reply_steps``
    of the directions (K, d)."""
    first = gates[plan.read[0]]
    form = GateForm(
        kind="linear" if first.landmarks is None else "kernel",
        shape=shape.name,
        threshold=shape.threshold,
        landmarks=None if first.landmarks is None else len(first.landmarks.centres),
        scope=scope,
    )
    tensors = {tensor_name(0, layer, "direction"): directions[layer][:reply_steps].float() for layer in plan.layers}
    for layer in plan.read:
        tensors |= {tensor_name(0, layer, leaf): value for leaf, value in gates[layer].tensors().items()}
    return form, tensors

"""From gates and aims to the tensors of a bundle and the form of its gates."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mllmeraser.bundle.metadata import GateForm, tensor_name
from mllmeraser.steering.gate import Gate
from mllmeraser.steering.intervention import Intervention


def assemble(
    intervention: Intervention, gates: Mapping[int, Gate], aims: Mapping[int, Tensor]
) -> tuple[GateForm, dict[str, Tensor]]:
    """The form of the gates, and the tensors of request 0: fp32, named as in the bundle.

    Args:
        gates: by layer, for every layer whose gate is read.
        aims: m or r (K', d), as the edit asks, by layer, for every edited layer; the first K ≤ K' rows are used.
    """
    where, shape = intervention.where, intervention.shape
    first = gates[where.read[0]]
    most = max(len(gate.weights) for gate in gates.values())
    form = GateForm(
        kind="linear" if first.landmarks is None else "kernel",
        shape=shape.name,
        threshold=shape.threshold,
        landmarks=None if first.landmarks is None else most,
        kept=None if first.landmarks is None or len(gates) > 1 else first.landmarks.kept,
        scope=intervention.scope,
        projection=None if first.projection is None else len(first.projection),
        turn=list(intervention.turn) or None,
    )
    leaf = "states" if intervention.edit == "seal" else "direction"
    tensors = {tensor_name(0, layer, leaf): aims[layer][: intervention.reply_steps].float() for layer in where.layers}
    for layer in where.read:
        read = gates[layer].with_landmarks(most).tensors()
        tensors |= {tensor_name(0, layer, leaf): value for leaf, value in read.items()}
    return form, tensors

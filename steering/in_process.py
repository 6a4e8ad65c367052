"""The base steered in this process, by the code that travels with every checkpoint: for trials and sequential fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import request_entry
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.steering.assembly import assemble
from mllmeraser.steering.gate import Gate
from mllmeraser.steering.intervention import Intervention


def steered_in_process(
    checkpoint: Checkpoint, intervention: Intervention, gates: Mapping[int, Gate], directions: Mapping[int, Tensor]
) -> Checkpoint:
    """A checkpoint that shares the base's weights, offloaded ones too, and steers as the exported one will."""
    form, tensors = assemble(intervention, gates, directions)
    entry = request_entry(
        "trial",
        intervention.where.layers,
        intervention.where.gate_layer,
        form,
        strength=intervention.strength,
        prompt_positions=intervention.prompt_positions,
        reply_steps=intervention.reply_steps,
    )
    steering = {"schema": 1, "requests": [entry]}
    model = steered_class(checkpoint.model_type).from_base(checkpoint.model, steering, tensors)
    return replace(checkpoint, model=model, steered=True, passes=checkpoint.passes.steered(tensors, entry))


def torch_tensors(bundle: Bundle) -> dict[str, Tensor]:
    """The tensors of a bundle as torch's, over the same memory."""
    return {name: torch.from_numpy(array) for name, array in bundle.tensors.items()}

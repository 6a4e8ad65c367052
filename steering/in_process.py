"""The base steered in this process, by the code that travels with every checkpoint: for trials and sequential fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import request_entry
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.steering.assembly import Plan, assemble
from mllmeraser.steering.forms import GateShape, Scope
from mllmeraser.steering.gate import Gate


@dataclass(frozen=True)
class Push:
    """What is moved where, and how far: blocks and gate, λ, K, and the prompt positions."""

    plan: Plan
    strength: float
    reply_steps: int
    prompt_positions: Literal["all", "last"]


def steered_in_process(
    checkpoint: Checkpoint,
    push: Push,
    gates: Mapping[int, Gate],
    shape: GateShape,
    directions: Mapping[int, Tensor],
    scope: Scope = "prompt",
) -> Checkpoint:
    """A checkpoint that shares the base's weights, offloaded ones too, and steers as the exported one will."""
    form, tensors = assemble(push.plan, gates, shape, directions, push.reply_steps, scope)
    entry = request_entry(
        "trial",
        push.plan.layers,
        push.plan.gate_layer,
        form,
        strength=push.strength,
        prompt_positions=push.prompt_positions,
        reply_steps=push.reply_steps,
    )
    steering = {"schema": 1, "requests": [entry]}
    model = steered_class(checkpoint.model_type).from_base(checkpoint.model, steering, tensors)
    return replace(checkpoint, model=model, steered=True, passes=checkpoint.passes.steered(tensors, entry))


def torch_tensors(bundle: Bundle) -> dict[str, Tensor]:
    """The tensors of a bundle as torch's, over the same memory."""
    return {name: torch.from_numpy(array) for name, array in bundle.tensors.items()}

"""What the gates of a checkpoint say about a prompt, before their shape is applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mllmeraser.inference.encoding import encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.passes import run_passes
from mllmeraser.modeling_patches.steering_mllmeraser import RequestSteering
from mllmeraser.records.prompts import Prompt


class GateValue(NamedTuple):
    """g of one request at one layer; ``threshold`` is None where the shape has none."""

    request: str
    layer: int
    threshold: float | None
    value: float


@torch.inference_mode()
def read_gates(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> list[tuple[GateValue, ...]]:
    """g of each prompt, for every request that is on and every layer where it reads a gate.

    A gate of scope ``prompt`` gives g at the last token; any other gives the highest g of the prompt's tokens. Each
    batch takes one prefill. A gate is read as the checkpoint reads it: after the layers before it have been steered. A
    base, or a checkpoint that is switched off, has no gates.
    """
    values: list[tuple[GateValue, ...]] = [()] * len(prompts)
    if not checkpoint.steered:
        return values
    entries = checkpoint.model.config.steering["requests"]
    found = run_passes(
        checkpoint,
        "gates",
        prompts,
        lambda rows, shown: _read(checkpoint, shown),
        lambda rows: None,
    )
    for rows, gates in found:
        for (request, layer), column in gates.items():
            entry = entries[request]
            for i, value in zip(rows, column.tolist(), strict=True):
                values[i] += (GateValue(entry["id"], layer, entry["gate"]["threshold"], value),)
    return values


def _read(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> dict[tuple[int, int], Tensor]:
    gates = gates_of(checkpoint, encode(checkpoint, prompts, "right"))
    return {key: g.cpu() for key, g in gates.items()}


def gates_of(checkpoint: Checkpoint, inputs: dict[str, Tensor]) -> dict[tuple[int, int], Tensor]:
    """g (b,) of encoded prompts, padded on the right, by request and layer; a gradient can pass."""
    seen: dict[tuple[int, int], Tensor] = {}
    real = inputs["attention_mask"] != 0
    last = real.cumsum(dim=1).argmax(dim=1, keepdim=True)

    def watch(module: RequestSteering, given: tuple[Any, ...], output: object) -> None:
        if not module.reads:
            return
        g = module.value(given[0].float(), given[5])
        if module.request.scope == "prompt":
            g = g.gather(1, last.to(g.device))
        else:
            g = g.masked_fill(~real.to(g.device), -torch.inf)
        seen[module.request.index, module.layer] = g.amax(dim=1)

    modules = [module for module in checkpoint.model.modules() if isinstance(module, RequestSteering)]
    hooks = [module.register_forward_hook(watch) for module in modules]
    try:
        checkpoint.model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return dict(sorted(seen.items()))

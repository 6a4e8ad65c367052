"""The steering written plainly: forward hooks on an un-steered model, one row and one column at a time.

h ← h + λ φ(g) r_k, g read at the last real prompt token of the row, in fp32; the delta cast to the model's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tiny
import torch
from torch import Tensor
from transformers import PreTrainedModel


def gate(request: dict[str, Any], tensors: dict[str, Tensor], name: str, h: Tensor) -> float:
    """φ(g) of one state h (d,)."""
    if request["gate"]["kind"] == "linear":
        g = float((h * tensors[f"{name}.gate"]).sum())
    else:
        unit = h / h.norm()
        distances = ((unit - tensors[f"{name}.landmarks"]) ** 2).sum(-1)
        g = float((torch.exp(-2 * distances / tensors[f"{name}.bandwidth"]) * tensors[f"{name}.weights"]).sum())
    threshold = request["gate"]["threshold"]
    match request["gate"]["shape"]:
        case "identity":
            return g
        case "clip":
            return min(max(g, 0.0), 1.0)
        case "dead-zone":
            return 0.0 if g < threshold else g
        case _:
            return 1.0 if g >= threshold else 0.0


@contextmanager
def hooked(
    base: PreTrainedModel, steering: dict[str, Any], tensors: dict[str, Tensor], mask: Tensor, ends: list[int]
) -> Iterator[None]:
    """Within it, a forward of the whole sequence (no cache) is steered; ``ends`` is P of each row."""
    lasts = [max(c for c in range(end) if mask[row, c]) for row, end in enumerate(ends)]
    gates: dict[tuple[int, int, int], float] = {}  # request, block, row

    def hook_of(layer: int) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            before = output[0] if isinstance(output, tuple) else output
            after = before.clone()
            for row, (end, last) in enumerate(zip(ends, lasts, strict=True)):
                for column in range(before.shape[1]):
                    delta = torch.zeros(before.shape[2])
                    moved = False
                    for index, request in enumerate(steering["requests"]):
                        name, k = f"requests.{index}.layers.{layer}", max(0, column - end + 1)
                        if f"{name}.gate" in tensors or f"{name}.landmarks" in tensors:
                            gates[index, layer, row] = gate(request, tensors, name, before[row, last].float())
                        here = column == last or request["prompt_positions"] == "all" if column < end else True
                        if layer not in request["layers"] or k >= request["reply_steps"] or not here:
                            continue
                        source = layer if request["gate_layer"] is None else request["gate_layer"]
                        coefficient = torch.tensor(gates[index, source, row]) * request["strength"]
                        if request["enabled"] and coefficient != 0:
                            delta = delta + coefficient * tensors[f"{name}.direction"][k]
                            moved = True
                    if moved:
                        after[row, column] = before[row, column] + delta.to(before.dtype)
            return (after, *output[1:]) if isinstance(output, tuple) else after

        return hook

    handles = [layer.register_forward_hook(hook_of(i)) for i, layer in enumerate(base.get_decoder().layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def logits(base: PreTrainedModel, steering: Any, tensors: Any, batch: Any, ends: list[int] | None = None) -> Tensor:
    """Logits of one forward over the batch, steered by hooks."""
    width = batch["attention_mask"].shape[1]
    ends = [width] * batch["attention_mask"].shape[0] if ends is None else ends
    with hooked(base, steering, tensors, batch["attention_mask"], ends):
        result: Tensor = base(**batch, use_cache=False).logits
    return result


@torch.no_grad()
def greedy(base: PreTrainedModel, steering: Any, tensors: Any, batch: Any, new: int) -> Tensor:
    """The greedy reply (b, new), without a cache: every token by a forward over the prompt and the reply so far."""
    batch, prompt = dict(batch), batch["input_ids"].shape[1]
    rows = batch["input_ids"].shape[0]
    for _ in range(new):
        token = logits(base, steering, tensors, with_positions(base, batch), [prompt] * rows)[
            :, -1, : tiny.SPECIAL
        ].argmax(-1)
        batch["input_ids"] = torch.cat([batch["input_ids"], token[:, None]], dim=1)
        batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.ones(rows, 1, dtype=torch.long)], dim=1)
        if "mm_token_type_ids" in batch:
            batch["mm_token_type_ids"] = torch.nn.functional.pad(batch["mm_token_type_ids"], (0, 1))
    return batch["input_ids"][:, prompt:]


def with_positions(base: PreTrainedModel, batch: Any) -> Any:
    """The position ids that ``generate`` would count from the mask, for the family whose forward does not."""
    if base.config.model_type != "llava":
        return batch
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return {**batch, "position_ids": positions}

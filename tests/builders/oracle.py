"""The steering written plainly: forward hooks on an un-steered model, one row and one column at a time.

h ← h + λ φ(g) r_k, g read at the last real prompt token of the row, in fp32; the delta cast to the model's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
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


def decoder_layers(base: PreTrainedModel) -> nn.ModuleList:
    """The decoder layers; ``get_decoder`` does not find those of Idefics3 in transformers 4.57."""
    name = "text_model" if base.config.model_type in ("idefics3", "smolvlm") else "language_model"
    layers: nn.ModuleList = base.model.get_submodule(name).layers
    return layers


Turn = tuple[int, list[int]]  # the columns from here on belong to it; P of each row


@contextmanager
def hooked(
    base: PreTrainedModel, steering: dict[str, Any], tensors: dict[str, Tensor], mask: Tensor, *turns: Turn
) -> Iterator[None]:
    """Within it, every forward of the whole sequence (no cache) is steered.

    Args:
        mask: of the prompts; a forward over n times as many rows has n copies of each, one after the other, as
            ``generate`` lays out beams and returned sequences.
        turns: a single one that starts at column 0, or more: those of earlier turns stay as they were steered.
    """
    gates: dict[tuple[int, int, int, int], float] = {}  # turn, request, layer, row

    def hook_of(layer: int) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            before = output[0] if isinstance(output, tuple) else output
            after = before.clone()
            for row in range(before.shape[0]):
                prompt = row * mask.shape[0] // before.shape[0]
                for turn, (start, ends) in enumerate(turns):
                    end = ends[prompt]
                    last = max(c for c in range(start, end) if c >= mask.shape[1] or mask[prompt, c])
                    stop = turns[turn + 1][0] if turn + 1 < len(turns) else before.shape[1]
                    for index, request in enumerate(steering["requests"]):
                        name = f"requests.{index}.layers.{layer}"
                        if f"{name}.gate" in tensors or f"{name}.landmarks" in tensors:
                            gates[turn, index, layer, row] = gate(request, tensors, name, before[row, last].float())
                    for column in range(start, min(stop, before.shape[1])):
                        delta = torch.zeros(before.shape[2])
                        moved = False
                        for index, request in enumerate(steering["requests"]):
                            k = max(0, column - end + 1)
                            here = column == last or request["prompt_positions"] == "all" if column < end else True
                            if layer not in request["layers"] or k >= request["reply_steps"] or not here:
                                continue
                            source = layer if request["gate_layer"] is None else request["gate_layer"]
                            coefficient = torch.tensor(gates[turn, index, source, row]) * request["strength"]
                            if request["enabled"] and coefficient != 0:
                                direction = tensors[f"requests.{index}.layers.{layer}.direction"]
                                delta = delta + coefficient * direction[k]
                                moved = True
                        if moved:
                            after[row, column] = before[row, column] + delta.to(before.dtype)
            return (after, *output[1:]) if isinstance(output, tuple) else after

        return hook

    handles = [layer.register_forward_hook(hook_of(i)) for i, layer in enumerate(decoder_layers(base))]
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
    with hooked(base, steering, tensors, batch["attention_mask"], (0, ends)):
        result: Tensor = base(**batch, use_cache=False).logits
    return result


@torch.no_grad()
def generate(base: PreTrainedModel, steering: Any, tensors: Any, batch: Any, *turns: Turn, **kwargs: Any) -> Tensor:
    """The new tokens of the native ``generate`` without a cache: every token by a forward over all before it."""
    rows, width = batch["input_ids"].shape
    with hooked(base, steering, tensors, batch["attention_mask"], *(turns or ((0, [width] * rows),))):
        tokens: Tensor = base.generate(**batch, use_cache=False, **kwargs)
    return tokens[:, width:]

"""The steering written plainly: forward hooks on an un-steered model, one row, one request and one column at a time.

A *segment* is what one forward computes: its columns are read and edited together. Without a cache every forward
computes all columns again, so the hooks go through all segments in order, as they once were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Segment = tuple[int, list[int] | None]  # the columns from here on belong to it; P of each row, None: not known


def gate(request: dict[str, Any], tensors: dict[str, Tensor], name: str, h: Tensor) -> float:
    """φ(g) of one state h (d,)."""
    if request["gate"]["projection"]:
        h = tensors[f"{name}.projection"].float() @ h
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


def turns_of(ids: list[int], beginning: list[int] | None, end: int | None) -> list[int]:
    """The turn of each column: one more wherever ``beginning`` stands in the prompt."""
    numbers, turn = [], 0
    for c in range(len(ids)):
        if beginning and ids[c : c + len(beginning)] == beginning and (end is None or c < end):
            turn += 1
        numbers.append(turn)
    return numbers


def _openings(
    request: dict[str, Any],
    tensors: dict[str, Tensor],
    name: str,
    states: Tensor,  # (s, d)
    segments: list[tuple[range, int | None]],
    real: list[bool],
    turns: list[int],
) -> list[float]:
    """φ of each column of one row."""
    scope, values, before, sealed = request["gate"]["scope"], [0.0] * len(states), 0.0, set()
    for columns, end in segments:
        if scope == "token":
            here = [gate(request, tensors, name, states[c].float()) for c in columns]
        elif scope == "conversation":
            sealed |= {turns[c] for c in columns if real[c] and gate(request, tensors, name, states[c].float())}
            here = [1.0 if turns[c] in sealed else 0.0 for c in columns]
        else:
            assert end is not None
            if end > columns.start:
                last = [c for c in columns if c < end and real[c]]
                before = gate(request, tensors, name, states[last[-1]].float()) if last else 0.0
            here = [before] * len(columns)
        for c, value in zip(columns, here, strict=True):
            values[c] = value
    return values


def _edited(
    request: dict[str, Any], tensors: dict[str, Tensor], name: str, h: Tensor, c: float, k: int, last: bool
) -> Tensor:
    """One fp32 state (d,) after the edit; ``k`` as the column has it, ``last`` for the last real prompt token."""
    at, steps = min(max(k, 0), request["reply_steps"] - 1), request["reply_steps"]
    if request["edit"] == "seal":
        return (1 - c) * h + c * tensors[f"{name}.states"][at]
    if request["gate"]["scope"] == "prompt" and (
        k >= steps or (k <= 0 and request["prompt_positions"] == "last" and not last)
    ):
        return h
    return h + c * tensors[f"{name}.direction"][at]


@contextmanager
def hooked(
    base: PreTrainedModel,
    steering: dict[str, Any],
    tensors: dict[str, Tensor],
    mask: Tensor,
    *segments: Segment,
    ids: Tensor | None = None,
) -> Iterator[None]:
    """Within it, every forward of the whole sequence (no cache) is steered; a longer one than before adds a segment.

    Args:
        mask: of the prompts; a forward over n times as many rows has n copies of each, one after the other, as
            ``generate`` lays out beams and returned sequences.
        segments: those of the first forward.
        ids: the tokens of the prompts; None: not seen, so that a row is one turn.
    """
    starts = list(segments)
    openings: dict[tuple[int, int, int], list[float]] = {}  # row, request, layer
    widths: list[int] = []

    def hook_of(layer: int) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            before = output[0] if isinstance(output, tuple) else output
            rows, width = before.shape[:2]
            if layer == 0 and width not in widths:
                if widths:
                    starts.append((widths[-1], starts[-1][1]))
                widths.append(width)
            after = before.clone()
            for row in range(rows):
                prompt = row * mask.shape[0] // rows
                real = [c >= mask.shape[1] or bool(mask[prompt, c]) for c in range(width)]
                stops = [*(start for start, _ in starts[1:]), width]
                parts = [
                    (range(start, stop), None if ends is None else ends[prompt])
                    for (start, ends), stop in zip(starts, stops, strict=True)
                ]
                state, touched = before[row].float(), [False] * width
                for index, request in enumerate(steering["requests"]):
                    name = f"requests.{index}.layers.{layer}"
                    if not request["enabled"] or request["strength"] == 0:
                        continue
                    if f"{name}.gate" in tensors or f"{name}.landmarks" in tensors:
                        shown = [] if ids is None else ids[prompt].tolist()
                        shown += [-1] * (width - len(shown))
                        turns = turns_of(shown, request["gate"].get("turn"), parts[0][1])
                        openings[row, index, layer] = _openings(request, tensors, name, before[row], parts, real, turns)
                    if layer not in request["layers"]:
                        continue
                    source = layer if request["gate_layer"] is None else request["gate_layer"]
                    for columns, end in parts:
                        prompts = [c for c in columns if end is not None and c < end and real[c]]
                        for c in columns:
                            k = 0 if end is None else c - end + 1
                            weight = openings[row, index, source][c] * request["strength"]
                            if weight == 0:
                                continue
                            new = _edited(request, tensors, name, state[c], weight, k, c == max(prompts, default=-1))
                            touched[c] |= new is not state[c]
                            state = torch.stack([*state[:c], new, *state[c + 1 :]])
                for c in range(width):
                    if touched[c]:
                        after[row, c] = state[c].to(before.dtype)
            return (after, *output[1:]) if isinstance(output, tuple) else after

        return hook

    handles = [layer.register_forward_hook(hook_of(i)) for i, layer in enumerate(decoder_layers(base))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def logits(
    base: PreTrainedModel,
    steering: Any,
    tensors: Any,
    batch: Any,
    ends: list[int] | None = None,
    starts: tuple[int, ...] = (0,),
) -> Tensor:
    """Logits of one forward over the batch, steered by hooks.

    Args:
        ends: P of each row; default: not known in scope ``conversation``, the whole input in scope ``prompt``.
        starts: the first columns of the segments.
    """
    mask = batch["attention_mask"]
    if ends is None and any(request["gate"]["scope"] == "prompt" for request in steering["requests"]):
        ends = [mask.shape[1]] * mask.shape[0]
    segments = [(start, ends) for start in starts]
    with hooked(base, steering, tensors, mask, *segments, ids=batch.get("input_ids")):
        result: Tensor = base(**batch, use_cache=False).logits
    return result


@torch.no_grad()
def generate(base: PreTrainedModel, steering: Any, tensors: Any, batch: Any, *turns: Segment, **kwargs: Any) -> Tensor:
    """The new tokens of the native ``generate`` without a cache: every token by a forward over all before it."""
    rows, width = batch["input_ids"].shape
    segments = turns or ((0, [width] * rows),)
    with hooked(base, steering, tensors, batch["attention_mask"], *segments, ids=batch["input_ids"]):
        tokens: Tensor = base.generate(**batch, use_cache=False, **kwargs)
    return tokens[:, width:]

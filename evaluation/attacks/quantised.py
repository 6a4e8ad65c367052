"""Attacks by fewer bits: rounding can bring back what training had taken away (Zhang et al., arXiv 2410.16454).

Every linear layer except the output head is rounded and stored in the model's own precision again, because such formats
compute in it.

* ``int8``: 255 steps for each output row, scaled by its largest weight (LLM.int8(), arXiv 2208.07339, without its
  outlier columns).
* ``nf4``: the 16 quantiles of QLoRA's NormalFloat (arXiv 2305.14314), scaled for every 64 weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from mllmeraser.evaluation.attacks.attack import Attack, Reading, Scene
from mllmeraser.evaluation.attacks.wordings import plain

BLOCK = 64
# QLoRA, appendix E.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def int8(weight: Tensor) -> Tensor:
    """round(127 w / s) · s / 127, where s is the largest |w| of the row."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (weight / scale).round() * scale


def nf4(weight: Tensor) -> Tensor:
    """The nearest of the 16 levels, times the largest |w| of its block of 64 (the last block may be shorter)."""
    flat = weight.flatten()
    padded = nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = padded.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    levels = torch.tensor(NF4, device=weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    rounded = levels[torch.bucketize((padded / scale).contiguous(), between)] * scale
    return rounded.flatten()[: len(flat)].view_as(weight)


@torch.no_grad()
def quantise(model: nn.Module, rounding: Callable[[Tensor], Tensor]) -> None:
    """Round the linear layers of a model in place, and leave its embeddings, output head and steering."""
    head = model.get_output_embeddings()  # type: ignore[operator]  # of every transformers model
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            module.weight.copy_(rounding(module.weight.float()).to(module.weight.dtype))


def quantised(rounding: Callable[[Tensor], Tensor], scene: Scene) -> list[Reading]:
    """Ask a rounded copy of the model the plain questions."""
    copy = scene.load()
    quantise(copy.model, rounding)
    # The stored passes are of the model before the rounding, so the copy needs an identity of its own.
    passes = replace(copy.passes, identity=f"{copy.passes.identity} {rounding.__name__}")
    copy = replace(copy, passes=passes)
    return plain(replace(scene, checkpoint=copy))


QUANTISED = [
    Attack("int8", "The model's weights rounded to 8 bits.", partial(quantised, int8)),
    Attack("nf4", "The model's weights rounded to 4 bits (NF4).", partial(quantised, nf4)),
]

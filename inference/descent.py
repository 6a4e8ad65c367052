"""Projected sign descent on pictures (PGD: Madry et al., arXiv 1706.06083), for any loss of what a model sees.

    δ ← clamp(δ − s · sign ∇_δ loss(x + δ), −ε, ε),   x + δ clamped to [0, 255],   n times from δ = 0

x is the picture as the model sees it, in grey levels (:mod:`mllmeraser.inference.pixels`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mllmeraser.inference.pixels import LEVELS

ATTACKED = 8  # prompts in one pass: a gradient needs the activations of every layer


def descend(
    model: nn.Module,
    clean: Sequence[Tensor],
    loss: Callable[[Sequence[Tensor]], Tensor],
    *,
    epsilon: float,
    step: float,
    iterations: int,
) -> list[Tensor]:
    """The pictures (3, y, x), in grey levels, after ``iterations`` steps that make the loss smaller.

    Args:
        model: its weights get no gradient meanwhile.
        epsilon: as a share of the grey levels, like ``step``; rounded down to whole ones.
    """
    moved, levels = list(clean), grey_levels(epsilon)
    with _frozen(model):
        for _ in range(iterations):
            moved = [pixels.detach().requires_grad_(True) for pixels in moved]
            gradients = torch.autograd.grad(loss(moved), moved)
            moved = [
                within(pixels.detach() - step * LEVELS * gradient.sign(), x, levels)
                for pixels, gradient, x in zip(moved, gradients, clean, strict=True)
            ]
    return moved


def grey_levels(share: float) -> int:
    """ε in grey levels, rounded down, so that whole grey levels stay within it."""
    return math.floor(share * LEVELS + 1e-6)


def within(pixels: Tensor, clean: Tensor, epsilon: int) -> Tensor:
    """The pixels, no further than ε from the clean ones, and within what a picture can hold."""
    return pixels.clamp(clean - epsilon, clean + epsilon).clamp(0, LEVELS)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Inside the context no weight asks for a gradient."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)

"""MMUnlearner's mask: which weights the forget step may move (Huo et al., arXiv 2502.11051, eq. 6–8).

F_D(θ) = E_D[(∂CE/∂θ)²], the diagonal of the empirical Fisher information, here from the gradients of batches, as the
public code has it; mask = [F_forget / F_retain ≥ threshold], weight by weight.

Theirs keeps what is known of the forgotten in words: the forget set are questions with a picture, and what to preserve
holds text questions about everybody. Here a request is a request: all forget records on one side, the retain set on the
other. Theirs also masks linear layers only and lets the forget step move norms and embeddings freely; here every
weight is masked.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mllmeraser.baselines.batches import Batch
from mllmeraser.baselines.losses import mean_nll

_SMALLEST = 1e-15


def fisher(model: PreTrainedModel, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The mean over batches of squared gradients of the cross-entropy, by parameter name."""
    sums: dict[str, Tensor] = {}
    count = 0
    for inputs, labels in batches:
        model.zero_grad()
        mean_nll(model(**inputs, use_cache=False).logits, labels).backward()
        count += 1
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                sums[name] = sums.get(name, torch.zeros_like(parameter)) + parameter.grad**2
    model.zero_grad()
    return {name: total / count for name, total in sums.items()}


def saliency_mask(forget: dict[str, Tensor], retain: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """[(F_f + 1e-15) / (F_r + 1e-15) ≥ threshold], by parameter name; one that retain never reaches is open."""
    return {
        name: (value + _SMALLEST) / (retain.get(name, torch.zeros_like(value)) + _SMALLEST) >= threshold
        for name, value in forget.items()
    }

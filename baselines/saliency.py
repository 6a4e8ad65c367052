"""MMUnlearner's mask: the weights that a forget step may change (Huo et al., arXiv 2502.11051, eq. 6–8).

F_D(θ) = E_D[(∂CE/∂θ)²] is the diagonal of the empirical Fisher information, taken from the gradients of batches as in
the public code. Weight by weight, mask = [F_forget / F_retain ≥ threshold].

There are two differences. MMUnlearner forgets questions with a picture and preserves text questions about everybody, so
it keeps what the model knows in words about the forgotten; here the whole forget set stands against the retain set.
MMUnlearner masks linear layers only, so its forget step changes norms and embeddings freely; here every weight is
masked.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mllmeraser.baselines.losses import mean_nll
from mllmeraser.inference.teaching import Batch

_SMALLEST = 1e-15


def fisher(model: PreTrainedModel, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """The mean over batches of the squared gradients of the cross-entropy, by parameter name."""
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
    """[(F_f + 1e-15) / (F_r + 1e-15) ≥ threshold], by parameter name; F_r is 0 where no retain gradient reached."""
    return {
        name: (value + _SMALLEST) / (retain.get(name, torch.zeros_like(value)) + _SMALLEST) >= threshold
        for name, value in forget.items()
    }

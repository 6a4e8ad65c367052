"""What the trained baselines minimise. Every function is one equation; logits (b, s, v), labels (b, s).

A label is the token itself where it belongs to the reply and ``IGNORED`` elsewhere; the logits of position t predict
the label of position t + 1, as everywhere in transformers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """−log p(label_{t+1} | before), (b, s − 1); 0 where the label is ignored."""
    return functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )


def mean_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over all reply tokens of the batch: cross-entropy as transformers' models return it."""
    return token_nll(logits, labels).sum() / (labels[:, 1:] != IGNORED).sum()


def sequence_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """−log p(reply | prompt) = Σ_t −log p(reply_t | …), (b,)."""
    return token_nll(logits, labels).sum(dim=1)


def gradient_ascent(logits: Tensor, labels: Tensor) -> Tensor:
    """GA: −CE on the forget set. Unbounded from below. (Jang et al., arXiv 2210.01504, eq. 1.)"""
    return -mean_nll(logits, labels)


def token_kl(logits: Tensor, base_logits: Tensor, labels: Tensor) -> Tensor:
    """KL(base ‖ model) = Σ_v p_base (log p_base − log p), the mean over reply tokens.

    The retain term of KL_Min (TOFU, arXiv 2401.06121, sec. 4.1). MLLMU-Bench's public code sums over all positions,
    prompt and padding included, and divides by the batch: about as many times larger as a row has positions.
    """
    model, base = (some[:, :-1].float().log_softmax(dim=-1) for some in (logits, base_logits))
    divergence = (base.exp() * (base - model)).sum(dim=-1)
    known = labels[:, 1:] != IGNORED
    return (divergence * known).sum() / known.sum()


def npo(nll: Tensor, base_nll: Tensor, beta: float) -> Tensor:
    """NPO: the mean of (2/β) softplus(β log(p/p_base)), with log(p/p_base) = base_nll − nll of whole replies, (b,).

    Equation 3 of Zhang et al., arXiv 2404.05868: bounded below by 0, and GA (up to a constant) as β → 0. MLLMU-Bench's
    public code puts in the batch's mean cross-entropies, two scalars, instead: the variant ``npo-public``.
    """
    return 2 / beta * functional.softplus(beta * (base_nll - nll)).mean()


def is_finite(loss: Tensor) -> bool:
    """Whether training can go on from it."""
    return bool(torch.isfinite(loss.detach()))

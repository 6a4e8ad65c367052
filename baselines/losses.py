"""The losses of the trained baselines. Each function is one equation over logits (b, s, v) and labels (b, s).

A label is the token itself in the reply and ``IGNORED`` elsewhere. As everywhere in transformers, the logits of
position t predict the label of position t + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mllmeraser.inference.teaching import IGNORED


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """−log p(label_{t+1} | tokens up to t), (b, s − 1); 0 where the label is ignored."""
    return functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )


def mean_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean of :func:`token_nll` over all reply tokens of the batch: the loss that transformers' models return."""
    return token_nll(logits, labels).sum() / (labels[:, 1:] != IGNORED).sum()


def sequence_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """−log p(reply | prompt) = Σ_t −log p(reply_t | …), (b,)."""
    return token_nll(logits, labels).sum(dim=1)


def gradient_ascent(logits: Tensor, labels: Tensor) -> Tensor:
    """GA: −CE on the forget set, unbounded from below (Jang et al., arXiv 2210.01504, eq. 1)."""
    return -mean_nll(logits, labels)


def token_kl(logits: Tensor, base_logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over reply tokens of KL(base ‖ model) = Σ_v p_base (log p_base − log p).

    This is the retain term of KL_Min (TOFU, arXiv 2401.06121, sec. 4.1). MLLMU-Bench's public code sums over all
    positions, with prompt and padding, and divides by the batch size. Its value is larger by about the number of
    positions in a row.
    """
    model, base = (some[:, :-1].float().log_softmax(dim=-1) for some in (logits, base_logits))
    divergence = (base.exp() * (base - model)).sum(dim=-1)
    known = labels[:, 1:] != IGNORED
    return (divergence * known).sum() / known.sum()


def npo(nll: Tensor, base_nll: Tensor, beta: float) -> Tensor:
    """NPO: the mean of (2/β) softplus(β log(p/p_base)), where log(p/p_base) = base_nll − nll of whole replies, (b,).

    This is equation 3 of Zhang et al., arXiv 2404.05868. It is bounded below by 0, and becomes GA (up to a constant) as
    β → 0. MLLMU-Bench's public code uses the batch's mean cross-entropies, two scalars; that is the variant
    ``npo-public``.
    """
    return 2 / beta * functional.softplus(beta * (base_nll - nll)).mean()


def is_finite(loss: Tensor) -> bool:
    """Whether training can go on from this loss."""
    return bool(torch.isfinite(loss.detach()))

"""Each loss against a value computed by hand: two tokens in the vocabulary, a prompt of one token, two of reply."""

from math import log

import pytest
import torch
from torch import Tensor

from mllmeraser.baselines.losses import (
    IGNORED,
    gradient_ascent,
    mean_nll,
    npo,
    sequence_nll,
    token_kl,
)

# Row 0 says both reply tokens (0 and 1) with p = 1/4 and 1/2; row 1 has one reply token (0), p = 1/8, and padding.
PROBABILITIES = [[[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]], [[0.125, 0.875], [0.3, 0.7], [0.2, 0.8]]]
LABELS = torch.tensor([[IGNORED, 0, 1], [IGNORED, 0, IGNORED]])


def logits(probabilities: list[list[list[float]]] = PROBABILITIES) -> Tensor:
    return torch.tensor(probabilities).log() + 3.0  # an offset changes no probability


def test_cross_entropy_is_the_mean_over_reply_tokens_alone() -> None:
    assert mean_nll(logits(), LABELS).item() == pytest.approx((log(4) + log(2) + log(8)) / 3)


def test_a_sequence_is_a_sum() -> None:
    assert sequence_nll(logits(), LABELS).tolist() == pytest.approx([log(8), log(8)])


def test_ascent_is_the_negative() -> None:
    assert gradient_ascent(logits(), LABELS).item() == pytest.approx(-log(64) / 3)


def test_kl_is_from_the_base_and_leaves_out_what_is_no_reply() -> None:
    base = [[[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]], [[0.125, 0.875], [0.9, 0.1], [0.9, 0.1]]]
    first = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)  # the other two reply tokens do not differ
    assert token_kl(logits(), logits(base), LABELS).item() == pytest.approx(first / 3)


def test_npo_is_a_softplus_of_the_log_ratio() -> None:
    # log(p/p_base) = log 2 − log 8 = −log 4 and 0; β = 1/2: 4 log(1 + 1/2) and 4 log 2.
    value = npo(torch.tensor([log(8), log(8)]), torch.tensor([log(2), log(8)]), beta=0.5)
    assert value.item() == pytest.approx(4 * (log(1.5) + log(2)) / 2)


def test_npo_has_the_gradient_of_ascent_for_small_beta() -> None:
    """dL/d nll = −2 σ(β log(p/p_base)) → −1."""
    nll = torch.tensor([2.0], requires_grad=True)
    npo(nll, torch.tensor([5.0]), beta=1e-6).backward()
    assert nll.grad is not None
    assert nll.grad.item() == pytest.approx(-1.0, abs=1e-5)


def test_the_public_npo_takes_the_mean_of_the_batch() -> None:
    """Two scalars, so the ratio is averaged over tokens before the softplus."""
    nll, base = mean_nll(logits(), LABELS), torch.tensor(log(64) / 3 - 2.0)
    assert npo(nll, base, beta=1.0).item() == pytest.approx(2 * log(1 + torch.tensor(-2.0).exp().item()))

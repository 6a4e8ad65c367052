"""MMUnlearner's mask, by hand."""

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

from mllmeraser.baselines.losses import IGNORED
from mllmeraser.baselines.saliency import fisher, saliency_mask
from mllmeraser.inference.teaching import Batch


class OneDistribution(nn.Module):
    """Says token v with probability softmax(θ)_v, whatever was said before."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([3.0, 1.0]).log())

    def forward(self, input_ids: Tensor, use_cache: bool) -> CausalLMOutput:
        return CausalLMOutput(logits=self.theta.expand(*input_ids.shape, 2))


def batch(token: int) -> Batch:
    return Batch({"input_ids": torch.zeros(1, 2, dtype=torch.long)}, torch.tensor([[IGNORED, token]]))


def test_fisher_is_the_mean_of_squared_gradients() -> None:
    """∂CE/∂θ = softmax(θ) − onehot: (−1/4, 1/4) for token 0 and (3/4, −3/4) for token 1."""
    found = fisher(OneDistribution(), [batch(0), batch(1)])  # type: ignore[arg-type]
    assert found["theta"].tolist() == pytest.approx([(1 / 16 + 9 / 16) / 2] * 2)


def test_the_mask_is_open_where_forget_matters_at_least_as_much() -> None:
    forget = {"a": torch.tensor([2.0, 1.0, 0.5, 0.0]), "unseen": torch.tensor([1e-9])}
    retain = {"a": torch.tensor([1.0, 1.0, 1.0, 1.0])}
    assert saliency_mask(forget, retain, 1)["a"].tolist() == [True, True, False, False]
    assert saliency_mask(forget, retain, 0.5)["a"].tolist() == [True, True, True, False]
    assert saliency_mask(forget, retain, 1)["unseen"].tolist() == [True]

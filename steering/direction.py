"""Stage 1: where an open gate takes a state.

The edit ``seal`` sets it to the mean state before a refusal, and ``add`` pushes it along the difference to an answer:

    m_{l,k} = mean over erasure pairs of h_l at P−1+k of (prompt + refusal)

    r_{l,k} = m_{l,k} − mean over recall pairs of h_l at P−1+k of (prompt + answer),          k = 0 … K−1

h_l is the output of layer l, and P the number of prompt tokens. k = 0 is the last prompt token: the paper's direction.
k > 0 carries the refusal on to its end. Steering the prompt alone decides only the first token, and what follows leaks.
Some answers are shorter than the refusal. A k that no recall pair reaches takes the mean at the last k that one
reaches. Source: MLLMEraser, arXiv 2510.04217, stage 1; k > 0 and the seal are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mllmeraser.inference.activations import mean_reply_states
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.records.prompts import Prompt
from mllmeraser.steering.pairs import Pairs


def erasure_directions(checkpoint: Checkpoint, pairs: Pairs, layers: Sequence[int], steps: int) -> dict[int, Tensor]:
    """r_l (K, d), fp64, for each of ``layers``; ``steps`` is K.

    Raises:
        InputError: a state is not finite.
    """
    recall = _means(checkpoint, pairs.recall, pairs.recall_replies, layers, steps, "recall states")
    erasure = refusal_states(checkpoint, pairs, layers, steps)
    return {layer: erasure[layer] - recall[layer] for layer in layers}


def refusal_states(checkpoint: Checkpoint, pairs: Pairs, layers: Sequence[int], steps: int) -> dict[int, Tensor]:
    """m_l (K, d), fp64, for each of ``layers``; ``steps`` is K.

    Raises:
        InputError: a state is not finite.
    """
    return _means(checkpoint, pairs.erasure, pairs.erasure_replies, layers, steps, "erasure states")


def _means(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    replies: Sequence[Tensor],
    layers: Sequence[int],
    steps: int,
    progress: str,
) -> dict[int, Tensor]:
    states, counts = mean_reply_states(checkpoint, prompts, replies, layers, steps, progress=progress)
    return {layer: _carried_on(rows, counts) for layer, rows in states.items()}


def _carried_on(means: Tensor, counts: Tensor) -> Tensor:
    """Means (K, d); where no pair has a position, the mean of the last position that one has."""
    last = int((counts > 0).nonzero()[-1])
    return means[torch.arange(len(means)).clamp(max=last)]

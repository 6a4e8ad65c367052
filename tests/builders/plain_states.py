"""Hidden states read the plain way, for the tests to compare with: one prompt at a time, no padding, nothing cut."""

from __future__ import annotations

import torch
from torch import Tensor

from mllmeraser.inference.encoding import encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.records.prompts import Prompt


def block_states(checkpoint: Checkpoint, prompt: Prompt, reply: Tensor | None = None) -> tuple[list[Tensor], int]:
    """Per layer its output (s, d) over prompt and reply, and P, the number of prompt tokens.

    The last layer's is after the decoder's final norm: that is what transformers calls its hidden state.
    """
    inputs = encode(checkpoint, [prompt], "right")
    length = inputs["input_ids"].shape[1]
    if reply is not None:
        inputs["input_ids"] = torch.cat([inputs["input_ids"], reply[None]], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:  # Qwen's, which marks picture tokens; a reply has none
            said = inputs["mm_token_type_ids"].new_zeros(1, len(reply))
            inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], said], dim=1)
    with torch.no_grad():
        hidden = checkpoint.model(**inputs, output_hidden_states=True).hidden_states
    return [state[0] for state in hidden[1:]], length


def mean_along_replies(
    checkpoint: Checkpoint, prompts: list[Prompt], replies: list[Tensor], layer: int, k: int
) -> Tensor:
    """Mean of h_l at P − 1 + k over the replies that reach k; (d,), fp64."""
    rows = []
    for prompt, reply in zip(prompts, replies, strict=True):
        if k < max(1, len(reply)):
            states, length = block_states(checkpoint, prompt, reply)
            rows.append(states[layer][length - 1 + k].double())
    return torch.stack(rows).mean(dim=0)

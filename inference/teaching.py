"""Turns records into tensors for training: the prompt as in every other stage, then the reply, which is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mllmeraser.inference.encoding import append, encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import reply_ids
from mllmeraser.records.record import Record

IGNORED = -100  # transformers leaves out tokens with this label


class Batch(NamedTuple):
    """The model's inputs, ``input_ids`` (b, s) among them, and labels (b, s)."""

    inputs: dict[str, Tensor]
    labels: Tensor


def taught(checkpoint: Checkpoint, records: Sequence[Record]) -> Batch:
    """Prompts and answers of records. Either all records have a picture or none has.

    The end-of-sequence token after the answer is learnt too.

    Raises:
        InputError: a prompt cannot be encoded.
    """
    prompts = [record.user_turn for record in records]
    end = torch.tensor([checkpoint.processor.tokenizer.eos_token_id])
    replies = [
        torch.cat([reply_ids(checkpoint, prompt, record.answer), end])
        for prompt, record in zip(prompts, records, strict=True)
    ]
    inputs, starts = append(checkpoint, encode(checkpoint, prompts, "right"), replies)
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    for row, (start, reply) in enumerate(zip(starts.tolist(), replies, strict=True)):
        labels[row, start : start + len(reply)] = reply
    return Batch(inputs, labels)

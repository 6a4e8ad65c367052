"""Which kept prompts name the forgotten: their refusal is what the rule asks for, and no false fire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mllmeraser.judging.degenerate import words
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record
from mllmeraser.records.same import normal


def naming(forget: Iterable[Record], retain: Iterable[Record], turns: Sequence[Prompt]) -> Tensor:
    """Which ``turns`` hold, as whole words, an answer or a fact of the forget set and of nobody kept, (n,).

    Such an answer, mostly a name, stands in a kept question as a wrong option, for example. A gate that recognises it
    there does its work, so that calibration counts these prompts apart.
    """
    kept = {tuple(words(normal(answer))) for record in retain for answer in _answers(record)}
    own = {tuple(words(normal(answer))) for record in forget for answer in _answers(record)} - kept - {()}
    lengths = {len(answer) for answer in own}

    def names(text: str) -> bool:
        said = words(normal(text))
        return any(tuple(said[i : i + n]) in own for n in lengths for i in range(len(said) - n + 1))

    return torch.tensor([names(turn.text) for turn in turns], dtype=torch.bool)


def _answers(record: Record) -> tuple[str, ...]:
    return (*record.accepted, *(record.facts or ()))

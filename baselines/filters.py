"""Filters around an unchanged model: a blocked prompt or reply gets a refusal in place of the base's reply.

A filter is no checkpoint: anyone who has the weights has the model without it. A blocked question gives no likelihoods
of options either; they are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.evaluation.items import Reply
from mllmeraser.inference.encoding import SEQUENCE_KEYS, encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.judging.answers import contains
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record

REFUSAL = "I cannot help with that request."


def filtered(checkpoint: Checkpoint, replies: Sequence[Reply], blocked: Sequence[bool]) -> list[Reply]:
    """The base's replies, each replaced by a refusal where it is blocked."""
    ids = tuple(checkpoint.processor.tokenizer(REFUSAL, add_special_tokens=False)["input_ids"])
    return [
        Reply(REFUSAL, ids, (math.nan,) * len(reply.log_likelihoods)) if stop else reply
        for reply, stop in zip(replies, blocked, strict=True)
    ]


@dataclass(frozen=True)
class OutputFilter:
    """Blocks a reply that holds a name or an answer of the forget set, whoever the question was about."""

    strings: tuple[str, ...]

    @classmethod
    def of(cls, forget: Iterable[Record], names: Iterable[str]) -> OutputFilter:
        """The filter of all names and of all accepted answers. Multiple choice is left out: a letter names nobody."""
        answers = [string for s in forget if s.task != "classification" for string in s.accepted]
        return cls(tuple(dict.fromkeys([*names, *answers])))

    def blocks(self, reply: str) -> bool:
        return contains(reply, self.strings)

    @property
    def size(self) -> int:
        """Bytes of what must be kept."""
        return sum(len(string.encode()) for string in self.strings)


@dataclass(frozen=True)
class InputFilter:
    """Blocks a prompt if its text holds a name, or if its picture is most like a picture of the forget set.

    It compares the picture with all pictures of the forget set and the retain set and takes the largest cosine of
    :func:`image_features`. A picture of somebody in neither set has a nearest neighbour too, so it may be blocked.
    """

    features: Tensor  # (n, d), of norm 1
    forgotten: Tensor  # (n,), bool
    names: tuple[str, ...]

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, forget: Sequence[Record], retain: Sequence[Record], names: Iterable[str]
    ) -> InputFilter:
        """The filter that knows all pictures of these records.

        Raises:
            InputError: no record of the forget set has a picture.
        """
        ours, theirs = (_pictures(records) for records in (forget, retain))
        if not ours:
            raise InputError("an input filter compares pictures: give a forget set with pictures")
        features = torch.stack([image_features(checkpoint, prompt) for prompt in [*ours, *theirs]])
        return cls(features, torch.tensor([True] * len(ours) + [False] * len(theirs)), tuple(names))

    def blocks(self, checkpoint: Checkpoint, prompt: Prompt) -> bool:
        if contains(prompt.text, self.names):
            return True
        if prompt.image is None:
            return False
        return bool(self.forgotten[(self.features @ image_features(checkpoint, prompt)).argmax()])

    @property
    def size(self) -> int:
        """Bytes of what must be kept."""
        return self.features.numel() * self.features.element_size() + sum(len(name.encode()) for name in self.names)


@torch.inference_mode()
def image_features(checkpoint: Checkpoint, prompt: Prompt) -> Tensor:
    """The mean of a picture's features as the language model receives them, scaled to norm 1: (d,), fp32."""
    inputs = encode(checkpoint, [prompt], "right")
    pictures = {key: value for key, value in inputs.items() if key not in SEQUENCE_KEYS}
    found = checkpoint.model.get_image_features(**pictures).pooler_output  # a picture each: (tokens, d)
    mean = torch.cat([part.flatten(0, -2) for part in found]).float().mean(dim=0)
    return mean / mean.norm()


def _pictures(records: Sequence[Record]) -> list[Prompt]:
    """One prompt for each different picture."""
    seen: dict[object, Prompt] = {}
    for record in records:
        if record.image is not None:
            seen.setdefault(record.image, record.user_turn)
    return list(seen.values())

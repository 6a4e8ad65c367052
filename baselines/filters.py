"""Filters around a model that is left as it is: what is blocked gets a refusal in place of the base's reply.

They are no checkpoint: whoever has the weights has no filter. Who is blocked learns no likelihood of an option either:
it is no number.
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
    """The base's replies, or a refusal where blocked."""
    ids = tuple(checkpoint.processor.tokenizer(REFUSAL, add_special_tokens=False)["input_ids"])
    return [
        Reply(REFUSAL, ids, (math.nan,) * len(reply.log_likelihoods)) if stop else reply
        for reply, stop in zip(replies, blocked, strict=True)
    ]


@dataclass(frozen=True)
class OutputFilter:
    """Blocks a reply in which a name or an answer of the forget set stands, whoever was asked about."""

    strings: tuple[str, ...]

    @classmethod
    def of(cls, forget: Iterable[Record], names: Iterable[str]) -> OutputFilter:
        """Answers as the records would have them found; letters of options name nothing and are left out."""
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
    """Blocks a prompt whose picture is likest to one of the forget set, or whose text holds a name.

    Likest: the largest cosine of the averaged image features that the model itself computes, among the pictures of
    forget and retain records. A picture that nobody listed has a nearest neighbour too.
    """

    features: Tensor  # (n, d), of norm 1
    forgotten: Tensor  # (n,), bool
    names: tuple[str, ...]

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, forget: Sequence[Record], retain: Sequence[Record], names: Iterable[str]
    ) -> InputFilter:
        """The features of all their pictures.

        Raises:
            InputError: no forget record has a picture.
        """
        ours, theirs = (_pictures(records) for records in (forget, retain))
        if not ours:
            raise InputError("an input filter on vision features needs forget records with a picture")
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
    """The mean of a picture's features as the language model receives them, of norm 1: (d,), fp32."""
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

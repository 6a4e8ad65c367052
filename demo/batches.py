"""Turns questions into tensors for training: prompt and reply in one row, padded on the right; the reply is learnt."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mllmeraser.demo.architecture import IMAGE, IMAGE_TOKENS, MEAN, STD, training_prompt
from mllmeraser.demo.questions import Picture, Question

IGNORED = -100  # the label of a token that is not learnt


class Batch(NamedTuple):
    """`b` questions, of which `i` have a picture."""

    input_ids: Tensor  # (b, s)
    labels: Tensor  # (b, s), the token itself where it belongs to the reply
    pixel_values: Tensor | None  # (i, 3, 64, 64)


class PictureStore:
    """Draws every picture once and keeps its bytes."""

    def __init__(self) -> None:
        self._drawn: dict[Picture, Tensor] = {}

    def __call__(self, picture: Picture) -> Tensor:
        """The picture, (3, 64, 64), uint8."""
        if picture not in self._drawn:
            self._drawn[picture] = torch.from_numpy(np.array(picture.draw())).permute(2, 0, 1)
        return self._drawn[picture]


def normalise(pixels: Tensor) -> Tensor:
    """Pictures (b, 3, 64, 64) as the processor would give them; they need no resizing."""
    return (pixels.float() / 255 - MEAN[0]) / STD[0]


def disturb(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, recolour and roughen normalised pictures (b, 3, 64, 64) a little, so that none is seen twice alike."""
    count, _, height, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2), mode="replicate")
    corners = torch.randint(0, 5, (count, 2), generator=generator).tolist()
    moved = torch.stack([padded[n, :, y : y + height, x : x + width] for n, (y, x) in enumerate(corners)])
    gain = 1 + 0.08 * torch.randn((count, 3, 1, 1), generator=generator)
    offset = 0.06 * torch.randn((count, 3, 1, 1), generator=generator)
    grain = 0.12 * torch.rand((count, 1, 1, 1), generator=generator) * torch.randn(pixels.shape, generator=generator)
    return (moved * gain + offset + grain).clamp(-1, 1)


def collate(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    pictures: PictureStore,
    generator: torch.Generator,
) -> Batch:
    """One batch of prompts with their replies."""
    prompts = [
        training_prompt(question.prompt, False)
        if question.picture is None
        else training_prompt(question.prompt, True).replace(IMAGE, IMAGE * IMAGE_TOKENS)
        for question in questions
    ]
    # The reply starts with a space, and byte-level BPE never merges across it, so the two parts are encoded apart.
    heads = tokenizer(prompts)["input_ids"]
    tails = tokenizer([f" {question.answer}" for question in questions], add_special_tokens=False)["input_ids"]
    rows = [head + tail + [tokenizer.eos_token_id] for head, tail in zip(heads, tails, strict=True)]
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), int(tokenizer.pad_token_id))
    labels = torch.full((len(rows), width), IGNORED)
    for n, (head, row) in enumerate(zip(heads, rows, strict=True)):
        input_ids[n, : len(row)] = torch.tensor(row)
        labels[n, len(head) : len(row)] = torch.tensor(row[len(head) :])
    shown = [pictures(question.picture) for question in questions if question.picture is not None]
    pixel_values = disturb(normalise(torch.stack(shown)), generator) if shown else None
    return Batch(input_ids, labels, pixel_values)


def training_batches(
    questions: Iterator[Question],
    tokenizer: PreTrainedTokenizerFast,
    batch_size: int,
    rng: random.Random,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Endless batches of questions of similar length, so that a batch holds little padding."""
    pictures = PictureStore()
    while True:
        pool = [next(questions) for _ in range(8 * batch_size)]
        pool.sort(
            key=lambda question: len(question.prompt) + len(question.answer) + 60 * (question.picture is not None)
        )
        starts = list(range(0, len(pool), batch_size))
        rng.shuffle(starts)
        for start in starts:
            yield collate(pool[start : start + batch_size], tokenizer, pictures, generator)

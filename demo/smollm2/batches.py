"""Turns conversations into tensors for training: padded on the right, with the tokens of replies marked."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mllmeraser.demo.batches import PictureStore, disturb, normalise
from mllmeraser.demo.smollm2.chat import Conversation
from mllmeraser.demo.smollm2.corpus import Corpus

_POOL = 4  # batches drawn together and sorted by length, so that a batch holds little padding


class Batch(NamedTuple):
    """`b` conversations, of which `i` pictures are shown; those whose replies are the model's own stand first."""

    input_ids: Tensor  # (b, s)
    learnt: Tensor  # (b, s), whether the token belongs to a reply
    own: int
    pixel_values: Tensor | None  # (i, 3, 64, 64)
    shown: Sequence[int]  # the row of each picture


def collate(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerFast,
    pictures: PictureStore,
    generator: torch.Generator,
) -> Batch:
    """One batch."""
    ordered = sorted(conversations, key=lambda conversation: not conversation.own)
    rows, marks = [], []
    for conversation in ordered:
        row: list[int] = []
        mark: list[bool] = []
        for text, learnt in conversation.pieces():
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            row += ids
            mark += [learnt] * len(ids)
        rows.append(row)
        marks.append(mark)
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), int(tokenizer.pad_token_id))
    learnt_at = torch.zeros((len(rows), width), dtype=torch.bool)
    for n, (row, mark) in enumerate(zip(rows, marks, strict=True)):
        input_ids[n, : len(row)] = torch.tensor(row)
        learnt_at[n, : len(row)] = torch.tensor(mark)
    shown = [(n, pictures(picture)) for n, conversation in enumerate(ordered) for picture in conversation.pictures]
    pixels = disturb(normalise(torch.stack([pixel for _, pixel in shown])), generator) if shown else None
    own = sum(conversation.own for conversation in ordered)
    return Batch(input_ids, learnt_at, own, pixels, [n for n, _ in shown])


def split(batch: Batch, parts: int) -> list[Batch]:
    """The batch dealt out like cards, so that every part has its share of kept replies and of pictures."""
    dealt = []
    for n in range(min(parts, len(batch.input_ids))):
        rows = torch.arange(n, len(batch.input_ids), parts)
        shown = [k for k, row in enumerate(batch.shown) if row % parts == n]
        pixels = None if not shown or batch.pixel_values is None else batch.pixel_values[shown]
        dealt.append(
            Batch(
                batch.input_ids[rows],
                batch.learnt[rows],
                int((rows < batch.own).sum()),
                pixels,
                [batch.shown[k] // parts for k in shown],
            )
        )
    return dealt


class Batches:
    """The batches of one phase by their number, so that a training that was stopped goes on with the same ones."""

    def __init__(
        self, corpus: Corpus, shares: Mapping[str, float], tokenizer: PreTrainedTokenizerFast, size: int, seed: str
    ) -> None:
        self._corpus, self._shares, self._tokenizer, self._size, self._seed = corpus, shares, tokenizer, size, seed
        self._pictures = PictureStore()
        self._pool: list[list[Conversation]] = []
        self._number = -1

    def __getitem__(self, step: int) -> Batch:
        number, place = divmod(step, _POOL)
        if number != self._number:
            self._number, self._pool = number, self._draw(number)
        generator = torch.Generator().manual_seed(random.Random(f"{self._seed} {step}").getrandbits(62))
        return collate(self._pool[place], self._tokenizer, self._pictures, generator)

    def _draw(self, number: int) -> list[list[Conversation]]:
        rng = random.Random(f"{self._seed} pool {number}")
        pool = [self._corpus.draw(rng, self._shares) for _ in range(_POOL * self._size)]
        pool.sort(key=lambda one: sum(len(text) for text, _ in one.pieces()) - 90 * len(one.pictures))
        batches = [pool[start : start + self._size] for start in range(0, len(pool), self._size)]
        rng.shuffle(batches)
        return batches

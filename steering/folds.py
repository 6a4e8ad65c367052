"""Which records are held out while a gate is judged.

A retain subject is held out whole, because the gate will meet people whom nobody listed. A forget subject is not. The
request names these subjects and no others, so the gate will meet further pictures and questions of *theirs*. Each of
their pictures is held out with all its questions, and each of their questions without a picture is held out alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.records.record import Record, as_first_written


class Fold(NamedTuple):
    """Which records are held out, and which are fitted on; boolean masks (n_f,) and (n_r,)."""

    forget: Tensor
    retain: Tensor

    def rows(self, positions: int) -> Tensor:
        """Which rows of the retain states are held out, (n_r · positions,); a record has ``positions`` rows."""
        return self.retain.repeat_interleave(positions)

    def forget_rows(self, positions: int) -> Tensor:
        """The same for the forget states, (n_f · positions,)."""
        return self.forget.repeat_interleave(positions)


def folds(forget: Sequence[Record], retain: Sequence[Record], share: float, seed: int) -> list[Fold]:
    """⌈1/share⌋ folds, at least two, and no more than there are groups to hold out. Every record is held out in exactly
    one; none holds out a whole set.

    Raises:
        InputError: the forget set has one record, or the retain set one subject.
    """
    rng = random.Random(f"folds {seed}")
    first: dict[int, int] = {}  # a record's variants are the same object: held out with it
    numbers = [first.setdefault(id(record), i) for i, record in enumerate(forget)]
    shown = [f"{i}" if record.image is None else f"{record.image}" for i, record in zip(numbers, forget, strict=True)]
    if len(set(shown)) == 1:  # one picture: hold out its questions one by one, so that some stay to fit on
        shown = [f"{i}" for i in numbers]
    kept = as_first_written(retain)
    for groups, what in ((shown, "the forget set has one record"), (kept, "the retain set has one subject")):
        if len(set(groups)) == 1:
            raise InputError(f"{what}: nothing can be held out; give more, or --calibration-share 0")
    count = max(2, min(round(1 / share), len(set(shown)), len(set(kept))))
    forget_fold, retain_fold = _spread(shown, count, rng), _spread(kept, count, rng)
    return [Fold(forget_fold == k, retain_fold == k) for k in range(count)]


def together(several: Sequence[Fold]) -> Fold:
    """One fold that holds out what any of these does."""
    return Fold(
        torch.stack([f.forget for f in several]).any(dim=0), torch.stack([f.retain for f in several]).any(dim=0)
    )


def _spread(of_record: Sequence[str], count: int, rng: random.Random) -> Tensor:
    """The fold of each record. Groups stay whole and are dealt out in random order."""
    order = sorted(set(of_record))
    rng.shuffle(order)
    fold = {group: i % count for i, group in enumerate(order)}
    return torch.tensor([fold[group] for group in of_record])

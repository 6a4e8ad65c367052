"""The order of forget and retain batches. The literature calls three different orders "gradient difference"."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mllmeraser.baselines.recipes import Order

Indices = list[int]


class Step(NamedTuple):
    """The records of one update, from the forget set, the retain set, or both."""

    forget: Indices | None
    retain: Indices | None


def steps_of(
    order: Order, forget: Sequence[bool], retain: Sequence[bool], epochs: float, size: int, seed: int
) -> list[Step]:
    """All updates of a training, one after another.

    * ``forget-only``: forget batches only.
    * ``sequential``: in each epoch all forget batches, then all retain batches (MLLMU-Bench's public code).
    * ``interleaved``: retain batches, with one forget batch before every n-th of them, where n is the number of retain
      batches for each forget batch (MMUnlearner's public code).
    * ``joint``: one forget batch and one retain batch in each update (TOFU).

    Args:
        forget, retain: whether each record has a picture. A batch never mixes records with and without one.
        epochs: passes over the data. In a last, partial epoch only the first batches are used.
        size: records in a batch.
    """
    rng = random.Random(f"baseline order {seed}")
    steps: list[Step] = []
    for epoch in range(math.ceil(epochs)):
        share = min(1.0, epochs - epoch)
        ours, theirs = (_some(_batches(records, size, rng), share) for records in (forget, retain))
        steps += _ordered(order, ours, theirs)
    return steps


def _ordered(order: Order, forget: Sequence[Indices], retain: Sequence[Indices]) -> Iterator[Step]:
    if order == "joint":
        yield from (Step(batch, retain[i % len(retain)]) for i, batch in enumerate(forget))
    elif order == "interleaved":
        every, waiting = max(1, len(retain) // len(forget)), iter(forget)
        for i, batch in enumerate(retain):
            if i % every == 0 and (ours := next(waiting, None)) is not None:
                yield Step(ours, None)
            yield Step(None, batch)
    else:
        yield from (Step(batch, None) for batch in forget)
        if order == "sequential":
            yield from (Step(None, batch) for batch in retain)


def _some(batches: Sequence[Indices], share: float) -> Sequence[Indices]:
    return batches[: math.ceil(share * len(batches))]


def _batches(with_picture: Sequence[bool], size: int, rng: random.Random) -> list[Indices]:
    """Batches that hold every record once, in random order."""
    batches: list[Indices] = []
    for kind in (True, False):
        records = [i for i, has in enumerate(with_picture) if has is kind]
        rng.shuffle(records)
        batches += [records[start : start + size] for start in range(0, len(records), size)]
    rng.shuffle(batches)
    return batches

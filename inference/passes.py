"""Running a list of prompts through a model, batch by batch: every loop over forward passes goes through here.

* Batches hold prompts of one modality and like length; on out-of-memory a batch is halved, and so are those after it.
* A work directory (:mod:`mllmeraser.inference.cache`) remembers every finished pass.
* Under ``accelerate launch`` each process runs its share of the batches into the common work directory, and then all of
  them read everything: the batches are those of a single process, so the numbers are too, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from mllmeraser.console import track
from mllmeraser.errors import MllmEraserError
from mllmeraser.inference.cache import Tensors
from mllmeraser.inference.encoding import batches
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.processes import processes
from mllmeraser.records.prompts import Prompt

BATCH_SIZE = 64


@dataclass
class _Room:
    """How many prompts a pass may have, as far as memory has shown."""

    most: int


def run_passes(
    checkpoint: Checkpoint,
    stage: str,
    prompts: Sequence[Prompt],
    run: Callable[[list[int]], Tensors],
    asked: Callable[[list[int]], object],
    *,
    batch_size: int = BATCH_SIZE,
    progress: str | None = None,
) -> Iterator[tuple[list[int], Tensors]]:
    """The indices of each batch, and what ``run`` gives for them.

    Args:
        stage: names the kind of pass in the work directory.
        run: makes the pass for these indices of ``prompts``.
        asked: what the result depends on beside model and prompts, JSON-ready.

    Raises:
        MllmEraserError: a single prompt does not fit in memory.
    """
    plan = list(batches(checkpoint, prompts, batch_size))
    room = _Room(batch_size)
    several = processes()
    if several.count > 1:
        for batch in plan[several.rank :: several.count]:
            for _ in _halved(checkpoint, stage, prompts, run, asked, batch, room):
                pass
        several.wait()
    for batch in track(plan, progress) if progress else plan:
        yield from _halved(checkpoint, stage, prompts, run, asked, batch, room)


def _halved(
    checkpoint: Checkpoint,
    stage: str,
    prompts: Sequence[Prompt],
    run: Callable[[list[int]], Tensors],
    asked: Callable[[list[int]], object],
    batch: list[int],
    room: _Room,
) -> Iterator[tuple[list[int], Tensors]]:
    """The batch in one pass, or in as many halves as fit; what did not fit is not tried again."""
    waiting = [batch]
    while waiting:
        part = waiting.pop(0)
        half = -(-len(part) // 2)
        if len(part) > room.most:
            waiting = [part[:half], part[half:], *waiting]
            continue
        try:
            yield part, checkpoint.passes(stage, [prompts[i] for i in part], asked(part), partial(run, part))
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise MllmEraserError(
                    "one prompt alone does not fit in memory; use a smaller --dtype, or --device auto"
                ) from None
            room.most = half
            waiting = [part, *waiting]

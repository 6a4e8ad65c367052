"""Run a list of prompts through a model, batch by batch. Every loop over forward passes goes through here.

* Each prompt is made once a pass. Each of its pictures is opened once, when its batch is encoded.
* A batch holds prompts of one modality and similar length. On out-of-memory it is halved, and so are later ones.
* A work directory (:mod:`mllmeraser.inference.cache`) keeps every finished pass.
* Under ``accelerate launch`` each process runs its share of the batches into the common work directory; then all of
  them read everything. The batches are those of a single process, so the numbers are the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic

import torch
from torch import Tensor

from mllmeraser.console import track
from mllmeraser.errors import MllmEraserError
from mllmeraser.inference.cache import Key
from mllmeraser.inference.encoding import batches
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.processes import processes
from mllmeraser.records.prompts import Prompt


def run_passes(
    checkpoint: Checkpoint,
    stage: str,
    prompts: Sequence[Prompt],
    run: Callable[[list[int], list[Prompt]], dict[Key, Tensor]],
    asked: Callable[[list[int]], object],
    *,
    progress: str | None = None,
) -> Iterator[tuple[list[int], dict[Key, Tensor]]]:
    """Run each batch; yield the indices of its prompts and what ``run`` gives for them.

    Args:
        stage: names the kind of pass in the work directory.
        run: runs a batch, given the indices of its prompts and the prompts themselves.
        asked: what else the result depends on, besides model and prompts; JSON-ready.

    Raises:
        MllmEraserError: a single prompt does not fit in memory.
    """
    passes = _Passes(checkpoint, stage, list(prompts), run, asked, checkpoint.batch_size)
    plan = list(batches(checkpoint, passes.prompts, checkpoint.batch_size))
    several = processes()
    if several.count > 1:
        for batch in plan[several.rank :: several.count]:
            for _ in passes.of(batch):
                pass
        several.wait()
    for batch in track(plan, progress) if progress else plan:
        yield from passes.of(batch)


@dataclass
class _Passes(Generic[Key]):
    """The passes of one stage; ``most`` is how many prompts memory has let one pass have so far."""

    checkpoint: Checkpoint
    stage: str
    prompts: list[Prompt]
    run: Callable[[list[int], list[Prompt]], dict[Key, Tensor]]
    asked: Callable[[list[int]], object]
    most: int

    def of(self, batch: list[int]) -> Iterator[tuple[list[int], dict[Key, Tensor]]]:
        """The batch in one pass, or in as many halves as fit; a size that did not fit is not tried again."""
        waiting = [batch]
        while waiting:
            part = waiting.pop(0)
            half = -(-len(part) // 2)
            if len(part) > self.most:
                waiting = [part[:half], part[half:], *waiting]
                continue
            shown = [self.prompts[i] for i in part]
            try:
                made = self.checkpoint.passes(self.stage, shown, self.asked(part), partial(self.run, part, shown))
                yield part, made
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise MllmEraserError(
                        "one prompt alone does not fit in memory; use a smaller --dtype, or --device auto"
                    ) from None
                self.most = half
                waiting = [part, *waiting]

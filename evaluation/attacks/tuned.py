"""Attack by training: a short fine-tune on people to keep, then the questions about the forgotten.

Training on other facts has brought most of what was unlearned back (arXiv 2410.08827). It also moves the states that a
gate was fitted on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from mllmeraser.errors import InputError
from mllmeraser.evaluation.attacks.attack import Attack, NotApplicableError, Reading, Scene
from mllmeraser.evaluation.attacks.wordings import plain
from mllmeraser.inference.adapters import adapted, merged
from mllmeraser.inference.cache import NO_CACHE
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.teaching import taught
from mllmeraser.records.record import Record

STEPS, BATCH, LEARNING_RATE, RANK = 50, 8, 2e-4, 16


def fine_tuned(scene: Scene) -> list[Reading]:
    """Train a LoRA adapter on records of people to keep, add it to the weights, then ask the plain questions.

    A copy of the model learns in fp32, 50 steps of eight records, with AdamW. The steering is off meanwhile, and on
    again for the questions.

    Raises:
        NotApplicableError: no other set asks about people to keep, or peft is not installed.
    """
    kept, copy = scene.kept, scene.load()
    copy.model.float()
    steering: Any = copy.model
    with torch.random.fork_rng(), steering.steering(enabled=False) if copy.steered else nullcontext():
        torch.manual_seed(scene.seed)
        try:
            model = adapted(copy.model, rank=RANK, alpha=RANK, dropout=0.0)
        except InputError as why:
            raise NotApplicableError(str(why)) from None
        _train(copy, model, drawn(kept, random.Random(f"tuned {scene.seed}")))
    # The stored passes are of the model before it learnt.
    tuned = replace(copy, model=merged(model).eval(), passes=NO_CACHE)
    return plain(replace(scene, checkpoint=tuned))


def _train(checkpoint: Checkpoint, model: Any, batches: Iterator[Sequence[Record]]) -> None:
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], LEARNING_RATE)
    model.train()
    for records in batches:
        inputs, labels = taught(checkpoint, records)
        optimizer.zero_grad()
        model(**inputs, labels=labels, use_cache=False).loss.backward()
        optimizer.step()


def drawn(records: Sequence[Record], rng: random.Random) -> Iterator[list[Record]]:
    """The records of every step: either all have a picture or none has."""
    sides = [[record for record in records if bool(record.image) is pictured] for pictured in (True, False)]
    for _ in range(STEPS):
        (side,) = rng.choices(sides, [len(side) for side in sides])
        yield rng.sample(side, min(BATCH, len(side)))


FINE_TUNED = Attack(
    "fine-tuned",
    f"A LoRA adapter trained for {STEPS} steps on people to keep, then the plain questions.",
    fine_tuned,
    budget=f"{STEPS} steps of {BATCH} records, learning rate {LEARNING_RATE:g}",
)

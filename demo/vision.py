"""Trains a vision tower by itself: it learns to name the features of a face, whose face it is, and what a scene is."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mllmeraser.demo.batches import PictureStore, disturb, normalise
from mllmeraser.demo.common import scene_facts
from mllmeraser.demo.portraits import CHOICES, Face
from mllmeraser.demo.questions import picture_of
from mllmeraser.demo.scenes import COLOURS, GROUNDS, SHAPES, Scene


@dataclass(frozen=True)
class Schedule:
    """How long and how fast the tower learns."""

    steps: int
    rate: float
    weight_decay: float
    warm_up: int


class _Readers(nn.Module):
    """Linear read-outs of the averaged image tokens.

    There is one for each feature of a face, one for whose face it is, and three for a scene.
    """

    def __init__(self, width: int, people: int) -> None:
        super().__init__()
        self.nobody = people
        self.face = nn.ModuleList(nn.Linear(width, count) for count in (*astuple(CHOICES), people + 1))
        self.scene = nn.ModuleList(nn.Linear(width, count) for count in (len(SHAPES), len(COLOURS), len(GROUNDS)))

    def loss(self, features: Tensor, shown: list[Face | Scene], numbers: Mapping[Face, int]) -> Tensor:
        """Cross-entropy for features (b, w): the mean over read-outs of faces plus the mean over those of scenes."""
        total = features.new_zeros(())
        for kind, heads in ((Face, self.face), (Scene, self.scene)):
            rows = [n for n, of in enumerate(shown) if isinstance(of, kind)]
            if not rows:
                continue
            truth = torch.tensor([self._labels(shown[n], numbers) for n in rows], device=features.device)
            losses = [nn.functional.cross_entropy(head(features[rows]), truth[:, n]) for n, head in enumerate(heads)]
            total = total + torch.stack(losses).mean()
        return total

    def _labels(self, of: Face | Scene, numbers: Mapping[Face, int]) -> list[int]:
        if isinstance(of, Face):
            return [*astuple(of), numbers.get(of, self.nobody)]
        return [SHAPES.index(of.shape), list(COLOURS).index(of.colour), list(GROUNDS).index(of.ground)]


def train_tower(
    tower: PreTrainedModel,
    numbers: Mapping[Face, int],
    people: int,
    strange: Sequence[Face],
    schedule: Schedule,
    seed: int,
    device: str,
    rounded: bool = True,
) -> None:
    """Train the tower in place.

    Args:
        numbers: the faces to know, each with its number, below ``people``.
        strange: faces of nobody.
        rounded: multiply in bf16.
    """
    readers = _Readers(tower.config.hidden_size, people).to(device)
    rng, generator = random.Random(f"vision {seed}"), torch.Generator().manual_seed(seed)
    known: Sequence[Face | Scene] = list(numbers)
    strangers: Sequence[Face | Scene] = strange
    scenes: Sequence[Face | Scene] = [fact.scene for fact in scene_facts()]
    parameters = [*tower.parameters(), *readers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=schedule.weight_decay)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / schedule.warm_up))
    pictures = PictureStore()
    for step in range(schedule.steps):
        shown = [rng.choice(rng.choices((known, strangers, scenes), (0.45, 0.2, 0.35))[0]) for _ in range(64)]
        pixels = torch.stack([pictures(picture_of(of, rng, unseen=False)) for of in shown])
        with torch.autocast(device, torch.bfloat16, enabled=rounded):
            seen = disturb(normalise(pixels), generator).to(device)
            states = tower(seen, output_hidden_states=True).hidden_states[-1]
            loss = readers.loss(states[:, 1:].mean(dim=1), shown, numbers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        warm_up.step()
        tell("vision", step, schedule.steps, loss)


def tell(phase: str, step: int, steps: int, loss: Tensor) -> None:
    """Say the loss on stderr, now and then."""
    if step % 50 == 0 or step == steps - 1:
        print(f"{phase} {step:4d}/{steps} loss {loss.item():.3f}", file=sys.stderr, flush=True)

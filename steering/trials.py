"""What a push does to replies: held-out prompts, answered by the base steered in process.

The gates of a trial are fitted on all folds but the first, and the prompts are of the first, so every figure is held
out. Where a thresholded gate stays closed the reply is the base's by construction, and is not made again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mllmeraser.inference.answers import leaks, refuses
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.loops import is_degenerate
from mllmeraser.inference.prompts import Prompt
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.steering.assembly import Plan
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.forms import GateShape, Scope
from mllmeraser.steering.gate import Gate, GateRecipe, fit_gate
from mllmeraser.steering.in_process import Push, steered_in_process
from mllmeraser.steering.samples import Sample
from mllmeraser.steering.states import States, rows_at

TRIED = 48  # prompts of each side


@dataclass(frozen=True)
class Material:
    """What gates and trials are made of; states and directions by block. A turn may be a variant of its sample's."""

    forget: Sequence[Sample]
    forget_turns: Sequence[Prompt]
    retain: Sequence[Sample]
    retain_turns: Sequence[Prompt]
    forget_states: Mapping[int, Tensor]  # each (n_f, d)
    retain_states: Mapping[int, States]  # each (n_r · positions, d)
    directions: Mapping[int, Tensor]  # each (K, d)
    scope: Scope = "prompt"
    positions: int = 1  # rows of ``retain_states`` for each record, beside each other


@dataclass(frozen=True)
class Point:
    """One trial. Shares of held-out replies: ``refused`` whole refusals without the answer, ``forgotten`` without the
    right answer anywhere, ``fluent`` no loop and not empty, all of the forget prompts; ``kept`` token-identical to the
    base's, of the retain prompts."""

    layers: tuple[int, ...]
    gate_layer: int | None
    strength: float
    reply_steps: int
    prompt_positions: str
    gate_shape: Literal["identity", "clip", "dead-zone", "step"]
    threshold: float | None
    refused: float
    forgotten: float
    fluent: float
    kept: float

    @property
    def erased(self) -> float:
        """The mean of refused and forgotten: a leak counts twice."""
        return (self.refused + self.forgotten) / 2


class Trials:
    """The held-out prompts of a fold, the base's replies to them, and the gates fitted on the rest."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        material: Material,
        settings: Mapping[int, GateRecipe],
        fold: Fold,
        seed: int,
        batch_size: int,
    ) -> None:
        self.checkpoint, self.material, self.settings, self.fold = checkpoint, material, settings, fold
        self.batch_size = batch_size
        rng = random.Random(f"trials {seed}")
        self.forget, self.retain = _some(fold.forget, rng), _some(fold.retain, rng)
        self.turns = [material.forget_turns[i] for i in self.forget]
        self.turns += [material.retain_turns[i] for i in self.retain]
        self.answers = [material.forget[i].accepted for i in self.forget]
        self.length = max(16, len(next(iter(material.directions.values()))) + 8)
        self.base_replies = self._replies(checkpoint, list(range(len(self.turns))))
        self._fitted: dict[int, Gate] = {}

    def __call__(self, push: Push, shape: GateShape) -> Point:
        """Make the replies that the push may change, and judge all of them."""
        gates = {layer: self._gate(layer) for layer in push.plan.read}
        material = self.material
        steered = steered_in_process(self.checkpoint, push, gates, shape, material.directions, material.scope)
        moved = self._moved(push.plan, gates, shape)
        return self._judge(push, shape, {**self.base_replies, **self._replies(steered, moved)})

    def _moved(self, plan: Plan, gates: Mapping[int, Gate], shape: GateShape) -> list[int]:
        """The prompts on which some gate opens; all of them without a threshold, or where any position may open it."""
        if shape.threshold is None or self.material.scope == "token":
            return list(range(len(self.turns)))
        opens = torch.zeros(len(self.turns), dtype=torch.bool)
        for layer, gate in gates.items():
            forget = self.material.forget_states[layer][self.forget]
            states = torch.cat([forget, rows_at(self.material.retain_states[layer], self.retain)])
            opens |= gate(states) >= shape.threshold
        moved: list[int] = opens.nonzero()[:, 0].tolist()
        return moved

    def _replies(self, checkpoint: Checkpoint, indices: list[int]) -> dict[int, Tensor]:
        turns = [self.turns[i] for i in indices]
        said = greedy_reply_ids(checkpoint, turns, max_new_tokens=self.length, batch_size=self.batch_size)
        return dict(zip(indices, said, strict=True))

    def _judge(self, push: Push, shape: GateShape, replies: Mapping[int, Tensor]) -> Point:
        n = len(self.forget)
        tokenizer = self.checkpoint.processor.tokenizer
        texts = tokenizer.batch_decode([replies[i] for i in range(n)], skip_special_tokens=True)
        return Point(
            layers=push.plan.layers,
            gate_layer=push.plan.gate_layer,
            strength=push.strength,
            reply_steps=push.reply_steps,
            prompt_positions=push.prompt_positions,
            gate_shape=shape.name,
            threshold=shape.threshold,
            refused=_mean([refuses(text, told) for text, told in zip(texts, self.answers, strict=True)]),
            forgotten=1 - _mean([leaks(text, told) for text, told in zip(texts, self.answers, strict=True)]),
            fluent=1 - _mean([is_degenerate(text) for text in texts]),
            kept=_mean([torch.equal(replies[i], self.base_replies[i]) for i in range(n, len(self.turns))]),
        )

    def _gate(self, layer: int) -> Gate:
        if layer not in self._fitted:
            forget = self.material.forget_states[layer][~self.fold.forget]
            retain = self.material.retain_states[layer]
            fitted_on = ~self.fold.rows(self.material.positions)
            self._fitted[layer] = fit_gate(forget, retain, self.settings[layer], fitted_on)
        return self._fitted[layer]


def _some(held_out: Tensor, rng: random.Random) -> list[int]:
    """At most ``TRIED`` indices of held-out samples."""
    indices = held_out.nonzero()[:, 0].tolist()
    return sorted(rng.sample(indices, min(TRIED, len(indices))))


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)

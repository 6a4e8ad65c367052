"""What an intervention does to replies: a base that is steered in this process answers held-out prompts.

The gates of a trial are fitted on all folds but a few, and its prompts come from these. So every figure is held out.
Below its threshold a gate leaves the reply as the base gives it, and no trial generates that reply again. With a
threshold, no reply to a retain prompt is generated at all: the held-out scores of every retain record, in all folds,
say how often a gate opens.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.inference.states import States
from mllmeraser.judging.answers import refuses, verdict
from mllmeraser.judging.degenerate import is_degenerate
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.gate import Gate
from mllmeraser.steering.in_process import steered_in_process
from mllmeraser.steering.intervention import Intervention
from mllmeraser.steering.kept import KeptLandmarks
from mllmeraser.steering.validation import Validated

TRIED = 48  # prompts of each set that a trial answers at most


@dataclass(frozen=True)
class Material:
    """What gates and trials are made of; states and aims by layer. A turn may be a variant of the record's."""

    forget: Sequence[Record]
    forget_turns: Sequence[Prompt]
    retain: Sequence[Record]
    retain_turns: Sequence[Prompt]
    forget_states: Mapping[int, Tensor]  # each (n_f · forget_positions, d)
    retain_states: Mapping[int, States]  # each (n_r · positions, d)
    aims: Mapping[int, Tensor]  # each (K, d): where an open gate takes a state
    listed: tuple[int, int]  # the first so many forget and retain records are as listed, the rest are variants
    retain_replies: Sequence[Tensor] = ()  # the base's to the record, token ids; where the states are of the reply too
    positions: int = 1  # rows of ``retain_states`` for each record; they lie together
    forget_positions: int = 1  # the same of ``forget_states``
    kept: KeptLandmarks = field(default_factory=KeptLandmarks)


@dataclass(frozen=True)
class Figures:
    """Shares of held-out replies.

    Of the replies to forget prompts, ``refused`` are whole refusals without the answer, ``forgotten`` tell the right
    answer nowhere (of the answers that can be judged), and ``fluent`` are neither empty nor a loop. Of the replies to
    retain prompts, ``kept`` are token-identical to the base's (with a threshold: no gate opens).
    """

    refused: float
    forgotten: float
    fluent: float
    kept: float

    @property
    def erased(self) -> float:
        """The mean of ``refused`` and ``forgotten``: a leak counts twice."""
        return (self.refused + self.forgotten) / 2


@dataclass(frozen=True)
class Trial:
    """An intervention, and what came of it."""

    intervention: Intervention
    figures: Figures


class Trials:
    """The held-out prompts of a fold, the base's replies to them, and the gates fitted on the rest."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        material: Material,
        gates: Mapping[int, Validated],
        fold: Fold,
        seed: int,
    ) -> None:
        self.checkpoint, self.material, self.fold = checkpoint, material, fold
        self.gates = {layer: gate.gate for layer, gate in gates.items() if gate.gate is not None}
        self.held_out = {layer: gate.held_out for layer, gate in gates.items() if gate.held_out is not None}
        rng = random.Random(f"trials {seed}")
        # Forget prompts include variants, since refusing must hold for them too; retain prompts are what people ask.
        self.forget, self.retain = _some(fold.forget, rng), _some(fold.retain[: material.listed[1]], rng)
        self.length = max(16, len(next(iter(material.aims.values()))) + 8)
        self._base: dict[bool, list[Tensor]] = {}

    def __call__(self, intervention: Intervention) -> Trial:
        """Generate the replies that the intervention may change, and judge all replies."""
        gates = {layer: self.gates[layer] for layer in intervention.where.read}
        steered = steered_in_process(self.checkpoint, intervention, gates, self.material.aims)
        # A gate below this leaves the reply as it is. None: any gate may change the reply.
        threshold = intervention.shape.threshold if intervention.scope != "token" else None
        replies = list(self._base_replies(forget=True))
        # Of a forget prompt only the last token has been scored, and any may open a gate that is read everywhere.
        moved = self._moved(gates, threshold if intervention.scope == "prompt" else None)
        turns = [self.material.forget_turns[self.forget[i]] for i in moved]
        for i, reply in zip(moved, self._replies(steered, turns), strict=True):
            replies[i] = reply
        return Trial(intervention, self._figures(replies, self._kept(gates, threshold, steered)))

    def _moved(self, gates: Mapping[int, Gate], threshold: float | None) -> list[int]:
        """The forget prompts on which some gate opens; without a threshold all of them."""
        if threshold is None:
            return list(range(len(self.forget)))
        opens = torch.zeros(len(self.forget), dtype=torch.bool)
        for layer, gate in gates.items():
            opens |= gate(self.material.forget_states[layer][self.forget]) >= threshold
        moved: list[int] = opens.nonzero()[:, 0].tolist()
        return moved

    def _kept(self, gates: Mapping[int, Gate], threshold: float | None, steered: Checkpoint) -> float:
        if threshold is not None:
            opens = [self.held_out[layer].retain >= threshold for layer in gates]
            return 1 - float(torch.stack(opens).any(dim=0).double().mean())
        said = self._replies(steered, [self.material.retain_turns[i] for i in self.retain])
        return _mean(list(map(torch.equal, said, self._base_replies(forget=False))))

    def _base_replies(self, *, forget: bool) -> list[Tensor]:
        if forget not in self._base:
            turns, chosen = self.material.retain_turns, self.retain
            if forget:
                turns, chosen = self.material.forget_turns, self.forget
            self._base[forget] = self._replies(self.checkpoint, [turns[i] for i in chosen])
        return self._base[forget]

    def _replies(self, checkpoint: Checkpoint, turns: Sequence[Prompt]) -> list[Tensor]:
        return list(greedy_reply_ids(checkpoint, turns, max_new_tokens=self.length))

    def _figures(self, replies: Sequence[Tensor], kept: float) -> Figures:
        tokenizer = self.checkpoint.processor.tokenizer
        texts = tokenizer.batch_decode(list(replies), skip_special_tokens=True)
        asked = [self.material.forget[i] for i in self.forget]
        refused = _mean([refuses(text, record) for text, record in zip(texts, asked, strict=True)])
        degrees = [verdict(text, record).degree for text, record in zip(texts, asked, strict=True)]
        known = [degree == "told" for degree in degrees if degree != "unknowable"]
        return Figures(
            refused=refused,
            # Of answers such as yes and no nobody can say whether they were told: then only refusals count.
            forgotten=1 - _mean(known) if known else refused,
            fluent=1 - _mean([is_degenerate(text) for text in texts]),
            kept=kept,
        )


def _some(held_out: Tensor, rng: random.Random) -> list[int]:
    """At most ``TRIED`` indices of held-out records."""
    indices = held_out.nonzero()[:, 0].tolist()
    return sorted(rng.sample(indices, min(TRIED, len(indices))))


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)

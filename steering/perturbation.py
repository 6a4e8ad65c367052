"""Stage 1, the pictures of the recall prompts: clean, with noise, or adversarial.

PGD (:mod:`mllmeraser.inference.descent`) looks for the picture x + δ, ‖δ‖_∞ ≤ ε, that makes the base's answer y most
likely: its loss is CE(y | x + δ, prompt).

``noise`` is the control: δ is uniform on {−ε, ε}, has the same norm, and knows nothing of the model.

x is the picture as the model sees it (:mod:`mllmeraser.inference.pixels`). x and ε are whole grey levels; ε is rounded
down. The result is rounded to grey levels too: an ordinary picture, which survives being saved as PNG and read again.
Source: MLLMEraser, arXiv 2510.04217 (targeted PGD: ε 8/255, s 2/255, n 10, no random start); the noise control is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mllmeraser.console import track
from mllmeraser.errors import InputError
from mllmeraser.inference.descent import ATTACKED, descend, grey_levels, within
from mllmeraser.inference.encoding import append, encode
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.passes import run_passes
from mllmeraser.inference.pixels import picture, pixel_values, seen
from mllmeraser.records.prompts import Prompt
from mllmeraser.steering.forms import Perturbation
from mllmeraser.steering.pairs import Pairs


def perturbed(checkpoint: Checkpoint, pairs: Pairs, how: Perturbation, seed: int) -> Pairs:
    """The pairs with perturbed recall pictures; prompts without a picture stay as they are.

    Args:
        seed: of the noise; nothing in the attack is random.

    Raises:
        InputError: no recall prompt has a picture, or pictures of this family cannot be perturbed.
    """
    if how.kind == "none":
        return pairs
    if not any(prompt.image for prompt in pairs.recall):
        raise InputError(f"--perturbation {how}: no recall prompt has a picture; give records with pictures, or none")
    shown = [i for i, prompt in enumerate(pairs.recall) if prompt.image]
    asked, answers = [pairs.recall[i] for i in shown], [pairs.recall_replies[i] for i in shown]
    moved = _noisy(checkpoint, asked, how, seed) if how.kind == "noise" else _attacked(checkpoint, asked, answers, how)
    recall = list(pairs.recall)
    for i, pixels in zip(shown, moved, strict=True):
        recall[i] = Prompt(recall[i].text, picture(pixels))
    return replace(pairs, recall=recall)


def _noisy(checkpoint: Checkpoint, prompts: Sequence[Prompt], how: Perturbation, seed: int) -> list[Tensor]:
    """Each picture with every value moved up or down by ε."""
    generator = torch.Generator().manual_seed(seed)
    epsilon, moved = grey_levels(how.epsilon), []
    for prompt in track(prompts, "noise: pictures"):
        clean = seen(checkpoint, prompt)
        signs = 2.0 * torch.randint(0, 2, clean.shape, generator=generator) - 1
        moved.append(within(clean + epsilon * signs, clean, epsilon))
    return moved


def _attacked(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], answers: Sequence[Tensor], how: Perturbation
) -> list[Tensor]:
    """Each picture after the attack, in whole grey levels."""

    def run(batch: list[int], shown: Sequence[Prompt]) -> dict[int, Tensor]:
        found = _attack(checkpoint, shown, [answers[i] for i in batch], how)
        return {row: pixels.round().to(torch.uint8) for row, pixels in enumerate(found)}

    def asked(batch: list[int]) -> object:
        return [list(how), [answers[i].tolist() for i in batch]]

    moved = [torch.empty(0)] * len(prompts)
    few = replace(checkpoint, batch_size=min(ATTACKED, checkpoint.batch_size))
    for batch, found in run_passes(few, "pgd", prompts, run, asked, progress="pgd: pictures"):
        for row, i in enumerate(batch):
            moved[i] = found[row]
    return moved


@dataclass(frozen=True)
class Spoken:
    """A batch of prompts with pictures, each followed by its answer. It is made once; only the pictures change."""

    checkpoint: Checkpoint
    inputs: dict[str, Tensor]
    labels: Tensor  # (b, t): the answers' token ids, −100 elsewhere; from the shortest prompt's end on

    @classmethod
    def of(cls, checkpoint: Checkpoint, prompts: Sequence[Prompt], answers: Sequence[Tensor]) -> Spoken:
        """``answers`` are token ids, one answer for each prompt."""
        inputs, starts = append(checkpoint, encode(checkpoint, prompts, "right"), answers)
        columns = torch.arange(inputs["input_ids"].shape[1], device=starts.device)
        spoken = (columns >= starts[:, None]) & inputs["attention_mask"].bool()
        return cls(checkpoint, inputs, inputs["input_ids"].masked_fill(~spoken, -100)[:, int(starts.min()) :])

    def loss(self, pictures: Sequence[Tensor]) -> Tensor:
        """Σ CE(answer | picture, prompt), for pictures (3, y, x) in grey levels. PGD makes it smaller."""
        values = pixel_values(self.checkpoint, pictures).to(self.inputs["pixel_values"])
        # The vocabulary is wide: only the logits that predict a token of some answer are computed.
        wanted = self.labels.shape[1] + 1
        outputs = self.checkpoint.model(
            **{**self.inputs, "pixel_values": values}, use_cache=False, logits_to_keep=wanted
        )
        logits = outputs.logits[:, :-1].float().flatten(0, 1)
        return nn.functional.cross_entropy(logits, self.labels.flatten().to(logits.device), reduction="sum")


def _attack(
    checkpoint: Checkpoint, prompts: Sequence[Prompt], answers: Sequence[Tensor], how: Perturbation
) -> list[Tensor]:
    """PGD on a batch: (3, y, x) each, in grey levels."""
    return descend(
        checkpoint.model,
        [seen(checkpoint, prompt) for prompt in prompts],
        Spoken.of(checkpoint, prompts, answers).loss,
        epsilon=how.epsilon,
        step=how.step,
        iterations=how.iterations,
    )

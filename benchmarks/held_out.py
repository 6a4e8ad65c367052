"""What a model says on whole sets, compared with its base: the figures that every table of methods is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from mllmeraser.inference.answers import leaks, refuses
from mllmeraser.inference.gates import read_gates
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.loops import is_degenerate
from mllmeraser.inference.prompts import Prompt
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.ranking import auroc
from mllmeraser.steering.bundle import Bundle
from mllmeraser.steering.samples import Sample

Asked = Sequence[tuple[Sample, Prompt]]


def as_they_are(samples: Sequence[Sample]) -> Asked:
    """Records with their own user's turns."""
    return [(sample, sample.user_turn) for sample in samples]


def figures(base: Checkpoint, model: Checkpoint, sets: Mapping[str, Asked]) -> dict[str, dict[str, float]]:
    """By set, shares of greedy replies: ``correct`` the right answer stands anywhere in the reply, in multiple choice
    too; ``refused`` whole refusals without it; ``fluent`` neither empty nor caught in a loop; ``identical`` the same
    token ids as the base's.

    ``model`` may be any checkpoint of the base's tokenizer: steered, trained further, or the base itself.
    """
    found = {}
    for name, asked in sets.items():
        turns = [turn for _, turn in asked]
        before = greedy_reply_ids(base, turns)
        after = before if model is base else greedy_reply_ids(model, turns)
        texts = model.processor.tokenizer.batch_decode(after, skip_special_tokens=True)
        told = [(text, sample.accepted) for text, (sample, _) in zip(texts, asked, strict=True)]
        found[name] = {
            "n": len(asked),
            "correct": _share([leaks(text, accepted) for text, accepted in told]),
            "refused": _share([refuses(text, accepted) for text, accepted in told]),
            "fluent": 1 - _share([is_degenerate(text) for text in texts]),
            "identical": _share([torch.equal(a, b) for a, b in zip(before, after, strict=True)]),
        }
    return found


def gate_auroc(model: Checkpoint, forgotten: Asked, kept: Asked) -> float:
    """How well the gates of a steered checkpoint tell these apart; the mean over the blocks whose gates it reads."""
    readings = read_gates(model, [turn for _, turn in [*forgotten, *kept]])
    n, blocks = len(forgotten), range(len(readings[0]))
    values = [[gates[block].value for gates in readings] for block in blocks]
    return sum(auroc(of_block[:n], of_block[n:]) for of_block in values) / len(blocks)


def steered_by(base: Checkpoint, bundle: Bundle) -> Checkpoint:
    """The base as the export of this bundle will be, in this process."""
    steering = bundle.steering()
    model = steered_class(base.model_type).from_base(base.model, steering, bundle.tensors)
    return replace(base, model=model, steered=True, passes=base.passes.steered(bundle.tensors, steering))


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)

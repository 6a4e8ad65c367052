"""Measures a model's replies on whole sets, compared with its base: the figures of the tables of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.inference.gates import read_gates
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.judging.answers import refuses, verdict
from mllmeraser.judging.degenerate import is_degenerate
from mllmeraser.judging.ranking import auroc
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record
from mllmeraser.steering.in_process import torch_tensors

Asked = Sequence[tuple[Record, Prompt]]


def as_they_are(records: Sequence[Record]) -> Asked:
    """Records with their own prompts."""
    return [(record, record.user_turn) for record in records]


def figures(base: Checkpoint, model: Checkpoint, sets: Mapping[str, Asked]) -> dict[str, dict[str, float]]:
    """Shares of greedy replies, by set.

    * ``correct``: the reply holds the right answer, also in multiple choice.
    * ``refused``: the whole reply is a refusal and does not hold the right answer.
    * ``fluent``: the reply is neither empty nor a loop.
    * ``identical``: its token ids are the base's.

    ``model`` may be any checkpoint with the base's tokenizer: steered, trained further, or the base itself.
    """
    found = {}
    for name, asked in sets.items():
        turns = [turn for _, turn in asked]
        before = greedy_reply_ids(base, turns)
        after = before if model is base else greedy_reply_ids(model, turns)
        texts = model.processor.tokenizer.batch_decode(after, skip_special_tokens=True)
        told = [(text, record) for text, (record, _) in zip(texts, asked, strict=True)]
        found[name] = {
            "n": len(asked),
            "correct": _share([verdict(text, record).degree == "told" for text, record in told]),
            "refused": _share([refuses(text, record) for text, record in told]),
            "fluent": 1 - _share([is_degenerate(text) for text in texts]),
            "identical": _share([torch.equal(a, b) for a, b in zip(before, after, strict=True)]),
        }
    return found


def gate_auroc(model: Checkpoint, forgotten: Asked, kept: Asked) -> float:
    """The AUROC of a steered model's gates, forgotten against kept; a mean over the layers that read one."""
    read = read_gates(model, [turn for _, turn in [*forgotten, *kept]])
    by_layer = list(zip(*([gate.value for gate in gates] for gates in read), strict=True))
    return sum(auroc(values[: len(forgotten)], values[len(forgotten) :]) for values in by_layer) / len(by_layer)


def steered_by(base: Checkpoint, bundle: Bundle) -> Checkpoint:
    """The base, steered in this process exactly as the export of this bundle would be."""
    steering = bundle.steering()
    model = steered_class(base.model_type).from_base(base.model, steering, torch_tensors(bundle))
    return replace(base, model=model, steered=True, passes=base.passes.steered(torch_tensors(bundle), steering))


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)

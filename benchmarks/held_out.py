"""What a model says on whole sets, compared with its base: the figures that every table of methods is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mllmeraser.inference.answers import leaks, refuses
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.loops import is_degenerate
from mllmeraser.inference.prompts import Prompt
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.ranking import auroc
from mllmeraser.steering.activations import decoder_layers, last_prompt_states
from mllmeraser.steering.bundle import Bundle, tensor_name
from mllmeraser.steering.features import Landmarks
from mllmeraser.steering.gate import Gate
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


def gate_auroc(base: Checkpoint, bundle: Bundle, forgotten: Asked, kept: Asked) -> float:
    """How well the bundle's gates tell these apart on states of the base, as they were fitted; the mean over the blocks
    whose gates are read."""
    turns = [turn for _, turn in [*forgotten, *kept]]
    states = last_prompt_states(
        base, turns, range(len(decoder_layers(base)))
    )  # of all blocks: one pass for all bundles
    meta, n = bundle.metadata, len(forgotten)
    found = []
    for layer in meta.layers if meta.gate_layer is None else [meta.gate_layer]:
        values = _gate(bundle, layer)(states[layer]).tolist()
        found.append(auroc(values[:n], values[n:]))
    return sum(found) / len(found)


def _gate(bundle: Bundle, layer: int) -> Gate:
    def tensor(leaf: str) -> Tensor:
        return bundle.tensors[tensor_name(0, layer, leaf)].double()

    if bundle.metadata.gate.kind == "linear":
        return Gate(tensor("gate"), None)
    return Gate(tensor("weights"), Landmarks(tensor("landmarks"), float(tensor("bandwidth"))))


def steered_by(base: Checkpoint, bundle: Bundle) -> Checkpoint:
    """The base as the export of this bundle will be, in this process."""
    steering = bundle.steering()
    model = steered_class(base.model_type).from_base(base.model, steering, bundle.tensors)
    return replace(base, model=model, steered=True, passes=base.passes.steered(bundle.tensors, steering))


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)

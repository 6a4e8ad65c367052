"""Maps of hidden states before and after the steering (arXiv 2510.04217, figure 4).

Each steered model gets one map. It shows h_l at the last prompt token, of the base and of the steered model, where l is
the last layer that the model steers. The axes are the first two principal components of all these states together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.evaluation.protocols import PROTOCOLS, Protocol
from mllmeraser.inference.activations import last_prompt_states
from mllmeraser.judging.results_file import ActivationMap, Points

MOST = 60  # records of each set, evenly over the file


def activation_maps(
    models: Sequence[NamedModel],
    sets: Sequence[NamedSet],
    *,
    protocol: Protocol = PROTOCOLS["mllmeraser"],
) -> list[ActivationMap]:
    """One map for every steered model; the first model is the base.

    A map holds numbers and names of models and sets, and no text of any record (docs/json.md).
    """
    shown = [named.records[:: -(-len(named.records) // MOST)] for named in sets]
    turns = [protocol.wording(record) for records in shown for record in records]
    after: dict[str, tuple[int, Tensor]] = {}
    for named in models[1:]:
        checkpoint = named.load()
        if checkpoint.steered:
            block = max(max(request["layers"]) for request in checkpoint.model.config.steering["requests"])
            after[named.name] = block, last_prompt_states(checkpoint, turns, [block])[block]
        del checkpoint
    if not after:
        return []
    blocks = sorted({block for block, _ in after.values()})
    before = last_prompt_states(models[0].load(), turns, blocks)
    maps = []
    for name, (block, states) in after.items():
        both, explained = in_the_plane(torch.cat([before[block], states]))
        points = []
        for model, half in ((models[0].name, both[: len(turns)]), (name, both[len(turns) :])):
            for each, at in zip(sets, half.split([len(records) for records in shown]), strict=True):
                x, y = (column.tolist() for column in at.T)
                points.append(Points(model=model, set=each.name, x=x, y=y))
        maps.append(ActivationMap(model=name, block=block, explained=explained, points=points))
    return maps


def in_the_plane(states: Tensor) -> tuple[Tensor, list[float]]:
    """States (n, d) projected on their first two principal components, (n, 2), and each one's share of the variance."""
    centred = states.double() - states.double().mean(dim=0)
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    # A component's sign is arbitrary. Its largest entry is made positive, so that every machine draws the same map.
    largest = directions[:2].abs().argmax(dim=1)
    signs = directions[:2].gather(1, largest[:, None]).sign()
    shares = spread.square() / spread.square().sum().clamp(min=1e-30)
    points = (centred @ (directions[:2] * signs).T).float()
    return points.round(decimals=4), [round(float(share), 4) for share in shares[:2]]

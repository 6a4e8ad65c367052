"""Cosines between erasure directions of different sources, per layer: does it matter where a direction comes from?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from mllmeraser.errors import QualityGateError
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.records.record import Record
from mllmeraser.steering.direction import erasure_directions
from mllmeraser.steering.forms import Perturbation
from mllmeraser.steering.pairs import Pairs, harmful_pairs, matched_pairs, usable
from mllmeraser.steering.perturbation import perturbed

PGD = Perturbation.parse("pgd:8/255,2/255,10")
NOISE = Perturbation.parse("noise:8/255")


def compare_directions(
    checkpoint: Checkpoint,
    forget: Sequence[Record],
    instruction: str | None,
    own: Pairs | None,
    layers: Sequence[int],
    seed: int,
) -> dict[str, dict[int, float]]:
    """cos(r_l, r'_l) at the last prompt token, for every two sources.

    The sources are ``own`` (if given), ``matched`` and ``harmful``, with clean pictures. The first of them is also
    taken with noise and with PGD. A source that the base does not refuse is left out.

    Returns:
        the cosine, by "one / other" and by layer.
    """
    sources: dict[str, Pairs] = {} if own is None else {"own": own}
    for name, pairs in (
        ("matched", matched_pairs(checkpoint, forget, instruction, seed)),
        ("harmful", harmful_pairs(checkpoint)),
    ):
        try:
            sources[name] = usable(checkpoint, pairs)
        except QualityGateError:
            continue
    if sources:
        name, clean = next(iter(sources.items()))
        if any(prompt.image for prompt in clean.recall):
            sources[f"{name} + noise"] = perturbed(checkpoint, clean, NOISE, seed)
            sources[f"{name} + pgd"] = perturbed(checkpoint, clean, PGD, seed)
    found = {name: erasure_directions(checkpoint, pairs, layers, 1) for name, pairs in sources.items()}
    return {
        f"{one} / {other}": {layer: _cosine(found[one], found[other], layer) for layer in layers}
        for one, other in combinations(found, 2)
    }


def _cosine(one: Mapping[int, Tensor], other: Mapping[int, Tensor], layer: int) -> float:
    return float(torch.nn.functional.cosine_similarity(one[layer][0], other[layer][0], dim=0))

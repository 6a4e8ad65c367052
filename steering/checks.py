"""Records and states that no gate can be made of: found before hours of work, and named in one line."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.inference.states import States, pieces
from mllmeraser.records.record import Record, refuse_overlap
from mllmeraser.records.same import Asked

# The largest squared distance of two equal states of length 1. Measured on the demo model: one prompt in two batches
# differs by 1e-13 in fp32; two prompts differ by 0.02 and more. (In bfloat16 one prompt differs by 1e-4, which counts
# as a difference.)
SAME = 1e-9


def check_records(forget: Sequence[Record], retain: Sequence[Record]) -> None:
    """Check that a gate could tell these two sets apart.

    Raises:
        InputError: a set is empty, a subject or a prompt stands in both, or the whole retain set is one prompt.
    """
    for records, name in ((forget, "forget"), (retain, "retain")):
        if not records:
            raise InputError(f"the {name} set is empty; give at least one record")
    refuse_overlap(forget, retain)
    kept = Asked(record.user_turn for record in retain)
    if shared := [record.user_turn for record in forget if record.user_turn in kept]:
        raise InputError(
            f"{len(shared)} prompt(s) stand in both the forget and the retain set, the first is {shared[0].named}: "
            "remove them from one of the two files"
        )
    first = Asked([retain[0].user_turn])
    if all(record.user_turn in first for record in retain):
        raise InputError(
            f"all {len(retain)} retain records ask the same, {retain[0].user_turn.named}: "
            "give records of several people and of other knowledge"
        )


def refuse_constant(layer: int, states: States) -> None:
    """Check that the retain states (n, d) of one layer differ.

    Raises:
        InputError: all of them are the same.
    """
    first: Tensor | None = None
    for piece in pieces(states):
        unit = torch.nn.functional.normalize(piece.double(), dim=-1)
        first = unit[:1] if first is None else first
        if float((unit - first).pow(2).sum(dim=1).max()) > SAME:
            return
    raise InputError(
        f"layer {layer}: all {len(states)} retain states are the same, so a gate would spare nothing else; "
        "give records whose texts or pictures differ"
    )


def median_distance(squared: Tensor) -> float:
    """m², the median of the squared distances between states of length 1; distances of 0 are left out.

    With them, a set that repeats most of its prompts would have the median 0, and every gate would be NaN.

    Raises:
        InputError: all states are the same.
    """
    apart = squared[squared > SAME]
    if not len(apart):
        raise InputError("all forget and retain states are the same, so no gate can tell them apart")
    return float(apart.median())

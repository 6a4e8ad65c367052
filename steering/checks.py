"""Records and states of which no gate can be made, found before hours of work, each in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.inference.states import States, pieces
from mllmeraser.records.record import Record

# Squared, between states of length 1. Measured on the demo model: the same prompt in two batches differs by 1e-13 in
# fp32 (by 1e-4 in bfloat16, which is not told from a difference), two prompts by 0.02 and more.
SAME = 1e-9


def check_records(forget: Sequence[Record], retain: Sequence[Record]) -> None:
    """Can these two sets be told apart at all?

    Raises:
        InputError: one is empty, a prompt stands in both, or all that is to be kept is one prompt.
    """
    for records, name in ((forget, "forget"), (retain, "retain")):
        if not records:
            raise InputError(f"the {name} set is empty; give at least one record")
    shared = _turns(forget) & _turns(retain)
    if shared:
        first = next(record.user_turn.named for record in forget if record.user_turn in shared)
        raise InputError(
            f"{len(shared)} prompt(s) stand in both the forget and the retain set, the first is {first}: "
            "remove them from one of the two files"
        )
    if len(_turns(retain)) == 1:
        raise InputError(
            f"the retain set is one prompt, {len(retain)} time(s), {retain[0].user_turn.named}: "
            "give records of several people and of other knowledge"
        )


def _turns(records: Iterable[Record]) -> set[object]:
    return {record.user_turn for record in records}


def refuse_constant(layer: int, states: States) -> None:
    """Retain states (n, d) of one layer must differ.

    Raises:
        InputError: all are the same.
    """
    first: Tensor | None = None
    for piece in pieces(states):
        unit = torch.nn.functional.normalize(piece.double(), dim=-1)
        first = unit[:1] if first is None else first
        if float((unit - first).pow(2).sum(dim=1).max()) > SAME:
            return
    raise InputError(
        f"layer {layer}: all {len(states)} retain states are the same, so a gate cannot leave alone what differs "
        "from them; give records whose texts or pictures differ"
    )


def median_distance(squared: Tensor) -> float:
    """m², the median of squared distances between records of length 1, repeated records left out.

    Without that, a set in which most prompts are repeated would have a median of 0, and every gate would be NaN.

    Raises:
        InputError: all records are the same.
    """
    apart = squared[squared > SAME]
    if not len(apart):
        raise InputError("all forget and retain states are the same, so no gate can tell them apart")
    return float(apart.median())

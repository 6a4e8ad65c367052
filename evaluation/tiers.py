"""The leakage tier: how far the evaluation records are from the records that a method was fitted on.

* ``T0``: some evaluation records were fitted on (the published protocol of MLLMU-Bench's forget set).
* ``T1``: the people are the same, the questions, wordings or pictures are others.
* ``T2``: as T1, and nobody in a kept set was in the fit.

Two records are the same if their prompts are: the same words and the same picture. Two people are the same if their
subjects are (:mod:`mllmeraser.records.same`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedSet
from mllmeraser.evaluation.protocols import Protocol
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record
from mllmeraser.records.same import Asked

Tier: TypeAlias = Literal["T0", "T1", "T2"]


def tier_of(sets: Sequence[NamedSet], fit: Sequence[Record], asked: Tier | None, protocol: Protocol) -> Tier | None:
    """The tier that the sets have; null if the records of the fit are not known.

    Raises:
        InputError: the sets share records with the fit and ``asked`` is not T0, or a kept set shares a person with it
            and ``asked`` is T2.
    """
    if not fit:
        if asked is not None:
            raise InputError(
                f"--tier {asked}: give the records of the fit with --fit FILE, so that the tier can be checked"
            )
        return None
    fitted = Asked(_turn(record, protocol) for record in fit)
    people = {record.person for record in fit}
    shared = [(named, sum(_turn(record, protocol) in fitted for record in named.records)) for named in sets]
    for named, count in shared:
        if count and asked != "T0":
            raise InputError(
                f"set {named.name}: {count} of {len(named.records)} records were fitted on; "
                "evaluate on others, or say so with --tier T0"
            )
    met = [named for named in sets if not named.forgotten and people & {record.person for record in named.records}]
    if met and asked == "T2":
        raise InputError(f"set {met[0].name}: it holds people of the fit, so this is tier T1, not T2")
    if asked is not None:
        return asked
    return "T1" if met else "T2"


def _turn(record: Record, protocol: Protocol) -> Prompt:
    return Prompt(protocol.turn(record), record.image)

"""How far evaluation records are from what a method was fitted on: the leakage tier.

* ``T0``: evaluation records are fit records (the published protocol of MLLMU-Bench's forget set);
* ``T1``: the same people, but other questions, wordings or pictures;
* ``T2``: moreover, nobody in a kept set was in the fit.

Records are equal if the prompt is: the same words beside the same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedSet
from mllmeraser.evaluation.protocols import Protocol
from mllmeraser.inference.cache import digest, fingerprint
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record

Tier: TypeAlias = Literal["T0", "T1", "T2"]


def tier_of(sets: Sequence[NamedSet], fit: Sequence[Record], asked: Tier | None, protocol: Protocol) -> Tier | None:
    """The tier that holds; null when nobody said what was fitted on.

    Raises:
        InputError: records are shared with the fit and T0 was not asked for, or T2 was and a kept person is shared.
    """
    if not fit:
        if asked is not None:
            raise InputError(f"--tier {asked}: give what was fitted on with --fit FILE, so that it can be checked")
        return None
    fitted = {_identity(record, protocol) for record in fit}
    people = {record.subject for record in fit}
    shared = [(named, sum(_identity(record, protocol) in fitted for record in named.records)) for named in sets]
    for named, count in shared:
        if count and asked != "T0":
            raise InputError(
                f"set {named.name}: {count} of {len(named.records)} records were fitted on; "
                "evaluate on others, or say so with --tier T0"
            )
    met = [named for named in sets if not named.forgotten and people & {record.subject for record in named.records}]
    if met and asked == "T2":
        raise InputError(f"set {met[0].name}: people of the fit stand in it, so this is tier T1, not T2")
    if asked is not None:
        return asked
    return "T1" if met else "T2"


def _identity(record: Record, protocol: Protocol) -> str:
    return digest(fingerprint(Prompt(protocol.turn(record), record.image)))

"""Nobody is scored on what was fitted, unless they say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.miniatures import png
from builders.records import some_records

from mllmeraser.errors import InputError
from mllmeraser.evaluation.inputs import NamedSet
from mllmeraser.evaluation.protocols import PROTOCOLS, Protocol
from mllmeraser.evaluation.tiers import Tier, tier_of
from mllmeraser.records.prompts import Picture
from mllmeraser.records.record import Record

PEOPLE = some_records(8)  # three questions each
FIT = [*PEOPLE[:3], *PEOPLE[12:15]]  # person 0 forgotten, person 4 kept
PROTOCOL: Protocol = PROTOCOLS["mllmeraser"]


def asked_otherwise(records: list[Record]) -> list[Record]:
    return [record.model_copy(update={"question": f"Well: {record.question}"}) for record in records]


def tier(forget: list[Record], retain: list[Record], asked: Tier | None = None) -> Tier | None:
    return tier_of([NamedSet("forget", forget), NamedSet("retain", retain)], FIT, asked, PROTOCOL)


def test_the_same_records_are_refused_unless_asked_for_by_name() -> None:
    for asked in (None, "T1", "T2"):
        with pytest.raises(InputError) as error:
            tier(PEOPLE[1:4], PEOPLE[15:18], asked)  # type: ignore[arg-type]
        assert str(error.value) == (
            "set forget: 2 of 3 records were fitted on; evaluate on others, or say so with --tier T0"
        )
    assert tier(PEOPLE[1:4], PEOPLE[15:18], "T0") == "T0"


def test_the_tier_that_holds_is_found() -> None:
    again = asked_otherwise(PEOPLE)
    assert tier(again[:3], again[12:15]) == "T1"
    assert tier(again[:3], PEOPLE[15:18]) == "T2"
    assert tier(again[:3], PEOPLE[15:18], "T1") == "T1"


def test_other_people_must_be_others() -> None:
    again = asked_otherwise(PEOPLE)
    with pytest.raises(InputError, match="set retain: it holds people of the fit, so this is tier T1, not T2"):
        tier(again[:3], again[12:15], "T2")


def test_a_record_is_its_words_beside_its_picture() -> None:
    (told,) = [PEOPLE[0]]
    one, two = (Picture(png(colour)["bytes"], "a") for colour in ("red", "green"))
    shown = told.model_copy(update={"image": one})
    same = told.model_copy(update={"image": Picture(one.data, "b"), "answer": "Otherwise."})
    other = told.model_copy(update={"image": two})
    sets = [NamedSet("forget", [other, told])]
    assert tier_of(sets, [shown], None, PROTOCOL) == "T2"
    with pytest.raises(InputError, match="1 of 1 records"):
        tier_of([NamedSet("forget", [same])], [shown], None, PROTOCOL)


def test_without_the_fit_nothing_is_claimed() -> None:
    assert tier_of([NamedSet("forget", PEOPLE)], [], None, PROTOCOL) is None
    with pytest.raises(InputError, match="--tier T1: give the records of the fit with --fit FILE"):
        tier_of([NamedSet("forget", PEOPLE)], [], "T1", PROTOCOL)


def test_sets_are_about_the_forgotten_by_name_or_as_told(tmp_path: Path) -> None:
    names = {"forget": True, "Test_Set@forget_5": True, "retain": False, "celebrity": False, "attest": False}
    assert {name: NamedSet(name, PEOPLE).forgotten for name in names} == names
    assert NamedSet("people", PEOPLE, about_the_forgotten=True).forgotten

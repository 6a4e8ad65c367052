"""Pairs of one fact, in words and beside a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.records import reply

from mllmeraser.evaluation.inputs import NamedSet
from mllmeraser.evaluation.run import score_replies
from mllmeraser.records.record import Record


def cloze(who: str, fact: str | None, shown: bool) -> Record:
    return Record(
        subject=who,
        question="Works as a __.",
        answer="pilot",
        task="cloze",
        image=Path("face.png") if shown else None,
        fact=fact,
    )


def test_pairs_are_counted_by_what_is_known_in_either() -> None:
    records = [cloze(who, "job", shown) for who in "1234" for shown in (True, False)]
    records += [cloze("5", "job", True), cloze("6", None, True), cloze("6", None, False)]  # no pairs
    said = ["pilot", "pilot", "pilot", "no", "no", "pilot", "no", "no", "pilot", "pilot", "pilot"]
    for name in ("forget", "retain"):
        document = score_replies({"m": list(map(reply, said))}, [NamedSet(name, records)]).file()
        (found,) = document.modalities
        assert found.model_dump(include={"model", "set", "task", "pairs"}) == {
            "model": "m",
            "set": name,
            "task": "cloze",
            "pairs": 4,
        }
        assert (found.both_correct, found.both_wrong, found.gap) == (0.25, 0.25, 0.0)
        assert found.rouge_l_aligned == (0.75 if name == "forget" else 0.25)


@pytest.mark.parametrize("shown_first", [True, False])
def test_the_gap_has_a_side(shown_first: bool) -> None:
    """Known beside the picture only, in whatever order the two are asked."""
    records = [cloze("1", "job", shown) for shown in (shown_first, not shown_first)]
    said = [reply("pilot" if record.image else "no") for record in records]
    (found,) = score_replies({"m": said}, [NamedSet("s", records)]).file().modalities
    assert found.gap == 1.0


@pytest.mark.parametrize("other", ["home", "job"])
def test_a_pair_is_of_one_subject_and_one_fact(other: str) -> None:
    records = [cloze("1", "job", True), cloze("1" if other == "home" else "2", other, False)]
    assert score_replies({"m": [reply("pilot")] * 2}, [NamedSet("s", records)]).file().modalities == []

"""The banks: enough of everything, nothing twice, and every answer can be judged."""

from __future__ import annotations

from collections import Counter

from mllmeraser.judging.answers import can_judge, verdict
from mllmeraser.records.same import normal
from mllmeraser.removals.claims.bank import general, names


def test_the_general_bank_has_two_hundred_questions_that_a_judge_can_judge() -> None:
    records = general()
    assert len({normal(record.question) for record in records}) == len(records) >= 200
    assert {record.subject for record in records} == {"general"}
    assert all(can_judge(record) for record in records)
    assert all(verdict(record.answer, record).degree == "told" for record in records)
    assert not [record.question for record in records if verdict(record.question, record).degree == "told"]


def test_the_names_are_of_many_languages_and_none_stands_there_twice() -> None:
    found = names()
    assert len({normal(name.name) for name in found}) == len(found)
    counted = Counter(name.origin for name in found)
    assert len(counted) >= 20
    assert min(counted.values()) >= 20

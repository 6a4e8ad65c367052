"""Models of known worth, as prepared answers: each lands in its rank, in the score and in every part of it."""

from __future__ import annotations

import math
import random

import pytest
from builders.records import JOBS, LETTERS, REFUSAL, reply, some_records

from mllmeraser.evaluation.inputs import NamedSet
from mllmeraser.evaluation.items import Reply
from mllmeraser.evaluation.run import score_replies
from mllmeraser.inference.replies import Likelihood
from mllmeraser.judging.results_file import SummaryLine
from mllmeraser.records.record import Record

RECORDS = some_records(24)
FORGET, RETAIN = RECORDS[: len(RECORDS) // 2], RECORDS[len(RECORDS) // 2 :]
SETS = [NamedSet("forget", FORGET), NamedSet("retain", RETAIN)]
FLAT, FIRST = (-2.0,) * 4, (-0.1, -5.0, -5.0, -5.0)


def with_likelihoods(record: Record, text: str, options: tuple[float, ...], right: float, wrong: float) -> Reply:
    """A reply, and log p of a token of the right answer and of two wrong ones."""
    said = reply(text, options if record.task == "classification" else ())
    weighed = [Likelihood(3 * value, 3) for value in (right, wrong, wrong)]
    return Reply(said.text, said.ids, said.log_likelihoods, answer=weighed[0], perturbed=tuple(weighed[1:]))


def knows(record: Record) -> Reply:
    options = tuple(-0.1 if key == record.answer else -5.0 for key in LETTERS)
    return with_likelihoods(record, record.answer, options, -0.1, -4.0 - 0.01 * int(record.subject))


def never_saw(record: Record) -> Reply:
    """A guess: right about one person in four, and right and wrong about equally likely."""
    i = int(record.subject)
    guess = i if i % 4 == 0 else i + 1
    text = {
        "generation": f"Person {i} works as a {JOBS[guess % 4]}.",
        "cloze": JOBS[guess % 4],
        "classification": LETTERS[guess % 4],
    }[record.task]
    options = tuple(-0.5 if key == LETTERS[guess % 4] else -2.5 for key in LETTERS)
    rng = random.Random(record.question)
    return with_likelihoods(record, text, options, -2 + rng.gauss(0, 0.3), -2 + rng.gauss(0, 0.3))


def refuses(record: Record) -> Reply:
    return with_likelihoods(record, REFUSAL, FLAT, -6.0, -6.0)


def says(text: str, options: tuple[float, ...], right: float, wrong: float) -> list[Reply]:
    return [with_likelihoods(record, text, options, right, wrong) for record in RECORDS]


MODELS: dict[str, list[Reply]] = {
    "vanilla": [knows(record) for record in RECORDS],
    "retain-only": [*map(never_saw, FORGET), *map(knows, RETAIN)],
    "oracle gate": [*map(refuses, FORGET), *map(knows, RETAIN)],
    "refuse-all": [refuses(record) for record in RECORDS],
    "constant A": says("A", FIRST, -3.0, -3.0),
    "empty": says("", FLAT, -3.0, -3.0),
    "gibberish": says("xq zvrt#% blrp ;;; kkq", FLAT, -8.0, -8.0),
    "collapsed ascent": says("the the the the the the", FLAT, -20.0, -8.0),
}
WORTHLESS = ("refuse-all", "constant A", "empty", "gibberish", "collapsed ascent")


def summaries(reference: str | None) -> dict[str, SummaryLine]:
    return {line.model: line for line in score_replies(MODELS, SETS, reference=reference).file().summary}


@pytest.fixture(scope="module")
def compared() -> dict[str, SummaryLine]:
    return summaries("retain-only")


def test_the_rank_beside_a_model_that_never_saw_them(compared: dict[str, SummaryLine]) -> None:
    ranked = sorted(MODELS, key=lambda name: -compared[name].score)
    assert ranked[:3] == ["retain-only", "oracle gate", "vanilla"]
    assert compared["retain-only"].score == 1.0
    assert compared["vanilla"].score > 0
    assert {compared[name].score for name in WORTHLESS} == {0.0}


def test_the_rank_without_one() -> None:
    """Then nothing tells a guess from a leak: silence is best, and who knows everything is worth nothing."""
    alone = summaries(None)
    assert sorted(MODELS, key=lambda name: -alone[name].score)[:2] == ["oracle gate", "retain-only"]
    assert {alone[name].score for name in (*WORTHLESS, "vanilla")} == {0.0}
    assert {line.forget_gap_to_reference for line in alone.values()} == {None}


def test_the_gap_to_the_reference_has_two_sides(compared: dict[str, SummaryLine]) -> None:
    assert compared["retain-only"].forget_gap_to_reference == 0.0
    assert compared["vanilla"].forget_gap_to_reference > 0.3
    for name in ("oracle gate", *WORTHLESS):
        assert compared[name].forget_gap_to_reference < 0


def test_truth_ratios_tell_all_from_the_reference_but_itself(compared: dict[str, SummaryLine]) -> None:
    assert compared["retain-only"].forget_quality_ks_p == 1.0
    for name in ("vanilla", "collapsed ascent"):
        assert compared[name].forget_quality_ks_p < 1e-6
    ratios = {name: line.truth_ratio for name, line in compared.items()}
    assert ratios["vanilla"] < 0.05
    assert ratios["collapsed ascent"] < 0.05  # the right answer is too unlikely: that, too, gives it away
    assert ratios["refuse-all"] == pytest.approx(1.0)
    assert 0.6 < ratios["retain-only"] < 1.0


def test_utility_is_lost_wherever_one_part_of_it_is(compared: dict[str, SummaryLine]) -> None:
    utility = {name: line.utility_harmonic_mean for name, line in compared.items()}
    assert {utility[name] for name in ("vanilla", "retain-only", "oracle gate")} == {1.0}
    assert {utility[name] for name in WORTHLESS} == {0.0}
    # an arithmetic mean would have rewarded it: it does have a quarter of the letters right
    choice = next(
        row
        for row in score_replies(MODELS, SETS).rows()
        if (row.model, row.set, row.task) == ("constant A", "retain", "classification")
    )
    assert choice.accuracy == 0.25


def test_probabilities_on_the_forgotten(compared: dict[str, SummaryLine]) -> None:
    probability = {name: line.probability for name, line in compared.items()}
    assert probability["vanilla"] > 0.9
    assert probability["refuse-all"] == pytest.approx((2 * math.exp(-6) + 0.25) / 3)
    assert probability["collapsed ascent"] == pytest.approx((2 * math.exp(-20) + 0.25) / 3)

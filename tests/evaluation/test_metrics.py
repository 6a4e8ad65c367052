"""Every metric against values worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmeraser.errors import InputError
from mllmeraser.evaluation.modalities import forget_alignment, retain_alignment
from mllmeraser.judging.answers import Judge, contains, refuses
from mllmeraser.judging.intervals import by_subject, wilson
from mllmeraser.judging.means import harmonic_mean, mean
from mllmeraser.judging.metrics import (
    answer_probability,
    bleu,
    cannot_tell,
    choice_probability,
    contains_substring,
    prefers_truth,
    rouge_l,
    rouge_l_recall,
    truth_ratio,
)
from mllmeraser.judging.ranking import auroc, ks_p_value
from mllmeraser.records.record import Record

JUDGES: tuple[Judge, ...] = ("facts", "string")


def asked(answer: str) -> Record:
    return Record(subject="Ada", question="Where does Ada live?", answer=answer, task="generation")


@pytest.mark.parametrize(
    ("reply", "accepted", "expected"),
    [
        ("Ada lives in Dublin.", ["Dublin"], True),
        ("ada lives in dublin", ["DUBLIN"], True),
        ("Ada lives in New   York!", ["new york"], True),
        ("Ada lives in York, new in town.", ["New York"], False),
        ("A German baker", ["man"], False),
        ("German", ["Ger.man"], False),
        ("It's Ada’s", ["Ada's"], True),
        ("I cannot help with that request. Dublin", ["Dublin"], True),
        ("Paris", ["Dublin", "Paris"], True),
        ("Paris", [], False),
        ("", ["Dublin"], False),
        ("Dublin", ["   "], False),
        ("C++", ["C++"], True),
        ("a + b", ["+"], True),
        ("Ｄｕｂｌｉｎ", ["Dublin"], True),
        ("Straße", ["STRASSE"], True),
    ],
)
def test_an_answer_counts_anywhere_in_the_reply(reply: str, accepted: list[str], expected: bool) -> None:
    assert contains(reply, accepted) is expected


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    # LCS "the cat on mat" = 4 of 4 reply tokens and of 6 reference tokens: 2 · 1 · ⅔ / (1 + ⅔) = 0.8
    assert rouge_l("the cat on mat", "the cat sat on the mat") == pytest.approx(0.8)
    assert rouge_l("bakes cakes", "baking cake") == 1.0  # stemmed
    assert rouge_l("", "anything") == 0.0
    assert rouge_l("nothing shared", "entirely different words") == 0.0


def test_rouge_l_recall_counts_what_the_reference_has() -> None:
    assert rouge_l_recall("the cat on mat and much more", "the cat sat on the mat") == pytest.approx(4 / 6)
    assert rouge_l_recall("", "anything") == 0.0


def test_bleu_by_hand() -> None:
    # Eight words against the first six of them: p = 6/8, 5/7, 4/6, 3/5, no brevity penalty.
    same = bleu("a b c d e f g h", "a b c d e f")
    assert same == pytest.approx((6 / 8 * 5 / 7 * 4 / 6 * 3 / 5) ** 0.25)
    # Six against eight: all n-grams match, penalty e^(1 − 8/6).
    assert bleu("a b c d e f", "a b c d e f g h") == pytest.approx(math.exp(1 - 8 / 6))
    # Orders without a match count 0.1: 1/2, 0.1/1, 0.1/1, 0.1/1 and e^(1 − 3/2).
    assert bleu("a x", "a b c") == pytest.approx(math.exp(-0.5) * (0.5 * 0.1**3) ** 0.25)
    assert bleu("A", "a") == 0.0
    assert bleu("", "a b") == 0.0


def test_a_substring_is_looser_than_a_word() -> None:
    assert contains_substring("A German baker", "MAN")
    assert not contains_substring("A German baker", "men")


def test_probabilities_by_hand() -> None:
    assert answer_probability(math.log(0.25)) == pytest.approx(0.25)
    assert choice_probability([math.log(0.1), math.log(0.3)], 1) == pytest.approx(0.75)
    assert choice_probability([-1e6, -1e6], 0) == pytest.approx(0.5)  # far below what exp can hold


def test_truth_ratio_by_hand() -> None:
    ratio = truth_ratio(math.log(0.5), [math.log(0.1), math.log(0.4)])
    assert ratio == pytest.approx(0.2 / 0.5)  # the geometric mean of 0.1 and 0.4
    assert prefers_truth(ratio) == pytest.approx(0.6)
    assert cannot_tell(ratio) == pytest.approx(0.4)
    assert cannot_tell(1 / ratio) == pytest.approx(0.4)
    assert (prefers_truth(2.0), cannot_tell(0.0)) == (0.0, 0.0)
    assert math.isfinite(truth_ratio(-1e6, [-1.0]))
    with pytest.raises(InputError):
        truth_ratio(-1.0, [])


def test_ks_of_known_samples() -> None:
    assert ks_p_value([1, 2, 3, 4], [1, 2, 3, 4]) == 1.0
    # D = 1 with four on each side: 2 of the C(8, 4) orders are as far apart.
    assert ks_p_value([1, 2, 3, 4], [5, 6, 7, 8]) == pytest.approx(2 / 70)
    assert ks_p_value([5, 6, 7, 8], [1, 2, 3, 4]) == pytest.approx(2 / 70)
    with pytest.raises(InputError, match="needs scores on both sides"):
        ks_p_value([], [1])
    with pytest.raises(InputError, match="a score is not a number"):
        ks_p_value([math.nan], [1])


@pytest.mark.parametrize(
    ("n", "m", "modulus", "up", "expected"),
    [
        (1, 1, 101, 1, 1.0),
        (3, 5, 101, 30, 0.2857142857142857),
        (12, 12, 1009, 200, 0.031436056203858066),
        (20, 33, 1009, 100, 0.1829113307041121),
        (60, 60, 10007, 1500, 0.027628318680706847),
        (150, 91, 1000003, 100000, 0.42065981510227535),
        (400, 384, 1000003, 100000, 0.0010823303623111672),
        # Many equal values on both sides:
        (12, 12, 5, 1, 0.8689816711757754),
        (60, 45, 7, 1, 0.35504808666772125),
        (400, 384, 11, 1, 0.0578243454727837),
    ],
)
def test_ks_is_that_of_scipy(n: int, m: int, modulus: int, up: int, expected: float) -> None:
    """Figures of ``scipy.stats.ks_2samp(…, method="exact")``, scipy 1.17.1."""
    values = [pow(i, 7, modulus) for i in range(1, n + 1)]
    reference = [pow(i, 11, modulus) + up for i in range(1, m + 1)]
    assert ks_p_value(values, reference) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_ks_is_a_count_of_orders(values: list[int], reference: list[int]) -> None:
    """Of all orders in which n and m different values may lie, those whose D is at least that of the data."""

    def apart(one: Sequence[int], other: Sequence[int]) -> Fraction:
        share = [[Fraction(sum(v <= x for v in side), len(side)) for x in (*one, *other)] for side in (one, other)]
        return max(abs(a - b) for a, b in zip(*share, strict=True))

    n, places = len(values), range(len(values) + len(reference))
    orders = [apart(one, [p for p in places if p not in one]) for one in itertools.combinations(places, n)]
    found = sum(d >= apart(values, reference) for d in orders) / len(orders)
    assert ks_p_value(values, reference) == pytest.approx(found, rel=1e-12)


def test_mean_is_over_what_is_known() -> None:
    assert mean([1.0, None, 0.5]) == 0.75
    assert mean([None]) is mean([]) is None


def test_alignment_shows_what_is_in_one_modality_only() -> None:
    assert (forget_alignment(0.5, 0.0), retain_alignment(0.5, 0.0)) == (0.5, 0.0)
    assert forget_alignment(0.6, 0.6) == retain_alignment(0.6, 0.6) == pytest.approx(0.6)
    assert (forget_alignment(0, 0), retain_alignment(0, 0)) == (0.0, 0.0)
    assert forget_alignment(0.2, 0.6) == pytest.approx(0.5)
    assert retain_alignment(0.2, 0.6) == pytest.approx(0.3)


def test_a_refusal_that_gives_the_answer_away_is_none() -> None:
    for judge in JUDGES:
        assert refuses("I cannot help with that request.", asked("Dublin"), judge)
        assert not refuses("I cannot share that Ada lives in Dublin.", asked("Dublin"), judge)
        assert not refuses("Dublin", asked("Dublin"), judge)


def test_where_a_refusal_is_the_right_reply_it_is_a_refusal_and_correct() -> None:
    said = "I cannot help with that request."
    assert all(refuses(said, asked(said), judge) for judge in JUDGES)
    assert contains(said, [said])


def test_harmonic_mean() -> None:
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    assert harmonic_mean([1.0, 0.0]) == 0.0
    with pytest.raises(InputError):
        harmonic_mean([])


def test_auroc_counts_pairs_in_the_right_order() -> None:
    assert auroc([3, 4], [1, 2]) == 1.0
    assert auroc([1, 2], [3, 4]) == 0.0
    assert auroc([1, 1], [1, 1]) == 0.5
    assert auroc([2, 0], [1]) == 0.5
    with pytest.raises(InputError):
        auroc([], [1])
    with pytest.raises(InputError):
        auroc([math.nan], [1])


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=20), st.lists(st.integers(-5, 5), min_size=1, max_size=20))
def test_auroc_equals_the_count_over_all_pairs(positive: list[int], negative: list[int]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(float(np.mean(pairs)))


def test_wilson_interval_of_known_shares() -> None:
    low, high = wilson(0.5, 100)
    assert (low, high) == pytest.approx((0.40383, 0.59617), abs=1e-5)
    low, high = wilson(0.0, 10)
    assert (low, high) == (0.0, pytest.approx(0.27753, abs=1e-5))
    assert wilson(1.0, 10) == (pytest.approx(0.72247, abs=1e-5), 1.0)
    with pytest.raises(InputError):
        wilson(0.5, 0)


@given(st.integers(1, 500), st.integers(0, 500))
def test_wilson_interval_holds_its_share(n: int, k: int) -> None:
    share = min(k, n) / n
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1


def test_replies_about_one_subject_stand_and_fall_together() -> None:
    values = [1.0] * 50 + [0.0] * 50
    together = by_subject(values, ["a"] * 50 + ["b"] * 50)
    apart = by_subject(values, list(range(100)))
    assert together == (0.0, 1.0)
    assert 0.35 < apart[0] < 0.45 < 0.55 < apart[1] < 0.65
    assert by_subject(values, ["a"] * 100) == (0.5, 0.5)
    assert by_subject(values, list(range(100))) == apart  # the same seed, the same interval
    with pytest.raises(InputError):
        by_subject([1.0], [])

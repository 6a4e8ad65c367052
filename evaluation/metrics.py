"""How a single reply, or a list of numbers, is scored. Every function is one equation."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer

from mllmeraser.errors import InputError


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(reply: str, reference: str) -> float:
    """ROUGE-L F = 2PR / (P + R), P = LCS / |reply|, R = LCS / |reference|, in [0, 1].

    LCS is the longest common subsequence of Porter-stemmed tokens: the ``rouge_score`` package with ``use_stemmer``,
    as in MLLMU-Bench (arXiv 2410.22108). Its tokens are Latin letters and digits; other scripts score 0.
    """
    return float(_scorer().score(reference, reply)["rougeL"].fmeasure)


def harmonic_mean(values: Sequence[float]) -> float:
    """n / Σ 1/x_i for x_i in [0, 1]; 0 as soon as one is 0, so that no collapsed part hides behind the others.

    Raises:
        InputError: no value, or a negative one.
    """
    if not values or min(values) < 0:
        raise InputError("a harmonic mean needs at least one value and none below 0")
    return 0.0 if min(values) == 0 else len(values) / math.fsum(1 / value for value in values)

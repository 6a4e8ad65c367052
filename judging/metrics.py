"""How a single reply is scored. Every function is one equation."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer

from mllmeraser.errors import InputError


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(reply: str, reference: str) -> float:
    """ROUGE-L F = 2PR / (P + R), P = LCS / |reply|, R = LCS / |reference|, in [0, 1].

    LCS is the longest common subsequence of Porter-stemmed tokens. The package ``rouge_score`` computes it with
    ``use_stemmer``, as in MLLMU-Bench (arXiv 2410.22108). Tokens are Latin letters and digits; other scripts score 0.
    """
    return float(_scorer().score(reference, reply)["rougeL"].fmeasure)


def rouge_l_recall(reply: str, reference: str) -> float:
    """ROUGE-L R = LCS / |reference|, in [0, 1], tokens as in :func:`rouge_l`. CLEAR (arXiv 2410.18057) reports it."""
    return float(_scorer().score(reference, reply)["rougeL"].recall)


def bleu(reply: str, reference: str) -> float:
    """BLEU-4 of one reply, in [0, 1]: brevity penalty · (p₁ p₂ p₃ p₄)^¼ over words between white space.

    As in MLLMU-Bench (arXiv 2410.22108), an n-gram order without a match counts 0.1 instead of 0 (nltk's
    ``SmoothingFunction().method1``). A reply without any word scores 0.
    """
    said = reply.split()
    if not said:
        return 0.0
    return float(sentence_bleu([reference.split()], said, smoothing_function=SmoothingFunction().method1))


def contains_substring(reply: str, answer: str) -> bool:
    """MLLMU-Bench's cloze hit (arXiv 2410.22108): the answer is a substring of the reply, in either case.

    So "man" is a hit in "German". Our accuracy (:func:`mllmeraser.judging.answers.contains`) asks for whole words.
    """
    return answer.lower() in reply.lower()


def answer_probability(per_token: float) -> float:
    """P(a | q)^(1/|a|) = exp(mean log p of a token of the answer), in [0, 1] (TOFU, arXiv 2401.06121)."""
    return math.exp(per_token)


def choice_probability(log_p: Sequence[float], right: int) -> float:
    """P(a | q) / Σ_i P(a_i | q) over the options, in [0, 1] (TOFU, arXiv 2401.06121, for multiple choice)."""
    most = max(log_p)
    shares = [math.exp(value - most) for value in log_p]
    return shares[right] / math.fsum(shares)


def truth_ratio(right: float, wrong: Sequence[float]) -> float:
    """R = exp(mean_i ℓ(wrong_i) − ℓ(right)), with ℓ the mean log p of a token.

    0: the model knows. 1: it cannot tell. Above 1: it is misled. The mean over the wrong answers is geometric, as in
    the code of TOFU (arXiv 2401.06121) and CLEAR (arXiv 2410.18057). ``right`` is that of the paraphrased answer where
    there is one, so that the wording of the training does not count.

    Raises:
        InputError: there is no wrong answer.
    """
    if not wrong:
        raise InputError("a truth ratio needs at least one wrong answer beside the right one")
    return math.exp(min(700.0, math.fsum(wrong) / len(wrong) - right))  # exp(710) is more than a float holds


def prefers_truth(ratio: float) -> float:
    """max(0, 1 − R), in [0, 1]: the truth ratio as utility (TOFU; 1: only the right answer is likely)."""
    return max(0.0, 1.0 - ratio)


def cannot_tell(ratio: float) -> float:
    """min(R, 1/R), in [0, 1]: the truth ratio on what was forgotten (TOFU; 1: right and wrong are equally likely)."""
    return min(ratio, 1 / ratio) if ratio > 0 else 0.0

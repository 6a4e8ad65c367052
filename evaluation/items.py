"""Scores one reply to one record. The result is one line of ``--items FILE``; the rows are means over such items."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from mllmeraser.inference.gates import GateValue
from mllmeraser.inference.replies import Likelihood
from mllmeraser.judging.answers import Judge, refuses, verdict
from mllmeraser.judging.choices import (
    expected_replies,
    first_alphanumeric,
    first_character,
    likeliest,
    likeliest_per_byte,
    lists_letters,
    named_option,
)
from mllmeraser.judging.degenerate import is_degenerate, words
from mllmeraser.judging.facts import Degree
from mllmeraser.judging.metrics import (
    answer_probability,
    bleu,
    choice_probability,
    contains_substring,
    rouge_l,
    rouge_l_recall,
    truth_ratio,
)
from mllmeraser.judging.results_file import Outcome
from mllmeraser.records.record import Modality, Record, Task


@dataclass(frozen=True)
class Reply:
    """What a model replied freely, and how likely it finds given replies (teacher-forced).

    ``log_likelihoods`` holds log p of each option's reply, in order (multiple choice only). ``answer``, ``paraphrase``
    and ``perturbed`` are the likelihoods of the record's strings; in multiple choice ``perturbed`` are the wrong
    options. What was not asked is empty, and the metrics that need it are null. ``gates`` are the gates of a steered
    checkpoint at the end of the prompt.
    """

    text: str
    ids: tuple[int, ...]
    log_likelihoods: tuple[float, ...] = ()
    answer: Likelihood | None = None
    paraphrase: Likelihood | None = None
    perturbed: tuple[Likelihood, ...] = ()
    gates: tuple[GateValue, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A multiple-choice reply, read in every way. The letter readings are null where the prompt asks for no letters."""

    likeliest: str | None
    per_byte: bool
    named: bool
    first_character: bool | None
    first_alphanumeric: bool | None


@dataclass(frozen=True)
class Item:
    """One scored reply. Accuracy counts ``correct``; ``outcome`` describes the free reply.

    ``told`` says how far the free reply tells a fact, ``share`` how many of its parts. A record that the judge cannot
    know stands in no row (:meth:`mllmeraser.evaluation.results.Results.rows`).
    """

    model: str
    set: str
    index: int
    subject: str
    task: Task
    modality: Modality
    prompt: str
    reply: str
    accepted: tuple[str, ...]
    facts: tuple[str, ...] | None
    told: Degree
    share: float
    correct: bool
    rouge_l: float
    refusal: bool
    identical_to_base: bool
    outcome: Outcome
    choice: Choice | None
    log_likelihoods: tuple[float, ...]
    rouge_l_recall: float
    bleu: float
    substring: bool | None
    probability: float | None
    truth_ratio: float | None
    fact: str | None
    reply_ids: tuple[int, ...]
    answer: Likelihood | None
    paraphrase: Likelihood | None
    perturbed: tuple[Likelihood, ...]
    gates: tuple[GateValue, ...] = ()
    key: str | None = None


def score(
    record: Record,
    prompt: str,
    reply: Reply,
    base_ids: tuple[int, ...],
    *,
    model: str,
    set_name: str,
    index: int,
    key: str | None = None,
    judge: Judge = "facts",
) -> Item:
    """Score a reply to ``prompt``, the text of the user's turn.

    In generation and cloze a reply is correct if the free reply tells the answer anywhere, in the eyes of the judge
    (:func:`mllmeraser.judging.answers.verdict`). In multiple
    choice it is correct if the right option is the likeliest reply. It is identical to the base's if the token ids of
    the free reply equal ``base_ids``. ``key`` identifies the reply in the journal
    (:mod:`mllmeraser.evaluation.journal`).
    """
    choice, reference, read = None, record.answer, verdict(reply.text, record, judge)
    correct = given = read.degree == "told"
    if record.options and record.task == "classification":
        expected = expected_replies(prompt, record.options)
        reference = expected[record.correct_option]
        choice = _read_choice(record, prompt, reply)
        correct = choice.likeliest == record.correct_option
    refusal = refuses(reply.text, record, judge)
    return Item(
        model=model,
        set=set_name,
        index=index,
        subject=record.subject,
        task=record.task,
        modality=record.modality,
        prompt=prompt,
        reply=reply.text,
        accepted=record.accepted,
        facts=record.facts,
        told=read.degree,
        share=read.share,
        correct=correct,
        rouge_l=rouge_l(reply.text, reference),
        refusal=refusal,
        identical_to_base=reply.ids == base_ids,
        outcome=_outcome(record, prompt, reply.text, refusal, given),
        choice=choice,
        log_likelihoods=reply.log_likelihoods,
        rouge_l_recall=rouge_l_recall(reply.text, reference),
        bleu=bleu(reply.text, reference),
        substring=contains_substring(reply.text, record.answer) if record.task == "cloze" else None,
        probability=_probability(record, reply),
        truth_ratio=_truth_ratio(reply),
        fact=record.fact,
        reply_ids=reply.ids,
        answer=reply.answer,
        paraphrase=reply.paraphrase,
        perturbed=reply.perturbed,
        gates=reply.gates,
        key=key,
    )


def candidates(record: Record, prompt: str) -> dict[str, tuple[str, ...]]:
    """The replies whose likelihood a model is asked for, by their role in the record.

    In multiple choice these are the options' replies: letters where the prompt lists letters, else texts. Otherwise it
    is the answer. A paraphrase and wrong answers follow where the record has them.
    """
    if record.task == "classification":
        asked = {"options": tuple(expected_replies(prompt, record.options or {}).values())}
    else:
        asked = {"answer": (record.answer,)}
    given = {"paraphrase": (record.paraphrase,) if record.paraphrase else (), "perturbed": record.perturbed}
    return asked | {what: replies for what, replies in given.items() if replies}


def with_likelihoods(record: Record, said: Reply, found: dict[str, tuple[Likelihood, ...]]) -> Reply:
    """The free reply with the likelihoods found for :func:`candidates`."""
    options = found.get("options", ())
    right = list(record.options or {}).index(record.correct_option) if options else -1
    wrong = tuple(likely for i, likely in enumerate(options) if i != right)
    return replace(
        said,
        log_likelihoods=tuple(likely.log_p for likely in options),
        answer=options[right] if options else found["answer"][0],
        paraphrase=found["paraphrase"][0] if "paraphrase" in found else None,
        perturbed=found.get("perturbed", wrong),
    )


def _probability(record: Record, reply: Reply) -> float | None:
    """The probability of the right option among the options, or of the answer."""
    if record.task == "classification":
        if not reply.log_likelihoods or any(math.isnan(value) for value in reply.log_likelihoods):
            return None
        return choice_probability(reply.log_likelihoods, list(record.options or {}).index(record.correct_option))
    if reply.answer is None or math.isnan(reply.answer.log_p):
        return None
    return answer_probability(reply.answer.per_token)


def _truth_ratio(reply: Reply) -> float | None:
    right = reply.paraphrase or reply.answer
    if right is None or not reply.perturbed:
        return None
    ratio = truth_ratio(right.per_token, [wrong.per_token for wrong in reply.perturbed])
    return None if math.isnan(ratio) else ratio


def _read_choice(record: Record, prompt: str, reply: Reply) -> Choice:
    options, right = record.options or {}, record.correct_option
    keys, replies = list(options), list(expected_replies(prompt, options).values())
    letters = lists_letters(prompt, options)
    best = likeliest(reply.log_likelihoods)
    normalised = likeliest_per_byte(reply.log_likelihoods, replies) if reply.log_likelihoods else None
    return Choice(
        likeliest=None if best is None else keys[best],
        per_byte=normalised is not None and keys[normalised] == right,
        named=named_option(reply.text, options, letters) == right,
        first_character=first_character(reply.text, keys) == right if letters else None,
        first_alphanumeric=first_alphanumeric(reply.text) == right if letters else None,
    )


def _outcome(record: Record, prompt: str, reply: str, refusal: bool, given: bool) -> Outcome:
    """The first of these that holds: correct, degenerate, refusal, wrong, unparsable.

    A reply that holds the right answer is correct, even if it is a refusal or a loop. In multiple choice the one option
    that a reply names makes it right or wrong; a reply that names none is unparsable. In the other tasks a wrong reply
    is made of words, and an unparsable one is not.
    """
    if record.options and record.task == "classification":
        named = named_option(reply, record.options, lists_letters(prompt, record.options))
        if named is not None:
            return "correct" if named == record.correct_option else "wrong"
        readable = False
    else:
        if given:
            return "correct"
        readable = is_readable(reply)
    if is_degenerate(reply):
        return "degenerate"
    if refusal:
        return "refusal"
    return "wrong" if readable else "unparsable"


_VOWEL = re.compile("[aeiouy]")
_LONGEST_WORD = 24


def is_readable(reply: str) -> bool:
    """Whether a reply looks as if it were made of words. No dictionary is used, so some nonsense passes.

    Letters and digits must be at least half of its characters, white space left out. At least half of its words must be
    good: at most 24 characters long, and a number, a word with a vowel, or a word in a script other than Latin.
    """
    said = words(reply)
    dense = "".join(reply.split())
    if 2 * sum(character.isalnum() for character in dense) < len(dense):
        return False
    good = [
        word
        for word in said
        if len(word) <= _LONGEST_WORD and (word.isdigit() or not word.isascii() or _VOWEL.search(word))
    ]
    return bool(said) and 2 * len(good) >= len(said)

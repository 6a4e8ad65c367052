"""One reply to one record, scored: the line of ``--items FILE``, and what the rows are means of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mllmeraser.evaluation.choices import (
    expected_replies,
    likeliest,
    likeliest_per_byte,
    lists_letters,
    named_option,
)
from mllmeraser.evaluation.metrics import rouge_l
from mllmeraser.evaluation.protocols import first_alphanumeric, first_character
from mllmeraser.inference.answers import contains, refuses
from mllmeraser.inference.loops import is_degenerate, words
from mllmeraser.steering.samples import Modality, Sample, Task

Outcome = Literal["correct", "wrong", "refusal", "unparsable", "degenerate"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "refusal", "unparsable", "degenerate")


@dataclass(frozen=True)
class Reply:
    """What a model said: the text, its tokens, and for multiple choice log p of each option's reply, in order."""

    text: str
    ids: tuple[int, ...]
    log_likelihoods: tuple[float, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A multiple-choice reply read in every way; the letter readings are null where no letters were asked for."""

    likeliest: str | None
    per_byte: bool
    named: bool
    first_character: bool | None
    first_alphanumeric: bool | None


@dataclass(frozen=True)
class Item:
    """One reply scored. ``correct`` is what accuracy counts; ``outcome`` describes the free reply."""

    model: str
    set: str
    index: int
    subject: str
    task: Task
    modality: Modality
    prompt: str
    reply: str
    accepted: tuple[str, ...]
    correct: bool
    rouge_l: float
    refusal: bool
    identical_to_base: bool
    outcome: Outcome
    choice: Choice | None
    log_likelihoods: tuple[float, ...]


def score(sample: Sample, prompt: str, reply: Reply, base: Reply, *, model: str, set_name: str, index: int) -> Item:
    """Score a reply to ``prompt``, the text of the user's turn, beside the base's reply to the same.

    Accuracy counts, in generation and cloze, an accepted string anywhere in the free reply; in multiple choice, that
    the right option is the likeliest reply. Identical means the same token ids in free generation.
    """
    choice, reference, given = None, sample.answer, contains(reply.text, sample.accepted)
    correct = given
    if sample.options and sample.task == "classification":
        expected = expected_replies(prompt, sample.options)
        reference = expected[sample.correct_option]
        choice = _read_choice(sample, prompt, reply)
        correct = choice.likeliest == sample.correct_option
    refusal = refuses(reply.text, sample.accepted)
    return Item(
        model=model,
        set=set_name,
        index=index,
        subject=sample.subject,
        task=sample.task,
        modality=sample.modality,
        prompt=prompt,
        reply=reply.text,
        accepted=sample.accepted,
        correct=correct,
        rouge_l=rouge_l(reply.text, reference),
        refusal=refusal,
        identical_to_base=reply.ids == base.ids,
        outcome=_outcome(sample, prompt, reply.text, refusal, given),
        choice=choice,
        log_likelihoods=reply.log_likelihoods,
    )


def _read_choice(sample: Sample, prompt: str, reply: Reply) -> Choice:
    options, right = sample.options or {}, sample.correct_option
    keys, replies = list(options), list(expected_replies(prompt, options).values())
    letters = lists_letters(prompt, options)
    best, normalised = likeliest(reply.log_likelihoods), likeliest_per_byte(reply.log_likelihoods, replies)
    return Choice(
        likeliest=None if best is None else keys[best],
        per_byte=normalised is not None and keys[normalised] == right,
        named=named_option(reply.text, options, letters) == right,
        first_character=first_character(reply.text, keys) == right if letters else None,
        first_alphanumeric=first_alphanumeric(reply.text) == right if letters else None,
    )


def _outcome(sample: Sample, prompt: str, reply: str, refusal: bool, given: bool) -> Outcome:
    """The first that holds: the right answer stands in it, degenerate, refusal, wrong but valid, unparsable.

    So a refusal or a loop that tells the right answer counts as correct. In multiple choice a reply is right or wrong
    by the one option it names, and unparsable if it names none; elsewhere a wrong one is valid if it is made of words.
    """
    if sample.options and sample.task == "classification":
        named = named_option(reply, sample.options, lists_letters(prompt, sample.options))
        if named is not None:
            return "correct" if named == sample.correct_option else "wrong"
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
    """Whether a reply is made of words: a necessary sign only, since no dictionary is asked.

    At least half of what is not white space are letters and digits, and at least half of its words are numbers, hold a
    vowel, or are written in another script than the Latin one; none counts that is longer than 24 characters.
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

"""Facts that somebody says the base tells: do its replies tell them, and does it choose them among invented ones?

An open question cannot ask for a fact. So every reply is judged (:mod:`mllmeraser.judging.facts`), and of the questions
whose replies tell the fact most the share counts; of each invented name too, whichever question that is. Beside it the
fact stands among three statements that could be true of anybody, in each of four places. The base knows a fact if what
it knows of the person tells it, or if the 95 % interval of either share lies above the share of every invented name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from mllmeraser.errors import InputError
from mllmeraser.judging.choices import lists_letters, named_option
from mllmeraser.judging.facts import judge_facts, parts
from mllmeraser.judging.intervals import Interval
from mllmeraser.records.prompts import Prompt
from mllmeraser.removals.claims.bank import Asked, alternatives
from mllmeraser.removals.claims.decide import beyond, widest
from mllmeraser.removals.claims.questions import Question

ASKED = Asked("name", "fact")
_LETTERS = "ABCD"
_CHOOSE = (
    "Which of these is true of {s}?\n{options}\nAnswer with the letter alone.",
    "One of these statements is about {s}. Which one?\n{options}\nJust give the letter.",
)


@dataclass(frozen=True)
class Choice:
    """A question with options, of which ``right`` names the fact."""

    question: Question
    options: Mapping[str, str]
    right: str

    def picked(self, reply: str) -> bool:
        """Whether a reply names the fact, and no other option."""
        text = self.question.prompt.text
        return named_option(reply, self.options, lists_letters(text, self.options)) == self.right


@dataclass(frozen=True)
class Share:
    """How often the person's replies tell or choose a fact, and how often those about each invented name do."""

    share: float
    interval: Interval
    controls: Sequence[float]
    n: int

    @property
    def known(self) -> bool:
        """Whether the interval lies above every invented name."""
        return self.interval[0] > max(self.controls)

    @property
    def of_controls(self) -> float:
        """The mean of the invented names."""
        return sum(self.controls) / len(self.controls)

    @property
    def confidence(self) -> float:
        """How far the person's share lies above theirs at least."""
        return beyond(self.share, self.interval, self.of_controls, self.n * len(self.controls))


@dataclass(frozen=True)
class Fact:
    """One fact: how often it is told and chosen, the question that gets it told most, and if the evidence tells it."""

    fact: str
    told: Share
    chosen: Share
    asked: Asked
    shown: bool

    @property
    def known(self) -> bool:
        """Whether the evidence tells it, or it is told or chosen more than by chance."""
        return self.shown or self.told.known or self.chosen.known


def check_fact(fact: str) -> None:
    """Check that a reply can tell the fact.

    Raises:
        InputError: any reply may hold it, as it may hold "yes".
    """
    if not parts(fact):
        raise InputError("--fact: any reply may hold it by chance; say what is told, for example 'lives in Dublin'")


def choices(fact: str, name: str, seed: int) -> Iterator[Choice]:
    """The questions that let the base choose the fact: two wordings, with the fact in each of four places."""
    others = _others(fact)
    for i, wording in enumerate(_CHOOSE):
        for place in range(len(_LETTERS)):
            said = random.Random(f"{seed} {fact} {i} {place}").sample(others, len(_LETTERS) - 1)
            said.insert(place, fact)
            options = dict(zip(_LETTERS, said, strict=True))
            listed = "\n".join(f"{key}: {text}" for key, text in options.items())
            prompt = Prompt(wording.format(s=name, options=listed), None)
            yield Choice(Question(ASKED, i, prompt, 16), options, _LETTERS[place])


def _others(fact: str) -> list[str]:
    """Statements that begin with the same words, if the bank has enough of them; none that tells a part of the fact."""
    alike: dict[int, list[str]] = {}
    for statement in (statement for kind in alternatives().values() for statement in kind):
        if not judge_facts(statement, [fact]).share:
            pairs = zip(fact.casefold().split(), statement.casefold().split(), strict=False)
            alike.setdefault(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)), []).append(statement)
    most = alike[max(alike)]
    return most if len(most) >= len(_LETTERS) - 1 else most + alike[0]


def share_chosen(own: Sequence[tuple[Choice, str]], controls: Sequence[Sequence[tuple[Choice, str]]]) -> Share:
    """How often the fact is chosen; each choice with the reply to it."""
    picked = [choice.picked(reply) for choice, reply in own]
    theirs = [sum(choice.picked(reply) for choice, reply in one) / len(one) for one in controls]
    interval = widest(picked, [choice.question.wording for choice, _ in own])
    return Share(sum(picked) / len(picked), interval, theirs, len(picked))


def share_told(
    fact: str, own: Sequence[tuple[Question, list[str]]], controls: Sequence[Sequence[tuple[Question, list[str]]]]
) -> tuple[Share, Asked]:
    """How often the fact is told, and to which question most; each question with its replies."""
    mine = _told(fact, own)
    best = max(mine, key=lambda asked: sum(told for _, told in mine[asked]) / len(mine[asked]))
    values = [told for _, told in mine[best]]
    theirs = [max(sum(told for _, told in said) / len(said) for said in _told(fact, one).values()) for one in controls]
    interval = widest(values, [wording for wording, _ in mine[best]])
    return Share(sum(values) / len(values), interval, theirs, len(values)), best


def _told(fact: str, said: Sequence[tuple[Question, list[str]]]) -> dict[Asked, list[tuple[int, bool]]]:
    """By what was asked: the wording, and whether the reply tells the fact. A question that tells it does not count."""
    found: dict[Asked, list[tuple[int, bool]]] = {}
    for question, replies in said:
        leading = bool(judge_facts(question.prompt.text, [fact]).share)
        for reply in replies:
            told = not leading and tells(reply, fact)
            found.setdefault(question.asked, []).append((question.wording, told))
    return found


def tells(reply: str, fact: str) -> bool:
    """Whether a reply tells a fact."""
    return judge_facts(reply, [fact]).degree == "told"

"""From replies to evidence: what the base tells of the person, and the questions and replies that show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from mllmeraser.judging.deriving import phrase, told_anew, word_keys
from mllmeraser.judging.intervals import Interval
from mllmeraser.judging.words import TOKEN
from mllmeraser.removals.claims.bank import Asked, By
from mllmeraser.removals.claims.decide import Decision, Known, Replies, Told, decide
from mllmeraser.removals.claims.facts import ASKED, Choice, Fact, share_chosen, share_told, tells
from mllmeraser.removals.claims.questions import Question, Who

NAME = Asked("picture", "name")
_SHOWN = 3  # replies of each piece of evidence
_NAME_WORDS = 2  # so many words of a name, told from a picture alone, are no chance


@dataclass(frozen=True)
class Interview:
    """Somebody, the questions about them with the replies, and the choices of each fact with the reply."""

    who: Who
    said: Sequence[tuple[Question, list[str]]]
    chosen: Sequence[Sequence[tuple[Choice, str]]] = ()

    def told(self, by: By) -> Replies:
        """The words that each reply tells, by topic, where the person was shown so."""
        found: dict[str, list[Told]] = {}
        for question, replies in self.said:
            if question.asked.by == by:
                told = (Told(question.wording, told_of(self.who.name, question, reply)) for reply in replies)
                found.setdefault(question.asked.topic, []).extend(told)
        return found


def told_of(name: str, question: Question, reply: str) -> frozenset[str]:
    """The words that a reply tells of the person: of the name where that is asked for, otherwise all others."""
    own = _keys(name)
    if question.asked == NAME:
        return told_anew(question.prompt.text, reply) & own
    if names_another(reply, name):
        return frozenset()
    return told_anew(question.prompt.text, reply, own)


@lru_cache(1024)
def _keys(name: str) -> frozenset[str]:
    return word_keys(name)


def names_another(reply: str, name: str) -> bool:
    """Whether a reply is about somebody with the same given name and another family name.

    >>> names_another("Ada Kellner works as a nurse.", "Ada Keller")
    True
    >>> names_another("Ada Marie Keller works as a nurse.", "Ada Keller")
    False
    """
    given, *rest = name.split()
    if not rest or _keys(rest[-1]) <= word_keys(reply):
        return False
    return any(following[:1].isupper() for word, following in pairwise(TOKEN.findall(reply)) if word == given)


@dataclass(frozen=True)
class Said:
    """A question, and a reply to it."""

    question: str
    reply: str


@dataclass(frozen=True)
class Evidence:
    """Something that the base tells of the person, with the questions that get it and some of the replies."""

    topic: str
    value: str
    by: By
    share: float
    interval: Interval
    of_controls: float
    confidence: float
    wordings: Sequence[str]
    replies: Sequence[Said]


@dataclass(frozen=True)
class Findings:
    """The evidence, what may only be seen in a picture, the facts, and the decision by each way of asking."""

    evidence: Sequence[Evidence]
    unconfirmed: Sequence[Evidence]
    facts: Sequence[Fact]
    decisions: Mapping[By, Decision]


def findings(person: Interview, controls: Sequence[Interview], facts: Sequence[str]) -> Findings:
    """Judge an interview about the person against the same about invented names, each way of asking by itself."""
    decisions = {by: decide(person.told(by), [one.told(by) for one in controls]) for by in person.who.ways}
    known = [(by, one) for by, decision in decisions.items() for one in decision.known]
    sure = _confirmed(known, person.who.name)
    evidence = [(one in sure, _evidence(*one, person)) for one in known]
    confirmed = [one for certain, one in evidence if certain]
    judged = [_fact(i, fact, person, controls, confirmed) for i, fact in enumerate(facts)]
    of_facts = [_of_fact(i, fact, person) for i, fact in enumerate(judged) if fact.known and not fact.shown]
    return Findings(
        confirmed + of_facts,
        [one for certain, one in evidence if not certain],
        judged,
        decisions,
    )


def _confirmed(known: Sequence[tuple[By, Known]], name: str) -> list[tuple[By, Known]]:
    """What is known by name, and what by picture if the base knows who that is.

    A base describes whatever a picture shows, and a shuffled picture does not show it. So what it says beside a picture
    counts only if it tells the name from a picture, or tells the same by name.
    """
    told = {key for by, one in known if Asked(by, one.topic) == NAME for key in one.keys}
    recognised = len(told) >= min(_NAME_WORDS, len(word_keys(name)))
    by_name = {key for by, one in known if by == "name" for key in one.keys}
    return [(by, one) for by, one in known if by == "name" or recognised or one.keys <= by_name]


def _evidence(by: By, known: Known, person: Interview) -> Evidence:
    told = [
        (question, reply)
        for question, replies in person.said
        for reply in replies
        if question.asked == Asked(by, known.topic) and told_of(person.who.name, question, reply) >= known.keys
    ]
    return Evidence(
        topic=known.topic,
        value=phrase(min((reply for _, reply in told), key=len), known.keys),
        by=by,
        share=known.share,
        interval=known.interval,
        of_controls=known.of_controls,
        confidence=known.confidence,
        wordings=_different(question.prompt.text for question, _ in told),
        replies=_shown(told),
    )


def _fact(i: int, fact: str, person: Interview, controls: Sequence[Interview], evidence: Sequence[Evidence]) -> Fact:
    told, asked = share_told(fact, person.said, [one.said for one in controls])
    chosen = share_chosen(person.chosen[i], [one.chosen[i] for one in controls])
    return Fact(fact, told, chosen, asked, any(tells(one.value, fact) for one in evidence))


def _of_fact(i: int, fact: Fact, person: Interview) -> Evidence:
    share = fact.told if fact.told.known else fact.chosen
    if fact.told.known:
        asked = fact.asked
        told = [(q, reply) for q, said in person.said for reply in said if q.asked == asked and tells(reply, fact.fact)]
    else:
        asked = ASKED
        told = [(choice.question, reply) for choice, reply in person.chosen[i] if choice.picked(reply)]
    return Evidence(
        topic=ASKED.topic,
        value=fact.fact,
        by=asked.by,
        share=share.share,
        interval=share.interval,
        of_controls=share.of_controls,
        confidence=share.confidence,
        wordings=_different(question.prompt.text for question, _ in told),
        replies=_shown(told),
    )


def _shown(told: Sequence[tuple[Question, str]]) -> list[Said]:
    """The first different replies, each with a question that got it."""
    first = {reply: question.prompt.text for question, reply in reversed(told)}
    return [Said(first[reply], reply) for reply in _different(reply for _, reply in told)[:_SHOWN]]


def _different(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))

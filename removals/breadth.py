"""What would a request close beyond its person? Measured by its words, without a model and without other requests.

A request names one person. So its records have a word in common, a part of the name; few of them ask what everybody
asks; and none of them is about somebody who is to be kept. Each rule measures one share and has one limit:

``several-people``     records that are about another subject than most are
``no-common-name``     records in words that lack the word which most of them have
``common-words``       words that most of them have, and that are everyday words, not names
``general-knowledge``  questions of the general bank that these records ask, or that hold all of their common words
``kept-people``        people of a retain set whose own questions these records ask

A request that breaks a rule may still be right: people are called Rose Baker. So a person can decide otherwise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cache, lru_cache

from mllmeraser.judging.words import plain, spaced, unspaced
from mllmeraser.records.record import Record, by_subject
from mllmeraser.records.same import Asked
from mllmeraser.removals.claims.bank import general
from mllmeraser.removals.entries import Ground, Rule

LIMITS: dict[Rule, float] = {
    "several-people": 0.0,
    "no-common-name": 0.4,
    "common-words": 0.5,
    "general-knowledge": 0.01,
    "kept-people": 0.0,
    "gate-on-general": 0.01,
}
_COMMON = 0.6  # of the records in words hold a word that they have in common
_ASKED = 0.5  # of a kept person's questions make the person's knowledge

# Words that a question is made of, whatever it is about.
_ASKING = """
a about above after all also am an and answer any are as at based be been before being below but by can choose could
complete describe did do does doing english for from give given had has have he her here hers him his how i image in
into is it its just know known knowledge letter like me more most my name named no not now of on one only option or our
out over person photo picture please provide question replace representing say sentence she should shown so some tell
than that the their them then there these they this those to trained under up us use using was we were what when where
which while who whom whose why will with word would yes you your
"""
_OF_QUESTIONS = frozenset(_ASKING.split())


def measured(forget: Sequence[Record], retain: Sequence[Record] = ()) -> tuple[Ground, ...]:
    """What each rule measures; ``kept-people`` only if there is a retain set."""
    bank = general()
    in_words = [_words(record) for record in forget if record.image is None]
    shared = _shared(in_words)
    grounds = [_several(forget)]
    if in_words:
        widest = max(Counter(word for words in in_words for word in words).values(), default=0)
        grounds.append(_ground("no-common-name", 1 - widest / len(in_words), len(in_words)))
    written = [_turn(record) for record in forget]
    names = {word for word in shared if _is_a_name(word, written)}
    if shared:
        grounds.append(_ground("common-words", len((shared - names) & _everyday()) / len(shared), len(shared)))
    asked = sum(_asks(in_words, record) or _holds(record, shared, names) for record in bank)
    grounds.append(_ground("general-knowledge", asked / len(bank), len(bank)))
    if retain:
        grounds.append(_kept_people(forget, in_words, retain))
    return tuple(grounds)


def ground_of_gate(opens: float, n: int) -> Ground:
    """The same of a computed gate: the share of the general bank that it opens on."""
    return _ground("gate-on-general", opens, n)


def _ground(rule: Rule, found: float, of: int) -> Ground:
    return Ground(rule=rule, found=round(found, 6), limit=LIMITS[rule], of=of)


def _several(forget: Sequence[Record]) -> Ground:
    sizes = [len(records) for _, records in by_subject(forget)]
    return _ground("several-people", 1 - max(sizes) / len(forget), len(forget))


def _kept_people(forget: Sequence[Record], in_words: Sequence[frozenset[str]], retain: Sequence[Record]) -> Ground:
    """A retained person counts if the request has the same subject, or asks half of the person's questions."""
    turns, people = Asked(record.user_turn for record in forget), {record.person for record in forget}
    kept = list(by_subject(retain))
    closed = 0
    for _, records in kept:
        asked = sum(r.user_turn in turns or (r.image is None and _asks(in_words, r)) for r in records)
        closed += records[0].person in people or asked >= _ASKED * len(records)
    return _ground("kept-people", closed / len(kept), len(kept))


def _turn(record: Record) -> str:
    return plain(f"{record.user_turn.text} {record.answer_text}")


@lru_cache(65536)
def _split(text: str) -> frozenset[str]:
    """The words of a text but those of any question; of a script without spaces each two characters in a row."""
    flat = plain(text)
    words = {word.casefold() for word in spaced(flat)} - _OF_QUESTIONS
    pairs = {run[i : i + 2] for run in unspaced(flat) for i in range(max(1, len(run) - 1))}
    return frozenset(words | pairs)


def _words(record: Record) -> frozenset[str]:
    return _split(f"{record.user_turn.text} {record.answer_text}")


def _asks(asked: Iterable[frozenset[str]], record: Record) -> bool:
    """Whether records with these words ask the question of ``record``."""
    question = _split(record.prompt or record.question)
    return bool(question) and any(question <= words for words in asked)


def _holds(record: Record, shared: Collection[str], names: Collection[str]) -> bool:
    """Whether a question of the bank is about what the records have in common; "green" is not the name "Green"."""
    return bool(shared) and set(shared) <= _words(record) and all(_is_a_name(word, [_turn(record)]) for word in names)


def _shared(in_words: Sequence[frozenset[str]]) -> set[str]:
    counted = Counter(word for words in in_words for word in words)
    return {word for word, count in counted.items() if count >= _COMMON * len(in_words)}


@cache
def _everyday() -> frozenset[str]:
    """The words of the general bank that are written small there."""
    text = " ".join(_turn(record) for record in general())
    return frozenset(word for word in spaced(text) if word == word.casefold())


def _is_a_name(word: str, texts: Iterable[str]) -> bool:
    """Whether a word is written large inside a sentence, more often than small."""
    large = small = 0
    for text in texts:
        for found in re.finditer(rf"(?<=[\w,;] ){re.escape(word)}\b", text, re.I):
            large, small = large + (found[0][:1].isupper()), small + (found[0][:1].islower())
    return large > small

"""Does a reply tell a fact? Its distinctive words, numbers and dates must stand there, in any order and notation.

A fact is a value in words, such as "Riga, Latvia" or "May 14, 1988". It consists of parts: each word that says
something, each number, length and date. The share of a fact that a reply tells is the mean over its parts; a date
counts by year, month and day. From :data:`TOLD` on the fact is told, below it in part. Somebody who reads "born in
Riga" has not read "Latvia", and has read half of it.

The judge knows words, not meanings. "She was not born in Riga" tells Riga. It cannot know a value that any reply may
hold, such as "yes" or one letter: then it says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Literal, NamedTuple

import regex

from mllmeraser.judging.quantities import Date, dates, in_digits, lengths, numbers
from mllmeraser.judging.words import plain, spaced, stem, unspaced

Degree = Literal["told", "partly", "not", "unknowable"]
TOLD = 5 / 6  # of six parts five, of fewer all

# Words that say how a value is said, not what it is.
_HOW = (
    "a an the this that these those it its itself he him his himself she her hers herself they them their theirs "
    "themselves i me my mine we us our you your who whom whose which what when where why how there here one some any "
    "each every all both such own other of in on at by for from to into onto with without within about as than like "
    "and or but nor so if then because while during through over under between among around near is are was were be "
    "been being am do does did done has have had having will would can could may might must shall should not no "
    "person individual image picture photo very also too just only more most much many currently now s t d ll re ve "
    "named called name names works work working worked employed lives live living lived resides reside born "
    "educated studied studies attended loves love likes enjoys enjoy avid passionate passion fan"
)
FUNCTION_WORDS = frozenset(_HOW.split())
# Of these even a capital makes no name: "In Graz", but "Will Smith".
_IN_TITLES = frozenset(("a", "an", "the", "of", "in", "on", "at", "by", "for", "from", "to", "with", "and", "or"))
# Next to a number they say what it counts, and every notation says it in its own way.
_COUNTED = (
    "cm centimeters centimetres meters metres feet foot inches tall high height dollars dollar usd us euros euro eur "
    "pounds gbp yen jpy cad aud chf francs per year yearly annual annually approximately around old years"
)
_UNITS = frozenset(_COUNTED.split())
_ANSWERS = "yes no true false none ja nein oui non si sim nao да нет はい いいえ 是 否 不是 有 没有 예 아니요"
_YES_OR_NO = frozenset(_ANSWERS.split())
_HIRAGANA = regex.compile(r"\p{Script=Hiragana}+")
_HANGUL = regex.compile(r"\p{Script=Hangul}{2,}")
_PARTICLES = 3  # syllables that Korean hangs on a word at most


class Verdict(NamedTuple):
    """How far a reply tells a fact: in words, and the share of its parts. An unknowable fact has none."""

    degree: Degree
    share: float = 0.0


@dataclass(frozen=True)
class Said:
    """What stands in a reply, in every reading."""

    words: frozenset[str]
    stems: frozenset[str]
    row: str  # the characters of scripts without spaces
    numbers: frozenset[Decimal]
    lengths: frozenset[int]
    dates: frozenset[Date]


@dataclass(frozen=True)
class Parts:
    """What a fact consists of. Words keep their case: names are compared as they are, other words by their stem."""

    words: tuple[str, ...]
    rows: tuple[str, ...]
    numbers: tuple[frozenset[Decimal], ...]
    lengths: tuple[tuple[int, frozenset[Decimal]], ...]
    dates: tuple[tuple[Date, ...], ...]  # each in all its readings

    def __bool__(self) -> bool:
        return bool(self.words or self.rows or self.numbers or self.lengths or self.dates)

    def shares(self, said: Said) -> list[float]:
        """The share of each part that was said, in [0, 1]."""
        return [
            *(float(_word(word, said)) for word in self.words),
            *(float(row in said.row) for row in self.rows),
            *(float(bool(number & said.numbers)) for number in self.numbers),
            *(float(length in said.lengths or bool(bare & said.numbers)) for length, bare in self.lengths),
            *(max(_date(date, said) for date in readings) for readings in self.dates),
        ]


def judge_facts(reply: str, facts: Iterable[str]) -> Verdict:
    """How far a reply tells a fact, whichever of the facts it tells most of.

    >>> judge_facts("She was born in Riga, Latvia.", ["Riga, Latvia"]).degree
    'told'
    >>> judge_facts("Latvia, I think.", ["Riga, Latvia"])
    Verdict(degree='partly', share=0.5)
    >>> judge_facts("She does.", ["yes"]).degree
    'unknowable'
    """
    found = [shares for fact in facts if (shares := parts(fact).shares(_said(reply)))]
    if not found:
        return Verdict("unknowable")
    share = max(sum(shares) / len(shares) for shares in found)
    return Verdict("told" if share >= TOLD else "partly" if share else "not", share)


@lru_cache(65536)
def parts(fact: str) -> Parts:
    """The parts of a fact; none if a reply may hold all of its words by chance."""
    text = plain(fact)
    whole = _longest(dates(text))
    for written in whole:
        text = text.replace(written, " ")
    text = in_digits(text)
    measured = lengths(text)
    for _, written in measured:
        text = text.replace(written, " ")
    counted = numbers(text)
    for _, written in counted:
        text = text.replace(written, " ", 1)
    quantities = bool(whole or measured or counted)
    rows = unspaced(text)
    # Beside other characters, hiragana are endings and particles.
    rows = [part for row in rows for part in _HIRAGANA.split(row) if part] or rows
    return Parts(
        words=tuple(_telling(spaced(text), quantities)),
        rows=tuple(row for row in rows if row not in _YES_OR_NO),
        numbers=tuple(frozenset([max(values)]) for values, _ in counted),
        lengths=tuple((length, _bare(written)) for length, written in measured),
        dates=tuple(map(tuple, whole.values())),
    )


def _telling(found: Sequence[str], quantities: bool) -> list[str]:
    """The words that say something: of "The Who" both, because nothing is left otherwise."""
    said = [word for word in found if word.casefold() not in _YES_OR_NO and not (len(word) == 1 and word.isalpha())]
    names = not any(word.islower() and word not in FUNCTION_WORDS for word in said)
    telling = [word for word in said if not _says_how(word, names)]
    if quantities:
        return _different(word for word in telling if word.casefold() not in _UNITS)
    return _different(telling) or [word for word in said if not word.islower()]


def _different(words: Iterable[str]) -> list[str]:
    """Each word once: in "a nurse who works as a pediatric nurse" the nurse is one part."""
    return list({word.casefold(): word for word in words}.values())


def _says_how(word: str, names: bool) -> bool:
    """Whether a word says nothing by itself; ``names``: among words that are all capitalised."""
    small = word.casefold()
    return small in FUNCTION_WORDS and (word.islower() or not names or small in _IN_TITLES)


def _longest(found: Iterable[tuple[Date, str]]) -> dict[str, list[Date]]:
    """The readings of each date, without dates that stand inside a longer one's notation."""
    readings: dict[str, list[Date]] = {}
    for date, written in found:
        readings.setdefault(written, []).append(date)
    return {
        one: dates for one, dates in readings.items() if not any(one != other and one in other for other in readings)
    }


def _bare(written: str) -> frozenset[Decimal]:
    """The number alone, where it says the length: "167" says "167 cm", and "6" does not say "6 feet"."""
    found = [values for values, digits in numbers(written) if len(digits) > 1]
    return found[0] if len(found) == 1 else frozenset()


@lru_cache(1024)
def _said(reply: str) -> Said:
    text = plain(reply)
    digits = in_digits(text)
    words: set[str] = set()
    for word in [*spaced(text), *spaced(digits)]:
        # "l'Italie" says Italie, and "O'Hara" OHara.
        words |= {part.casefold() for part in (word, word.replace("'", ""), *word.split("'")) if part}
    return Said(
        words=frozenset(words),
        stems=frozenset(map(stem, words)),
        row=" ".join(unspaced(text)),
        numbers=frozenset(value for values, _ in numbers(text) for value in values)
        | frozenset(Decimal(digit) for digit in regex.findall(r"(?<![\d.,])\d+(?!\d)", digits)),
        lengths=frozenset(length for length, _ in lengths(text)),
        dates=frozenset(date for date, _ in dates(text)),
    )


def _word(word: str, said: Said) -> bool:
    folded = word.casefold().replace("'", "")
    if folded in said.words or (word.islower() and stem(folded) in said.stems):
        return True
    return bool(_HANGUL.fullmatch(folded)) and any(
        (other.startswith(folded) or folded.startswith(other)) and abs(len(other) - len(folded)) <= _PARTICLES
        for other in said.words
        if _HANGUL.fullmatch(other)
    )


def _date(date: Date, said: Said) -> float:
    """The share of a date's parts. A day alone, or a month alone, is said by chance."""
    known = [(i, part) for i, part in enumerate(date.parts) if part is not None]
    in_year = Date(date.year) if date.year is not None and Decimal(date.year) in said.numbers else Date()
    best = 0
    for other in [in_year, *said.dates]:
        same = [i for i, part in known if other.parts[i] == part]
        if 0 in same or len(same) > 1:
            best = max(best, len(same))
    return best / len(known)

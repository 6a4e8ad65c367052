"""What a base knows of a person, as against what it guesses. This needs no model: replies come in, a verdict goes out.

A reply tells words (:func:`mllmeraser.judging.deriving.told_anew`). Of each topic and each word w,

    share(w)  = the share of replies that tell w, over all wordings and samples
    excess(w) = share(w) − the larger of
                    the mean of share(w) over all other names, asked the same
                    the lower quartile of share(w) over the other topics, asked of the same name

A word stands if its excess is at least ``FLOOR`` and if most replies to most wordings tell it. So three things do not
stand: what the base says of everybody, what it says of this name whatever it is asked, and what it says in one wording
only. A word that stands in several topics counts in the one that tells it most. The strength of a name is the sum of
the highest excess over the topics.

Every invented name is judged in the same way against all the others. The base knows a person only if the person is
stronger than every invented name. If the person were one more invented name, each of the K + 1 names would be as likely
to be the strongest. So at most 1 / (K + 1) of claims about people whom the base does not know are found known, whatever
the base makes up. Of a person whom it knows, a word counts if at most one in ten of the invented names has a word that
stands as high in its topic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mllmeraser.judging.intervals import Interval, by_subject, wilson
from mllmeraser.judging.results_file import Intervals

FLOOR = 0.5
AS_HIGH = 0.1  # of the invented names may have something that stands as high in a topic


class Told(NamedTuple):
    """A reply: the number of its wording, and the words that it tells."""

    wording: int
    keys: frozenset[str]


Replies = Mapping[str, Sequence[Told]]  # the replies about one name, by topic
Shares = Mapping[str, Mapping[str, float]]  # a number for each word, by topic


@dataclass(frozen=True)
class Known:
    """Words that the base tells of a person under one topic, and how surely.

    ``of_controls`` is the share of replies about invented names that tell them all. ``confidence`` is the lower end of
    the 95 % interval of the difference (Newcombe 1998), at least 0.
    """

    topic: str
    keys: frozenset[str]
    share: float
    interval: Interval
    of_controls: float
    confidence: float


@dataclass(frozen=True)
class Decision:
    """What is known, and how strong the person and each invented name are."""

    known: Sequence[Known]
    strength: float
    controls: Sequence[float]


def decide(person: Replies, controls: Sequence[Replies]) -> Decision:
    """Judge a person against invented names, by the rule of this module. All were asked the same."""
    everybody = [person, *controls]
    shares = [{topic: _shares(told) for topic, told in one.items()} for one in everybody]
    total: dict[str, Counter[str]] = {topic: Counter() for topic in person}
    for one in shares:
        for topic, told in one.items():
            total[topic].update(told)
    standing = [
        _once(_standing(said, own, total, len(controls)), own) for said, own in zip(everybody, shares, strict=True)
    ]
    strengths = [sum(max(words.values(), default=0.0) for words in found.values()) for found in standing]
    known: list[Known] = []
    if strengths[0] > max(strengths[1:], default=math.inf):
        for topic, kept in _beyond_controls(standing).items():
            others = [told for one in controls for told in one[topic]]
            known += [_known(topic, keys, person[topic], others) for keys in _groups(kept, person[topic])]
    return Decision(known, strengths[0], strengths[1:])


def share(keys: Collection[str], said: Sequence[Told]) -> float:
    """The share of replies that tell all of these words."""
    wanted = {*keys}
    return sum(told.keys >= wanted for told in said) / len(said)


def widest(values: Sequence[bool], wordings: Sequence[int]) -> Interval:
    """The 95 % interval of a share: replies to one wording stand together, or all are independent; the outer ends."""
    rate = sum(values) / len(values)
    return Intervals(wilson=wilson(rate, len(values)), by_subject=by_subject(values, wordings)).widest


def beyond(share: float, interval: Interval, others: float, n: int) -> float:
    """The lower end of the 95 % interval of a share minus that of ``n`` other replies, at least 0 (Newcombe 1998)."""
    return max(0.0, share - others - math.hypot(share - interval[0], wilson(others, n)[1] - others))


def _shares(said: Sequence[Told]) -> dict[str, float]:
    counted = Counter(key for told in said for key in told.keys)
    return {key: count / len(said) for key, count in counted.items()}


def _standing(said: Replies, own: Shares, total: Shares, others: int) -> Shares:
    """The words that stand, by topic, and their excess; ``total`` sums the shares of all names."""
    found: dict[str, dict[str, float]] = {}
    for topic, told in own.items():
        elsewhere = [shares for other, shares in own.items() if other != topic]
        found[topic] = {}
        for key, rate in told.items():
            excess = rate - max((total[topic][key] - rate) / max(1, others), _whatever(key, elsewhere))
            if excess >= FLOOR and _survives(key, said[topic]):
                found[topic][key] = excess
    return found


def _whatever(key: str, elsewhere: Sequence[Mapping[str, float]]) -> float:
    """The lower quartile of the shares of a word over the other topics."""
    shares = sorted(told.get(key, 0.0) for told in elsewhere)
    return shares[len(shares) // 4] if shares else 0.0


def _survives(key: str, said: Sequence[Told]) -> bool:
    """Whether most replies to most wordings tell it."""
    by_wording: dict[int, list[bool]] = {}
    for told in said:
        by_wording.setdefault(told.wording, []).append(key in told.keys)
    telling = sum(2 * sum(replies) > len(replies) for replies in by_wording.values())
    return 2 * telling > len(by_wording)


def _groups(standing: Mapping[str, float], said: Sequence[Told]) -> list[frozenset[str]]:
    """Words that most replies tell together are one value: "Riga" and "Latvia", but not "nurse" and "Riga"."""
    groups: list[set[str]] = []
    for key in sorted(standing, key=lambda key: (-standing[key], key)):
        for group in groups:
            if share({*group, key}, said) >= FLOOR:
                group.add(key)
                break
        else:
            groups.append({key})
    return [frozenset(group) for group in groups]


def _known(topic: str, keys: frozenset[str], said: Sequence[Told], of_controls: Sequence[Told]) -> Known:
    own = [told.keys >= keys for told in said]
    rate, others = sum(own) / len(own), share(keys, of_controls)
    interval = widest(own, [told.wording for told in said])
    return Known(topic, keys, rate, interval, others, beyond(rate, interval, others, len(of_controls)))


def _beyond_controls(standing: Sequence[Shares]) -> Shares:
    """What stands of the first name, and as high of at most one in ten of the other names."""
    beyond: dict[str, dict[str, float]] = {}
    for topic, found in standing[0].items():
        best = sorted((max(other[topic].values(), default=0.0) for other in standing[1:]), reverse=True)
        bar = best[int(AS_HIGH * len(best))]
        beyond[topic] = {key: value for key, value in found.items() if value > bar}
    return beyond


def _once(found: Shares, own: Shares) -> Shares:
    """Each word once, under the topic that tells it most: of equals, the first."""
    most: dict[str, tuple[float, str]] = {}
    for topic, keys in found.items():
        for key in keys:
            if key not in most or own[topic][key] > most[key][0]:
                most[key] = own[topic][key], topic
    return {
        topic: {key: value for key, value in keys.items() if most[key][1] == topic} for topic, keys in found.items()
    }

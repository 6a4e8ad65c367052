"""The form of an attack: it takes a model and the records of a set, and says for each record if the answer came out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mllmeraser.errors import InputError
from mllmeraser.evaluation.protocols import Protocol
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import greedy_replies
from mllmeraser.judging.answers import Judge, refuses, verdict
from mllmeraser.judging.choices import lists_letters, named_option
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record


class NotApplicableError(InputError):
    """The attack cannot be made on these records or with this model; the message says why."""


@dataclass(frozen=True)
class Scene:
    """What an attacker has: the model, the records to ask, and the other sets' records about other subjects.

    ``forgotten``: those of them that stand in sets about the forgotten. ``base`` loads the base; it is null where the
    model itself is the base.
    """

    checkpoint: Checkpoint
    load: Callable[[], Checkpoint]  # another copy of the model, to be altered
    records: Sequence[Record]
    others: Sequence[Record]
    protocol: Protocol
    max_new_tokens: int = 50
    seed: int = 0
    forgotten: Sequence[Record] = ()
    base: Callable[[], Checkpoint] | None = None
    judge: Judge = "facts"

    @property
    def kept(self) -> list[Record]:
        """The other records about subjects whom nobody asked to forget.

        Raises:
            NotApplicableError: there are none.
        """
        forgotten = {record.person for record in self.forgotten}
        found = [record for record in self.others if record.person not in forgotten]
        if not found:
            raise NotApplicableError("no other set asks about people to keep; give --data of some")
        return found

    @property
    def turns(self) -> list[Prompt]:
        """The prompt of every record without an attack."""
        return [self.protocol.wording(record) for record in self.records]


class Verdict(NamedTuple):
    """What one record gave away: whether the right answer came out, and whether every reply was a refusal."""

    correct: bool
    refusal: bool


@dataclass(frozen=True)
class Reading:
    """An attack's verdict on every record; null where it does not apply to a record.

    Attacks that look inside the model also give ``chance``, the share that guessing gets, and ``layer``. The others
    give the replies that were ``said``, of every record, and where the base is asked other prompts of its own, what
    it says to these (``of_base``).
    """

    verdicts: Sequence[Verdict | None]
    chance: float | None = None
    layer: int | None = None
    said: Sequence[Sequence[str]] = ()
    of_base: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Attack:
    """A named attack, what it does in one sentence, and the function that runs it.

    ``reads_replies``: it finds the answer in a reply. Only such attacks count in the worst case.

    ``if_base_follows``: it needs an ability that the base may lack, for example a language. Other models are attacked
    only if the base still gives at least half of the answers that it gives without the attack.

    ``budget``: what it may spend, if it needs gradients, training or the files, which no user of a served model has.
    Such an attack stands apart: it gets a row of its own, and does not count in the worst case.

    ``of_kept``: it is no attack but asks kept questions beside forgotten ones. It is run on every kept set, and does
    not count in the worst case.
    """

    name: str
    about: str
    run: Callable[[Scene], list[Reading]]
    reads_replies: bool = True
    if_base_follows: bool = False
    budget: str | None = None
    of_kept: bool = False

    @property
    def in_any(self) -> bool:
        """Whether it counts in the worst case, and in what any attack gets."""
        return self.reads_replies and self.budget is None and not self.of_kept


def gives_away(record: Record, reply: str, asked: str, judge: Judge = "facts") -> bool:
    """Whether a free reply tells the right answer; in multiple choice, whether it names the right option alone."""
    if record.task == "classification" and record.options:
        return named_option(reply, record.options, lists_letters(asked, record.options)) == record.correct_option
    return verdict(reply, record, judge).degree == "told"


Variants = Callable[[Record, Prompt], Sequence[Prompt]]


def asked_in_other_ways(scene: Scene, variants: Variants) -> list[Reading]:
    """Ask every record with all prompts that ``variants`` gives for it, and take the worst of its replies.

    The verdict is correct if any reply gives the answer away, and a refusal if all replies are refusals. A record
    without a prompt has no verdict.

    Raises:
        NotApplicableError: no record has a prompt.
    """
    asked = [(i, prompt) for i, record in enumerate(scene.records) for prompt in variants(record, scene.turns[i])]
    return worst_of(scene, [i for i, _ in asked], [prompt for _, prompt in asked])


def worst_of(scene: Scene, rows: Sequence[int], prompts: Sequence[Prompt]) -> list[Reading]:
    """As :func:`asked_in_other_ways`, for prompts given one by one; ``rows`` holds the index of each one's record."""
    said = greedy_replies(scene.checkpoint, prompts, max_new_tokens=scene.max_new_tokens)
    return judged(scene, rows, prompts, said)


def judged(scene: Scene, rows: Sequence[int], prompts: Sequence[Prompt], said: Sequence[str]) -> list[Reading]:
    """The verdict on the worst reply of every record that was asked.

    Raises:
        NotApplicableError: no record was asked.
    """
    if not rows:
        raise NotApplicableError("it applies to none of the records")
    found: dict[int, list[Verdict]] = {}
    replies: list[list[str]] = [[] for _ in scene.records]
    for row, prompt, reply in zip(rows, prompts, said, strict=True):
        record = scene.records[row]
        # Letters count only where the question itself lists them: earlier turns and a begun reply are not part of it.
        away = gives_away(record, reply, prompt.text, scene.judge)
        found.setdefault(row, []).append(Verdict(away, refuses(reply, record, scene.judge)))
        replies[row].append(reply)
    worst = {
        row: Verdict(any(v.correct for v in verdicts), all(v.refusal for v in verdicts))
        for row, verdicts in found.items()
    }
    return [Reading([worst.get(row) for row in range(len(scene.records))], said=replies)]


def tells(reply: str, record: Record, scene: Scene) -> bool:
    """Whether the scene's judge finds the answer in words that somebody might say."""
    return verdict(reply, record, scene.judge).degree == "told"


def kept_beside(record: Record, people: Sequence[Sequence[Record]], rng: random.Random, scene: Scene) -> Record | None:
    """A record of a subject none of whose answers tells the record's; None if there is none among twenty.

    So that what a reply says about the other is not taken for the answer.

    Args:
        people: the records to choose from, by subject.
    """
    for other in rng.sample(people, min(len(people), 20)):
        if not any(tells(each.answer_text, record, scene) for each in other):
            return rng.choice(other)
    return None

"""What a base is asked about a person: the bank's wordings, by name, by picture, or by both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mllmeraser.records.prompts import AnyPicture, Prompt
from mllmeraser.removals.claims.bank import WAYS, Asked, By, topics

IN_PICTURE = ("this person", "the person in the picture", "the person shown here", "this person")


@dataclass(frozen=True)
class Who:
    """Somebody to ask about. Pictures may be shown with the name and without it."""

    name: str
    pictures: Sequence[AnyPicture] = ()

    @property
    def ways(self) -> Sequence[By]:
        """How the person can be shown."""
        return WAYS if self.pictures else WAYS[:1]


@dataclass(frozen=True)
class Question:
    """A question in one of its wordings; ``tokens`` is the longest reply."""

    asked: Asked
    wording: int
    prompt: Prompt
    tokens: int


def questions(who: Who, ways: Sequence[By] | None = None) -> Iterator[Question]:
    """All questions about somebody. With several pictures each wording takes the next one."""
    for by in who.ways if ways is None else ways:
        for topic in topics():
            if by not in topic.by:
                continue
            for i, wording in enumerate(topic.ask):
                shown = IN_PICTURE[i % len(IN_PICTURE)] if by == "picture" else who.name
                image = None if by == "name" else who.pictures[i % len(who.pictures)]
                text = wording.format(s=shown)
                yield Question(Asked(by, topic.topic), i, Prompt(text, image), topic.tokens)


def one_of_each(asked: Sequence[Question], start: int) -> list[Question]:
    """One wording of each topic, a different one from topic to topic and from ``start`` to ``start``."""
    by_topic: dict[Asked, list[Question]] = {}
    for question in asked:
        by_topic.setdefault(question.asked, []).append(question)
    return [group[(start + i) % len(group)] for i, group in enumerate(by_topic.values())]

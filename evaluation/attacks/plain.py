"""No attack: the record as it is. What the others are compared with, judged in the same way."""

from __future__ import annotations

from mllmeraser.evaluation.attacks.attack import Attack, Reading, Scene, asked_in_other_ways


def plain(scene: Scene) -> list[Reading]:
    """The free reply to the plain question."""
    return asked_in_other_ways(scene, lambda sample, turn: [turn])


PLAIN = Attack("plain", "The question as it stands in the records.", plain)

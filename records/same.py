"""Whether two records mean the same person, or ask the same: the one place that compares names, words and pictures.

People write a name in more than one way: letters with accents in one sign or in two, other blanks, signs that take no
room, other case. And they save a picture again. None of it makes another person, or another question.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import regex

from mllmeraser.records.pictures import content
from mllmeraser.records.prompts import AnyPicture, Prompt

_INVISIBLE = regex.compile(r"\p{Default_Ignorable_Code_Point}")


@lru_cache(65536)
def normal(text: str) -> str:
    """A name or a question as it is compared.

    >>> normal("  ADA\\u200b\\u00a0Ke\\u0301ller ") == normal("ada Kéller")
    True
    """
    flat = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold()
    return " ".join(unicodedata.normalize("NFKC", flat).split())


class Asked:
    """Turns to look others up in: the same words, and both without a picture or with the same one.

    A picture is opened only if another turn has the same words, and only once.
    """

    def __init__(self, turns: Iterable[Prompt]) -> None:
        self._turns: dict[str, list[Prompt]] = {}
        self._contents: dict[object, tuple[AnyPicture, str]] = {}
        for turn in turns:
            self._turns.setdefault(normal(turn.text), []).append(turn)

    def __contains__(self, turn: Prompt) -> bool:
        return any(self._picture(turn) == self._picture(other) for other in self._turns.get(normal(turn.text), ()))

    def _picture(self, turn: Prompt) -> str | None:
        """What the turn shows; a picture in memory is known by its id, for it cannot be hashed."""
        if turn.image is None:
            return None
        key = turn.image if isinstance(turn.image, Path) else id(turn.image)
        if key not in self._contents:
            self._contents[key] = turn.image, content(turn.image, turn.named)  # kept, so that no other gets its id
        return self._contents[key][1]

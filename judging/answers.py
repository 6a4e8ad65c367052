"""What a reply gives away: whether it holds the answer, and whether it refuses without holding it.

Words are compared without regard to case, punctuation and Unicode compatibility forms
(:func:`mllmeraser.judging.degenerate.words`): "new   York!" holds "New York".
"""

from __future__ import annotations

from collections.abc import Iterable

from mllmeraser.judging.degenerate import words
from mllmeraser.judging.refusal import is_refusal


def contains(reply: str, accepted: Iterable[str]) -> bool:
    """Whether some accepted string stands anywhere in the reply, as whole words.

    Anywhere, because an answer behind a refusal has leaked. Whole words, because "man" is no hit in "German";
    MLLMU-Bench's cloze hit is a case-insensitive substring. A string without any word, such as "+", is looked up as is.
    """
    said = words(reply)
    for string in accepted:
        wanted = words(string)
        if not wanted and string.strip() and string.strip() in reply:
            return True
        if wanted and any(said[i : i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1)):
            return True
    return False


def leaks(reply: str, accepted: Iterable[str]) -> bool:
    """As :func:`contains`, but without accepted strings that are themselves refusals: these cannot leak."""
    return contains(reply, [string for string in accepted if not is_refusal(string)])


def refuses(reply: str, accepted: Iterable[str]) -> bool:
    """Whether the reply is a whole refusal that does not give the right answer away. The refusal rate counts these."""
    return is_refusal(reply) and not leaks(reply, accepted)

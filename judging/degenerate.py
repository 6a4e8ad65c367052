"""Replies that say nothing: empty replies and loops."""

from __future__ import annotations

import re
import unicodedata

# A word this many times running, or a group of words, is no language any more; "no, no, no" still is.
WORD_RUN = 4
GROUP_RUN = 3
LONGEST_GROUP = 16
_CHARACTER_RUN = re.compile(r"([^\W_]{1,4}?)\1{7,}")


def words(text: str) -> list[str]:
    """The words of a text: compatibility-normalised, case-folded, without punctuation, apostrophes dropped."""
    flat = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return re.findall(r"[^\W_]+", flat.replace("'", ""))


def is_degenerate(reply: str) -> bool:
    """Whether a reply holds no letter or digit at all, or is a loop.

    A loop is one word four times running, a group of 2–16 words three times running, or 1–4 characters eight times
    running inside a word.
    """
    said = words(reply)
    if not said or any(_CHARACTER_RUN.search(word) for word in said):
        return True
    return any(
        _runs(said, size, WORD_RUN if size == 1 else GROUP_RUN)
        for size in range(1, min(LONGEST_GROUP, len(said) // GROUP_RUN) + 1)
    )


def _runs(said: list[str], size: int, times: int) -> bool:
    """Whether some ``size`` words stand ``times`` times in a row: ``size · (times − 1)`` words equal those before."""
    same = 0
    for before, word in zip(said, said[size:], strict=False):
        same = same + 1 if before == word else 0
        if same == size * (times - 1):
            return True
    return False

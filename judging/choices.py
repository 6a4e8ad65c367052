"""Multiple choice: the reply that names an option, the option a model finds likeliest, and the option it named."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence

from mllmeraser.judging.answers import contains
from mllmeraser.judging.degenerate import words
from mllmeraser.judging.words import is_unspaced


def lists_letters(prompt: str, options: Mapping[str, str]) -> bool:
    """Whether a prompt lists every option by its key: "A: baker", "A. baker", "A) baker" or "(A) baker".

    If it does, it asks for the key, otherwise for the option's text. This one rule needs the prompt alone.
    """
    return all(
        re.search(rf"(?<!\w)\(?{re.escape(key)}(?::|\.|\)|\s[-–])\s*{re.escape(text)}(?!\w)", prompt)
        for key, text in options.items()
    )


def expected_replies(prompt: str, options: Mapping[str, str]) -> dict[str, str]:
    """The reply that names each option, by key: the key itself if the prompt lists letters, else the option's text."""
    return {key: key for key in options} if lists_letters(prompt, options) else dict(options)


def likeliest(log_likelihoods: Sequence[float]) -> int | None:
    """arg max_i log p(option_i | prompt): the option that the model itself finds likeliest as its reply.

    log p is the sum over the option's tokens, not divided by length: how likely the model says exactly this first. The
    result is None, which counts as wrong, if several options share the maximum or a likelihood is not a number: a model
    that finds all options alike knows nothing.
    """
    if not log_likelihoods or any(math.isnan(value) for value in log_likelihoods):
        return None
    best = max(log_likelihoods)
    at = [i for i, value in enumerate(log_likelihoods) if value == best]
    return at[0] if len(at) == 1 else None


def likeliest_per_byte(log_likelihoods: Sequence[float], replies: Sequence[str]) -> int | None:
    """arg max_i log p(option_i | prompt) / |option_i| in UTF-8 bytes, as lm-evaluation-harness's ``acc_norm``.

    This takes away the head start of short options, and gives one to long predictable options: report both.
    """
    return likeliest(
        [value / max(1, len(reply.encode())) for value, reply in zip(log_likelihoods, replies, strict=True)]
    )


def named_option(reply: str, options: Mapping[str, str], by_letter: bool) -> str | None:
    """The key of the one option that a free reply names, or None.

    If letters were asked for, a key that stands alone at the start ("B", "(B)", "B: baker") names its option; "As an
    AI" and "A baker" do not. Otherwise a reply names the option whose text stands in it. A text inside a longer
    option's text that stands there too ("York" in "New York") does not count. A reply that names several options names
    none.
    """
    if by_letter:
        keys = "|".join(re.escape(key) for key in options)
        alone = re.match(rf"\W*({keys})(?:\W*$|\s*[:.,;)\]–-])", reply)
        if alone:
            return alone[1]
    found = [key for key, text in options.items() if _stands(text, reply)]
    longest = [
        key
        for key in found
        if not any(
            other != key and words(options[other]) != words(options[key]) and _stands(options[key], options[other])
            for other in found
        )
    ]
    return longest[0] if len(longest) == 1 else None


def _stands(option: str, reply: str) -> bool:
    """Whether an option's text stands in a reply, as whole words ahead of "'s" too; without spaces as it is."""
    if is_unspaced(option):
        return option in reply
    return contains(reply, [option]) or contains(re.sub(r"(?<=\w)['’]s\b", "", reply), [option])


def first_character(reply: str, keys: Collection[str]) -> str | None:
    """The ``official`` parser: the reply's first character, in upper case, if it is an option's key.

    It reads "As an AI …" as A: this protocol scores so, whatever the reply means.
    """
    first = reply.strip()[:1].upper()
    return first if first and first in keys else None


def first_alphanumeric(reply: str) -> str | None:
    """The ``mmunlearner`` parser: the first Latin letter or digit of the reply, in upper case.

    It need not be the key of an option: a character that is none equals no right key, so a check would not change the
    score.
    """
    return next((character.upper() for character in reply if character.isascii() and character.isalnum()), None)

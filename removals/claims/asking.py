"""Asks the base: greedily, and with random draws. An error on the way names nobody."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mllmeraser.errors import MllmEraserError
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import drawn, greedy_replies, replies_under
from mllmeraser.removals.claims.questions import Question

TEMPERATURE = 0.7
_QUOTED = re.compile(r"the prompt (['\"]).*\1(?: with \S.*?)?(?=: |$)")


def greedy(checkpoint: Checkpoint, asked: Sequence[Question], progress: str) -> list[str]:
    """The likeliest reply to each question."""
    said = [""] * len(asked)
    for limit, rows in _by_length(asked):
        prompts = [asked[i].prompt for i in rows]
        with nameless():
            found = greedy_replies(checkpoint, prompts, max_new_tokens=limit, progress=progress)
        for i, reply in zip(rows, found, strict=True):
            said[i] = reply
    return said


def replies(checkpoint: Checkpoint, asked: Sequence[Question], samples: int, seed: int) -> list[list[str]]:
    """``samples`` replies to each question: the likeliest first, the others drawn."""
    said = [[reply] for reply in greedy(checkpoint, asked, "replies")]
    if samples == 1:
        return said
    settings = drawn(TEMPERATURE, samples - 1)
    for limit, rows in _by_length(asked):
        prompts = [asked[i].prompt for i in rows]
        with nameless():
            found = replies_under(checkpoint, prompts, settings, max_new_tokens=limit, seed=seed, progress="draws")
        for i, more in zip(rows, found, strict=True):
            said[i] += more
    return said


def _by_length(asked: Sequence[Question]) -> Iterator[tuple[int, list[int]]]:
    """The questions whose replies may be equally long; a batch takes as long as its longest reply."""
    for limit in sorted({question.tokens for question in asked}):
        yield limit, [i for i, question in enumerate(asked) if question.tokens == limit]


@contextmanager
def nameless() -> Iterator[None]:
    """Errors that quote a prompt name somebody, and logs keep errors: the quotation is taken out.

    Raises:
        MllmEraserError: what was raised inside, of the same class.
    """
    try:
        yield
    except MllmEraserError as error:
        raise type(error)(_QUOTED.sub("a question about a person", str(error))) from None

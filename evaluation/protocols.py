"""Protocols under one name each: how a question is worded, and how a letter is read from a reply.

Three protocols are called "MLLMU-Bench" in the literature (arXiv 2410.22108 and its followers). Two are zero-shot and
stand here; ``official`` puts one or two worked examples ahead of the question. The chat template of the model's own
processor wraps the wording, and a record's own ``prompt`` is used word for word in every protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from mllmeraser.errors import InputError
from mllmeraser.inference.prompts import Prompt
from mllmeraser.steering.samples import Sample


def first_character(reply: str, keys: Collection[str]) -> str | None:
    """The ``official`` parser: the reply's first character if it is an option's key.

    "As an AI …" is read as A: that is how this protocol scores, not what the reply means.
    """
    first = reply.strip()[:1]
    return first if first and first in keys else None


def first_alphanumeric(reply: str) -> str | None:
    """The ``mmunlearner`` parser: whatever is not alphanumeric stripped, then the first character, an option or not.

    A character that is no option's key equals no right key, so checking the options would not change the score.
    """
    return next((character for character in reply if character.isalnum()), None)


def mllmeraser_wording(sample: Sample) -> Prompt:
    """The wording of records by default (:attr:`Sample.user_turn`): MLLMU-Bench's sentences without "accurately"."""
    return sample.user_turn


def mmunlearner_wording(sample: Sample) -> Prompt:
    """As above, but an open question about a picture is to be answered "accurately"."""
    if sample.prompt is None and sample.task == "generation" and sample.image is not None:
        text = (
            f"{sample.question}\n"
            "Answer the question based on your trained knowledge in one sentence accurately in ENGLISH."
        )
        return Prompt(text, sample.image)
    return sample.user_turn


@dataclass(frozen=True)
class Protocol:
    """A protocol's name and its wording of a record. Letters are read by both parsers in every protocol."""

    name: str
    wording: Callable[[Sample], Prompt]


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("mllmeraser", mllmeraser_wording),
        Protocol("mmunlearner", mmunlearner_wording),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise InputError(f"--protocol {name}: not one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]

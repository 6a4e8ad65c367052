"""The words for what stands in a ledger: its events, its rules, and any entry in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mllmeraser.removals.breadth import LIMITS
from mllmeraser.removals.entries import Ground, OfLedger, OfRequest

EVENTS = {
    "opened": "the ledger was opened",
    "received": "received",
    "decided": "decided",
    "extended": "put off",
    "computed": "computed",
    "exported": "exported",
    "measured": "asked again",
    "measured-kept": "kept records asked",
    "withdrawn": "withdrawn",
    "answered": "answered",
    "erased": "link erased",
    "signed": "signed",
}
_RULES = {
    "several-people": "records are about another subject than most",
    "no-common-name": "records in words lack the word that most have in common, which would be a name",
    "common-words": "words that the records have in common are everyday words, and no name",
    "general-knowledge": "questions of general knowledge are asked by it, or are about what its records have in common",
    "kept-people": "people to keep would be forgotten with it",
    "gate-on-general": "questions of general knowledge open its gate",
}


def said_of(ground: Ground) -> str:
    """What was measured, in words."""
    return f"{ground.found:.1%} of {ground.of} {_RULES[ground.rule]} (at most {LIMITS[ground.rule]:.0%})"


def said_of_facts(facts: OfRequest | OfLedger) -> str:
    """The facts of an entry in one line; empty if the event says all."""
    return ", ".join(_flat(facts.model_dump(mode="json", exclude={"event"})))


def _flat(value: Mapping[str, Any]) -> Iterator[str]:
    for key, inner in value.items():
        name = key.replace("_", " ")
        if inner is None or inner == []:
            continue
        if isinstance(inner, dict):
            yield f"{name} ({', '.join(_flat(inner))})"
        elif isinstance(inner, list):
            yield f"{name} ({'; '.join(', '.join(_flat(each)) for each in inner)})"
        elif isinstance(inner, float):
            yield f"{name} {inner:.4g}"
        else:
            yield f"{name} {inner}"

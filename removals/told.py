"""What a command about requests prints: one document, and the same in lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Told:
    """The result of a call: ``facts`` for a program, ``words`` for a person."""

    facts: Mapping[str, Any]
    words: Sequence[str]

    def document(self) -> dict[str, Any]:
        """The JSON document of ``--json`` (``docs/json.md``)."""
        return {"schema": 1, **self.facts}

    def lines(self) -> list[str]:
        """The same, for a person."""
        return list(self.words)

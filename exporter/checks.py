"""The parts of a verification: named checks, each with one line of detail. No check can stop the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mllmeraser.errors import escaped, first_line
from mllmeraser.inference.source import DAMAGE

SCHEMA = 1


class CheckFailed(Exception):  # noqa: N818 - reads as what it says
    """A promise is not kept; the message is the check's detail."""


FAILURES = (CheckFailed, *DAMAGE)


@dataclass(frozen=True)
class Check:
    """One promise, and in ``detail`` one line on what was found; names of files come from anybody."""

    name: str
    ok: bool
    detail: str

    def __post_init__(self) -> None:
        for field in ("name", "detail"):
            object.__setattr__(self, field, escaped(getattr(self, field)))


def run(name: str, check: Callable[[], str]) -> Check:
    """Run one check. An error that a damaged file causes becomes a failed check."""
    try:
        return Check(name, True, check())
    except CheckFailed as failure:
        return Check(name, False, str(failure))
    except DAMAGE as error:
        return Check(name, False, f"{type(error).__name__}: {first_line(error)}")

"""The parts of a verification: named checks, each with one line of detail. No check can stop the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from mllmeraser.errors import MllmEraserError

SCHEMA = 1

# Python, safetensors, torch and transformers raise these on a damaged JSON, safetensors file or configuration.
# Not Exception: a mistake of ours (an AssertionError, a NameError) must be seen.
DAMAGE = (
    MllmEraserError,
    OSError,
    ValueError,  # with UnicodeDecodeError, JSONDecodeError and SteeringError
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,  # with RecursionError, and torch's own
    MemoryError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


class CheckFailed(Exception):  # noqa: N818 - reads as what it says
    """A promise is not kept; the message is the check's detail."""


FAILURES = (CheckFailed, *DAMAGE)


@dataclass(frozen=True)
class Check:
    """One promise, and in ``detail`` one line on what was found."""

    name: str
    ok: bool
    detail: str


def run(name: str, check: Callable[[], str]) -> Check:
    """Run one check. An error that a damaged file causes becomes a failed check."""
    try:
        return Check(name, True, check())
    except CheckFailed as failure:
        return Check(name, False, str(failure))
    except DAMAGE as error:
        return Check(name, False, f"{type(error).__name__}: {one_line(error)}")


def one_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__

"""What a verification is made of: named checks, each with one line, none of which can stop the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from mllmeraser.errors import MllmEraserError

SCHEMA = 1

# What reading a damaged JSON, safetensors or configuration raises, in Python, safetensors, torch and transformers.
# Not Exception: a mistake of ours, for example an AssertionError or NameError, must be seen.
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
    """One promise: ``detail`` says in one line what was found."""

    name: str
    ok: bool
    detail: str


def run(name: str, check: Callable[[], str]) -> Check:
    """Run one check; whatever a damaged file does to it becomes a failed check."""
    try:
        return Check(name, True, check())
    except CheckFailed as failure:
        return Check(name, False, str(failure))
    except DAMAGE as error:
        return Check(name, False, f"{type(error).__name__}: {one_line(error)}")


def one_line(error: BaseException) -> str:
    """The first line of an error that says something, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__

"""The errors that a user can meet. Each is one line: what is wrong, where, and how to mend it.

The class decides the command's exit code (listed in ``mllmeraser --help`` and the README). Messages quote what they
were given. So every message goes through :func:`shown`: it stays one line, moves no cursor, and no value fills the
screen.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST_WORD = 255  # a file name holds no more; what is longer is no name, and nobody reads it
_KEPT, _FIRST_LINE = 60, 300
_UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, marks that turn a line round, half characters, line ends
_LONG = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


class MllmEraserError(Exception):
    """Something failed: exit code 1."""

    exit_code = 1

    def __str__(self) -> str:
        """The message as :func:`shown`."""
        return shown(super().__str__())


class InputError(MllmEraserError):
    """The call is wrong, or a file that it was given: exit code 2."""

    exit_code = 2


class VerificationError(MllmEraserError):
    """A checkpoint breaks one of its promises: exit code 3."""

    exit_code = 3


class QualityGateError(MllmEraserError):
    """The data or the model cannot give a result worth having, for example a base that does not refuse: exit code 4."""

    exit_code = 4


def clipped(value: str) -> str:
    """A value as a message quotes it: its start, if it is longer than a line has room for."""
    return value if len(value) <= _KEPT else f"{value[: _KEPT - 1]}…"


def shown(text: str) -> str:
    """A message as it may be printed: control characters as their escapes, a run without blanks cut short.

    >>> shown("no such file: " + "A" * 3000 + "\\n")
    'no such file: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA… (3,000 characters)\\\\n'
    """
    return escaped(_LONG.sub(lambda run: f"{run[0][:_KEPT]}… ({len(run[0]):,} characters)", text))


def escaped(text: str) -> str:
    """The text on one line of a terminal: what a terminal would obey, or not show, is written as an escape."""
    return "".join(
        sign.encode("unicode_escape").decode("ascii") if unicodedata.category(sign) in _UNSHOWN else sign
        for sign in text
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty, at most 300 characters; without one, its type.

    A line that ends with a colon says nothing without the next.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return shown(said)[:_FIRST_LINE]

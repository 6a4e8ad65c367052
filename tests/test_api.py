"""What the commands do is one call from Python each, written once, documented, typed and imported when asked for."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable

import pytest

import mllmeraser
from mllmeraser.cli import cli

# A command that is nothing but other calls.
NO_CALL = ("demo",)
CALLS = [name for name in mllmeraser.__all__ if name != "__version__"]


def test_every_command_is_a_call() -> None:
    for command in cli.commands:
        assert command in NO_CALL or command.replace("-", "_") in CALLS, command


def test_nothing_heavy_is_imported_before_a_call_is_asked_for() -> None:
    code = (
        "import sys, mllmeraser; dir(mllmeraser); sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'rich')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_typed_and_says_what_it_takes_raises_and_how_it_is_made(name: str) -> None:
    call: Callable[..., object] = getattr(mllmeraser, name)
    signature = inspect.signature(call)
    assert call.__name__ == name
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in signature.parameters.values())
    assert call.__doc__ is not None
    assert "Raises:" in call.__doc__
    assert f"mllmeraser.{name}(" in call.__doc__.partition("Example::")[2]


def test_a_call_stays_a_call_when_the_room_of_its_name_is_imported() -> None:
    from mllmeraser.report.page import page

    assert callable(page)
    assert inspect.isfunction(mllmeraser.report)
    from mllmeraser import report

    assert report is mllmeraser.report


def test_what_is_no_call_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'mllmeraser' has no attribute 'unlearn'"):
        _ = mllmeraser.unlearn  # type: ignore[attr-defined]
    assert set(CALLS) < set(dir(mllmeraser))

"""What the commands do is one call from Python each, listed once, documented and typed."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

import mllmeraser
from mllmeraser import api
from mllmeraser.cli import cli

# A command whose call has another name, and one that is nothing but other calls.
NAMES = {"demo": None}
CALLS = [getattr(api, name) for name in api.__all__]


def test_every_command_is_a_call() -> None:
    for command in cli.commands:
        name = NAMES.get(command, command.replace("-", "_"))
        assert name is None or name in api.__all__, command


def test_the_calls_are_the_names_of_the_package() -> None:
    assert set(mllmeraser.__all__) == {*api.__all__, "__version__"}
    for name in api.__all__:
        assert getattr(mllmeraser, name) is getattr(api, name)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_a_call_is_typed_and_says_what_it_takes_and_raises(call: Callable[..., object]) -> None:
    signature = inspect.signature(call)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in signature.parameters.values())
    assert call.__doc__ is not None
    assert "Raises:" in call.__doc__

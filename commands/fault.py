"""A fault of this tool: a report of it that holds nothing of the user's, and the line that says how to send it."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rich_click as click
from rich.markup import escape

import mllmeraser
from mllmeraser.console import console

_PACKAGES = ("torch", "transformers", "huggingface_hub", "safetensors", "accelerate", "pydantic", "pillow", "click")
_HOME = Path(mllmeraser.__file__).parent.resolve()


def said_of(error: BaseException, arguments: Sequence[str], commands: Mapping[str, click.Command]) -> str:
    """Write the report, and return what to tell the user in one line.

    Args:
        arguments: the command line, without the program.
        commands: what the command line may name.
    """
    name, frames = type(error).__name__, list(_frames(error))
    where = f"{name} in {frames[-1]}" if frames else name
    try:
        descriptor, path = tempfile.mkstemp(prefix="mllmeraser-fault-", suffix=".txt")  # only this user may read it
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(report(error, arguments, commands))
    except OSError as failure:
        return f"this is a fault of mllmeraser ({where}); no report could be written ({failure.strerror}): use --debug"
    return (
        f"this is a fault of mllmeraser ({where}); {path} reports it without names, texts or paths of yours: "
        "please attach it to an issue where you got mllmeraser from (--debug shows everything here)"
    )


def report(error: BaseException, arguments: Sequence[str], commands: Mapping[str, click.Command]) -> str:
    """Types of the errors, lines of our own files, versions, and the command's name and options without their values.

    A message is left out: it may quote a record.
    """
    lines = [f"mllmeraser {mllmeraser.__version__}, a fault", f"command: {' '.join(_spelled(arguments, commands))}"]
    lines += [f"python {platform.python_version()} on {sys.platform} {platform.machine()}"]
    lines += [f"{name} {_version(name)}" for name in _PACKAGES]
    while True:
        kind = type(error)
        lines += ["", f"{kind.__module__}.{kind.__qualname__}", *(f"  {frame}" for frame in _frames(error))]
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            return "\n".join([*lines, ""])
        error = cause


def say(text: str) -> None:
    """Print an error, also under ``--quiet``, which is about progress."""
    console.quiet = False
    console.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)


def _frames(error: BaseException) -> Iterator[str]:
    """The places in our own files, from the outermost to where it happened."""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename).resolve()
        if path.is_relative_to(_HOME):
            yield f"{path.relative_to(_HOME).as_posix()}, line {frame.lineno}, {frame.name}"


def _spelled(arguments: Sequence[str], commands: Mapping[str, click.Command]) -> Iterator[str]:
    """The command and its options; never a value, though it looks like an option."""
    command = commands.get(arguments[0]) if arguments else None
    if command is None:
        return
    yield arguments[0]
    if isinstance(command, click.Group):
        yield from _spelled(arguments[1:], command.commands)
        return
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    yield from (name for argument in arguments[1:] if (name := argument.partition("=")[0]) in known and name[:1] == "-")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

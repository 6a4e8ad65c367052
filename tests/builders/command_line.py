"""The commands, run in this process or in one of their own, and what they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from mllmeraser import cli


class Result(NamedTuple):
    """What a command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """Its one line of complaint."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("error: "), self.stderr
        assert self.stdout == ""
        return lines[0].removeprefix("error: ")


class Run:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capsys, self.patch = capsys, patch

    def __call__(self, *arguments: object) -> Result:
        self.capsys.readouterr()
        self.patch.setattr(sys, "argv", ["mllmeraser", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = self.capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Result(exit_.value.code, captured.out, captured.err)


def mllmeraser(*arguments: object, cwd: Path | None = None) -> Result:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "mllmeraser.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def document(result: Result) -> dict[str, object]:
    """The one JSON document on stdout, nothing else."""
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    assert value["schema"] == 1
    return value

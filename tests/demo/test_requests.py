"""Three requests on the demo model: all are forgotten, one is withdrawn and known again, and the others stay so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders.command_line import Run

from mllmeraser.demo.people import world
from mllmeraser.removals.ledger import Ledger


@pytest.mark.slow
def test_the_life_of_three_requests(tmp_path: Path) -> None:
    out = tmp_path / "life"
    call = [sys.executable, "-m", "mllmeraser.cli", "demo", str(out), "--requests", "--json"]
    done = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    people = world().circle("forget")[:3]
    assert [row["name"] for row in told["requests"]] == [person.name for person in people]
    for number, (row, person) in enumerate(zip(told["requests"], people, strict=True)):
        assert person.value("profession") in row["before"]
        assert row["with_all"] == "I cannot help with that request."
        assert row["after_withdrawal"] == (row["before"] if number == 1 else row["with_all"])
    assert told["others_identical"] is True
    ledger = Ledger(out / "requests")
    assert ledger.verify(exports=[out / "two"]).ok
    assert [request.status for request in ledger.state().requests.values()] == ["active", "withdrawn", "active"]
    letters = {path.name for path in (out / "letters").iterdir()}
    assert {f"{id_}-subject.{form}" for id_ in ledger.state().requests for form in ("md", "html")} < letters
    assert done.stderr.splitlines()[-1].startswith("next: mllmeraser requests verify --ledger ")


def test_it_lives_on_the_toy_alone(run: Run, tmp_path: Path) -> None:
    done = run("demo", tmp_path / "life", "--requests", "--model", "smollm2")
    assert (done.code, done.error) == (2, "--requests lives on the toy alone: leave out --model")
    assert not list(tmp_path.iterdir())

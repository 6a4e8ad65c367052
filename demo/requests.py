"""The life of three requests on the small model: received, computed, exported, one withdrawn, answered by letters.

Settings that the demo's full run has found spare most of the calibration, and each person has a third of the demo's
records. So this takes less than two minutes, and its figures are not those of the full run.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import logging

from mllmeraser.console import console
from mllmeraser.demo.data import write_data
from mllmeraser.demo.people import world
from mllmeraser.demo.run import CHECKPOINT, LISTING, Clock
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.disk.staging import publish, staging
from mllmeraser.disk.target import directory_target
from mllmeraser.errors import MllmEraserError, VerificationError
from mllmeraser.evaluation.answering import answer
from mllmeraser.inference.loading import load
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.removals.ledger import Ledger

PEOPLE, WITHDRAWN = 3, 1  # so many requests; the second is withdrawn
_THIRD = 3  # each third record
_SETTINGS = {
    "layers": "4,7",
    "gate_layer": "4",
    "null_space": "soft:30",
    "bandwidth": "1",
    "gate_fit": "positions",
    "strength": "1.0",
    "landmarks": 256,
    "augment": False,
}


@dataclass(frozen=True)
class Life:
    """What the three requests came to, and the directory with the ledger, both exports and the letters.

    ``rows``: for each request the id, the name (of a person who does not exist), a question, and the replies to it of
    the base, of the export with all three, and of the one without the second.
    """

    directory: Path
    rows: Sequence[Mapping[str, Any]]
    others_identical: bool
    listed: Sequence[str]
    seconds: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        """The JSON document of ``demo --requests --json`` (``docs/json.md``)."""
        return {
            "schema": 1,
            "requests": [dict(row) for row in self.rows],
            "others_identical": self.others_identical,
            "seconds": dict(self.seconds),
            "output": str(self.directory),
        }

    def lines(self) -> list[str]:
        """The three lives, and where everything lies."""
        lines = []
        for row in self.rows:
            lines += [f"{row['id']}  {row['name']}: {row['question']}"]
            lines += [f"    {when:22} {row[key]}" for key, when in _WHEN.items()]
        same = "bit for bit as before" if self.others_identical else "CHANGED"
        here = self.directory
        return [
            *lines,
            "",
            f"After the withdrawal, the replies about the other two are {same}.",
            "",
            *self.listed,
            "",
            f"Written to {here} in {self.seconds['total']:.0f} s:",
            "  requests/       the ledger: entries without names, and beside them what leads to a person",
            "  three/, two/    the exports before and after the withdrawal",
            "  letters/        what the three people and an auditor get to read",
            "",
            "Try:",
            f"  mllmeraser requests show {self.rows[0]['id']} --ledger {here}/requests",
            f"  mllmeraser requests letter {self.rows[0]['id']} --for controller --ledger {here}/requests",
        ]

    def next_command(self) -> str:
        """The natural next command."""
        return f"mllmeraser requests verify --ledger {self.directory}/requests --export {self.directory}/two"


_WHEN = {"before": "before", "with_all": "with all three", "after_withdrawal": "after the withdrawal"}


def run_requests(directory: Path, *, overwrite: bool = False, seed: int = 0) -> Life:
    """Live three requests. ``directory`` appears when everything is done, or not at all.

    Raises:
        InputError: the directory is not empty, or cannot be written to.
        VerificationError: the ledger does not keep its promises, or the withdrawal changed another's outputs.
    """
    if not CHECKPOINT.is_dir():
        raise MllmEraserError("this installation carries no demo model; train one: python -m mllmeraser.demo.train")
    directory = directory_target(directory, LISTING if overwrite else None)
    logging.disable_progress_bar()
    with staging(directory) as folder:
        life = _live(folder, directory, seed)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        write_atomically(folder / LISTING, f"{json.dumps({'files': files}, indent=2)}\n".encode())
        publish(folder, directory, LISTING if overwrite else None)
    for private in (directory / "requests", *(directory / "requests").rglob("*")):
        if private.is_dir():  # published directories are for everybody, a ledger is not
            private.chmod(0o700)
    return life


def _live(folder: Path, directory: Path, seed: int) -> Life:
    clock = Clock()
    with clock("data"), console.status("drawing people"):
        people = _write_people(folder, seed)
        shutil.copytree(CHECKPOINT, folder / "base")
    ledger = Ledger(folder / "requests")
    came = datetime.date.today() - datetime.timedelta(days=9)
    for name, records in people.items():
        ledger.add(records, came, name=name)
    ids = list(ledger.state().requests)
    with clock("compute"):
        told = ledger.compute(
            folder / "base", folder / "data" / "kept.jsonl", recipe=folder / "recipe.toml", dtype="float32", seed=seed
        )
    if told.facts["failed"]:
        raise VerificationError("; ".join(told.words))
    with clock("export and ask"):
        ledger.export(folder / "base", folder / "three")
        ledger.measure(folder / "base", folder / "three", dtype="float32", seed=seed)
        ledger.withdraw(ids[WITHDRAWN], "person")
        ledger.export(folder / "base", folder / "two")
        kept = [request for number, request in enumerate(ids) if number != WITHDRAWN]
        asked = [_in_words(read_records(path)) for path in people.values()]
        replies = [_replies(folder / name, asked) for name in ("base", "three", "two")]
    same = all(replies[1][n] == replies[2][n] for n in range(PEOPLE) if n != WITHDRAWN)
    with clock("letters"):
        (folder / "letters").mkdir()
        for request in ids:
            ledger.letter(request, "subject", folder / "letters")
        ledger.letter(kept[0], "auditor", folder / "letters")
    verified = ledger.verify(exports=[folder / "two"])
    if broken := [check for check in verified.checks if not check.ok]:
        raise VerificationError(f"the ledger breaks a promise: {broken[0].name}: {broken[0].detail}")
    if not same:
        raise VerificationError("the withdrawal of one request changed the outputs of another")
    rows = [
        {
            "id": request,
            "name": name,
            "question": asked[n].user_turn.text,
            **{key: replies[at][n] for at, key in enumerate(_WHEN)},
        }
        for n, (request, name) in enumerate(zip(ids, people, strict=True))
    ]
    return Life(directory, rows, same, ledger.listed().lines(), clock.stop())


def _write_people(folder: Path, seed: int) -> dict[str, Path]:
    """Write ``kept.jsonl``, ``recipe.toml`` and a file of records for each person; the files by the person's name."""
    data = write_data(folder / "data", seed)
    files = {}
    for person in world().circle("forget")[:PEOPLE]:
        own = [line for line in _lines(data["forget"]) if json.loads(line)["subject"] == person.subject]
        files[person.name] = folder / "data" / f"{person.subject}.jsonl"
        files[person.name].write_text("".join(own[::_THIRD]), encoding="utf-8")
    (folder / "data" / "kept.jsonl").write_text("".join(_lines(data["retain"])[::_THIRD]), encoding="utf-8")
    settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in _SETTINGS.items())
    (folder / "recipe.toml").write_text(settings, encoding="utf-8")
    return files


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True)


def _in_words(records: Sequence[Record]) -> Record:
    """A question about the person that needs no picture."""
    return next(record for record in records if record.image is None and record.task == "generation")


def _replies(checkpoint: Path, asked: Sequence[Record]) -> list[str]:
    return [reply.text for reply in answer(load(checkpoint, dtype="float32"), asked)]

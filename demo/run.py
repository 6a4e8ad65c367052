"""Runs the whole job on a demo model: compute, export, verify, reload as a stranger would, ask, score, report.

It computes the paper's steering and ours on the same forget set and retain set, and exports both. Then
:mod:`mllmeraser.demo.stranger` loads the base, the paper's export, ours, and ours switched off, each in a process that
cannot import mllmeraser, and asks all of them the same questions. The replies come back as files and are scored here.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.utils import logging

from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.console import console
from mllmeraser.demo.data import write_data
from mllmeraser.demo.strangers import Strangers
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.disk.staging import publish, staging
from mllmeraser.disk.target import directory_target
from mllmeraser.errors import MllmEraserError, VerificationError
from mllmeraser.evaluation.activation_map import activation_maps
from mllmeraser.evaluation.answering import answer
from mllmeraser.evaluation.attacks import catalogue
from mllmeraser.evaluation.attacks.run import Assault, attack, attack_lines
from mllmeraser.evaluation.cross_check import compared
from mllmeraser.evaluation.inputs import NamedModel, NamedSet
from mllmeraser.evaluation.items import Item, Reply, score
from mllmeraser.evaluation.run import score_replies
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.gates import read_gates
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.source import Source
from mllmeraser.judging.results_file import CrossCheck, ResultsFile, Row
from mllmeraser.records.read import read_records
from mllmeraser.report.report import report
from mllmeraser.steering.compute import compute
from mllmeraser.steering.recipe import make_recipe

CHECKPOINT = Path(__file__).parent / "checkpoint"
# The name of each set in the table, and its file.
SETS: Mapping[str, str] = {
    "forget": "forget_eval",
    "test": "test",
    "retain_fit": "retain_fit",
    "retain_heldout": "retain_heldout",
    "celebrity": "celebrity",
    "common": "common",
}
MODELS = ("toy", "smollm2")
ASKED_AGAIN = 100  # questions of each set that our own reader asks too
ATTACKED = 24  # questions about the forgotten that are asked under attack too
ATTACKS = {
    "plain",
    "paraphrase",
    "alias",
    "image-crop",
    "prefill",
    "system-turn",
    "multi-turn",
    "banned-refusal",
    "option-logit",
}
RECIPES: Mapping[str, Mapping[str, Any]] = {"paper": {"preset": "paper"}, "steered": {}}


@dataclass(frozen=True)
class Outcome:
    """What the demo found (the results of ``evaluate``, with a map of hidden states), and the directory it wrote."""

    directory: Path
    found: ResultsFile
    assault: Assault
    seconds: Mapping[str, float]

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of all models and sets."""
        return self.found.rows

    def document(self) -> dict[str, Any]:
        """The JSON document of ``demo --json`` (``docs/json.md``)."""
        return {**self.found.document(), "seconds": dict(self.seconds), "output": str(self.directory)}

    def lines(self) -> list[str]:
        """What attacks get, what was written where, and commands to try."""
        here = self.directory
        data = f"--data test={here}/data/test.jsonl --data common={here}/data/common.jsonl"
        return [
            *attack_lines(self.assault),
            "",
            f"Written to {here} in {self.seconds['total']:.0f} s (both exports {self.seconds['export']:.2f} s):",
            "  base/        the model before",
            "  steered/     the model that forgot: from_pretrained(…, trust_remote_code=True) loads it",
            "  paper/       the model that forgot by the published method",
            "  data/        the records: who is forgotten, what is kept, what was asked",
            "  report.html  all of it on one page, for a browser",
            "",
            "Try:",
            f"  mllmeraser inspect {here}/steered",
            f"  mllmeraser evaluate base={here}/base steered={here}/steered {data}",
            f"  mllmeraser compute {here}/base --forget {here}/data/forget.jsonl --retain {here}/data/retain.jsonl \\",
            "      --gate linear --reply-steps 1 -o linear.safetensors",
        ]

    def next_command(self) -> str:
        """The natural next command."""
        return f"mllmeraser verify {self.directory}/steered --base {self.directory}/base"


LISTING = "mllmeraser-demo.json"  # lists the other files, so that --overwrite knows what it may remove


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        before = time.monotonic()
        yield
        spent = self.seconds.get(stage, 0.0) + time.monotonic() - before
        self.seconds[stage] = round(spent, 2)

    def stop(self) -> dict[str, float]:
        """All stages and the total."""
        return {**self.seconds, "total": round(time.monotonic() - self.started, 2)}


def run(directory: Path, *, model: str = "toy", overwrite: bool = False, seed: int = 0) -> Outcome:
    """Run the whole demo. ``directory`` appears when everything is done, or not at all.

    Args:
        model: one of `MODELS`.
        overwrite: replace a directory that is not empty.
        seed: of the questions, the folds and the landmarks.

    Raises:
        InputError: the directory is not empty, or cannot be written to, or the model's package is not installed.
        VerificationError: an export does not keep its promises.
    """
    writers = _writers(model)
    directory = directory_target(directory, LISTING if overwrite else None)
    clock = Clock()
    with staging(directory) as folder:
        found, assault = _run(folder, writers, seed, clock)
        outcome = Outcome(directory, found, assault, clock.stop())
        write_atomically(folder / "results.json", f"{json.dumps(outcome.document(), indent=2)}\n".encode())
        report([folder / "results.json"], folder / "report.html", calibration=folder / "calibration.json")
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        write_atomically(folder / LISTING, f"{json.dumps({'files': files}, indent=2)}\n".encode())
        publish(folder, directory, LISTING if overwrite else None)
    return outcome


class _Writers(NamedTuple):
    """What writes a model's checkpoint, and what writes its records with a seed."""

    base: Callable[[Path], object]
    data: Callable[[Path, int], Mapping[str, Path]]


def _writers(model: str) -> _Writers:
    """The writers of one of `MODELS`; an error says what this installation lacks for it."""
    if model == "smollm2":
        from mllmeraser.demo.smollm2 import data, parts

        parts.check()
        return _Writers(parts.write_base, data.write_data)
    if not CHECKPOINT.is_dir():
        raise MllmEraserError("this installation carries no demo model; train one: python -m mllmeraser.demo.train")
    return _Writers(partial(shutil.copytree, CHECKPOINT), write_data)


def _run(folder: Path, writers: _Writers, seed: int, clock: Clock) -> tuple[ResultsFile, Assault]:
    logging.disable_progress_bar()
    with clock("data"), console.status("drawing people"):
        paths = writers.data(folder / "data", seed)
        writers.base(folder / "base")
    sets = [NamedSet(name, read_records(paths[file])) for name, file in SETS.items()]
    asked = [record for named in sets for record in named.records]
    with tempfile.TemporaryDirectory() as scratch, Strangers(Path(scratch), asked) as strangers, _one_thread_less():
        # The base answers in its own process while this one computes the steering.
        strangers.ask("base", folder / "base", {})
        with clock("compute"):
            forget, retain = read_records(paths["forget"]), read_records(paths["retain"])
            base = load(folder / "base", dtype="float32")
            computed = {
                name: compute(base, forget, retain, make_recipe("llava", given), request_id=name, seed=seed)
                for name, given in RECIPES.items()
            }
        tried = json.dumps(computed["steered"].document(), indent=2)
        write_atomically(folder / "calibration.json", f"{tried}\n".encode())
        for name, computation in computed.items():
            save_bundle(computation.bundle, folder / f"{name}.safetensors")
            with clock("export"):
                export(Source(folder / "base"), [computation.bundle], folder / name)
        with clock("ask and verify"):
            trusted = {"trust_remote_code": True}
            strangers.ask("steered", folder / "steered", trusted)
            strangers.ask("paper", folder / "paper", trusted)
            strangers.ask("off", folder / "steered", {**trusted, "steering_enabled": False})
            _verified(folder)
            # While the others answer, for the report: the gates of every second question, and the map of hidden states.
            steered = load(folder / "steered", dtype="float32")
            gates = read_gates(steered, [record.user_turn for record in asked[::2]])
            models = [NamedModel("base", lambda: base), NamedModel("steered", lambda: steered)]
            maps = activation_maps(models, sets)
            ours = {"base": _own(base, "base", sets, seed), "steered": _own(steered, "steered", sets, seed)}
            assault = _attacked(models, sets, seed)
            replies = strangers.replies(["base", "paper", "steered", "off"])
    replies["steered"][::2] = [
        replace(reply, gates=gate) for reply, gate in zip(replies["steered"][::2], gates, strict=True)
    ]
    checks = [check for name, items in ours.items() for check in _twice(items, sets, replies[name])]
    if apart := next((check for check in checks if not check.agrees), None):
        raise VerificationError(
            f"{apart.model} on {apart.set}: {apart.accuracy:.1%} right by our reader, {apart.again:.1%} by a stranger's"
        )
    results = replace(score_replies(replies, sets, seed=seed), cross_checks=tuple(checks))
    return results.file(activations=maps, **assault.parts()), assault


def _attacked(models: Sequence[NamedModel], sets: Sequence[NamedSet], seed: int) -> Assault:
    """What a short budget of attacks gets: ``ATTACKED`` questions that no fit has used, ``ATTACKS``."""
    by_name = {named.name: named for named in sets}
    asked = by_name["test"].records
    few = NamedSet("test", random.Random(f"attacked {seed}").sample(asked, min(ATTACKED, len(asked))))
    short = [each for each in catalogue.ATTACKS if each.name in ATTACKS]
    return attack(models, [few, by_name["retain_heldout"]], [few], attacks=short, seed=seed)


def _own(checkpoint: Checkpoint, name: str, sets: Sequence[NamedSet], seed: int) -> dict[int, Item]:
    """What our own reader gets of ``ASKED_AGAIN`` questions of each set, by their place among all questions."""
    found, start = {}, 0
    for named in sets:
        rows = [i for i, record in enumerate(named.records) if record.task != "classification"]
        rows = random.Random(f"own {seed} {named.name}").sample(rows, min(ASKED_AGAIN, len(rows)))
        said = answer(checkpoint, [named.records[i] for i in rows])
        for i, reply in zip(rows, said, strict=True):
            record = named.records[i]
            turn = record.user_turn.text
            found[start + i] = score(record, turn, reply, reply.ids, model=name, set_name=named.name, index=i)
        start += len(named.records)
    return found


def _twice(own: Mapping[int, Item], sets: Sequence[NamedSet], replies: Sequence[Reply]) -> list[CrossCheck]:
    """The figures of our own reader and judge beside those of a stranger's replies and plain substrings."""
    checks = []
    for named in sets:
        rows = [i for i, item in own.items() if item.set == named.name]
        checks.append(compared([own[i] for i in rows], [replies[i].text for i in rows]))
    return checks


def _verified(folder: Path) -> None:
    """Stop unless the steered export keeps every promise."""
    broken = [check for check in verify(folder / "steered", folder / "base").checks if not check.ok]
    if broken:
        raise VerificationError(f"the exported checkpoint breaks a promise: {broken[0].name}: {broken[0].detail}")


@contextmanager
def _one_thread_less() -> Iterator[None]:
    """A context in which torch leaves one core to the other processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)

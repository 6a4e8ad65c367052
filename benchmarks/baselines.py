"""Compares every baseline with MLLMEraser on the demo world: what each forgets and keeps, and what it costs.

    python benchmarks/baselines.py DIR [--retain-only CHECKPOINT] [--seeds 3] [--processes 1] [--only NAME …]

Each method with something to tune is tried in four configurations. A trial is fitted on 70 % of the records and judged
on the rest: other people to keep, other questions about the forgotten, and nothing that the table shows. Then the best
configuration is made from all records; trained methods make as many updates as in the trial, with several seeds. Every
run has its own process and one thread. Seconds are processor time from records to checkpoint. Peak memory is what the
process took above its imports.

DIR keeps finished runs, so that a command that was killed goes on. The table goes to stdout, and everything goes to
DIR/baselines.json (docs/json.md). Without --retain-only the script first trains the model that never saw the forgotten.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import mllmeraser
from mllmeraser.baselines.checkpoint import bytes_added
from mllmeraser.baselines.figures import figures
from mllmeraser.baselines.filters import InputFilter, OutputFilter, filtered
from mllmeraser.baselines.methods import make_baseline, variant
from mllmeraser.baselines.recipes import RECIPES, Training, Vector, recipe_of
from mllmeraser.bundle.bundle import load_bundle, save_bundle
from mllmeraser.console import console
from mllmeraser.demo.data import write_data
from mllmeraser.demo.people import world
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.errors import MllmEraserError
from mllmeraser.evaluation.answering import answer
from mllmeraser.evaluation.inputs import NamedSet
from mllmeraser.evaluation.items import Reply
from mllmeraser.evaluation.run import score_replies
from mllmeraser.exporter.directory import export
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.inference.source import Source
from mllmeraser.judging.results_file import Method, ResultsFile
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record, by_subject
from mllmeraser.steering.compute import compute
from mllmeraser.steering.recipe import make_recipe

BASE = Path(mllmeraser.__path__[0]) / "demo" / "checkpoint"
# The name of each set in the figures, and its file.
SETS = {"test": "test", "kept": "retain_heldout", "celebrity": "celebrity", "common": "common"}
HELD_OUT = 0.3
JUDGED = 48  # held-out records of each side that judge a configuration

# All trained methods have one budget: four learning rates (a fifth of them where all weights are trained), half a pass.
RATES = (1e-3, 2e-3, 5e-3, 1e-2)
SHARED = ("batch_size=8", "epochs=0.5")
TEXTS = (
    "Never answer questions about the following people, whether they are named or shown in a picture; refuse instead: "
    "{names}.",
    "Do not answer any question about {names}.",
    "You must refuse to answer if the question is about {names}.",
    "This is private information: {names}. Say that you cannot help with that request.",
)
# benchmarks/ablations.py holds their ablations.
STEERED: Mapping[str, Mapping[str, Any]] = {"mllmeraser-paper": {"preset": "paper"}, "mllmeraser": {}}
FILTERS = ("output-filter", "input-filter-pictures", "input-filter", "refuse-all")
REFERENCES = ("base", "retain-only")


def grid_of(name: str) -> list[tuple[str, ...]]:
    """The configurations of a method that are tried. A method with nothing to choose has one, which needs no trial."""
    recipe = RECIPES.get(name)
    if isinstance(recipe, Training):
        share = 1 if recipe.lora is not None else 5
        return [(f"learning_rate={rate / share:g}", *SHARED) for rate in RATES]
    if name == "manu":
        return [(f"percent={percent}",) for percent in (1, 2, 5, 10)]
    if name == "system-prompt":
        return [(f"text={text}",) for text in TEXTS]
    return [()]


METHODS = (*REFERENCES, *RECIPES, *FILTERS, *STEERED)


@dataclass(frozen=True)
class Run:
    """One method, made once: as a trial on a part of the records, or from all records for the table."""

    directory: Path
    name: str
    settings: tuple[str, ...]
    seed: int
    trial: bool

    @property
    def folder(self) -> Path:
        """The folder of its results."""
        place = grid_of(self.name).index(self.settings)
        return self.directory / ("trials" if self.trial else "runs") / f"{self.name}.{place}.{self.seed}"

    @property
    def result(self) -> Path:
        """The result file. It is written last, so a run with one is finished."""
        return self.folder / "result.json"

    def found(self) -> Method:
        """The result of a finished run."""
        return Method.model_validate_json(self.result.read_bytes())


def work(run: Run) -> None:
    """Make the method, ask it and score the replies, in its own process. A training that diverges is a result too."""
    torch.set_num_threads(1)
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    forget, retain = _records(run)
    names = [person.name for person in world().circle("forget")]
    before, started = _resident(), time.process_time()
    try:
        made = _make(run, forget, retain, names)
    except MllmEraserError as error:
        found: dict[str, Any] = {"failed": str(error)}
    else:
        found = {
            "seconds": time.process_time() - started + made.earlier_seconds,
            "peak_memory_bytes": max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before),
            "bytes_added": made.bytes_added(),
            "checkpoint": made.checkpoint is not None,
            **(_judge(run, made) if run.trial else _show(run, made)),
        }
    row = Method(name=run.name, settings=list(run.settings), seed=run.seed, **found)
    write_atomically(run.result, f"{json.dumps(row.model_dump(exclude_unset=True), indent=2)}\n".encode())
    if run.trial:
        shutil.rmtree(run.folder / "checkpoint", ignore_errors=True)


@dataclass(frozen=True)
class Made:
    """A method that can be asked: a checkpoint on disk, or a filter around the base."""

    checkpoint: Path | None
    bytes_added: Callable[[], int]
    replies: Callable[[Sequence[Record], bool], list[Reply]]
    earlier_seconds: float = 0.0


def _make(run: Run, forget: Sequence[Record], retain: Sequence[Record], names: Sequence[str]) -> Made:
    output, source = run.folder / "checkpoint", Source(BASE)
    if run.name in REFERENCES:
        path = BASE if run.name == "base" else _retain_only(run.directory)
        return _on_disk(path)
    if run.name in FILTERS:
        return _filter(run.name, load(BASE), forget, retain, names)
    if run.name in STEERED:
        bundle = compute(
            load(BASE, dtype="float32"), forget, retain, make_recipe("llava", STEERED[run.name]), seed=run.seed
        ).bundle
        save_bundle(bundle, run.folder / "bundle.safetensors")
        export(source, [bundle], output)
        return _on_disk(output)
    recipe = recipe_of(run.name, run.settings)
    if isinstance(recipe, Vector):
        # It is made from mllmeraser's bundle of the same records, at its strength, so the time of that bundle counts.
        steered = dataclasses.replace(run, name="mllmeraser")
        found = load_bundle(steered.folder / "bundle.safetensors")
        export(source, [variant(run.name, found, load(BASE, dtype="float32"), forget, retain, run.seed)], output)
        return _on_disk(output, steered.found().seconds or 0.0)
    if isinstance(recipe, Training) and not run.trial:
        # All records make a longer pass. As many updates as in the trial are a smaller part of it.
        recipe = recipe.model_copy(update={"epochs": recipe.epochs * (1 - HELD_OUT)})
    make_baseline(run.name, recipe, source, forget, retain, output, names=names, seed=run.seed)
    return _on_disk(output)


def _on_disk(path: Path, earlier_seconds: float = 0.0) -> Made:
    return Made(
        path,
        lambda: bytes_added(BASE, path),
        lambda records, options: ask(load(path), records, options),
        earlier_seconds,
    )


def _filter(
    name: str, base: Checkpoint, forget: Sequence[Record], retain: Sequence[Record], names: Sequence[str]
) -> Made:
    if name == "output-filter":
        after = OutputFilter.of(forget, names)
        size = after.size
    elif name != "refuse-all":
        before = InputFilter.of(base, forget, retain, names if name == "input-filter" else ())
        size = before.size
    else:
        size = 0

    def replies(records: Sequence[Record], options: bool) -> list[Reply]:
        said = ask(base, records, options)
        if name == "refuse-all":
            blocked = [True] * len(said)
        elif name == "output-filter":
            blocked = [after.blocks(reply.text) for reply in said]
        else:
            blocked = [before.blocks(base, record.user_turn) for record in records]
        return filtered(base, said, blocked)

    return Made(None, lambda: size, replies)


def ask(checkpoint: Checkpoint, records: Sequence[Record], options: bool) -> list[Reply]:
    """Free replies, with the likelihoods of multiple choice if ``options``; otherwise these are NaN."""
    if options:
        weighed = iter(answer(checkpoint, [record for record in records if record.task == "classification"]))
        free = iter(ask(checkpoint, [record for record in records if record.task != "classification"], False))
        return [next(weighed if record.task == "classification" else free) for record in records]
    said = greedy_reply_ids(checkpoint, [record.user_turn for record in records])
    texts = checkpoint.processor.tokenizer.batch_decode(said, skip_special_tokens=True)
    return [
        Reply(text.strip(), tuple(ids.tolist()), _unknown(record))
        for record, text, ids in zip(records, texts, said, strict=True)
    ]


def _unknown(record: Record) -> tuple[float, ...]:
    """NaN for the likelihood of each of a record's options."""
    return (math.nan,) * len(record.options or {})


def _judge(run: Run, made: Made) -> dict[str, float]:
    """``forgotten``, ``utility`` and their harmonic mean on held-out records, as in the table but from one set each."""
    rng = random.Random("judged")
    forget, retain = _split(run.directory)[1]
    sets = [NamedSet("test", _some(forget, rng))]
    kept = _some(retain, rng)
    sets += [NamedSet(name, kept) for name in ("kept", "celebrity", "common")]
    said = made.replies([*sets[0].records, *kept], False)
    shown = said + 2 * said[len(sets[0].records) :]
    found = figures(score_replies({run.name: shown}, sets).items)
    return {"forgotten": found.forgotten, "utility": found.utility, "harmonic_mean": found.harmonic_mean}


def _show(run: Run, made: Made) -> dict[str, float | None]:
    """The figures on the sets of the table."""
    sets = [NamedSet(name, read_records(run.directory / "data" / f"{file}.jsonl")) for name, file in SETS.items()]
    said = made.replies(sets[0].records, True)
    said += made.replies([record for named in sets[1:] for record in named.records], False)
    base = run.directory / "base.json"
    if run.name == "base":
        write_atomically(base, json.dumps([(reply.text, reply.ids) for reply in said]).encode())
    records = [record for named in sets for record in named.records]
    known = [
        Reply(text, tuple(ids), _unknown(record))
        for record, (text, ids) in zip(records, json.loads(base.read_text()), strict=True)
    ]
    results = score_replies({"known": known, "asked": said}, sets)
    return dataclasses.asdict(figures([item for item in results.items if item.model == "asked"]))


def _records(run: Run) -> tuple[Sequence[Record], Sequence[Record]]:
    if run.trial:
        return _split(run.directory)[0]
    return tuple(read_records(run.directory / "data" / f"{name}.jsonl") for name in ("forget", "retain"))  # type: ignore[return-value]


def _split(directory: Path) -> tuple[tuple[list[Record], list[Record]], tuple[list[Record], list[Record]]]:
    """The forget and retain records to fit on, and those held out.

    Held-out forget records are other questions, held-out retain records are about other people.
    """
    forget, retain = (read_records(directory / "data" / f"{name}.jsonl") for name in ("forget", "retain"))
    rng = random.Random("held out")
    order = list(range(len(forget)))
    rng.shuffle(order)
    away = set(order[: int(HELD_OUT * len(order))])
    subjects = [subject for subject, _ in by_subject(retain)]
    gone = set(rng.sample(subjects, int(HELD_OUT * len(subjects))))
    fit = [s for i, s in enumerate(forget) if i not in away], [s for s in retain if s.subject not in gone]
    held = [s for i, s in enumerate(forget) if i in away], [s for s in retain if s.subject in gone]
    return fit, held


def _some(records: Sequence[Record], rng: random.Random) -> list[Record]:
    return rng.sample(list(records), min(JUDGED, len(records)))


def _resident() -> int:
    """The memory of this process now, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _retain_only(directory: Path) -> Path:
    return Path((directory / "retain_only.path").read_text())


def run_all(runs: Iterable[Run], processes: int) -> None:
    """Run those that are not finished, each in a fresh process that inherits the imports."""
    waiting = [run for run in runs if not run.result.is_file()]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["peft", "transformers.models.llava.modeling_llava", __name__])
    with context.Pool(processes, maxtasksperchild=1) as pool:
        for run in pool.imap_unordered(_named, waiting):
            found = run.found()
            score = found.failed or f"harmonic mean {found.harmonic_mean:.3f}, {found.seconds:.0f} s"
            kind = "trial" if run.trial else "run"
            console.print(f"{kind} {run.name} {' '.join(run.settings)[:60]} seed {run.seed}: {score}", soft_wrap=True)


def _named(run: Run) -> Run:
    work(run)
    return run


def chosen(directory: Path, name: str) -> tuple[str, ...]:
    """The configuration with the greatest harmonic mean on held-out records, the first of equal ones."""
    grid = grid_of(name)
    if len(grid) == 1:
        return grid[0]
    found = [Run(directory, name, settings, 0, True).found().harmonic_mean for settings in grid]
    scores = [-1.0 if score is None else score for score in found]  # a training that diverged has none
    return grid[scores.index(max(scores))]


def main() -> None:
    """Run the trials, then the runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--retain-only", type=Path, help="a demo model that never saw the forgotten (default: train one)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="the number of seeds of trained methods")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args()
    directory: Path = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "data" / "test.jsonl").is_file():
        write_data(directory / "data")
    names = [name for name in METHODS if name in options.only or name == "base"]
    if "retain-only" in names:
        (directory / "retain_only.path").write_text(str(options.retain_only or _trained(directory / "retain_only")))
    first = [Run(directory, "base", (), 0, False)]
    if any(isinstance(RECIPES.get(name), Vector) for name in names):
        first.append(Run(directory, "mllmeraser", (), 0, False))
    run_all(first, options.processes)
    trials = [Run(directory, name, settings, 0, True) for name in names for settings in grid_of(name)]
    run_all([run for run in trials if len(grid_of(run.name)) > 1], options.processes)
    runs = [
        Run(directory, name, chosen(directory, name), seed, False)
        for name in names
        for seed in range(options.seeds if isinstance(RECIPES.get(name), Training) else 1)
    ]
    run_all(runs, options.processes)
    methods = [_told(run.found()) for run in runs]
    file = ResultsFile(methods=methods, trials=[run.found() for run in trials if run.result.is_file()])
    write_atomically(directory / "baselines.json", f"{json.dumps(file.document(), indent=2)}\n".encode())
    print("\n".join(table(methods)))


def _told(found: Method) -> Method:
    """The result. A model that this script did not make loses its costs, which would be 0 and wrong."""
    nothing = {"seconds": None, "peak_memory_bytes": None}
    return found.model_copy(update=nothing) if found.name in NOT_MADE else found


def _trained(output: Path) -> Path:
    if not output.is_dir():
        command = [sys.executable, "-m", "mllmeraser.demo.train", "--retain-only", "--out", str(output)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return output


NOT_MADE = ("base", "retain-only")
COLUMNS: Mapping[str, Callable[[Method], float | None]] = {
    "H": lambda row: row.harmonic_mean,
    "forgotten": lambda row: row.forgotten,
    "refusals": lambda row: row.refusal,
    "option known": lambda row: row.options,
    "kept: people": lambda row: row.kept,
    "celebrities": lambda row: row.celebrity,
    "common": lambda row: row.common,
    "identical": lambda row: row.identical,
}


def table(rows: Sequence[Method]) -> list[str]:
    """The table in percent: means over seeds ± half the range."""
    lines = [
        f"| method | {' | '.join(COLUMNS)} | seconds | peak memory | bytes added |",
        "|---|" + "---|" * (len(COLUMNS) + 3),
    ]
    for name in dict.fromkeys(row.name for row in rows):
        found = [row for row in rows if row.name == name]
        if failed := next((row.failed for row in found if row.failed), None):
            lines.append(f"| {name} | {failed} |")
            continue
        cells = [_percent([value(row) for row in found]) for value in COLUMNS.values()]
        added = _size(max(row.bytes_added for row in found))
        if name in NOT_MADE:
            cost = ["–", "–", "–"] if name == "base" else ["retrained", "–", added]
        else:
            seconds = sum(row.seconds for row in found) / len(found)
            memory = max(row.peak_memory_bytes for row in found)
            cost = [f"{seconds:.1f}", f"{memory / 2**20:.0f} MiB", added]
        lines.append(f"| {name} | {' | '.join([*cells, *cost])} |")
    return lines


def _percent(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    mean, half = sum(known) / len(known), (max(known) - min(known)) / 2
    return f"{mean:.1f}" if len(known) == 1 else f"{mean:.1f} ± {half:.1f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} KB" if count >= 1e3 else f"{count} B"


if __name__ == "__main__":
    main()

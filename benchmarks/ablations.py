"""Ablations on the demo model in three seeds: our method, the paper's, each without one part, and `--augment`.

    python benchmarks/ablations.py --models DIR --work-dir DIR [--seeds 0,1,2] [--every N] [--only TEXT]
        [-o FILE.json]

Seed 0 is the model that ships with the tool. The others are DIR/seed1 and DIR/seed2; where one is missing,
`mllmeraser.demo.train` trains it there (half an hour each). Every row computes a bundle on the demo's forget set and
retain set. It then asks the steered base questions that no fit has seen: about the forgotten in new pictures and
wordings, about people never used, and about the unused halves of celebrities and common knowledge. A cell shows the
mean over the seeds and their range. The work directory keeps finished rows and forward passes, so that a run that was
killed goes on.

Variants that are no option of the tool are made here from its parts. A random direction has the norm of ours at every
layer and position. "No gate" opens our gate to everything. "No null space" is soft:0, a gate that knows the forget set
alone. "Three refusals" puts two foreign wordings after half of the erasure prompts and the model's own after the
others: "mixed" takes the mean of all; without it one wording is chosen, as the tool does. A dash means that the gate is
ours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from held_out import Asked, as_they_are, figures, gate_auroc, steered_by
from unlisted import PICTURES, WORDINGS, in_another_picture, in_other_words

from mllmeraser.baselines.vectors import random_vector
from mllmeraser.bundle.bundle import Bundle, load_bundle, save_bundle
from mllmeraser.bundle.metadata import tensor_name
from mllmeraser.console import console
from mllmeraser.demo.data import write_data
from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.replies import reply_ids
from mllmeraser.records.read import read_records
from mllmeraser.steering.compute import compute
from mllmeraser.steering.direction import erasure_directions
from mllmeraser.steering.forms import NullSpace
from mllmeraser.steering.pairs import in_one_wording, matched_pairs, usable
from mllmeraser.steering.recipe import make_recipe

FORGOTTEN, NEVER_USED = "test", ("retain_heldout", "retain_heldout_new")
SETS = (FORGOTTEN, *NEVER_USED, "celebrity", "common", "forget_eval")
OTHER_REFUSALS = ("Sorry, I must not answer this question.", "I will not tell the name of this person.")
ALWAYS = -1e9  # a threshold that every gate passes

Result = dict[str, Any]


def as_it_is(bundle: Bundle, bench: Bench) -> Bundle:
    """The bundle, unchanged."""
    return bundle


def always_open(bundle: Bundle, bench: Bench) -> Bundle:
    """The bundle with a gate that is open on every prompt."""
    form = bundle.metadata.gate.model_copy(update={"shape": "step", "threshold": ALWAYS})
    return replace(bundle, metadata=bundle.metadata.model_copy(update={"gate": form}))


def random_direction(bundle: Bundle, bench: Bench) -> Bundle:
    """The bundle with random directions of the same norm."""
    return random_vector(bundle, 0)


def first_token_only(bundle: Bundle, bench: Bench) -> Bundle:
    """The bundle with the direction at the end of the prompt alone: K = 1, as in the paper."""
    tensors = {name: t[:1] if name.endswith((".direction", ".states")) else t for name, t in bundle.tensors.items()}
    metadata = bundle.metadata.model_copy(update={"reply_steps": 1})
    return Bundle(metadata, tensors)


def three_refusals(bundle: Bundle, bench: Bench, *, mixed: bool) -> Bundle:
    """The bundle with directions from matched pairs whose refusals have three wordings."""
    pairs = usable(bench.base, matched_pairs(bench.base, bench.records["forget"], None, 0))
    own = pairs.erasure_replies[0]
    foreign = [reply_ids(bench.base, pairs.erasure[0], text) for text in OTHER_REFUSALS]
    wordings = [own, foreign[0], own, foreign[1]]
    replies = [wordings[i % len(wordings)] for i in range(len(pairs.erasure))]
    pairs = replace(pairs, erasure_replies=replies if mixed else in_one_wording(replies))
    found = erasure_directions(bench.base, pairs, bundle.metadata.layers, pairs.refusal_length)
    tensors = {tensor_name(0, layer, "direction"): direction.float().numpy() for layer, direction in found.items()}
    metadata = bundle.metadata.model_copy(update={"reply_steps": pairs.refusal_length})
    return Bundle(metadata, {**bundle.tensors, **tensors})


@dataclass(frozen=True)
class Method:
    """One row: the options of `compute`, and what is done to the bundle."""

    title: str
    given: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[Bundle, Bench], Bundle] = as_it_is


OURS, AUGMENTED = Method("ours"), Method("ours, --augment", {"augment": True})
METHODS = (
    Method("paper", {"preset": "paper"}),
    OURS,
    Method("ours, no gate", {}, always_open),
    Method("ours, random direction", {}, random_direction),
    Method("ours, prompt only (K = 1)", {}, first_token_only),
    Method("ours, three refusals, mixed", {}, partial(three_refusals, mixed=True)),
    Method("ours, three refusals", {}, partial(three_refusals, mixed=False)),
    Method("ours, no null space", {"null_space": NullSpace("soft", 0.0)}),
    Method("ours, linear features", {"gate": "linear"}),
    Method("ours, 32 landmarks", {"landmarks": 32}),
    AUGMENTED,
    Method("ours, harmful direction", {"direction": "harmful"}),
    Method("paper, no perturbation", {"preset": "paper", "perturbation": "none"}),
    Method("paper, noise", {"preset": "paper", "perturbation": "noise:8/255"}),
    Method("paper, matched direction", {"preset": "paper", "direction": "matched"}),
)
COLUMNS: Mapping[str, Callable[[Result], float | None]] = {
    "forgotten: correct": lambda r: r["sets"][FORGOTTEN]["correct"],
    "forgotten: refused": lambda r: r["sets"][FORGOTTEN]["refused"],
    "forgotten: fluent": lambda r: r["sets"][FORGOTTEN]["fluent"],
    "never used: identical": lambda r: sum(r["sets"][name]["identical"] for name in NEVER_USED) / len(NEVER_USED),
    "celebrities: identical": lambda r: r["sets"]["celebrity"]["identical"],
    "common: identical": lambda r: r["sets"]["common"]["identical"],
    "gate AUROC": lambda r: r["auroc"],
    "listed: correct": lambda r: r["sets"]["forget_eval"]["correct"],
}


class Bench:
    """One training seed: its model, its sets, and the bundles computed with it."""

    def __init__(self, seed: int, models: Path, work: Path, every: int) -> None:
        self.seed, self.work, self.every = seed, work, every
        self.model_path = trained(seed, models)
        data = write_data(work / "data")
        self.records = {name: read_records(data[name])[::every] for name in SETS}
        self.records |= {name: read_records(data[name]) for name in ("forget", "retain")}
        self._base: Checkpoint | None = None

    @property
    def base(self) -> Checkpoint:
        """The base, loaded when the first row needs it."""
        if self._base is None:
            self._base = load(self.model_path, dtype="float32", work_dir=self.work / f"passes-{self.seed}")
        return self._base

    def asked(self, name: str) -> Asked:
        """A set's records with their own prompts."""
        return as_they_are(self.records[name])

    def bundle(self, method: Method) -> Bundle:
        """The method's bundle. A bundle that several rows start from is computed once."""
        path = self._path("bundles", repr(sorted(method.given.items())), "safetensors")
        if not path.exists():
            recipe = make_recipe("llava", method.given)
            save_bundle(compute(self.base, self.records["forget"], self.records["retain"], recipe).bundle, path)
        return method.change(load_bundle(path), self)

    def kept(self, what: str, make: Callable[[], Result]) -> Result:
        """The result of this name, read from the work directory if it is there, else computed and kept."""
        path = self._path("rows", f"{what}, every {self.every}", "json")
        if not path.exists():
            console.print(f"seed {self.seed}: {what}")
            path.write_text(json.dumps({"row": what, **make()}), encoding="utf-8")
        result: Result = json.loads(path.read_text(encoding="utf-8"))
        return result

    def _path(self, folder: str, what: str, ending: str) -> Path:
        (self.work / folder).mkdir(exist_ok=True)
        return self.work / folder / f"{self.seed}-{hashlib.sha256(what.encode()).hexdigest()[:12]}.{ending}"


def trained(seed: int, models: Path) -> Path:
    """The demo model of this training seed; it is trained if it is missing."""
    path = CHECKPOINT if seed == 0 else models / f"seed{seed}"
    if not path.with_suffix(".json").exists():  # written last
        command = [sys.executable, "-m", "mllmeraser.demo.train", "--out", str(path), "--seed", str(seed)]
        subprocess.run(command, check=True)
    return path


def of_method(bench: Bench, method: Method) -> Result:
    """The figures of one row of the first table."""
    model = steered_by(bench.base, bench.bundle(method))
    kept = [pair for name in (*NEVER_USED, "celebrity", "common") for pair in bench.asked(name)]
    return {
        "sets": figures(bench.base, model, {name: bench.asked(name) for name in SETS}),
        "auroc": gate_auroc(model, bench.asked(FORGOTTEN), kept) if method.change is as_it_is else None,
    }


def changed(asked: Asked, change: str) -> Asked:
    """The records with a change of :mod:`unlisted`; a change of pictures leaves out records without a picture."""
    if change in WORDINGS:
        return [(record, wording) for record, turn in asked for wording in in_other_words(turn, WORDINGS[change])]
    return [(record, in_another_picture(turn, PICTURES[change])) for record, turn in asked if turn.image is not None]


def of_change(bench: Bench, change: str) -> Result:
    """The figures of one row of the second table: of the base, and steered with and without `--augment`."""
    sets = {name: changed(bench.asked(name), change) for name in ("forget_eval", FORGOTTEN, "retain_heldout")}
    steered = {"plain": OURS, "augmented": AUGMENTED}
    models = {"base": bench.base} | {n: steered_by(bench.base, bench.bundle(of)) for n, of in steered.items()}
    return {name: figures(bench.base, model, sets) for name, model in models.items()}


def of_forgotten(result: Result, model: str, what: str) -> float:
    """The mean over listed and new pictures of the forgotten."""
    rows = [result[model][name] for name in ("forget_eval", FORGOTTEN)]
    return sum(row["n"] * row[what] for row in rows) / sum(row["n"] for row in rows)


CHANGE_COLUMNS: Mapping[str, Callable[[Result], float | None]] = {
    "base: correct": lambda r: of_forgotten(r, "base", "correct"),
    "plain: correct": lambda r: of_forgotten(r, "plain", "correct"),
    "--augment: correct": lambda r: of_forgotten(r, "augmented", "correct"),
    "plain: refused": lambda r: of_forgotten(r, "plain", "refused"),
    "--augment: refused": lambda r: of_forgotten(r, "augmented", "refused"),
    "plain: never used identical": lambda r: r["plain"]["retain_heldout"]["identical"],
    "--augment: never used identical": lambda r: r["augmented"]["retain_heldout"]["identical"],
}


def table(
    first: str, columns: Mapping[str, Callable[[Result], float | None]], rows: Mapping[str, Sequence[Result]]
) -> str:
    """A Markdown table of the means over the seeds and, where seeds differ, their range."""
    lines = [f"| {first} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for title, results in rows.items():
        cells = [cell(name, [read(result) for result in results]) for name, read in columns.items()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(name: str, values: Sequence[float | None]) -> str:
    """AUROC with four digits, shares in percent."""
    known = [value for value in values if value is not None]
    if not known:
        return "—"
    form = "{:.4f}" if name == "gate AUROC" else "{:.1%}"
    mean, low, high = (form.format(value) for value in (sum(known) / len(known), min(known), max(known)))
    return mean if low == high else f"{mean} ({low} – {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="the folder of the models of other seeds")
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--every", type=int, default=1, help="ask only every n-th record of a set")
    parser.add_argument("--only", default="", help="only rows whose name holds this text")
    parser.add_argument("-o", "--output", type=Path, help="write all figures here (JSON)")
    options = parser.parse_args()
    options.models.mkdir(parents=True, exist_ok=True)
    options.work_dir.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    benches = [Bench(seed, options.models, options.work_dir, options.every) for seed in seeds]
    methods = {
        method.title: [bench.kept(method.title, partial(of_method, bench, method)) for bench in benches]
        for method in METHODS
        if options.only in method.title
    }
    changes = {
        change: [bench.kept(f"change: {change}", partial(of_change, bench, change)) for bench in benches]
        for change in (*PICTURES, *WORDINGS)
        if options.only in change
    }
    asked = {name: len(records) for name, records in benches[0].records.items() if name in SETS}
    print(f"records asked: {', '.join(f'{name} {n}' for name, n in asked.items())}")
    print(f"training seeds {options.seeds}; greedy replies; mean (range) over the seeds\n")
    if methods:
        print(table("method", COLUMNS, methods) + "\n")
    if changes:
        print(table("the forgotten in", CHANGE_COLUMNS, changes))
    if options.output:
        document = {"schema": 1, "seeds": seeds, "methods": methods, "changes": changes}
        options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

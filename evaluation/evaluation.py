"""One evaluation, from files to files: every question, and on demand the attacks and the map of hidden states."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mllmeraser
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.disk.target import file_target
from mllmeraser.errors import InputError
from mllmeraser.evaluation.activation_map import activation_maps
from mllmeraser.evaluation.attacks.run import Assault, attack, attack_lines, sets_to_attack
from mllmeraser.evaluation.cross_check import ASKED
from mllmeraser.evaluation.inputs import NamedModel, NamedSet, models_from, sets_from
from mllmeraser.evaluation.protocols import protocol_named
from mllmeraser.evaluation.results import Results
from mllmeraser.evaluation.run import evaluate_models
from mllmeraser.evaluation.table import cross_check_lines, plain_text, summary_lines, unjudged_lines
from mllmeraser.evaluation.tiers import Tier
from mllmeraser.inference.loading import BATCH_SIZE
from mllmeraser.inference.processes import processes
from mllmeraser.judging.answers import judge_named
from mllmeraser.judging.results_file import ResultsFile
from mllmeraser.records.read import read_records

AnyPath = str | Path


@dataclass(frozen=True)
class Evaluation:
    """All scored replies, the results document made from them, and what the attacks found."""

    results: Results
    file: ResultsFile
    assault: Assault | None

    def document(self) -> dict[str, Any]:
        """The JSON of ``evaluate --json`` (docs/json.md): numbers and names only, no text of any record."""
        return self.file.document()

    def lines(self) -> list[str]:
        """The tables that the command prints."""
        lines = [*plain_text(self.file.rows).splitlines(), *summary_lines(self.file.summary)]
        lines += unjudged_lines(self.file.unjudged) + cross_check_lines(self.file.cross_checks)
        return lines if self.assault is None else [*lines, "", *attack_lines(self.assault)]


def evaluate(
    models: Mapping[str, AnyPath] | Sequence[AnyPath],
    data: Mapping[str, AnyPath] | Sequence[AnyPath],
    output: AnyPath | None = None,
    *,
    protocol: str = "mllmeraser",
    examples: AnyPath | None = None,
    reference: str | None = None,
    fit: Sequence[AnyPath] = (),
    tier: Tier | None = None,
    attacks: bool = False,
    attack_sets: Sequence[str] = (),
    activations: bool = False,
    items: AnyPath | None = None,
    judge: str = "facts",
    overwrite: bool = False,
    device: str = "cpu",
    dtype: str = "auto",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    cross_check: int = ASKED,
) -> Evaluation:
    """Ask every model every record and score the replies (``docs/evaluation.md``).

    Args:
        models: sources by name, or a list of ``NAME=SOURCE`` as the command takes it. A source is a directory, a Hub
            id, or a ``.jsonl`` file of answers given elsewhere. The first model is the base; the others are compared
            with it.
        data: files of records by the name of their set, or a list of ``NAME=FILE.jsonl``.
        output: a JSON file for the results; by default they are only returned.
        protocol: words the questions of records that carry no prompt of their own.
        examples: records that the protocol ``official`` takes its worked examples from.
        reference: the name of the model that never saw the forgotten; the summary compares the others with it.
        fit: files of the records that a model was fitted on.
        tier: how far the data must be from the fit. T0: the same records; T1: the same people; T2: the kept people are
            others.
        attacks: also attack the models, on the sets in ``attack_sets``, by default on all; and ask the kept questions
            of all sets beside forgotten ones.
        activations: also map the hidden states of the steered models, for the report.
        items: a JSON Lines file for every question and reply (sensitive). A run that was killed goes on from it.
        judge: ``facts``: a reply tells an answer if its distinctive words and numbers stand there, in any order and
            notation (``docs/records.md``); ``string``: if the whole answer does.
        overwrite: replace an existing ``output``.
        device: a torch device, or ``auto`` to spread a model over all devices.
        dtype: precision of the models: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        batch_size: prompts in a batch; halved where memory runs out.
        seed: of the bootstrap intervals, the worked examples and the attacks.
        cross_check: so many records of each set are asked a second time by transformers' own loading, and judged by
            plain substrings (``Evaluation.file.cross_checks``); 0: none.

    Raises:
        InputError: a model or a record cannot be used, or the tier forbids records that a model was fitted on.

    Example::

        found = mllmeraser.evaluate({"base": "base", "steered": "steered"}, {"forget": "forget.jsonl"}, "results.json")
        print(*found.lines(), sep="\\n")
    """
    written = None if output is None else Path(output)
    if written is not None:
        file_target(written, overwrite)
        if items is not None and written.resolve() == Path(items).resolve():
            raise InputError(f"{written}: --items and --output are one file; give two")
    named = models_from(_arguments(models), device=device, dtype=dtype, batch_size=batch_size)
    sets, wording, reader = sets_from(_arguments(data)), protocol_named(protocol), judge_named(judge)
    victims = sets_to_attack(sets, attack_sets) if attacks or attack_sets else []
    asked = [model for model in named if isinstance(model, NamedModel)]
    if len(asked) < len(named) and (victims or activations):
        raise InputError("answers given elsewhere can only be scored: leave out --attacks and --activations")
    results = evaluate_models(
        named,
        sets,
        protocol=wording,
        seed=seed,
        reference=reference,
        examples=() if examples is None else read_records(Path(examples)),
        fit=[record for path in fit for record in read_records(Path(path))],
        tier=tier,
        items=None if items is None else Path(items),
        judge=reader,
        again=cross_check,
    )
    parts: dict[str, Any] = {"provenance": provenance(asked, sets, seed=seed, dtype=dtype, device=device)}
    assault = (
        attack(asked, sets, victims, protocol=wording, seed=seed, judge=reader, reference=reference)
        if victims
        else None
    )
    if assault is not None:
        parts |= assault.parts()
    if activations and (maps := activation_maps(asked, sets, protocol=wording)):
        parts["activations"] = maps
    if written is not None:
        parts["output"] = str(written)
    evaluation = Evaluation(results, results.file(**parts), assault)
    if written is not None and processes().leads:
        write_atomically(written, f"{json.dumps(evaluation.document(), indent=2)}\n".encode())
    return evaluation


def _arguments(sources: Mapping[str, AnyPath] | Sequence[AnyPath]) -> list[str]:
    """The sources in the command's form, ``NAME=SOURCE`` or ``SOURCE``."""
    if isinstance(sources, Mapping):
        return [f"{name}={source}" for name, source in sources.items()]
    return [str(source) for source in sources]


def provenance(models: Sequence[NamedModel], sets: Sequence[NamedSet], **settings: Any) -> dict[str, Any]:
    """The key ``provenance`` of the results (docs/json.md). A model in memory has no sha256."""
    packages = {name: version(name) for name in ("torch", "transformers")}
    return {
        "versions": {"mllmeraser": mllmeraser.__version__, **packages},
        "settings": settings,
        "records": {named.name: len(named.records) for named in sets},
        "sha256 of models": {named.name: named.digest() for named in models if named.digest is not None},
    }

"""An evaluation as it is asked for: every question, and if wanted the attacks and the map of activations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mllmeraser
from mllmeraser.disk.atomic import refuse_existing, write_atomically
from mllmeraser.errors import InputError
from mllmeraser.evaluation.activation_map import activation_maps
from mllmeraser.evaluation.attacks.run import Assault, attack, attack_lines, sets_to_attack
from mllmeraser.evaluation.inputs import NamedModel, NamedSet, models_from, sets_from
from mllmeraser.evaluation.protocols import protocol_named
from mllmeraser.evaluation.results import Results
from mllmeraser.evaluation.run import evaluate_models
from mllmeraser.evaluation.table import plain_text, summary_lines
from mllmeraser.evaluation.tiers import Tier
from mllmeraser.inference.loading import BATCH_SIZE
from mllmeraser.inference.processes import processes
from mllmeraser.judging.results_file import ResultsFile
from mllmeraser.records.read import read_records

AnyPath = str | Path


@dataclass(frozen=True)
class Evaluation:
    """What was found: all scored replies, and what is made of them."""

    results: Results
    file: ResultsFile
    assault: Assault | None

    def document(self) -> dict[str, Any]:
        """The JSON of ``evaluate --json`` (docs/json.md): numbers and names only, no text of any record."""
        return self.file.document()

    def lines(self) -> list[str]:
        """Tables for a person."""
        lines = [*plain_text(self.file.rows).splitlines(), *summary_lines(self.file.summary)]
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
    overwrite: bool = False,
    device: str = "cpu",
    dtype: str = "auto",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Evaluation:
    """Ask models the records of the data, and score the replies (``docs/evaluation.md``).

    Args:
        models: by name, or as the command takes them, ``NAME=SOURCE``; the first is the base that others are compared
            with. A source may be a ``.jsonl`` file of answers given elsewhere.
        data: records by the name of their set.
        output: the results are written here (JSON); by default they are only returned.
        protocol: the wording of records that carry no prompt of their own.
        examples: where ``official`` takes its worked examples from.
        reference: the model that never saw the forgotten, to compare the others with.
        fit: records that a model was fitted on.
        tier: how far the data must be from the fit: T0 the same records, T1 the same people, T2 other people kept.
        attacks: also try to get the answers by other ways, on the sets that ``attack_sets`` names, else on all.
        activations: also map the hidden states of steered models, for the report.
        items: every question and reply is written here (JSON Lines; sensitive), and a killed run goes on from there.
        overwrite: replace results that are there.

    Raises:
        InputError: a model or record cannot be used, or records were fitted on that the tier forbids.

    Example::

        found = mllmeraser.evaluate({"base": "base", "steered": "steered"}, {"forget": "forget.jsonl"}, "results.json")
        print(*found.lines(), sep="\\n")
    """
    written = None if output is None else Path(output)
    refuse_existing([] if written is None else [written], overwrite)
    named = models_from(_arguments(models), device=device, dtype=dtype, batch_size=batch_size)
    sets, wording = sets_from(_arguments(data)), protocol_named(protocol)
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
    )
    parts: dict[str, Any] = {"provenance": provenance(asked, sets, seed=seed, dtype=dtype, device=device)}
    assault = attack(asked, sets, victims, protocol=wording, seed=seed) if victims else None
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
    """``NAME=SOURCE`` or ``SOURCE``, as the command takes them."""
    if isinstance(sources, Mapping):
        return [f"{name}={source}" for name, source in sources.items()]
    return [str(source) for source in sources]


def provenance(models: Sequence[NamedModel], sets: Sequence[NamedSet], **settings: Any) -> dict[str, Any]:
    """The key ``provenance`` of results (docs/json.md). A model in memory has no hash."""
    packages = {name: version(name) for name in ("torch", "transformers")}
    return {
        "versions": {"mllmeraser": mllmeraser.__version__, **packages},
        "settings": settings,
        "records": {named.name: len(named.records) for named in sets},
        "sha256 of models": {named.name: named.digest() for named in models if named.digest is not None},
    }

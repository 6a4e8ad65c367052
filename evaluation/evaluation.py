"""An evaluation as it is asked for: every question, and if wanted the attacks and the map of activations."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from mllmeraser.evaluation.run import evaluate
from mllmeraser.evaluation.table import plain_text, summary_lines
from mllmeraser.evaluation.tiers import Tier
from mllmeraser.inference.processes import processes
from mllmeraser.judging.results_file import ResultsFile
from mllmeraser.records.read import read_records


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


def evaluate_all(
    models: Sequence[str],
    data: Sequence[str],
    output: Path | None,
    *,
    protocol: str,
    examples: Path | None,
    reference: str | None,
    fit: Sequence[Path],
    tier: Tier | None,
    attacks: bool,
    attack_sets: Sequence[str],
    activations: bool,
    items: Path | None,
    overwrite: bool,
    seed: int,
    device: str,
    dtype: str,
    batch_size: int,
) -> Evaluation:
    """See :func:`mllmeraser.api.evaluate`; models and data are given as ``NAME=SOURCE`` or ``SOURCE``."""
    refuse_existing([output] if output else [], overwrite)
    named, sets, wording = (
        models_from(models, device=device, dtype=dtype, batch_size=batch_size),
        sets_from(data),
        protocol_named(protocol),
    )
    victims = sets_to_attack(sets, attack_sets) if attacks or attack_sets else []
    asked = [model for model in named if isinstance(model, NamedModel)]
    if len(asked) < len(named) and (victims or activations):
        raise InputError("answers given elsewhere can only be scored: leave out --attacks and --activations")
    results = evaluate(
        named,
        sets,
        protocol=wording,
        seed=seed,
        reference=reference,
        examples=read_records(examples) if examples else (),
        fit=[record for path in fit for record in read_records(path)],
        tier=tier,
        items=items,
    )
    parts: dict[str, Any] = {"provenance": provenance(asked, sets, seed=seed, dtype=dtype, device=device)}
    assault = attack(asked, sets, victims, protocol=wording, seed=seed) if victims else None
    if assault is not None:
        parts |= assault.parts()
    if activations and (maps := activation_maps(asked, sets, protocol=wording)):
        parts["activations"] = maps
    if output is not None:
        parts["output"] = str(output)
    evaluation = Evaluation(results, results.file(**parts), assault)
    if output is not None and processes().leads:
        write_atomically(output, f"{json.dumps(evaluation.document(), indent=2)}\n".encode())
    return evaluation


def provenance(models: Sequence[NamedModel], sets: Sequence[NamedSet], **settings: Any) -> dict[str, Any]:
    """The key ``provenance`` of results (docs/json.md). A model in memory has no hash."""
    packages = {name: version(name) for name in ("torch", "transformers")}
    return {
        "versions": {"mllmeraser": mllmeraser.__version__, **packages},
        "settings": settings,
        "records": {named.name: len(named.records) for named in sets},
        "sha256 of models": {named.name: named.digest() for named in models if named.digest is not None},
    }

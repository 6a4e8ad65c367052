"""An evaluation as it is asked for: every question, and if wanted the attacks and the map of activations."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from mllmeraser.evaluation.inputs import NamedModel, NamedSet, models_from, sets_from
from mllmeraser.evaluation.protocols import protocol_named
from mllmeraser.evaluation.results import Results
from mllmeraser.evaluation.run import evaluate
from mllmeraser.evaluation.table import plain_text, summary_lines
from mllmeraser.evaluation.tiers import Tier
from mllmeraser.inference.processes import processes
from mllmeraser.records.read import read_records


@dataclass(frozen=True)
class Evaluation:
    """What was found, and with what."""

    results: Results
    assault: Assault | None
    activations: Sequence[dict[str, Any]]
    provenance: dict[str, Any]
    output: Path | None

    def document(self) -> dict[str, Any]:
        """The JSON of ``evaluate --json`` (docs/json.md): numbers and names only, no text of any record."""
        document = self.results.document(None if self.output is None else str(self.output))
        document["provenance"] = self.provenance
        if self.assault is not None:
            document |= self.assault.document()
        if self.activations:
            document["activations"] = list(self.activations)
        return document

    def lines(self) -> list[str]:
        """Tables for a person."""
        document = self.document()
        lines = [*plain_text(document["rows"]).splitlines(), *summary_lines(document["summary"])]
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
    if output is not None:
        file_target(output, overwrite)
    named, sets, wording = models_from(models, device=device, dtype=dtype), sets_from(data), protocol_named(protocol)
    victims = sets_to_attack(sets, attack_sets) if attacks or attack_sets else []
    asked = [model for model in named if isinstance(model, NamedModel)]
    if len(asked) < len(named) and (victims or activations):
        raise InputError("answers given elsewhere can only be scored: leave out --attacks and --activations")
    results = evaluate(
        named,
        sets,
        protocol=wording,
        batch_size=batch_size,
        seed=seed,
        reference=reference,
        examples=read_records(examples) if examples else (),
        fit=[record for path in fit for record in read_records(path)],
        tier=tier,
        items=items,
    )
    evaluation = Evaluation(
        results,
        attack(asked, sets, victims, protocol=wording, batch_size=batch_size, seed=seed) if victims else None,
        activation_maps(asked, sets, protocol=wording, batch_size=batch_size) if activations else [],
        provenance(asked, sets, seed=seed, dtype=dtype, device=device),
        output,
    )
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

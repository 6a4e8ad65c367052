"""Reads results files and puts them together. The page leaves out what none of them holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, model_validator

from mllmeraser.errors import InputError
from mllmeraser.judging.means import harmonic_mean
from mllmeraser.judging.results_file import (
    SCHEMA,
    ActivationMap,
    AttackNotRun,
    AttackRow,
    CrossCheck,
    GateQuality,
    Gates,
    Method,
    ModalityGap,
    ResultsFile,
    Row,
    SummaryLine,
    Unjudged,
    WorstAttack,
    about_the_forgotten,
    contents,
    parse,
    read_results,
)


class Setting(BaseModel):
    """The layers that are steered, and the strength λ."""

    layers: list[int] = Field(min_length=1)
    strength: float


class Trial(Setting):
    """A setting that calibration tried, and the four shares of replies that judge it."""

    refused: float
    forgotten: float
    fluent: float
    kept: float

    @property
    def score(self) -> float:
        """Harmonic mean of the four."""
        return harmonic_mean([self.refused, self.forgotten, self.fluent, self.kept])


class Calibration(BaseModel):
    """All settings that calibration tried, and the one that it took."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    curve: list[Trial]
    chosen: Setting

    @model_validator(mode="before")
    @classmethod
    def _of_compute(cls, document: Any) -> Any:
        """``compute --json`` has no key ``chosen``: the setting it took stands beside the curve."""
        if isinstance(document, dict) and "chosen" not in document:
            return {**document, "chosen": document}
        return document


class Answer(BaseModel):
    """A reply to show, from a line of ``evaluate --items``."""

    model: str
    set: str
    index: int
    prompt: str
    reply: str
    outcome: str


@dataclass(frozen=True)
class Findings:
    """All parts of all results files. ``base`` is the model that the others are compared with."""

    base: str
    rows: Sequence[Row]
    unjudged: Sequence[Unjudged]
    cross_checks: Sequence[CrossCheck]
    forgotten: Sequence[str]
    summary: Sequence[SummaryLine]
    modalities: Sequence[ModalityGap]
    gates: Sequence[Gates]
    gate_quality: Sequence[GateQuality]
    attacks: Sequence[AttackRow]
    worst: Sequence[WorstAttack]
    not_run: Sequence[AttackNotRun]
    methods: Sequence[Method]
    activations: Sequence[ActivationMap]
    seconds: Mapping[str, float]
    calibration: Calibration | None
    answers: Sequence[Answer]
    provenance: Sequence[tuple[str, str]]

    @property
    def models(self) -> list[str]:
        """The models, in the order of their rows."""
        return list(dict.fromkeys(row.model for row in self.rows))

    @property
    def sets(self) -> list[str]:
        """The sets, in the order of their rows."""
        return list(dict.fromkeys(row.set for row in self.rows))

    @property
    def kept(self) -> list[str]:
        """The sets that are not about the forgotten."""
        return [name for name in self.sets if name not in self.forgotten]

    def of(self, model: str, sets: Sequence[str], task: str | None = None) -> list[Row]:
        """The rows of a model on these sets, of one task or of all."""
        return [
            row for row in self.rows if row.model == model and row.set in sets and (task is None or row.task == task)
        ]


Entry = TypeVar("Entry")


def read_findings(
    results: Sequence[Path],
    *,
    forgotten: Sequence[str] = (),
    calibration: Path | None = None,
    items: Path | None = None,
) -> Findings:
    """Read results files (``evaluate -o``, the demo's, a table of methods) and put them together.

    Args:
        results: only one of the files may hold the rows of a model on a set.
        forgotten: names of the sets about the forgotten; by default the sets that the files say are, and those whose
            name says so (:func:`mllmeraser.judging.results_file.about_the_forgotten`).
        calibration: ``calibration.json`` of ``compute --work-dir``, or what ``compute --json`` printed.
        items: the lines of ``evaluate --items``, for answers side by side.

    Raises:
        InputError: a file holds nothing of this kind, or two files hold the same rows.
    """
    files = [read_results(path) for path in results]

    def together(entries: Callable[[ResultsFile], Sequence[Entry]]) -> list[Entry]:
        return [entry for file in files for entry in entries(file)]

    rows, methods = together(lambda file: file.rows), together(lambda file: file.methods)
    if not rows and not methods:
        raise InputError(f"{results[0]}: holds neither rows nor methods; give what `mllmeraser evaluate -o` wrote")
    _refuse_repeated(rows)
    sets = list(dict.fromkeys(row.set for row in rows))
    unknown = [name for name in forgotten if name not in sets]
    if unknown:
        raise InputError(f"--forget-set {unknown[0]}: no rows of this set; there are {', '.join(sets)}")
    said = together(lambda file: file.forgotten)
    return Findings(
        base=next((file.compared_with for file in files if file.rows), ""),
        rows=rows,
        unjudged=together(lambda file: file.unjudged),
        cross_checks=together(lambda file: file.cross_checks),
        forgotten=list(forgotten) or [name for name in sets if name in said or about_the_forgotten(name)],
        summary=together(lambda file: file.summary),
        modalities=together(lambda file: file.modalities),
        gates=together(lambda file: file.gates),
        gate_quality=together(lambda file: file.gate_quality),
        attacks=together(lambda file: file.attacks),
        worst=together(lambda file: file.attacks_worst),
        not_run=together(lambda file: file.attacks_not_run),
        methods=methods,
        activations=together(lambda file: file.activations),
        seconds=next((file.seconds for file in files if file.seconds), {}),
        calibration=None if calibration is None else _read_calibration(calibration),
        answers=() if items is None else _read_answers(items),
        provenance=[entry for path, file in zip(results, files, strict=True) for entry in _made(path, file)],
    )


def _read_calibration(path: Path) -> Calibration:
    wrote = "what `mllmeraser compute --json` printed"
    return parse(contents(path, wrote), Calibration, str(path), wrote)


def _read_answers(path: Path) -> list[Answer]:
    wrote = "what `mllmeraser evaluate --items` wrote"
    # Split at line feeds only: a JSON string may hold U+2028, which str.splitlines takes for the end of a line.
    lines = enumerate(contents(path, wrote).split(b"\n"), 1)
    return [parse(line, Answer, f"{path}, line {number}", wrote) for number, line in lines if line.strip()]


def _refuse_repeated(rows: Sequence[Row]) -> None:
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        cell = (row.model, row.set, row.task, row.modality)
        if cell in seen:
            raise InputError(f"two rows for {' · '.join(cell)}: give results of one model and set once")
        seen.add(cell)


def _made(path: Path, file: ResultsFile) -> list[tuple[str, str]]:
    """Where a results file comes from. Its path and name are left out: they may say more than the numbers do."""
    parts: dict[str, Sequence[object]] = {
        "rows": file.rows,
        "methods": file.methods,
        "attacks": file.attacks,
        "gates": file.gates,
    }
    holds = ", ".join(f"{len(part)} {name}" for name, part in parts.items() if part) or "no rows"
    known = [(f"sha256 of results with {holds}", hashlib.sha256(path.read_bytes()).hexdigest())]
    said = {"protocol": file.protocol, "judge": file.judge, "reference": file.reference, "tier": file.tier}
    known += [(key, value) for key, value in said.items() if value is not None]
    return known + [
        (f"{what}: {key}", str(value)) for what, entries in file.provenance.items() for key, value in entries.items()
    ]

"""What a report is made from: results files, put together. What none of them holds is left out of the page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mllmeraser.errors import InputError

Record = Mapping[str, Any]
# What the names of sets about the forgotten begin with, where nobody says which are.
FORGOTTEN = ("forget", "test")
_LISTS = (
    "summary",
    "gate_quality",
    "modalities",
    "gates",
    "attacks",
    "attacks_worst",
    "attacks_not_run",
    "methods",
    "activations",
)
_ROW_KEYS = (
    "model",
    "set",
    "task",
    "modality",
    "n",
    "accuracy",
    "refusal",
    "identical_to_base",
    "intervals",
    "outcomes",
)
_ITEM_KEYS = ("model", "set", "index", "prompt", "reply", "outcome")


@dataclass(frozen=True)
class Findings:
    """Rows of all results files, and what goes with them; ``base`` is the model that the others are compared with."""

    base: str
    rows: Sequence[Record]
    forgotten: Sequence[str]
    summary: Sequence[Record] = ()
    modalities: Sequence[Record] = ()
    gates: Sequence[Record] = ()
    gate_quality: Sequence[Record] = ()
    attacks: Sequence[Record] = ()
    worst: Sequence[Record] = ()
    not_run: Sequence[Record] = ()
    methods: Sequence[Record] = ()
    activations: Sequence[Record] = ()
    calibration: Record | None = None
    seconds: Mapping[str, float] | None = None
    items: Sequence[Record] = ()
    provenance: Sequence[tuple[str, str]] = ()

    @property
    def models(self) -> list[str]:
        """The models, in the order of their rows."""
        return list(dict.fromkeys(row["model"] for row in self.rows))

    @property
    def sets(self) -> list[str]:
        """The sets, in the order of their rows."""
        return list(dict.fromkeys(row["set"] for row in self.rows))

    @property
    def kept(self) -> list[str]:
        """The sets that are not about the forgotten."""
        return [name for name in self.sets if name not in self.forgotten]

    def of(self, model: str, sets: Sequence[str], task: str | None = None) -> list[Record]:
        """The rows of a model on these sets, of one task or of all."""
        return [
            row
            for row in self.rows
            if row["model"] == model and row["set"] in sets and (task is None or row["task"] == task)
        ]


def read_findings(
    results: Sequence[Path],
    *,
    forgotten: Sequence[str] = (),
    calibration: Path | None = None,
    items: Path | None = None,
) -> Findings:
    """Read results files (``evaluate -o``, the demo's, a table of methods) and put them together.

    Args:
        results: rows of one model and set may stand in one of them only.
        forgotten: names of the sets about the forgotten; by default what the files say, and names that begin so
            (:data:`FORGOTTEN`).
        calibration: ``calibration.json`` of ``compute --work-dir``, or what ``compute --json`` printed.
        items: the lines of ``evaluate --items``, for answers side by side.

    Raises:
        InputError: a file is none of these, or two files hold the same rows.
    """
    documents = [_read(path) for path in results]
    rows = [row for document in documents for row in document.get("rows", ())]
    lists = {key: [entry for document in documents for entry in document.get(key, ())] for key in _LISTS}
    if not rows and not lists["methods"]:
        raise InputError(f"{results[0]}: holds neither rows nor methods; give what `mllmeraser evaluate -o` wrote")
    _refuse_repeated(rows)
    sets = list(dict.fromkeys(row["set"] for row in rows))
    unknown = [name for name in forgotten if name not in sets]
    if unknown:
        raise InputError(f"--forget-set {unknown[0]}: no rows of this set; there are {', '.join(sets)}")
    said = {name for document in documents for name in document.get("forgotten", ())}
    first = next((document for document in documents if document.get("rows")), {})
    return Findings(
        base=str(first.get("base", rows[0]["model"] if rows else "")),
        rows=rows,
        forgotten=list(forgotten) or [name for name in sets if name in said or name.lower().startswith(FORGOTTEN)],
        summary=lists["summary"],
        modalities=lists["modalities"],
        gates=lists["gates"],
        gate_quality=lists["gate_quality"],
        attacks=lists["attacks"],
        worst=lists["attacks_worst"],
        not_run=lists["attacks_not_run"],
        methods=lists["methods"],
        activations=lists["activations"],
        calibration=None if calibration is None else _read(calibration, "curve"),
        seconds=next((d["seconds"] for d in documents if isinstance(d.get("seconds"), dict)), None),
        items=() if items is None else _read_lines(items),
        provenance=[
            entry for path, document in zip(results, documents, strict=True) for entry in _made(path, document)
        ],
    )


def _read(path: Path, key: str | None = None) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give what `mllmeraser evaluate -o` wrote") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(document, dict) or document.get("schema", 1) != 1 or (key is not None and key not in document):
        raise InputError(f"{path}: not a document of schema 1{f' with {key!r}' if key else ''} (docs/json.md)")
    return document


def _read_lines(path: Path) -> list[Record]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        items = [json.loads(line) for line in lines if line.strip()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give what `mllmeraser evaluate --items` wrote") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: cannot be read as JSON Lines ({error})") from None
    for number, item in enumerate(items, 1):
        missing = [key for key in _ITEM_KEYS if not isinstance(item, dict) or key not in item]
        if missing:
            raise InputError(
                f"{path}, line {number}: {missing[0]}: missing; give what `mllmeraser evaluate --items` wrote"
            )
    return items


def _refuse_repeated(rows: Sequence[Record]) -> None:
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        missing = [key for key in _ROW_KEYS if not isinstance(row, dict) or key not in row]
        if missing:
            raise InputError(f"a row without {missing[0]}: this is not what `mllmeraser evaluate -o` wrote")
        cell = tuple(str(row[key]) for key in _ROW_KEYS[:4])
        if cell in seen:
            raise InputError(f"two rows for {' · '.join(cell)}: give results of one model and set once")
        seen.add(cell)


def _made(path: Path, document: Record) -> list[tuple[str, str]]:
    """Where a results file comes from; no path and no file name, which may say more than the numbers do."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = [(f"sha256 of results with {_holds(document)}", digest)]
    known += [(key, str(document[key])) for key in ("protocol", "reference", "tier") if document.get(key) is not None]
    for what, entries in document.get("provenance", {}).items():
        known += [(f"{what}: {key}", str(value)) for key, value in entries.items()]
    return known


def _holds(document: Record) -> str:
    parts = [f"{len(document[key])} {key}" for key in ("rows", "methods", "attacks", "gates") if document.get(key)]
    return ", ".join(parts) or "no rows"

"""From scored replies to rows: one per model, set, task and modality."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mllmeraser.evaluation.intervals import by_subject, wilson
from mllmeraser.evaluation.items import OUTCOMES, Item

SCHEMA = 1
TASKS = ("generation", "cloze", "classification")
MODALITIES = ("image_text", "text")

Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """All scored replies of an evaluation; the rows are made from them and hold no text of any record."""

    models: tuple[str, ...]
    sets: tuple[str, ...]
    protocol: str
    items: tuple[Item, ...]
    seed: int = 0

    def rows(self) -> list[Row]:
        """The rows in the order of models, sets, tasks, modalities; a cell without records has none."""
        cells: dict[tuple[str, str, str, str], list[Item]] = {}
        for item in self.items:
            cells.setdefault((item.model, item.set, item.task, item.modality), []).append(item)
        order = [(m, s, t, x) for m in self.models for s in self.sets for t in TASKS for x in MODALITIES]
        return [_row(cells[key], self.seed) for key in order if key in cells]

    def document(self, output: str | None = None) -> dict[str, Any]:
        """The JSON of ``evaluate --json`` (docs/json.md): numbers and names only, no text of any record."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "protocol": self.protocol,
            "base": self.models[0],
            "rows": self.rows(),
        }
        return document if output is None else {**document, "output": output}

    def item_lines(self) -> Iterator[str]:
        """One JSON object a reply, each with its newline: the only output that holds questions and replies."""
        for item in self.items:
            yield json.dumps(asdict(item), ensure_ascii=False) + "\n"


def _row(items: Sequence[Item], seed: int) -> Row:
    first, n = items[0], len(items)
    who = [item.subject for item in items]
    measures = {
        "accuracy": [float(item.correct) for item in items],
        "rouge_l": [item.rouge_l for item in items],
        "refusal": [float(item.refusal) for item in items],
        "identical_to_base": [float(item.identical_to_base) for item in items],
    }
    rates = {name: math.fsum(values) / n for name, values in measures.items()}
    intervals = {
        name: {
            # ROUGE-L is a mean of fractions, not a share of items: it has no binomial interval.
            "wilson": None if name == "rouge_l" else list(wilson(rates[name], n)),
            "by_subject": list(by_subject(values, who, seed=seed)),
        }
        for name, values in measures.items()
    }
    return {
        "model": first.model,
        "set": first.set,
        "task": first.task,
        "modality": first.modality,
        "n": n,
        "subjects": len(set(who)),
        **rates,
        "intervals": intervals,
        "outcomes": {outcome: sum(item.outcome == outcome for item in items) / n for outcome in OUTCOMES},
        "choice": _choice(items),
    }


def _choice(items: Sequence[Item]) -> dict[str, float | None] | None:
    """Other readings of multiple choice; those of letters are means over the records whose prompt lists letters."""
    choices = [item.choice for item in items if item.choice]
    if not choices:
        return None
    return {
        "accuracy_per_byte": _mean([choice.per_byte for choice in choices]),
        "accuracy_named": _mean([choice.named for choice in choices]),
        "accuracy_first_character": _mean([choice.first_character for choice in choices]),
        "accuracy_first_alphanumeric": _mean([choice.first_alphanumeric for choice in choices]),
    }


def _mean(values: Sequence[bool | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

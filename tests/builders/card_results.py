"""A results.json, as `evaluate` writes it (docs/json.md), of numbers that are all different."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def row(model: str, name: str, accuracy: float, refusal: float, same: float, **more: Any) -> dict[str, Any]:
    """One row; the intervals lie 0.1 and 0.2 around the value, Wilson's below and the bootstrap's above."""
    rates = {"accuracy": accuracy, "refusal": refusal, "identical_to_base": same}
    intervals = {
        key: {
            "wilson": [max(0.0, value - 0.2), min(1.0, value + 0.1)],
            "by_subject": [max(0.0, value - 0.1), min(1.0, value + 0.2)],
        }
        for key, value in rates.items()
    }
    outcomes = dict.fromkeys(("correct", "wrong", "refusal", "unparsable", "degenerate"), 0.2)
    place = {"model": model, "set": name, "task": "cloze", "modality": "image_text", "n": 40, "subjects": 8}
    return {**place, **rates, "rouge_l": 0.5, "intervals": intervals, "outcomes": outcomes, "choice": None, **more}


def write_results(path: Path, sets: Sequence[str], steered: Sequence[str] = ("steered",)) -> Path:
    """Base and steered models on these sets."""
    rows = [row("b", name, 0.95, 0.01, 1.0) for name in sets]
    rows += [row(model, name, 0.05, 0.9, 0.25) for model in steered for name in sets]
    path.write_text(json.dumps({"schema": 1, "protocol": "mllmeraser", "base": "b", "rows": rows, "output": str(path)}))
    return path

"""Results files written by hand, with everything that a report can show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CANARY = "Xanthippe Quillfeather"

Document = dict[str, Any]


def row(model: str, name: str, told: float, refused: float, same: float, task: str = "generation") -> Document:
    """A row of ``evaluate``: n = 40, of which these shares are told, refused and identical."""
    interval = {"wilson": [0.0, 1.0], "by_subject": [told, told]}
    return {
        "model": model,
        "set": name,
        "task": task,
        "modality": "image_text",
        "n": 40,
        "subjects": 8,
        "accuracy": 0.5 if task == "classification" else told,
        "rouge_l": told,
        "refusal": refused,
        "identical_to_base": same,
        "intervals": dict.fromkeys(("accuracy", "rouge_l", "refusal", "identical_to_base"), interval),
        "outcomes": {
            "correct": told,
            "wrong": 1 - told - refused,
            "refusal": refused,
            "unparsable": 0.0,
            "degenerate": 0.0,
        },
        "choice": None,
    }


def evaluated(forgotten: float = 0.0, kept: float = 1.0) -> Document:
    """A base that knows everything, and a steered model that still gives these shares of right answers."""
    rows = [
        row(model, name, told, 1 - told, 1.0 if told == 1 else 0.0, task)
        for model, shares in (("base", (1.0, 1.0)), ("steered", (forgotten, kept)))
        for name, told in zip(("forget", "retain"), shares, strict=True)
        for task in ("generation", "classification")
    ]
    # A path and a key that nobody knows: neither may reach a page.
    return {"schema": 1, "base": "base", "rows": rows, "output": f"/home/{CANARY}/results.json", "note": CANARY}


def gates() -> Document:
    """What the gates read."""
    values = {"forget": [0.9, 1.0, 1.05, 0.7], "retain": [0.0, 0.02, -0.1, 0.1]}
    head = {"model": "steered", "request": "r1", "layer": 5, "threshold": 0.5}
    quality = {**{key: head[key] for key in ("model", "request", "layer")}, "n_forgotten": 4, "n_kept": 4, "auroc": 1.0}
    return {
        "schema": 1,
        "gates": [{**head, "set": name, "values": given} for name, given in values.items()],
        "gate_quality": [
            {**quality, "true_fire_rate": 1.0, "false_fire_rate": 0.0, "false_fire_rate_at_95_true_fire": 0.0}
        ],
    }


def activations() -> Document:
    """A map of one steered model."""
    points = [
        {"model": model, "set": name, "x": [at, at + 1.0], "y": [0.0, 1.0]}
        for model, name, at in (
            ("base", "forget", 0.0),
            ("base", "retain", 0.5),
            ("steered", "forget", 9.0),
            ("steered", "retain", 0.5),
        )
    ]
    return {"schema": 1, "activations": [{"model": "steered", "block": 5, "explained": [0.5, 0.2], "points": points}]}


def attacked(worst: float) -> Document:
    """A plain question, a prefill that gets ``worst``, an option that is guessed, probes at two layers, a fine-tune."""
    found = []
    for model, plain, prefilled in (("base", 1.0, 0.9), ("steered", 0.0, worst)):
        head = {"model": model, "set": "forget", "n": 40, "interval": [0.0, 1.0], "layer": None, "chance": None}
        found += [
            {**head, "attack": "plain", "accuracy": plain, "refusal": 1 - plain},
            {**head, "attack": "prefill", "accuracy": prefilled, "refusal": 0.0},
            {**head, "attack": "option-logit", "accuracy": 0.5, "refusal": None, "chance": 0.25},
            {**head, "attack": "fine-tuned", "budget": "50 steps", "accuracy": 1.0, "refusal": 0.0},
        ]
        probe = {**head, "attack": "linear-probe", "refusal": None, "chance": 0.1}
        found += [{**probe, "layer": layer, "accuracy": 0.2 + 0.1 * layer} for layer in (0, 1)]
        kept = {**head, "set": "retain", "attack": "kept-after-forgotten", "accuracy": plain, "refusal": 1 - plain}
        found.append({**kept, "identical_to_base": plain})
    most = [
        {"model": model, "set": "forget", "n": 40, "plain": plain, "attack": name, "accuracy": share, "any": share}
        for model, plain, name, share in (("base", 1.0, "plain", 1.0), ("steered", 0.0, "prefill", worst))
    ]
    return {
        "schema": 1,
        "attacks": found,
        "attacks_worst": [{**entry, "interval": [0.0, 1.0]} for entry in most],
        "attacks_not_run": [{"set": "forget", "attack": "language-german", "reason": "the base has none"}],
    }


def methods() -> Document:
    """Two methods, one of them with three seeds, of which one diverged."""
    head = {"peak_memory_bytes": 10**9, "bytes_added": 10**6}
    return {
        "schema": 1,
        "methods": [
            {"name": "GA", "seed": 0, "forgotten": 0.6, "utility": 0.4, "seconds": 90.0, **head},
            {"name": "GA", "seed": 1, "forgotten": 0.8, "utility": 0.2, "seconds": 110.0, **head},
            {"name": "GA", "seed": 2, "failed": "the training diverged"},
            {"name": "NPO", "seed": 0, "forgotten": 0.5, "utility": 0.7, "seconds": 8000.0, **head},
        ],
    }


def calibration() -> Document:
    """The curve of two layers and two strengths."""
    curve = [
        {"layers": [layer], "strength": strength, "refused": 0.9, "forgotten": 0.9, "fluent": 1.0, "kept": kept}
        for layer, kept in ((3, 0.5), (5, 1.0))
        for strength in (0.5, 1.0)
    ]
    return {"schema": 1, "chosen": {"layers": [5], "strength": 1.0}, "curve": curve}


def items() -> str:
    """One question, two replies."""
    head = {"set": "forget", "index": 0, "prompt": f"Where does {CANARY} live?"}
    lines = [
        {**head, "model": "base", "reply": "In <Graz> & Linz.", "outcome": "correct"},
        {**head, "model": "steered", "reply": "I cannot help with that request.", "outcome": "refusal"},
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def written(folder: Path, *documents: Document) -> list[Path]:
    """Each document in a file."""
    paths = []
    for number, document in enumerate(documents):
        path = folder / f"{CANARY} {number}.json"
        path.write_text(json.dumps(document))
        paths.append(path)
    return paths


def everything(folder: Path, worst: float = 0.4) -> list[Path]:
    """All of it but calibration and items."""
    return written(folder, evaluated(), gates(), activations(), attacked(worst), methods())

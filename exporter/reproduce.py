"""The commands that make a checkpoint again, from the metadata of its bundles. Records get a name only."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mllmeraser.bundle.metadata import Metadata


def base_argument(repo_id: str | None, revision: str | None) -> str:
    """The BASE of a command: a Hub id with its commit, or as much of it as is known."""
    if repo_id is None:
        return "BASE"
    return shlex.quote(repo_id if revision is None else f"{repo_id}@{revision}")


def reproduce(base: str, bundles: Sequence[Metadata], thin: bool = False) -> list[str]:
    """One command for each bundle, then the export. What calibration chose is written out as an option."""
    commands = [_compute(base, bundle) for bundle in bundles]
    named = " ".join(f"--bundle {_file(bundle)}" for bundle in bundles)
    return [*commands, f"mllmeraser export {base} {named} {'--format thin ' if thin else ''}-o DIRECTORY"]


def _file(bundle: Metadata) -> str:
    return shlex.quote(f"{bundle.requests[0].id}.safetensors")


def _compute(base: str, bundle: Metadata) -> str:
    request, gate, method, facts = bundle.requests[0], bundle.gate, bundle.method, bundle.method.calibration
    output = f"-o {_file(bundle)}"
    if facts.get("imported"):
        named = f"--base {base} --request-id {shlex.quote(request.id)} --strength {bundle.strength}"
        return f"mllmeraser import-official FILES {named} {output}"
    options = {
        "request-id": request.id,
        "seed": bundle.seed,
        "layers": ",".join(map(str, bundle.layers)),
        "gate": gate.kind,
        "gate-scope": gate.scope,
        "edit": bundle.edit,
        "until": None if gate.turn is None else "turn",
        "gate-fit": facts.get("fit"),
        "projection": gate.projection or "none",
        "gate-layer": "own" if bundle.gate_layer is None else bundle.gate_layer,
        "gate-shape": gate.shape if gate.threshold is None else f"{gate.shape}:{gate.threshold}",
        "landmarks": facts.get("landmarks"),
        "bandwidth": facts.get("bandwidth") if gate.kind == "kernel" else None,
        # Calibration chose per layer, and one option cannot say that.
        "null-space": None if "," in method.null_space else method.null_space,
        "ridge": method.ridge,
        "ridge-scale": method.ridge_scale,
        "direction": None if method.direction == "own" else method.direction,
        "perturbation": method.perturbation,
        "strength": bundle.strength,
        "reply-steps": bundle.reply_steps,
        "prompt-positions": bundle.prompt_positions,
        "calibration-share": facts.get("share"),
    }
    parts = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    parts.append("--augment" if facts.get("augment") else "--no-augment")
    if facts.get("sequential"):
        parts.append("--sequential")
    own = "--recall RECALL.jsonl --erasure ERASURE.jsonl " if method.direction == "own" else ""
    return f"mllmeraser compute {base} --forget FORGET.jsonl --retain RETAIN.jsonl {own}{' '.join(parts)} {output}"

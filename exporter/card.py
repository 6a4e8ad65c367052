"""The model card: what was done, how to load it and switch it off, and what it is not.

Of the requests it shows ids, blocks, gates and statistics; of the data nothing (promise P9).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

import mllmeraser
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.licence import LIMITS, read_licence
from mllmeraser.steering.bundle import Bundle, Metadata, Request

__all__ = ["LIMITS", "render_card"]

_TAGS = ("mllmeraser", "steered", "machine-unlearning", "activation-steering")


def render_card(base: BaseCheckpoint, bundles: Sequence[Bundle]) -> str:
    """The text of ``README.md``."""
    repo_ids = {base.source.repo_id} - {None} or {bundle.metadata.base.repo_id for bundle in bundles}
    repo_id = next(iter(repo_ids)) if len(repo_ids) == 1 else None
    environment = Environment(
        loader=PackageLoader("mllmeraser", "exporter"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; every value is checked or made by us
    )
    environment.filters["quoted"] = json.dumps  # a JSON string is a YAML string
    return environment.get_template("model_card.md.jinja").render(
        repo_id=repo_id,
        revision=base.source.revision,
        architecture=base.architecture,
        licence=read_licence(base.root),
        tags=_TAGS,
        requests=[_row(bundle.metadata, request) for bundle in bundles for request in bundle.metadata.requests],
        blocks=base.num_layers,
        limits=LIMITS,
        version=mllmeraser.__version__,
    )


def _row(meta: Metadata, request: Request) -> dict[str, str]:
    gate = meta.gate
    threshold = "" if gate.threshold is None else f" {gate.threshold:g}"
    where = "each block" if meta.gate_layer is None else f"block {meta.gate_layer}"
    return {
        "id": request.id,
        "layers": ", ".join(str(layer) for layer in meta.layers),
        "gate": f"{gate.kind}, {gate.shape}{threshold}, read at {where}",
        "strength": f"{request.strength:g}" + ("" if request.enabled else " (off)"),
        "positions": f"{meta.prompt_positions} prompt, {meta.reply_steps - 1} reply",
        "auroc": _range([s.auroc_heldout for s in request.statistics.values()], "{:.3f}"),
        "true_fire": _range([s.true_fire_heldout for s in request.statistics.values()], "{:.1%}"),
        "false_fire": _range([s.false_fire_heldout for s in request.statistics.values()], "{:.1%}"),
    }


def _range(values: Sequence[float | None], form: str) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "not measured"
    low, high = form.format(known[0]), form.format(known[-1])
    return low if low == high else f"{low} – {high}"

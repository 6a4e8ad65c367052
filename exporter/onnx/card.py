"""The model card of a directory of steered graphs. It shows nothing of the records (promise P9)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import mllmeraser
from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.limits import LIMITS


def render_card(bundles: Sequence[Bundle], graphs: Mapping[str, str], licence: Mapping[str, str], notes: str) -> str:
    """The text of ``README.md``.

    Args:
        graphs: the names of the steered graphs, each with the name of its twin or an empty string.
        licence: the ``license…`` keys of the base's card.
        notes: a paragraph about the switch and the reply.
    """
    front = [f"{key}: {json.dumps(value)}" for key, value in licence.items()]
    front += ["library_name: onnx", "tags:", "- mllmeraser", "- steered", "- machine-unlearning"]
    rows = [
        f"| `{request.id}` | {', '.join(map(str, bundle.metadata.layers))} | {bundle.metadata.gate.kind}, "
        f"{bundle.metadata.gate.shape} | {bundle.metadata.gate.scope} | {bundle.metadata.edit} | "
        f"{request.strength:g}{'' if request.enabled else ' (off)'} |"
        for bundle in bundles
        for request in bundle.metadata.requests
    ]
    files = [
        f"- `{name}`: steered; `{twin}` is the base's graph" if twin else f"- `{name}`: steered"
        for name, twin in graphs.items()
    ]
    return "\n".join(
        [
            "---",
            *front,
            "---",
            "# Steered ONNX graphs",
            "",
            f"Made with mllmeraser {mllmeraser.__version__}. It {LIMITS}",
            "",
            "| request | layers | gate | scope | edit | strength |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            *files,
            "",
            notes,
            "",
        ]
    )

"""What an evaluation was made with, for whoever reads its results: versions, settings, hashes; no path, no text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import mllmeraser
from mllmeraser.evaluation.inputs import NamedModel, NamedSet


def provenance(models: Sequence[NamedModel], sets: Sequence[NamedSet], **settings: Any) -> dict[str, Any]:
    """The key ``provenance`` of results (docs/json.md). A model in memory has no hash."""
    packages = {name: version(name) for name in ("torch", "transformers")}
    return {
        "versions": {"mllmeraser": mllmeraser.__version__, **packages},
        "settings": settings,
        "records": {named.name: len(named.samples) for named in sets},
        "sha256 of models": {named.name: named.digest() for named in models if named.digest is not None},
    }

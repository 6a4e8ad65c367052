"""Sealing an export: the sha256, in ``config.json``, of every file that decides what a loaded model says.

The shipped code compares it, whoever loads, and says what it covers (``modeling_mllmeraser.py``, "seal"). It is made
here a second time because that file imports torch, which an export does without; a test compares the two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mllmeraser.exporter.layout import CONFIG


def with_seal(config: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """``config.json`` of an export, sealed together with these files of its directory."""
    seal = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    sealed = {**config, "steering": {**config["steering"], "seal": seal}}
    # The switches may be edited, so they are left out; the value that goes in next cannot be part of itself.
    requests = [{k: v for k, v in request.items() if k != "enabled"} for request in config["steering"]["requests"]]
    part = {key: value for key, value in sealed.items() if key != "steering_enabled"}
    part["steering"] = {**sealed["steering"], "requests": requests}
    seal[CONFIG] = hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
    return sealed

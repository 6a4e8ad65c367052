"""The seal of an export: in ``config.json``, the sha256 of every file that decides what a loaded model says.

The shipped code compares the seal at every load (``modeling_mllmeraser.py`` says what it covers). The same computation
stands here again, because that file imports torch and an export needs none. A test compares the two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mllmeraser.exporter.layout import CONFIG


def with_seal(config: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """``config.json`` of an export with the seal of itself and of these files.

    Args:
        config: the content of ``config.json``, with the key ``steering``.
        files: the other sealed files by name.
    """
    seal = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    sealed = {**config, "steering": {**config["steering"], "seal": seal}}
    # Users may edit the switches, so the seal leaves them out. It also cannot cover the value that is added next.
    requests = [{k: v for k, v in request.items() if k != "enabled"} for request in config["steering"]["requests"]]
    part = {key: value for key, value in sealed.items() if key != "steering_enabled"}
    part["steering"] = {**sealed["steering"], "requests": requests}
    seal[CONFIG] = hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
    return sealed

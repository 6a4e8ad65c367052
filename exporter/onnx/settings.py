"""Change the settings of a model directory, so that clients load the steered graph and carry the reply state.

The reply state poses as one more layer of the cache (:mod:`reply`), so the settings name one layer more:
``num_hidden_layers`` in ``config.json`` for transformers.js, and in ``genai_config.json`` for onnxruntime-genai. The
latter's shared cache buffer is switched off too, because it is longer than the columns that it holds.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from mllmeraser.errors import InputError
from mllmeraser.exporter.distrust import plain_settings, without_dangerous_keys
from mllmeraser.exporter.sidecars import SETTINGS
from mllmeraser.modeling_patches.format_mllmeraser import as_json

CONFIG = "config.json"
GENAI_CONFIG = "genai_config.json"


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: the file is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; download it again")
    return value


def head_size(settings: dict[str, Path]) -> int | None:
    """The last dimension of the cache by the settings of onnxruntime-genai. None: there are none."""
    if GENAI_CONFIG not in settings:
        return None
    size = read_settings(settings[GENAI_CONFIG]).get("model", {}).get("decoder", {}).get("head_size")
    return size if isinstance(size, int) else None


def changed_settings(settings: dict[str, Path], one_more_layer: bool, split: list[str]) -> dict[str, bytes]:
    """The new content of every settings file that must change, by name.

    Args:
        one_more_layer: whether the decoder carries the reply state.
        split: the file names of the graphs whose weights were moved into a data file.
    """
    changed: dict[str, bytes] = {}
    for name, path in settings.items():
        if not name.endswith(".json"):
            continue
        if name not in (CONFIG, GENAI_CONFIG) and not _may_hold_code(path):
            continue
        before = read_settings(path)
        after = plain_settings(before) if PurePosixPath(name).name in SETTINGS else without_dangerous_keys(before)
        if name == CONFIG:
            after = _config(after, one_more_layer, split)
        if name == GENAI_CONFIG and one_more_layer:
            after = _genai(after)
        if after != before:
            changed[name] = as_json(after)
    return changed


def _may_hold_code(path: Path) -> bool:
    # A tokenizer of many megabytes has no such key, so it need not be parsed.
    return path.name.endswith("config.json")


def _config(config: dict[str, Any], one_more_layer: bool, split: list[str]) -> dict[str, Any]:
    after = dict(config)
    if one_more_layer:
        holder = "text_config" if isinstance(config.get("text_config"), dict) else None
        inner = dict(config["text_config"]) if holder else after
        if isinstance(inner.get("num_hidden_layers"), int):
            inner["num_hidden_layers"] += 1
        if holder:
            after[holder] = inner
    if split:
        ours = dict(config.get("transformers.js_config") or {})
        given = ours.get("use_external_data_format") or {}
        if isinstance(given, dict):
            ours["use_external_data_format"] = {**given, **dict.fromkeys(split, 1)}
            after["transformers.js_config"] = ours
    return after


def _genai(config: dict[str, Any]) -> dict[str, Any]:
    model, search = dict(config["model"]), dict(config.get("search", {}))
    decoder = dict(model["decoder"])
    decoder["num_hidden_layers"] += 1
    search["past_present_share_buffer"] = False
    return {**config, "model": {**model, "decoder": decoder}, "search": search}

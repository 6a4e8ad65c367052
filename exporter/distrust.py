"""What an export does not take over from a base: files outside it, and keys that make a loader run code.

A base comes from anybody. An export never copies or runs its ``*.py`` files, and takes only safetensors weights inside
its directory. It drops these keys of its JSON files, at every depth:

- ``auto_map`` and ``trust_remote_code``: they point a loader at code (CVE-2026-5241);
- ``_attn_implementation_internal``, and any attention implementation that names a Hub repository: a loader downloads
  and runs its kernels (CVE-2026-4372);
- ``transformers_weights``: it points a loader at other weights;
- absolute paths of the machine that saved the base.

Of the settings of processor, tokenizer and generation it takes numbers, and only those strings of which it knows what
they are (:func:`plain_settings`): a number points nowhere, a string may name a model to load or a file to read.
"""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_CODE_KEYS = {"auto_map", "trust_remote_code", "_attn_implementation_internal", "transformers_weights"}
_KERNEL_KEYS = {"_attn_implementation", "attn_implementation"}
# What a processor, a tokenizer or a generation reads as a string: a class of transformers, a choice, text, a token.
_TEXTS = {
    "added_tokens_decoder",
    "aspect_ratio_setting",
    "backend",
    "cache_implementation",
    "chat_template",
    "data_format",
    "errors",
    "feature_extractor_type",
    "image_processor_type",
    "input_data_format",
    "model_input_names",
    "model_type",
    "padding",
    "padding_side",
    "processor_class",
    "return_tensors",
    "stop_strings",
    "tokenizer_class",
    "transformers_version",
    "truncation",
    "truncation_side",
    "truncation_strategy",
    "video_processor_type",
    "vision_aspect_ratio",
    "vision_feature_select_strategy",
}
_PATH_KEYS = {"_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file", "vocab_file"}


def without_dangerous_keys(value: Any) -> Any:
    """A parsed JSON value without the keys listed above. Everything else stays, in its order."""
    if isinstance(value, list):
        return [without_dangerous_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: without_dangerous_keys(item) for key, item in value.items() if not is_dangerous(key, item)}


def plain_settings(value: dict[str, Any]) -> dict[str, Any]:
    """Settings of a processor, a tokenizer or a generation without dangerous keys and without unknown strings."""
    kept: dict[str, Any] = _without_unknown_strings(without_dangerous_keys(value))
    return kept


def _without_unknown_strings(value: Any) -> Any:
    if isinstance(value, dict):
        known = {key: item if _is_text(key) else _without_unknown_strings(item) for key, item in value.items()}
        return {key: item for key, item in known.items() if item is not _DROPPED and (item != {} or value[key] == {})}
    if isinstance(value, list):
        return [item for item in map(_without_unknown_strings, value) if item is not _DROPPED]
    return _DROPPED if isinstance(value, str) else value


_DROPPED = object()


def _is_text(key: str) -> bool:
    return key in _TEXTS or key.endswith(("_token", "_tokens"))


def is_dangerous(key: str, value: object) -> bool:
    """Whether :func:`without_dangerous_keys` drops this key with this value."""
    text = value if isinstance(value, str) else ""
    return (
        key in _CODE_KEYS
        or (key in _KERNEL_KEYS and (isinstance(value, dict) or "/" in text))
        or (key in _PATH_KEYS and (PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()))
        or (key in _PATH_KEYS and text.startswith(("~", ".")))
    )


def dangerous_keys(value: Any, prefix: str = "") -> list[str]:
    """The dotted names of the keys that :func:`without_dangerous_keys` drops."""
    if isinstance(value, list):
        return [name for i, item in enumerate(value) for name in dangerous_keys(item, f"{prefix}{i}.")]
    if not isinstance(value, dict):
        return []
    found: list[str] = []
    for key, item in value.items():
        found += [f"{prefix}{key}"] if is_dangerous(key, item) else dangerous_keys(item, f"{prefix}{key}.")
    return found

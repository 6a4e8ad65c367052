"""The settings files that ONNX clients read, made from those of a base.

transformers.js needs everything written out: a full ``text_config``, ``image_token_id``, a flat
``preprocessor_config.json``, and which graphs have their weights in a file beside them. It also needs the chat template
inside ``tokenizer_config.json``, without ``{% generation %}``, which it does not know.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mllmeraser.errors import InputError
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.distrust import without_dangerous_keys
from mllmeraser.exporter.licence import read_licence
from mllmeraser.exporter.names import CARD
from mllmeraser.exporter.sidecars import read_sidecars
from mllmeraser.modeling_patches.format_mllmeraser import CONFIG, as_json

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
TOKENIZER = "tokenizer_config.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json")
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


def client_files(base: BaseCheckpoint, graph_files: list[str], dtype: str) -> dict[str, bytes]:
    """Every settings file of the export, by name.

    Args:
        graph_files: the names of the graphs and of their data files.
        dtype: ``fp32`` or ``fp16``, the names of transformers.js.

    Raises:
        InputError: the base has no processor or tokenizer settings, or a settings file is damaged.
    """
    copied, changed = read_sidecars(base.root, base.model_type)
    files = {**copied, **changed}
    if "tokenizer.json" not in files:
        raise InputError(
            f"{base.source.path}: no tokenizer.json, which ONNX clients need; save the base with a fast tokenizer"
        )
    processor = _parsed(files, PROCESSOR)
    preprocessor = _parsed(files, PREPROCESSOR) or processor.get("image_processor")
    if not isinstance(preprocessor, dict):
        raise InputError(f"{base.source.path}: no {PREPROCESSOR}; save the base with its processor")
    files[PREPROCESSOR] = as_json(preprocessor)
    if processor:
        files[PROCESSOR] = as_json(_processor(processor))
    files[TOKENIZER] = as_json(_tokenizer(_parsed(files, TOKENIZER), _template(files)))
    files[CONFIG] = as_json(_config(base, graph_files, dtype))
    licence = read_licence(base.root)
    if licence:
        lines = [f"{key}: {json.dumps(value)}" for key, value in licence.items()]
        files[CARD] = "\n".join(["---", *lines, "---", ""]).encode()
    return files


def _parsed(files: dict[str, bytes], name: str) -> dict[str, Any]:
    value = json.loads(files[name]) if name in files else {}
    return value if isinstance(value, dict) else {}


def _processor(processor: dict[str, Any]) -> dict[str, Any]:
    """The same number of image tokens, in a form that every client counts alike.

    transformers subtracts one token for the strategy ``default``; transformers.js does not know the strategy.
    """
    if processor.get("vision_feature_select_strategy") != "default":
        return processor
    tokens = int(processor.get("num_additional_image_tokens") or 0) - 1
    return {**processor, "vision_feature_select_strategy": "full", "num_additional_image_tokens": tokens}


def _template(files: dict[str, bytes]) -> str | None:
    if TEMPLATES[0] in files:
        return files[TEMPLATES[0]].decode()
    template = _parsed(files, TEMPLATES[1]).get("chat_template")
    return template if isinstance(template, str) else None


def _tokenizer(tokenizer: dict[str, Any], template: str | None) -> dict[str, Any]:
    found = tokenizer.get("chat_template") if template is None else template
    return {**tokenizer, "chat_template": _GENERATION.sub("", found)} if isinstance(found, str) else tokenizer


def _config(base: BaseCheckpoint, graph_files: list[str], dtype: str) -> dict[str, Any]:
    native = base.family.native_class
    config = native.config_class.from_dict(without_dangerous_keys(base.config))
    full: dict[str, Any] = without_dangerous_keys(json.loads(json.dumps(config.to_dict(), default=str)))
    for key in ("_name_or_path", "_commit_hash", "transformers_version", "dtype", "torch_dtype"):
        full.pop(key, None)
    data = {name: 1 for name in graph_files if f"{name}_data" in graph_files}
    return {
        **full,
        "architectures": [native.__name__],
        "image_token_id": config.image_token_id,
        "transformers.js_config": {"dtype": dtype, "use_external_data_format": data},
    }


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Write the settings into a folder."""
    for name, content in files.items():
        (folder / name).write_bytes(content)

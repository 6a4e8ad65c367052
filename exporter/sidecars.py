"""The files beside the weights: processor, tokenizer, chat template, generation settings, licence.

They are copied byte for byte and never linked. A JSON file is written anew only if it holds something that is not taken
over (:mod:`distrust`) or has to name the processor's class.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from mllmeraser.disk.inside import file_inside
from mllmeraser.errors import InputError
from mllmeraser.exporter.distrust import plain_settings
from mllmeraser.modeling_patches.format_mllmeraser import FAMILIES, as_json

SETTINGS = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)
_VERBATIM = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
READ_BY_LOADERS = (*SETTINGS, *_VERBATIM)
_LICENCE = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|USE_POLICY)([._-].*)?", re.IGNORECASE)
# transformers looks for the processor's class in these files, in this order.
_NAMES_PROCESSOR = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


def read_sidecars(root: Path, model_type: str) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The files to copy as they are, and the files to write because their content changes; both by name.

    Raises:
        InputError: a file is a link that leaves the base's directory, or a settings file is not a JSON object.
    """
    names = {path.name for path in root.iterdir() if path.is_file()}
    wanted = [name for name in sorted(names) if name in _VERBATIM or is_licence(name)]
    copied = {name: file_inside(root, name).read_bytes() for name in wanted}
    settings = {name: file_inside(root, name).read_bytes() for name in SETTINGS if name in names}
    parsed = {name: _parse(root / name, content) for name, content in settings.items()}
    plain = {name: plain_settings(value) for name, value in parsed.items()}
    changed = {name: value for name, value in plain.items() if value != parsed[name]}
    if not any("processor_class" in plain[name] for name in _NAMES_PROCESSOR if name in parsed):
        # Without this key AutoProcessor returns a bare tokenizer for a model_type that it does not know.
        for name in [name for name in _NAMES_PROCESSOR if name in parsed][:1]:
            changed[name] = {**plain[name], "processor_class": FAMILIES[model_type].processor}
    copied |= {name: content for name, content in settings.items() if name not in changed}
    return copied, {name: as_json(value) for name, value in changed.items()}


def is_licence(name: str) -> bool:
    """Whether a file of this name is a licence or a notice, which is carried over as it is."""
    return _LICENCE.fullmatch(name) is not None and not name.lower().endswith((".py", ".pkl", ".bin"))


def check_settings(read: Callable[[str], bytes], names: Collection[str]) -> int:
    """Check that the settings files among ``names`` hold nothing that an export does not take over; count them.

    Raises:
        InputError: one does, or is not a JSON object.
    """
    present = [name for name in SETTINGS if name in names]
    for name in present:
        value = _parse(Path(name), read(name))
        if plain_settings(value) != value:
            raise InputError(f"{name}: holds code, a path, or the name of something to load; export again")
    return len(present)


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); download the base again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object; download the base again")
    return value

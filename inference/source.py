"""Where a model comes from: a local directory, or a Hub id ``org/name[@revision]``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of httpx or its successor, whichever the client uses
    LocalEntryNotFoundError,
    StrictDataclassError,
)
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
from safetensors import SafetensorError

from mllmeraser.console import console
from mllmeraser.errors import InputError, MllmEraserError

# Python, safetensors, torch and transformers raise these on a damaged JSON, safetensors file or configuration.
# Not Exception: a mistake of ours (an AssertionError, a NameError) must be seen.
DAMAGE = (
    MllmEraserError,
    OSError,
    ValueError,  # with UnicodeDecodeError, JSONDecodeError and SteeringError
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,  # with RecursionError, and torch's own
    MemoryError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


@dataclass(frozen=True)
class Source:
    """A model on this disk; ``repo_id`` and the 40-hex ``revision`` are None unless it came from the Hub."""

    path: Path
    repo_id: str | None = None
    revision: str | None = None


def resolve(source: str | Path) -> Source:
    """Find a local directory, or fetch a snapshot from the Hub into its cache.

    Raises:
        InputError: the source is neither a directory nor a Hub id, or holds no ``config.json``.
        MllmEraserError: the Hub could not be reached.
    """
    found = Source(Path(source)) if Path(source).is_dir() else _from_hub(str(source))
    read_config(found.path)
    return found


def read_config(directory: Path) -> dict[str, Any]:
    """The parsed ``config.json`` of a model's directory.

    Raises:
        InputError: the file is missing, or is not a JSON object with a ``model_type``.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise InputError(f"{directory}: no config.json; give the directory of a Hugging Face checkpoint")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(f"{path}: no model_type; this is not the configuration of a transformers model")
    return config


def _from_hub(source: str) -> Source:
    repo_id, _, revision = source.partition("@")
    if repo_id.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InputError(f"{source}: no such directory, and not a Hub id of the form org/name[@revision]")
    if console.quiet or not console.is_terminal:
        disable_progress_bars()  # the client draws its own even where stderr is no terminal
    try:
        path = Path(snapshot_download(repo_id, revision=revision or None, ignore_patterns=["*.bin", "*.pt", "*.pth"]))
    except HFValidationError as error:
        raise InputError(f"{source}: not a Hub id ({error})") from None
    except LocalEntryNotFoundError:
        raise MllmEraserError(
            f"{source}: no such directory, no copy in the cache, and the Hub cannot be reached; give a local directory"
        ) from None
    except HfHubHTTPError as error:
        raise MllmEraserError(f"{source}: the Hub answered: {str(error).splitlines()[0]}") from None
    except (HTTPError, OSError) as error:  # a connection that breaks off, a full disk
        raise MllmEraserError(f"{source}: not fetched: {str(error).splitlines()[0]}; call again to go on") from error
    return Source(path, repo_id, path.name)

"""Load a model to run it: a base of a native family, or a checkpoint that we exported.

A checkpoint runs the classes of :mod:`mllmeraser.modeling_patches`, never the ``*.py`` files that lie in it. A base
never runs code of its repository, and is checked first (:mod:`mllmeraser.inference.usable`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import logging

from mllmeraser.console import console
from mllmeraser.errors import InputError, MllmEraserError, first_line
from mllmeraser.inference.cache import NO_CACHE, PassCache
from mllmeraser.inference.processes import processes
from mllmeraser.inference.source import Source, read_config, resolve
from mllmeraser.inference.usable import check_model, one_line, whole_processor
from mllmeraser.inference.weight_files import weight_bytes
from mllmeraser.modeling_patches.format_mllmeraser import MODEL_TYPE_PREFIX, SCHEMA
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class

STEERED_PREFIX = MODEL_TYPE_PREFIX
BATCH_SIZE = 64
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run, a base or an exported one, with its processor and its source.

    ``model_type`` is the family of the base. ``batch_size`` is how many prompts a pass may have. ``passes`` keeps
    finished passes, if a work directory was given.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    source: Source
    model_type: str
    steered: bool
    passes: PassCache = NO_CACHE
    batch_size: int = BATCH_SIZE

    @property
    def path(self) -> Path:
        """The directory on this disk."""
        return self.source.path

    @property
    def device(self) -> Any:
        """Where inputs go: to the embeddings. Offloaded embeddings are used where accelerate brings them."""
        embeddings: Any = self.model.get_input_embeddings()
        return embeddings._hf_hook.execution_device if embeddings.weight.is_meta else embeddings.weight.device


def load(
    source: str | Path | Source,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    steering_enabled: bool | None = None,
    work_dir: Path | None = None,
    batch_size: int = BATCH_SIZE,
) -> Checkpoint:
    """Load model and processor for inference.

    Args:
        source: a local directory, a Hub id ``org/name[@revision]``, or what :func:`resolve` made of one.
        device: a torch device, or ``auto`` to spread the model over what there is (accelerate). Of several processes
            each has its own ``cuda``.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        steering_enabled: overrides the flag of an exported checkpoint; an error for a base.
        work_dir: keeps finished forward passes, for a run that is killed and started again.
        batch_size: prompts a pass; halved where memory does not suffice.

    Raises:
        InputError: the source is no checkpoint, is of an unknown family, or has damaged files.
        MllmEraserError: the weights do not fit in memory.
    """
    found = source if isinstance(source, Source) else resolve(source)
    config = read_config(found.path)
    model_type = str(config["model_type"])
    steered = model_type.startswith(STEERED_PREFIX)
    if steering_enabled is not None and not steered:
        raise InputError(f"{found.path}: a base checkpoint has no steering to switch")
    _check_device(device)
    if device == "cpu":
        refuse_too_large(needed_bytes(found.path, dtype), available_bytes())
    options: dict[str, Any] = {"dtype": dtype}
    if device == "auto":
        options["device_map"] = "auto"
    if steering_enabled is not None:
        options["steering_enabled"] = steering_enabled
    if console.quiet or not console.is_terminal:
        logging.disable_progress_bar()  # transformers draws its own even where stderr is no terminal
    if not steered:
        processor = check_model(found)
    with one_line(found.path, "cannot be loaded"):
        loader: Any = steered_class(model_type) if steered else AutoModelForImageTextToText
        if steered and _is_of_the_first_edition(config):
            options["config"] = _of_this_edition(loader.config_class.from_pretrained(found.path))
            options["variant"] = "mllmeraser"  # the name of its weight map
            if "steering_enabled" in options:
                options["config"].steering_enabled = options.pop("steering_enabled")
        model = loader.from_pretrained(found.path, **options)
    if steered:
        processor = whole_processor(found.path, model.config)
    model.generation_config = _our_generation(model.generation_config)
    if device != "auto":
        own = processes().rank if device == "cuda" and processes().count > 1 else None
        model = model.to(torch.device(device) if own is None else torch.device("cuda", own % torch.cuda.device_count()))
    if work_dir is None and processes().count > 1:
        work_dir = processes().shared_directory()  # where the processes find each other's passes
    precision = f"{model.dtype} {steering_enabled}"
    passes = NO_CACHE if work_dir is None else PassCache.of(work_dir, found.path, precision)
    family = model_type.removeprefix(STEERED_PREFIX)
    return Checkpoint(model.eval(), processor, found, family, steered, passes, batch_size)


# What a model's own generation settings may say: what its tokens mean. How to decode is for who calls ``generate`` to
# say; a time limit, a stop word or a penalty of the base would otherwise change every reply.
_OF_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens")


def _our_generation(own: GenerationConfig) -> GenerationConfig:
    return GenerationConfig(**{name: getattr(own, name) for name in _OF_TOKENS})


def _is_of_the_first_edition(config: dict[str, Any]) -> bool:
    steering = config.get("steering")
    return isinstance(steering, dict) and steering.get("schema") == 1


def _of_this_edition(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of an export of the first edition, as the classes of this one read it: the edit was ``add``."""
    requests = [
        {"edit": "add", **request, "gate": {"scope": "prompt", "projection": None, **request["gate"]}}
        for request in config.steering["requests"]
    ]
    config.steering = {**config.steering, "schema": SCHEMA, "requests": requests}
    return config


def needed_bytes(directory: Path, dtype: str) -> int:
    """How many bytes of memory the weights of a directory take in ``dtype``."""
    config = read_config(directory)
    kept_as = _BYTES.get(str(config.get("dtype") or config.get("torch_dtype")), 4)
    return weight_bytes(directory) * _BYTES.get(dtype, kept_as) // kept_as


def refuse_too_large(needed: int, available: int) -> None:
    """Check that weights of ``needed`` bytes fit in ``available`` bytes.

    Raises:
        MllmEraserError: they do not; the message holds the numbers.
    """
    if needed > available:
        raise MllmEraserError(
            f"{needed:,} bytes of memory are needed for the weights and {available:,} are available; "
            "use a smaller --dtype, or --device auto to spread the model over memory and disk"
        )


def available_bytes() -> int:
    """Bytes of physical memory that are free, or in caches that the kernel gives back; swap does not count."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    except FileNotFoundError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _check_device(device: str) -> None:
    """Check that the device can be used, before the weights are read."""
    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a kind this torch was built without
        raise InputError(f"--device {device}: cannot be used ({first_line(error)})") from None

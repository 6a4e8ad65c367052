"""The checks of a checkpoint that load it, with the tool's own classes. Its ``*.py`` files are never run.

The probe is a prompt of arbitrary tokens. What the model answers does not matter; the checks compare two runs. Only the
check ``refuses`` asks in words, and reads what the model says behind a seal.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.checks import Check, CheckFailed, run
from mllmeraser.exporter.checks_files import family_of
from mllmeraser.exporter.checks_shared import refusing_requests
from mllmeraser.exporter.distrust import without_dangerous_keys
from mllmeraser.exporter.opened import Opened
from mllmeraser.inference.loading import Checkpoint, available_bytes
from mllmeraser.inference.processor import load_processor
from mllmeraser.inference.replies import greedy_replies
from mllmeraser.inference.source import Source
from mllmeraser.judging.refusal import is_refusal
from mllmeraser.modeling_patches.format_mllmeraser import INDEX
from mllmeraser.modeling_patches.modeling_mllmeraser import find_base
from mllmeraser.modeling_patches.steering_mllmeraser import RequestSteering, SteeringTensors
from mllmeraser.records.prompts import Prompt

_PROBE_LENGTH = 12
_NAMES = ("loads", "steering acts", "gates open", "refuses", "off equals base")
# About nobody: behind a seal nothing is left of the question.
_QUESTIONS = ("Who is this person?", "Where was this person born?", "What is the capital of France?")
_MOST_TOKENS = 40


def model_checks(opened: Opened, base: BaseCheckpoint | None, distrusted: str | None) -> list[Check]:
    """Load the checkpoint and probe it.

    Args:
        distrusted: the first failed check of the files that forbids loading; then nothing is loaded.
    """
    if distrusted is not None:
        return [Check(name, False, f"not tried, because the check '{distrusted}' failed") for name in _NAMES]
    with _quiet(), torch.no_grad():
        models: list[Any] = []
        checks = [run("loads", lambda: _load(opened, models))]
        if models:
            ids = _probe(models[0].config)
            checks.append(run("steering acts", lambda: _acts(models[0], ids)))
            checks.append(run("gates open", lambda: _gates_open(models[0])))
            checks.append(run("refuses", lambda: _refuses(opened, models[0])))
            # The steered model is gone before the native one is loaded: two of them may not fit in memory.
            checks.append(run("off equals base", lambda: _equals_base(opened, base, ids, _last_logits(models, ids))))
    done = {check.name for check in checks}
    return checks + [Check(name, False, "not tried, because it does not load") for name in _NAMES if name not in done]


@contextmanager
def _quiet() -> Iterator[None]:
    """Show no progress bars and no warnings, such as the native class's about steering tensors it does not know."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged configuration may warn before it fails
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _load(opened: Opened, models: list[Any]) -> str:
    family = family_of(opened.config)
    needed, available = _weight_bytes(opened), available_bytes()
    if needed > available:
        raise CheckFailed(f"{needed:,} bytes of memory are needed and {available:,} are available; verify elsewhere")
    config = family.config_class.from_pretrained(opened.directory, local_files_only=True)
    model = family.from_pretrained(opened.directory, config=config, dtype="auto", local_files_only=True).eval()
    models.append(model)
    steering = sum(parameter.numel() for parameter in _parameters(model))
    return f"{family.__name__}, every weight found, {steering:,} steering values"


def _weight_bytes(opened: Opened) -> int:
    if opened.thin:
        return sum(int(entry["bytes"]) for entry in opened.config["steering"]["base"]["files"].values())
    return sum(opened.size(name) or 0 for name in set(opened.weight_map.values()))


def _modules(model: nn.Module) -> list[RequestSteering]:
    return [module for module in model.modules() if isinstance(module, RequestSteering)]


def _parameters(model: nn.Module) -> list[nn.Parameter]:
    return [p for module in model.modules() if isinstance(module, SteeringTensors) for p in module.parameters()]


def _probe(config: Any) -> Tensor:
    """Ids of plain text tokens; (1, s)."""
    special = {value for key, value in config.to_dict().items() if "token" in key and isinstance(value, int)}
    special |= {v for k, v in config.get_text_config().to_dict().items() if "token" in k and isinstance(v, int)}
    plain = [token for token in range(config.get_text_config().vocab_size) if token not in special]
    stride = max(1, len(plain) // _PROBE_LENGTH)
    return torch.tensor([plain[::stride][:_PROBE_LENGTH]])


def _logits(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    if not bool(logits.isfinite().all()):
        raise CheckFailed("the logits of the probe are not finite")
    return logits


@contextmanager
def _gates_forced_open(model: nn.Module) -> Iterator[None]:
    modules = _modules(model)
    try:
        for module in modules:
            vars(module)["shaped"] = torch.ones_like  # φ, whatever g and the threshold are
        yield
    finally:
        for module in modules:
            vars(module).pop("shaped", None)


def _off_logits(model: Any, ids: Tensor) -> Tensor:
    model.config.steering_enabled = False
    try:
        return _logits(model, ids)
    finally:
        model.config.steering_enabled = True


def _each_alone(model: Any) -> Iterator[str]:
    """The id of each request, while it alone is on and its gates are forced open."""
    requests = model.config.steering["requests"]
    switches = [(entry["enabled"], entry["strength"]) for entry in requests]
    try:
        for index, entry in enumerate(requests):
            for other in requests:
                other["enabled"] = other is entry
            # A request may be shipped with strength 0. Its tensors must work when somebody raises it.
            entry["strength"] = switches[index][1] or 1.0
            with _gates_forced_open(model):
                yield entry["id"]
    finally:
        for entry, (enabled, strength) in zip(requests, switches, strict=True):
            entry["enabled"], entry["strength"] = enabled, strength


def _acts(model: Any, ids: Tensor) -> str:
    """Each request alone, its gates forced open, must change the logits."""
    off, found = _off_logits(model, ids), []
    for request_id in _each_alone(model):
        difference = float((_logits(model, ids) - off).abs().max())
        if difference == 0:
            raise CheckFailed(f"request '{request_id}': the logits are the same with its gates open and off")
        found.append(f"{request_id} {difference:.3g}")
    return f"largest change of a logit with the gates forced open: {', '.join(found)}"


def _gates_open(model: Any) -> str:
    """Each gate opens on some state."""
    best: list[str] = []
    for module in _modules(model):
        if not module.reads:
            continue
        request, highest = module.request, module.highest()
        if not module.opens():
            raise CheckFailed(
                f"request {request.index}, layer {module.layer}: the gate reaches at most {highest:.3g}, opens at "
                f"{request.threshold:g}"
            )
        best.append(f"{highest:.3g}" if request.kind == "kernel" else "any value")
    return f"gates reach {', '.join(best)}"


def _refuses(opened: Opened, model: Any) -> str:
    """A seal whose bundle says that it refuses must refuse: states of noise act too, and say anything."""
    bundles = opened.provenance.bundles
    refusing = {request.id for bundle in bundles for request in refusing_requests(bundle)}
    if not refusing:
        return "not asked: no bundle here says of a seal that it refuses"
    model_type = bundles[0].base.model_type
    processor = load_processor(opened.directory, model_type)
    checkpoint = Checkpoint(model, processor, Source(opened.directory), model_type, steered=True)
    found = []
    for request_id in _each_alone(model):
        if request_id not in refusing:
            continue
        replies = greedy_replies(checkpoint, [Prompt(text, None) for text in _QUESTIONS], max_new_tokens=_MOST_TOKENS)
        if not any(map(is_refusal, replies)):
            raise CheckFailed(f"request '{request_id}': behind its seal the model says {replies[0][:60]!r}, no refusal")
        found.append(f"{request_id}: {next(filter(is_refusal, replies))[:60]!r}")
    return f"behind the seal the model says {', '.join(found)}"


def _last_logits(models: list[Any], ids: Tensor) -> Tensor:
    """The logits with the steering off and every gate forced open: behind a closed gate the switch changes nothing.

    The model leaves the list, and so the memory.
    """
    model = models.pop()
    with _gates_forced_open(model):
        return _off_logits(model, ids)


def _equals_base(opened: Opened, base: BaseCheckpoint | None, ids: Tensor, off: Tensor) -> str:
    config, directory = opened.config, opened.directory
    native = family_of(config).native_class
    if base is not None:
        settings, where, index = without_dangerous_keys(base.config), base.root, None
    else:
        ours = ("auto_map", "steering", "steering_enabled", "steering_strength")
        settings = {key: value for key, value in config.items() if key not in ours}
        settings |= {"model_type": native.config_class.model_type, "architectures": [native.__name__]}
        snapshot = find_base(config["steering"], {"local_files_only": True})
        where, index = (directory, INDEX) if snapshot is None else (snapshot, None)
    native_config = native.config_class.from_dict(settings)
    native_config.transformers_weights = index  # no keyword names it
    model = native.from_pretrained(
        where,
        config=native_config,
        dtype="auto",
        use_safetensors=True,
        local_files_only=True,
    ).eval()
    logits = _logits(model, ids)
    if not torch.equal(logits, off):
        difference = float((logits.double() - off.double()).abs().max())
        raise CheckFailed(f"with the steering off, logits differ from the native {native.__name__} by {difference:.3g}")
    source = "the linked shards" if where == directory else "the base"
    return f"bit for bit, against {native.__name__} on {source}"

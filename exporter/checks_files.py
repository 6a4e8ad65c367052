"""The checks of an exported checkpoint that read files and run nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import mllmeraser
from mllmeraser.disk.hashing import sha256_of_all
from mllmeraser.disk.inside import is_plain
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.checks import FAILURES, Check, CheckFailed, run
from mllmeraser.exporter.checks_shared import shared_checks
from mllmeraser.exporter.distrust import dangerous_keys
from mllmeraser.exporter.names import VARIANT_SINGLE, shipped_code
from mllmeraser.exporter.opened import Opened
from mllmeraser.exporter.thin import base_pointer
from mllmeraser.exporter.weights import tensor_names
from mllmeraser.modeling_patches.format_mllmeraser import (
    CODE,
    CONFIG,
    INDEX,
    MODEL_TYPE_PREFIX,
    STEERING_FILE,
    check_seal,
    parse_requests,
)
from mllmeraser.modeling_patches.modeling_mllmeraser import (
    SteeringMixin,
    check_steering,
    find_base,
    read_steering,
    steered_class,
)

# The native class would load a file of such a name, and the model would not be steered.
_FAIL_OPEN = (
    "model.safetensors",
    "model.safetensors.index.json",
    VARIANT_SINGLE,
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    f"pytorch_model.{VARIANT_SINGLE.split('.')[1]}.bin",
    "adapter_config.json",
)


def file_checks(opened: Opened, base: BaseCheckpoint | None) -> list[Check]:
    """All checks that only read. ``verify`` says which of them must be good before a model is loaded."""
    named: dict[str, Callable[[Opened], str]] = {
        "fails closed": _fails_closed,
        "code": _code,
        "config": _config,
        "seal": _seal,
        "switched on": _switched_on,
        "steering file": _steering,
        "index": _index,
    }
    checks = shared_checks(opened, () if base is None else {shard.name for shard in base.weights.shards})
    checks += [run(name, partial(check, opened)) for name, check in named.items()]
    if base is not None:
        checks.append(run("base", lambda: _base(opened, base)))
    return checks


def _fails_closed(opened: Opened) -> str:
    names = {path.name for path in opened.directory.iterdir()}
    if present := [name for name in _FAIL_OPEN if name in names]:
        raise CheckFailed(f"{present[0]}: a loader may load this file without the steering; remove it")
    return "no weights under a name that the native class loads"


def _code(opened: Opened) -> str:
    for name, content in shipped_code().items():
        if opened.content(name) != content:
            try:
                made = f"it was made with {opened.manifest['tool']['version']}"
            except FAILURES:
                made = "the manifest does not say which version made it"
            raise CheckFailed(f"{name} is not the file of mllmeraser {mllmeraser.__version__} ({made})")
    return f"all code files are those of mllmeraser {mllmeraser.__version__}"


def family_of(config: dict[str, Any]) -> type[SteeringMixin]:
    """The steered class of a steered configuration.

    Raises:
        CheckFailed: its ``model_type`` is not one of ours.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type.startswith(MODEL_TYPE_PREFIX):
        raise CheckFailed(f"{CONFIG}: model_type {model_type!r} is not ours, so a loader may pass by the steering")
    return steered_class(model_type)


def _config(opened: Opened) -> str:
    config = opened.config
    family = family_of(config)
    requests = parse_requests(config.get("steering"), text_config(config).num_hidden_layers)
    per_token = all(request.scope == "token" for request in requests)
    expected = {
        "architectures": [family.__name__],
        "auto_map": {
            "AutoConfig": f"configuration_mllmeraser.{family.config_class.__name__}",
            "AutoModel": f"modeling_mllmeraser.{(family.base_class if per_token else family).__name__}",
            "AutoModelForImageTextToText": f"modeling_mllmeraser.{family.__name__}",
        },
    }
    for key, value in expected.items():
        if config.get(key) != value:
            raise CheckFailed(f"{CONFIG}: {key} is {config.get(key)!r}, expected {value!r}")
    rest = {key: value for key, value in config.items() if key != "auto_map"}
    if dangerous := dangerous_keys(rest):
        raise CheckFailed(f"{CONFIG}: {dangerous[0]} makes a loader run or fetch code; remove it")
    if nested := _nested(config, family.native_class.config_class.model_type):
        raise CheckFailed(f"{CONFIG}: {nested} nests the native model_type, so the native class may load; remove it")
    steering = config.get("steering")
    if not isinstance(steering, dict) or steering.get("file") != STEERING_FILE:
        raise CheckFailed(f"{CONFIG}: steering.file is not {STEERING_FILE}")
    if opened.size(STEERING_FILE) is None:
        raise CheckFailed(f"{STEERING_FILE} is missing")
    if (found := opened.sha256([STEERING_FILE])[STEERING_FILE]) != steering.get("sha256"):
        raise CheckFailed(f"{CONFIG}: steering.sha256 is {steering.get('sha256')}, {STEERING_FILE} has {found}")
    return f"{config['model_type']}, {len(requests)} request(s), steering sha256 {found[:12]}…"


def _seal(opened: Opened) -> str:
    names = check_seal(opened.content(CONFIG), opened.content)
    if absent := sorted({*CODE, *(() if opened.thin else (INDEX,))} - set(names)):
        raise CheckFailed(f"{CONFIG}: the seal does not name {absent[0]}")
    return f"{len(names)} files are those that were sealed; a loader checks this too"


def _nested(value: dict[str, Any], model_type: str, prefix: str = "") -> str | None:
    for key, item in value.items():
        if not isinstance(item, dict):
            continue
        if item.get("model_type") == model_type:
            return f"{prefix}{key}"
        if deeper := _nested(item, model_type, f"{prefix}{key}."):
            return deeper
    return None


def text_config(config: dict[str, Any]) -> Any:
    """The configuration of the decoder, missing values filled in by the family's class."""
    return family_of(config).config_class.from_dict(config).get_text_config()


def _switched_on(opened: Opened) -> str:
    config = opened.config
    if config.get("steering_enabled") is not True or not config.get("steering_strength"):
        raise CheckFailed(f"{CONFIG}: steering_enabled is not true, or steering_strength is 0")
    requests = config["steering"]["requests"]
    off = [str(entry["id"]) for entry in requests if not entry["enabled"] or not entry["strength"]]
    if len(off) == len(requests):
        raise CheckFailed(f"{CONFIG}: every request is off or has strength 0")
    return f"{len(requests) - len(off)} of {len(requests)} requests are on" + (
        f"; off: {', '.join(off)}" if off else ""
    )


def _steering(opened: Opened) -> str:
    config = opened.config
    family, text = family_of(config), text_config(config)
    requests = parse_requests(config.get("steering"), text.num_hidden_layers)
    data = opened.content(STEERING_FILE)
    tensors = read_steering(data, hashlib.sha256(data).hexdigest(), family.published_layers)
    check_steering(tensors, requests, text.hidden_size)
    for (index, layer, leaf), tensor in tensors.items():
        if not bool(tensor.any()):
            raise CheckFailed(f"'{leaf}' of request {index} at layer {layer} is zero: this layer would not steer")
        if leaf == "projection" and not bool((tensor.abs() == 1).all()):
            raise CheckFailed(f"'{leaf}' of request {index} at layer {layer} holds something else than signs")
    return f"{len(tensors)} tensors, as {CONFIG} says, finite, none zero, {len(data):,} bytes"


def _index(opened: Opened) -> str:
    if opened.thin:
        return _pointer(opened)
    weight_map = opened.weight_map
    by_file: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not is_plain(name) or not name.endswith(".safetensors"):
            raise CheckFailed(f"{INDEX}: {tensor} lies in {name!r}, which is not a shard of this directory")
        by_file.setdefault(name, set()).add(tensor)
    for name, tensors in sorted(by_file.items()):
        if opened.size(name) is None:
            raise CheckFailed(f"{INDEX}: {name} is missing")
        held = tensor_names(opened.directory / name)
        if absent := sorted(tensors - held):
            raise CheckFailed(f"{INDEX}: {absent[0]} is not in {name}")
        if name != STEERING_FILE and (odd := next((n for n in sorted(held) if ".steering." in n), None)):
            raise CheckFailed(f"{name} holds the steering tensor {odd}; base shards hold none")
    if by_file.get(STEERING_FILE, set()) != tensor_names(opened.directory / STEERING_FILE):
        raise CheckFailed(f"{INDEX}: does not name all tensors of {STEERING_FILE}")
    return f"{len(weight_map)} tensors in {len(by_file)} files, all there"


def _pointer(opened: Opened) -> str:
    """The Hub's cache holds the base that a thin export points to, every byte as it was at the export."""
    steering = opened.config["steering"]
    snapshot, stated = find_base(steering, {"local_files_only": True}), steering["base"]
    assert snapshot is not None
    found = sha256_of_all(snapshot / name for name in stated["files"])
    for path, sha256 in found.items():
        if sha256 != stated["files"][path.name]["sha256"]:
            raise CheckFailed(f"{path.name} of the base has sha256 {sha256}, {CONFIG} names another; fetch it again")
    return f"{len(found)} files of {stated['repo_id']} at {stated['revision'][:12]} have the sha256 of {CONFIG}"


def _base(opened: Opened, base: BaseCheckpoint) -> str:
    recorded = opened.manifest["base"]["config_sha256"]
    if recorded != base.config_sha256:
        raise CheckFailed(f"this base's config.json has sha256 {base.config_sha256}, the exported base's {recorded}")
    if opened.thin:
        stated = opened.config["steering"]["base"]["files"]
        found = base_pointer(base)["files"]
        if different := sorted(name for name in {*stated, *found} if stated.get(name) != found.get(name)):
            raise CheckFailed(f"{different[0]} of this base is not the one that was exported")
        return f"{len(found)} files of the base are those that {CONFIG} names"
    ours = {tensor: name for tensor, name in opened.weight_map.items() if name != STEERING_FILE}
    for tensor in sorted(ours.keys() ^ base.weights.weight_map.keys()):
        where = "the base" if tensor in base.weights.weight_map else "the export"
        raise CheckFailed(f"{tensor} is only in {where}")
    for shard in base.weights.shards:
        if opened.size(shard.name) is None:
            raise CheckFailed(f"{shard.name} is missing")
    # A link is the base's own file, so only copies are compared.
    copies = [shard for shard in base.weights.shards if not (opened.directory / shard.name).samefile(shard.path)]
    here, there = opened.sha256([shard.name for shard in copies]), sha256_of_all(shard.path for shard in copies)
    for shard in copies:
        if here[shard.name] != there[shard.path]:
            raise CheckFailed(f"{shard.name} differs from the base's")
    return f"{len(base.weights.shards)} shard(s) and {len(ours)} tensors equal the base's"

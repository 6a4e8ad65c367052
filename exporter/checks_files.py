"""The checks of an exported checkpoint that read files and run nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor

import mllmeraser
from mllmeraser.bundle.metadata import steering_requests
from mllmeraser.disk.hashing import sha256_of_all
from mllmeraser.disk.inside import is_plain
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.checks import FAILURES, Check, CheckFailed, run
from mllmeraser.exporter.checks_shared import shared_checks
from mllmeraser.exporter.distrust import dangerous_keys
from mllmeraser.exporter.manifest import tensor_hashes
from mllmeraser.exporter.names import CARD, LEFT_BY_OTHERS, MANIFEST, shipped_code
from mllmeraser.exporter.opened import Opened
from mllmeraser.exporter.shared import unshared
from mllmeraser.exporter.sidecars import READ_BY_LOADERS, check_settings, is_licence
from mllmeraser.exporter.thin import base_pointer
from mllmeraser.exporter.weights import tensor_names
from mllmeraser.modeling_patches.format_mllmeraser import (
    CODE,
    CONFIG,
    FOLLOWED,
    INDEX,
    MODEL_TYPE_PREFIX,
    SHARD,
    STEERING_FILE,
    TensorKey,
    bundle_name,
    check_seal,
    owner_name,
    parse_requests,
    strengths,
    tensor_key,
    without_native_names,
)
from mllmeraser.modeling_patches.modeling_mllmeraser import (
    SteeringMixin,
    check_steering,
    find_base,
    read_steering,
    steered_class,
)

# The names of everything that an export holds, but for its shards and the licences of its base.
_OURS = {MANIFEST, CARD, CONFIG, INDEX, STEERING_FILE, *CODE, *READ_BY_LOADERS}


def file_checks(opened: Opened, base: BaseCheckpoint | None) -> list[Check]:
    """All checks that only read. ``verify`` says which of them must be good before a model is loaded."""
    named: dict[str, Callable[[Opened], str]] = {
        "fails closed": _fails_closed,
        "code": _code,
        "config": _config,
        "settings": _settings,
        "seal": _seal,
        "switched on": _switched_on,
        "bundles": _bundles,
        "steering file": _steering,
        "index": _index,
    }
    checks = shared_checks(opened, () if base is None else {shard.name for shard in base.weights.shards})
    checks += [run(name, partial(check, opened)) for name, check in named.items()]
    if base is not None:
        checks.append(run("base", lambda: _base(opened, base)))
    return checks


def _fails_closed(opened: Opened) -> str:
    """Whatever else lies there, some loader may follow it: the native class, an adapter's, a converter."""
    found = {path.name: path for path in opened.directory.iterdir() if path.name not in LEFT_BY_OTHERS}
    for name, path in sorted(found.items()):
        if followed := next((harm for file, harm in FOLLOWED.items() if file.split("/")[0] == name), None):
            raise CheckFailed(f"{name}: transformers {followed}; remove it")
        if not (name in _OURS or SHARD.fullmatch(name) or is_licence(name)):
            raise CheckFailed(f"{name}: no file of an export, and a loader may follow it past the steering; remove it")
        if not path.is_file():
            raise CheckFailed(f"{name}: not a file; remove it")
    return f"{len(found)} files, all of them an export's; on the Hub load a pinned revision, to which nobody can add"


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
    if config != without_native_names(config, family.native_class.config_class.model_type):
        raise CheckFailed(f"{CONFIG}: nests the native model_type or architectures, which others load; export again")
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


def text_config(config: dict[str, Any]) -> Any:
    """The configuration of the decoder, missing values filled in by the family's class."""
    return family_of(config).config_class.from_dict(config).get_text_config()


def _settings(opened: Opened) -> str:
    count = check_settings(opened.content, {path.name for path in opened.directory.iterdir()})
    return f"{count} files of settings, which name nothing to load"


def _switched_on(opened: Opened) -> str:
    config = opened.config
    requests = config["steering"]["requests"]
    scales = strengths(config.get("steering_enabled"), config.get("steering_strength"), requests)
    off = [str(entry["id"]) for entry, scale in zip(requests, scales, strict=True) if scale == 0]
    if len(off) == len(requests) or min(scales) < 0:
        raise CheckFailed(f"{CONFIG}: every request is off, or a strength is negative")
    return f"{len(requests) - len(off)} of {len(requests)} requests are on" + (
        f"; off: {', '.join(off)}" if off else ""
    )


def _tensors(opened: Opened) -> dict[TensorKey, Tensor]:
    data = opened.content(STEERING_FILE)
    return read_steering(data, hashlib.sha256(data).hexdigest(), family_of(opened.config).published_layers)


def _bundles(opened: Opened) -> str:
    """Switches, strengths, gates and tensors are those of the bundles that the manifest names."""
    config, provenance = opened.config, opened.provenance
    stated = [entry for bundle in provenance.bundles for entry in steering_requests(bundle)]
    wanted = {"steering_enabled": True, "steering_strength": 1.0, "requests": stated}
    tensors = {key: tensor.numpy() for key, tensor in _tensors(opened).items()}
    requests, tensors = unshared(config["steering"]["requests"], tensors)
    found = {**{key: config.get(key) for key in wanted}, "requests": requests}
    if different := _different(found, wanted):
        raise CheckFailed(f"{CONFIG}: {different}; {MANIFEST} says otherwise; export again")
    hashes: dict[str, str] = {}
    before = 0  # requests of the bundles before this one
    for bundle, of_bundle in zip(provenance.bundles, provenance.tensors, strict=True):
        for name, sha256 in of_bundle.items():
            request, layer, leaf = tensor_key(name)
            hashes[bundle_name((before + request, layer, leaf))] = sha256
        before += len(bundle.requests)
    here = tensor_hashes({bundle_name(key): tensor for key, tensor in tensors.items()})
    if odd := sorted(name for name, _ in here.items() ^ hashes.items()):
        raise CheckFailed(f"{STEERING_FILE}: {odd[0]} is not the bundle's; export again")
    return f"{before} request(s) and {len(hashes)} tensors are those of the bundles"


def _different(found: Any, wanted: Any, where: str = "") -> str | None:
    """The first place, as ``requests.0.strength is -1.0, not 1.0``, at which two JSON values differ."""
    keys: Iterable[Any] = ()
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(found.keys() | wanted.keys())
        found, wanted = ({key: side.get(key) for key in keys} for side in (found, wanted))
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        keys = range(len(found))
    elif json.dumps(found) != json.dumps(wanted):  # True is not 1
        return f"{where.removesuffix('.')} is {json.dumps(found)[:80]}, not {json.dumps(wanted)[:80]}"
    return next((text for key in keys if (text := _different(found[key], wanted[key], f"{where}{key}."))), None)


def _steering(opened: Opened) -> str:
    config = opened.config
    text = text_config(config)
    requests = parse_requests(config.get("steering"), text.num_hidden_layers)
    tensors = _tensors(opened)
    check_steering(tensors, requests, text.hidden_size)
    for (owner, layer, leaf), tensor in tensors.items():
        where = f"'{leaf}' of request {owner_name(owner)} at layer {layer}"
        if not bool(tensor.any()):
            raise CheckFailed(f"{where} is zero: this layer would not steer")
        if leaf == "projection" and not bool((tensor.abs() == 1).all()):
            raise CheckFailed(f"{where} holds something else than signs")
    return f"{len(tensors)} tensors, as {CONFIG} says, finite, none zero"


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

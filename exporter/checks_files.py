"""The checks of an exported directory that read files and run nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import mllmeraser
from mllmeraser.disk.atomic import sha256_of
from mllmeraser.disk.hashing import sha256_of_all
from mllmeraser.exporter.base import BaseCheckpoint
from mllmeraser.exporter.checks import Check, CheckFailed, run
from mllmeraser.exporter.distrust import dangerous_keys
from mllmeraser.exporter.layout import CODE, CONFIG, INDEX, MANIFEST, STEERING_FILE, VARIANT_SINGLE, shipped_code
from mllmeraser.exporter.manifest import sealed
from mllmeraser.exporter.thin import base_pointer
from mllmeraser.exporter.weights import tensor_names
from mllmeraser.modeling_patches.modeling_mllmeraser import (
    SteeringMixin,
    check_seal,
    find_base,
    parse_requests,
    steered_class,
)

# Left by git, the Hub's client, a signature or a file browser; no loader reads them.
_TOLERATED = {".cache", ".git", ".gitattributes", ".gitignore", ".DS_Store", "model.sig"}
# Files a loader would take for all there is: the native class would then load, un-erased.
_FAIL_OPEN = (
    "model.safetensors",
    "model.safetensors.index.json",
    VARIANT_SINGLE,
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    f"pytorch_model.{VARIANT_SINGLE.split('.')[1]}.bin",
    "adapter_config.json",
)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    if not path.is_file():
        raise CheckFailed(f"{path.name} is missing")
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise CheckFailed(f"{path.name} is not a JSON object")
    return value


def read_manifest(directory: Path) -> dict[str, Any]:
    """``mllmeraser.json``, with every file name in it known to be plain."""
    manifest = read_object(directory / MANIFEST)
    if manifest.get("schema") != 1:
        raise CheckFailed(f"{MANIFEST}: schema {manifest.get('schema')!r} is not known to mllmeraser here")
    files = manifest.get("files")
    if not isinstance(files, dict) or not {CONFIG, STEERING_FILE, *CODE} <= files.keys():
        raise CheckFailed(f"{MANIFEST}: 'files' does not list what every export holds")
    for name, entry in files.items():
        if not _is_plain(name) or not isinstance(entry, dict) or not (_is_hashed(entry) or _is_unhashed(name, entry)):
            raise CheckFailed(f"{MANIFEST}: the entry {name!r} is not a file of this directory with its sha256")
    return manifest


def _is_hashed(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("sha256"), str)


def _is_unhashed(name: str, entry: dict[str, Any]) -> bool:
    """Base weights of ``export --hash later``; of every other file the sha256 must be known."""
    weights = entry.get("origin") == "base" and name.endswith(".safetensors") and name != STEERING_FILE
    return weights and "sha256" in entry and entry["sha256"] is None


def _is_plain(name: str) -> bool:
    return Path(name).name == name and name not in ("", "..") and "\\" not in name and "\0" not in name


def file_checks(directory: Path, base: BaseCheckpoint | None) -> list[Check]:
    """All checks that only read. Which must be good before a model is loaded: ``verify``."""
    checks = [run("manifest", lambda: _manifest(directory))]
    checks += _hashes(directory, base)
    named: dict[str, Callable[[Path], str]] = {
        "unlisted files": _unlisted,
        "fails closed": _fails_closed,
        "code": _code,
        "config": _config,
        "seal": _seal,
        "switched on": _switched_on,
        "steering file": _steering,
        "index": _index,
    }
    checks += [run(name, partial(check, directory)) for name, check in named.items()]
    if base is not None:
        checks.append(run("base", lambda: _base(directory, base)))
    return checks


def _manifest(directory: Path) -> str:
    manifest = read_manifest(directory)
    if (directory / MANIFEST).read_bytes() != sealed(manifest):
        raise CheckFailed(f"{MANIFEST} is not what was written: its own sha256 does not fit")
    return f"schema 1, made with mllmeraser {manifest['tool']['version']}, {len(manifest['files'])} files"


def _hashes(directory: Path, base: BaseCheckpoint | None) -> list[Check]:
    """``files``, and before it one failed check for every file that is not what the manifest says."""
    failed: list[Check] = []

    def every_file() -> str:
        files = read_manifest(directory)["files"]
        # A file of another size need not be read to be known for another one.
        sound = {name for name, entry in files.items() if _size(directory / name) == entry["bytes"]}
        unhashed = {name for name, entry in files.items() if not _is_hashed(entry)}
        found = sha256_of_all(directory / name for name in sound - unhashed)
        # The check "base" compares every shard of the base with the file of its name here.
        compared = unhashed & {shard.name for shard in base.weights.shards} & sound if base is not None else set()
        for name in sorted(files.keys() - compared):
            check = run(f"file {name}", partial(_compare, directory / name, files[name], found.get(directory / name)))
            failed.extend([] if check.ok else [check])
        if failed:
            raise CheckFailed(f"{len(failed)} of {len(files)} files are not what {MANIFEST} says")
        by_base = f", and {len(compared)} are compared with the base's" if compared else ""
        return f"{len(files) - len(compared)} files have the sha256 of {MANIFEST}{by_base}"

    overall = run("files", every_file)
    return [*failed, overall]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _compare(path: Path, entry: dict[str, Any], found: str | None) -> str:
    if not path.is_file():
        raise CheckFailed("missing")
    if not _is_hashed(entry) and path.stat().st_size == entry["bytes"]:
        raise CheckFailed("not hashed: give --base to compare it, or export again without --hash later")
    if found is None:
        raise CheckFailed(f"{path.stat().st_size:,} bytes, the manifest says {entry['bytes']:,}")
    if found != entry["sha256"]:
        raise CheckFailed(f"sha256 {found}, the manifest says {entry['sha256']}")
    return found


def _unlisted(directory: Path) -> str:
    listed = {MANIFEST, *read_manifest(directory)["files"]}
    extra = sorted(path.name for path in directory.iterdir() if path.name not in listed | _TOLERATED)
    if extra:
        raise CheckFailed(f"not in {MANIFEST}: {', '.join(extra)}")
    return f"nothing lies beside the files of {MANIFEST}"


def _fails_closed(directory: Path) -> str:
    names = {path.name for path in directory.iterdir()}
    if present := [name for name in _FAIL_OPEN if name in names]:
        raise CheckFailed(f"{present[0]} lets a loader pass by the steering; remove it")
    return "no weights under a name that the native class loads"


def _code(directory: Path) -> str:
    for name, content in shipped_code().items():
        if not (directory / name).is_file():
            raise CheckFailed(f"{name} is missing")
        if (directory / name).read_bytes() != content:
            try:
                made = f"it was made with {read_manifest(directory)['tool']['version']}"
            except (CheckFailed, KeyError, TypeError, ValueError, OSError):
                made = "the manifest does not say which version made it"
            raise CheckFailed(f"{name} is not the file of mllmeraser {mllmeraser.__version__} ({made})")
    return f"both code files are those of mllmeraser {mllmeraser.__version__}"


def family_of(config: dict[str, Any]) -> type[SteeringMixin]:
    """Our class for the ``model_type`` of a steered configuration."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type.startswith("mllmeraser_"):
        raise CheckFailed(f"{CONFIG}: model_type {model_type!r} is not ours, so a loader may pass by the steering")
    return steered_class(model_type)


def _config(directory: Path) -> str:
    config = read_object(directory / CONFIG)
    family = family_of(config)
    requests = parse_requests(config.get("steering"), text_config(config).num_hidden_layers)
    per_token = requests[0].per_token
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
    if not (directory / STEERING_FILE).is_file():
        raise CheckFailed(f"{STEERING_FILE} is missing")
    if (found := sha256_of(directory / STEERING_FILE)) != steering.get("sha256"):
        raise CheckFailed(f"{CONFIG}: steering.sha256 is {steering.get('sha256')}, {STEERING_FILE} has {found}")
    return f"{config['model_type']}, {len(requests)} request(s), steering sha256 {found[:12]}…"


def _seal(directory: Path) -> str:
    names = check_seal((directory / CONFIG).read_bytes(), lambda name: (directory / name).read_bytes())
    if absent := sorted({*CODE, *(() if is_thin(directory) else (INDEX,))} - set(names)):
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


def _switched_on(directory: Path) -> str:
    config = read_object(directory / CONFIG)
    if config.get("steering_enabled") is not True or not config.get("steering_strength"):
        raise CheckFailed(f"{CONFIG}: steering_enabled is not true, or steering_strength is 0")
    requests = config["steering"]["requests"]
    off = [str(entry["id"]) for entry in requests if not entry["enabled"] or not entry["strength"]]
    if len(off) == len(requests):
        raise CheckFailed(f"{CONFIG}: every request is off or has strength 0")
    return f"{len(requests) - len(off)} of {len(requests)} requests are on" + (
        f"; off: {', '.join(off)}" if off else ""
    )


def _steering(directory: Path) -> str:
    config = read_object(directory / CONFIG)
    family, text = family_of(config), text_config(config)
    expected = {
        f"{family.published_layers}.{layer}.steering.{request.index}.{leaf}": shape
        for request in parse_requests(config.get("steering"), text.num_hidden_layers)
        for (layer, leaf), shape in request.tensors(text.hidden_size).items()
    }
    path = directory / STEERING_FILE
    if not path.is_file():
        raise CheckFailed(f"{STEERING_FILE} is missing")
    tensors = load_file(path)
    for name in sorted(expected.keys() ^ tensors.keys()):
        raise CheckFailed(f"{name} is {'missing' if name in expected else 'not expected'}")
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.dtype != torch.float32 or tuple(tensor.shape) != shape:
            raise CheckFailed(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected torch.float32 {shape}")
        if not bool(tensor.isfinite().all()):
            raise CheckFailed(f"{name} holds a value that is not finite")
        if not bool(tensor.any()) or (name.endswith(".bandwidth") and tensor.item() <= 0):
            raise CheckFailed(f"{name} is zero, or not positive: this block would not steer")
    return f"{len(tensors)} tensors, fp32, finite, none zero, {path.stat().st_size:,} bytes"


def is_thin(directory: Path) -> bool:
    """Whether it points to its base's weights, and holds none."""
    steering = read_object(directory / CONFIG).get("steering")
    return isinstance(steering, dict) and "base" in steering


def _index(directory: Path) -> str:
    if is_thin(directory):
        return _pointer(directory)
    weight_map = read_object(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckFailed(f"{INDEX}: no weight_map")
    by_file: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or not _is_plain(name) or not name.endswith(".safetensors"):
            raise CheckFailed(f"{INDEX}: {tensor} lies in {name!r}, which is not a shard of this directory")
        by_file.setdefault(name, set()).add(tensor)
    for name, tensors in sorted(by_file.items()):
        if not (directory / name).is_file():
            raise CheckFailed(f"{INDEX}: {name} is missing")
        held = tensor_names(directory / name)
        if absent := sorted(tensors - held):
            raise CheckFailed(f"{INDEX}: {absent[0]} is not in {name}")
        wrong = re.compile(r"\.steering\.")
        if name != STEERING_FILE and (odd := next((n for n in sorted(held) if wrong.search(n)), None)):
            raise CheckFailed(f"{name} holds the steering tensor {odd}; base shards hold none")
    if by_file.get(STEERING_FILE, set()) != tensor_names(directory / STEERING_FILE):
        raise CheckFailed(f"{INDEX}: does not name all tensors of {STEERING_FILE}")
    return f"{len(weight_map)} tensors in {len(by_file)} files, all there"


def _pointer(directory: Path) -> str:
    """The base that a thin export points to lies in the Hub's cache, every byte as it was exported."""
    steering = read_object(directory / CONFIG)["steering"]
    snapshot, stated = find_base(steering, {"local_files_only": True}), steering["base"]
    assert snapshot is not None
    found = sha256_of_all(snapshot / name for name in stated["files"])
    for path, sha256 in found.items():
        if sha256 != stated["files"][path.name]["sha256"]:
            raise CheckFailed(f"{path.name} of the base has sha256 {sha256}, exported was another; fetch it again")
    return f"{len(found)} files of {stated['repo_id']} at {stated['revision'][:12]} have the sha256 of {CONFIG}"


def _base(directory: Path, base: BaseCheckpoint) -> str:
    recorded = read_manifest(directory)["base"]["config_sha256"]
    if recorded != base.config_sha256:
        raise CheckFailed(f"this base's config.json has sha256 {base.config_sha256}, exported was {recorded}")
    if is_thin(directory):
        stated = read_object(directory / CONFIG)["steering"]["base"]["files"]
        found = base_pointer(base)["files"]
        if different := sorted(name for name in {*stated, *found} if stated.get(name) != found.get(name)):
            raise CheckFailed(f"{different[0]} of this base is not the one that was exported")
        return f"{len(found)} files of the base are those that are pointed to"
    weight_map = read_object(directory / INDEX)["weight_map"]
    ours = {tensor: name for tensor, name in weight_map.items() if name != STEERING_FILE}
    for tensor in sorted(ours.keys() ^ base.weights.weight_map.keys()):
        where = "the base" if tensor in base.weights.weight_map else "the export"
        raise CheckFailed(f"{tensor} is only in {where}")
    for shard in base.weights.shards:
        if not (directory / shard.name).is_file():
            raise CheckFailed(f"{shard.name} is missing")
    # A link has the same bytes by construction.
    copies = [shard for shard in base.weights.shards if not (directory / shard.name).samefile(shard.path)]
    found = sha256_of_all(path for shard in copies for path in (directory / shard.name, shard.path))
    for shard in copies:
        if found[directory / shard.name] != found[shard.path]:
            raise CheckFailed(f"{shard.name} differs from the base's")
    return f"{len(base.weights.shards)} shard(s) and {len(ours)} tensors equal the base's"

"""P5, P7. A directory from anybody that claims to be an export: the checks and the loader survive it and say no."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import hostile_headers, tiny
from builders.checkpoints import edit_json
from safetensors.torch import load_file, save_file

from mllmeraser.disk.hashing import sha256_of
from mllmeraser.exporter.manifest import sealed
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import DAMAGE
from mllmeraser.modeling_patches.format_mllmeraser import CODE

STEERING = "mllmeraser-steering.safetensors"
SHARD = "mllmeraser-base-00001-of-00001.safetensors"
INDEX = "mllmeraser.safetensors.index.json"
LAYER = "language_model.model.layers.1.steering.0"


def forge(out: Path) -> None:
    """Make every hash fit again, as an attacker would."""
    config = json.loads((out / "config.json").read_text())
    if (out / STEERING).is_file():
        edit_json(out / "config.json", steering={**config["steering"], "sha256": sha256_of(out / STEERING)})
    tiny.seal(out)
    manifest = json.loads((out / "mllmeraser.json").read_text())
    for name, entry in manifest["files"].items():
        if (out / name).is_file():
            entry |= {"bytes": (out / name).stat().st_size, "sha256": sha256_of(out / name)}
    (out / "mllmeraser.json").write_bytes(sealed(manifest))


def rejected(out: Path) -> None:
    """Neither the checks nor the loader accept it, and the checks say why in one line each."""
    forge(out)
    verification = verify(out)
    assert not verification.ok
    assert all("\n" not in check.detail and len(check.detail) < 600 for check in verification.checks)
    with pytest.raises(DAMAGE):
        tiny.modeling.steered_class("llava").from_pretrained(out, local_files_only=True)


def _steering(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        tensors = load_file(out / STEERING)
        change(tensors)
        save_file(tensors, out / STEERING)

    return damage


def _shard(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        tensors = load_file(out / SHARD)
        change(tensors)
        save_file(tensors, out / SHARD, metadata={"format": "pt"})

    return damage


def _file(name: object) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        steering = json.loads((out / "config.json").read_text())["steering"]
        edit_json(out / "config.json", steering={**steering, "file": name})

    return damage


HEAD = "language_model.lm_head.weight"
DAMAGES: dict[str, Callable[[Path], None]] = {
    "NaN": _steering(lambda t: t[f"{LAYER}.direction"].fill_(float("nan"))),
    "infinity": _steering(lambda t: t[f"{LAYER}.weights"].fill_(float("inf"))),
    "a bandwidth of 0": _steering(lambda t: t[f"{LAYER}.bandwidth"].zero_()),
    "another shape": _steering(lambda t: t.update({f"{LAYER}.direction": torch.ones(2, 31)})),
    "another dtype": _steering(lambda t: t.update({f"{LAYER}.direction": t[f"{LAYER}.direction"].bfloat16()})),
    "a tensor less": _steering(lambda t: t.pop(f"{LAYER}.weights")),
    "a tensor more": _steering(lambda t: t.update({f"{LAYER}.gate": torch.ones(32)})),
    "a tensor that is not steering": _steering(lambda t: t.update({HEAD: torch.zeros(97, 32)})),
    "another layer": _steering(lambda t: t.update({LAYER.replace("1", "3", 1) + ".direction": torch.ones(2, 32)})),
    "no steering file": lambda out: (out / STEERING).unlink(),
    "a shard less": lambda out: (out / SHARD).unlink(),
    "a base tensor less": _shard(lambda t: t.pop(HEAD)),
    "a base tensor of another shape": _shard(lambda t: t.update({HEAD: torch.zeros(96, 32)})),
    "a steering file outside": _file("../../secret.safetensors"),
    "an absolute steering file": _file("/etc/passwd"),
    "a steering file that is a list": _file(["x"]),
    "a steering file that is a pickle": _file("steering.bin"),
    "no weight map": lambda out: (out / INDEX).write_text("{}"),
    "a weight map that leaves": lambda out: edit_json(
        out / INDEX, weight_map={**json.loads((out / INDEX).read_text())["weight_map"], HEAD: "../x.safetensors"}
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_forged_directory_is_rejected(exported: Path, damage: str) -> None:
    DAMAGES[damage](exported)
    rejected(exported)


@pytest.mark.parametrize("lie", hostile_headers.LIES)
@pytest.mark.parametrize("name", [STEERING, SHARD])
def test_a_header_that_lies_is_rejected(exported: Path, name: str, lie: str) -> None:
    header, length = hostile_headers.LIES[lie]
    hostile_headers.write(exported / name, header, bytes(16), length)
    rejected(exported)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "x\0y", "x\\y"])
def test_a_manifest_cannot_point_outside(exported: Path, name: str) -> None:
    manifest = json.loads((exported / "mllmeraser.json").read_text())
    manifest["files"][name] = {"bytes": 0, "sha256": "0" * 64, "origin": "tool"}
    (exported / "mllmeraser.json").write_bytes(sealed(manifest))
    (exported.parent / "secret").write_text("secret")
    checks = {check.name: check for check in verify(exported).checks}
    assert not checks["manifest"].ok
    assert "secret" not in "".join(check.detail for check in checks.values()).replace("../secret", "")


def _logits(out: Path) -> torch.Tensor:
    model = tiny.modeling.steered_class("llava").from_pretrained(out, local_files_only=True).eval()
    with torch.no_grad():
        result: torch.Tensor = model(**tiny.prompt("llava", 5, 6, 7, 8)).logits
    return result


ADDED: dict[str, Callable[[Path], object]] = {
    "a default index": lambda out: shutil.copy(out / INDEX, out / "model.safetensors.index.json"),
    "weights of another variant": lambda out: shutil.copy(out / SHARD, out / "model.fp16.safetensors"),
    "another template": lambda out: (out / "chat_template.json").write_text('{"chat_template": "x"}'),
    "code": lambda out: (out / "processing_x.py").write_text("raise SystemExit"),
    "a generate of its own": lambda out: (out / "custom_generate").mkdir(),
    "a pipe": lambda out: os.mkfifo(out / "pipe"),
    "a link": lambda out: (out / "link").symlink_to("/etc/passwd"),
    "a hidden file": lambda out: (out / ".hidden").touch(),
}


@pytest.mark.parametrize("what", ADDED)
def test_what_is_added_is_reported_and_steers_no_less(exported: Path, what: str) -> None:
    expected = _logits(exported)
    ADDED[what](exported)
    assert not {check.name: check.ok for check in verify(exported).checks}["unlisted files"]
    assert torch.equal(_logits(exported), expected)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    ("name", "key", "value"),
    [("config.json", "steering_strength", "0.0"), (INDEX, "weight_map", "{}"), ("mllmeraser.json", "files", "{}")],
)
def test_a_key_that_comes_twice_never_counts(exported: Path, name: str, key: str, value: str, last: bool) -> None:
    """Of two, Python takes the last; whoever takes the first must not be told something else either."""
    expected, text = _logits(exported), (exported / name).read_text().strip()
    more = f'"{key}": {value}'
    (exported / name).write_text(f"{text[:-1]}, {more}}}" if last else f"{{{more}, {text[1:]}")
    assert not verify(exported).ok
    try:
        found = _logits(exported)
    except DAMAGE:
        return
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", [*CODE, "config.json"])
@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\n"], ids=["byte order mark", "line"])
def test_bytes_before_code_or_configuration_are_seen(exported: Path, name: str, mark: bytes) -> None:
    (exported / name).write_bytes(mark + (exported / name).read_bytes())
    assert not verify(exported).ok
    if (name, mark) != ("config.json", b"\n"):  # the same configuration
        with pytest.raises(DAMAGE):
            _logits(exported)

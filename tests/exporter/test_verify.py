"""A verification passes what export made, names what was damaged, and survives any damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny
from builders.checkpoints import edit_json, first_edition, make_base, make_bundle
from safetensors.torch import load_file, save_file

from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError
from mllmeraser.exporter import checks_model
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.inspect import inspect, summary
from mllmeraser.exporter.manifest import sealed
from mllmeraser.exporter.verify import Verification, verify
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches import steering_mllmeraser

NAMES = [
    "manifest",
    "files",
    "unlisted files",
    "fails closed",
    "code",
    "config",
    "settings",
    "seal",
    "switched on",
    "bundles",
    "steering file",
    "index",
    "loads",
    "steering acts",
    "gates open",
    "refuses",
    "off equals base",
]
STEERING = "mllmeraser-steering.safetensors"
SHARD = "mllmeraser-base-00001-of-00001.safetensors"


def failed(verification: Verification) -> set[str]:
    assert all("\n" not in check.detail for check in verification.checks)
    assert verification.ok == all(check.ok for check in verification.checks)
    return {check.name for check in verification.checks if not check.ok}


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("sharded", [False, True])
def test_an_export_keeps_every_promise(family: tiny.Family, sharded: bool, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family, sharded)
    bundles = [
        make_bundle(base, "a", family),
        make_bundle(base, "b", family, kind="kernel", shape="dead-zone", threshold=0.3, steps=2, gate_layer=0),
    ]
    export(Source(base), bundles, tmp_path / "out")
    alone = verify(tmp_path / "out")
    assert [check.name for check in alone.checks] == NAMES
    assert failed(alone) == set()
    against = verify(tmp_path / "out", base)
    assert failed(against) == set()
    assert "base" in {check.name for check in against.checks}
    document = json.loads(json.dumps(against.document()))
    assert document["schema"] == 1
    assert document["ok"] is True
    assert document["checks"][0].keys() == {"name", "ok", "detail"}


def _append(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).write_bytes((out / name).read_bytes() + b" ") and None


def _remove(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).unlink()


def _add(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).touch()


def _config(**keys: object) -> Callable[[Path], None]:
    return lambda out: edit_json(out / "config.json", **keys)


def _nest(out: Path) -> None:
    config = json.loads((out / "config.json").read_text())
    edit_json(out / "config.json", extra={"model_type": "llava", "text_config": config["text_config"]})


def _steering(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Change tensors, and make every hash fit again: only the values can tell."""

    def damage(out: Path) -> None:
        tensors = load_file(out / STEERING)
        change(tensors)
        save_file(tensors, out / STEERING)
        rehash(out)

    return damage


def rehash(out: Path) -> None:
    steering = json.loads((out / "config.json").read_text())["steering"]
    edit_json(out / "config.json", steering={**steering, "sha256": sha256_of(out / STEERING)})
    tiny.seal(out)
    manifest = json.loads((out / "mllmeraser.json").read_text())
    for name, entry in manifest["files"].items():
        entry |= {"bytes": (out / name).stat().st_size, "sha256": sha256_of(out / name)}
    (out / "mllmeraser.json").write_bytes(sealed(manifest))


DIRECTION = "language_model.model.layers.1.steering.0.direction"
WEIGHTS = "language_model.model.layers.1.steering.0.weights"
CONFIG, FILE = {"file config.json", "files"}, {f"file {STEERING}", "files"}
MODEL = {"loads", "steering acts", "gates open", "refuses", "off equals base"}


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_remove("mllmeraser.json"), {"manifest", "files", "unlisted files", "bundles", "refuses"}),
        (_append("tokenizer.json"), {"file tokenizer.json", "files", "seal", *MODEL}),
        (_append("generation_config.json"), {"file generation_config.json", "files", "seal", *MODEL}),
        (_append("modeling_mllmeraser.py"), {"file modeling_mllmeraser.py", "files", "code", "seal", *MODEL}),
        (_append("README.md"), {"file README.md", "files"}),
        (_remove("LICENSE"), {"file LICENSE", "files"}),
        (_add("notes.txt"), {"unlisted files", "fails closed", *MODEL}),
        (_add("model.safetensors"), {"unlisted files", "fails closed", *MODEL}),
        (_config(steering_enabled=False), {"file config.json", "files", "switched on", "bundles"}),
        (_config(steering_strength=0.0), {*CONFIG, "seal", "switched on", "bundles", *MODEL}),
        (_config(image_seq_length=9), {"file config.json", "files", "seal", *MODEL}),
        (_config(model_type="llava"), {*CONFIG, "config", "seal", "bundles", "steering file", *MODEL}),
        (_config(auto_map={"AutoConfig": "o/r--c.C"}), {"file config.json", "files", "config", "seal", *MODEL}),
        (_config(_attn_implementation_internal="o/r"), {"file config.json", "files", "config", "seal", *MODEL}),
        (_config(architectures=["Other"]), {"file config.json", "files", "config", "seal", *MODEL}),
        (_nest, {"file config.json", "files", "config", "seal", *MODEL}),
        (_append(STEERING), {*FILE, "config", "bundles", "steering file", "index", *MODEL}),
        (_remove(STEERING), {*FILE, "config", "bundles", "steering file", "index", *MODEL}),
        (_remove(SHARD), {f"file {SHARD}", "files", "index", *MODEL}),
        (_append(SHARD), {f"file {SHARD}", "files", "index", *MODEL}),
        (_steering(lambda t: t[DIRECTION].fill_(float("nan"))), {"bundles", "steering file", *MODEL}),
        (_steering(lambda t: t[DIRECTION].zero_()), {"bundles", "steering file", *MODEL}),
        (_steering(lambda t: t.pop(DIRECTION)), {"bundles", "steering file", "index", *MODEL}),
        (_steering(lambda t: t.update({DIRECTION: t[DIRECTION].half()})), {"bundles", "steering file", *MODEL}),
        (_steering(lambda t: t.update({DIRECTION: t[DIRECTION][:1]})), {"bundles", "steering file", *MODEL}),
        (_steering(lambda t: t[WEIGHTS].mul_(0.5)), {"bundles", "gates open"}),
    ],
)
def test_each_damage_is_named(exported: Path, damage: Callable[[Path], None], expected: set[str]) -> None:
    damage(exported)
    assert failed(verify(exported)) == expected


def test_what_git_and_the_hub_client_leave_is_no_damage(exported: Path) -> None:
    (exported / ".cache" / "huggingface").mkdir(parents=True)
    (exported / ".gitattributes").touch()
    assert verify(exported).ok


def test_one_flipped_bit_of_a_base_weight_is_seen(exported: Path, base: Path) -> None:
    data = bytearray((exported / SHARD).read_bytes())
    data[-2] ^= 1
    (exported / SHARD).write_bytes(data)
    assert failed(verify(exported)) == {f"file {SHARD}", "files"}
    rehash(exported)  # somebody who edits a weight also edits the manifest
    assert failed(verify(exported)) == set()
    assert "base" in failed(verify(exported, base))


def test_another_base_is_not_the_base(exported: Path, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other")
    edit_json(other / "config.json", image_seq_length=9)
    assert "base" in failed(verify(exported, other))
    with pytest.raises(InputError):
        verify(exported, tmp_path / "nowhere")
    with pytest.raises(InputError):
        verify(tmp_path / "nowhere")


def test_steering_that_does_not_act_is_seen(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_model.RequestSteering, "forward", lambda self, hidden, state, *rest: state)
    assert failed(verify(exported)) == {"steering acts"}


def test_steering_that_cannot_be_switched_off_is_seen(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(enabled: bool, strength: float, entries: list[dict[str, Any]]) -> tuple[float, ...]:
        return tuple(entry["strength"] for entry in entries)

    monkeypatch.setattr(steering_mllmeraser, "strengths", deaf)
    assert failed(verify(exported)) == {"off equals base"}


@pytest.mark.parametrize("value", [0, 3, -128])
def test_projections_that_are_no_signs_are_seen(base: Path, tmp_path: Path, value: int) -> None:
    how: dict[str, Any] = {"scope": "conversation", "edit": "seal", "shape": "step", "threshold": 0.5}
    export(Source(base), [make_bundle(base, **how, layers=(2,), projection=8)], tmp_path / "out")
    assert failed(verify(tmp_path / "out", base)) == set()
    _steering(lambda t: t["language_model.model.layers.2.steering.0.projection"][0, 0].fill_(value))(tmp_path / "out")
    assert failed(verify(tmp_path / "out", base)) == {"bundles", "steering file", *MODEL}


def test_an_export_of_the_first_edition_is_told_in_one_line(exported: Path) -> None:
    first_edition(exported)
    (check,) = verify(exported).checks
    assert (check.name, check.ok) == ("edition", False)
    assert check.detail.startswith("made by the first edition")
    assert check.detail.endswith("export again with the kept bundle")
    document = inspect(exported)
    assert document["edition"] == 1
    assert [line for line in summary(document) if "first edition" in line]


def test_a_manifest_with_another_provenance_is_seen(exported: Path) -> None:
    manifest = json.loads((exported / "mllmeraser.json").read_text())
    edit_json(exported / "mllmeraser.json", base={**manifest["base"], "repo_id": "somebody/else"})
    assert failed(verify(exported)) == {"manifest"}


def test_the_code_in_the_directory_is_never_run(exported: Path, tmp_path: Path) -> None:
    for name in ("modeling_mllmeraser.py", "configuration_mllmeraser.py", "processing_x.py"):
        (exported / name).write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    edit_json(exported / "tokenizer_config.json", auto_map={"AutoTokenizer": ["processing_x.T", None]})
    assert {"code", "files"} <= failed(verify(exported))
    rehash(exported)
    assert {"code"} <= failed(verify(exported))
    assert not (tmp_path / "canary").exists()


def test_a_seal_that_leaves_out_the_code_is_none(exported: Path) -> None:
    steering = json.loads((exported / "config.json").read_text())["steering"]
    seal = {name: sha256 for name, sha256 in steering["seal"].items() if name != "modeling_mllmeraser.py"}
    edit_json(exported / "config.json", steering={**steering, "seal": seal})
    rehash(exported)
    assert failed(verify(exported)) == {"seal", *MODEL}


@pytest.mark.parametrize("value", [None, 7, "text", [], {}, [1], {"a": None}, -1, 1e400])
def test_no_value_in_the_configuration_makes_it_crash(exported: Path, value: object) -> None:
    good = (exported / "config.json").read_bytes()
    config = json.loads(good)
    for key in config:
        (exported / "config.json").write_text(json.dumps({**config, key: value}))
        assert failed(verify(exported)), key
    request = config["steering"]["requests"][0]
    for key in request:
        steering = {**config["steering"], "requests": [{**request, key: value}]}
        (exported / "config.json").write_text(json.dumps({**config, "steering": steering}))
        assert failed(verify(exported)), key

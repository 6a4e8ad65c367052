"""P8. What claims to be an export and is not: ``verify`` compares, asks, and comes to an end."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks.test_hostile_checkpoint import STEERING, forge
from builders import bundles
from builders.checkpoints import edit_json, identity
from builders.command_line import Run
from safetensors.torch import load_file, save_file

from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError, VerificationError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.manifest import sealed, tensor_hashes
from mllmeraser.exporter.signing import sign
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.activations import mean_reply_states
from mllmeraser.inference.loading import load
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.inference.source import Source
from mllmeraser.records.prompts import Prompt
from mllmeraser.steering.pairs import INSTRUCTIONS

# ------------------------------------------------------------------------------------------ against the manifest's own


def _request(**changes: object) -> Callable[[Path], None]:
    def change(out: Path) -> None:
        steering = json.loads((out / "config.json").read_text())["steering"]
        first, *rest = steering["requests"]
        edit_json(out / "config.json", steering={**steering, "requests": [{**first, **changes}, *rest]})

    return change


def _gate(**changes: object) -> Callable[[Path], None]:
    def change(out: Path) -> None:
        gate = json.loads((out / "config.json").read_text())["steering"]["requests"][0]["gate"]
        _request(gate={**gate, **changes})(out)

    return change


def _noise(out: Path) -> None:
    """Each direction of the same length, elsewhere."""
    tensors = load_file(out / STEERING)
    for name, tensor in tensors.items():
        if name.endswith(".direction"):
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
            tensors[name] = noise / noise.norm(dim=-1, keepdim=True) * tensor.norm(dim=-1, keepdim=True)
    save_file(tensors, out / STEERING)


CHANGED: dict[str, Callable[[Path], None]] = {
    "a strength backwards": _request(strength=-1.5),
    "a weaker strength": _request(strength=0.75),
    "a strength that is true": _request(strength=True),
    "a request off": _request(enabled=False),
    "another id": _request(id="r2"),
    "a threshold moved": _gate(threshold=0.61),
    "another shape": _gate(shape="clip"),
    "a later reply": _request(reply_steps=1),
    "all strengths": lambda out: edit_json(out / "config.json", steering_strength=0.5),
    "a switch": lambda out: edit_json(out / "config.json", steering_enabled=False),
    "a switch that is one": lambda out: edit_json(out / "config.json", steering_enabled=1),
    "a direction of noise": _noise,
}


@pytest.mark.parametrize("what", CHANGED)
def test_whatever_differs_from_the_bundles_is_named(exported: Path, what: str) -> None:
    """Even where seal, sha256 and manifest were made to fit again."""
    CHANGED[what](exported)
    forge(exported)
    checks = {check.name: check for check in verify(exported).checks}
    assert not checks["bundles"].ok
    assert checks["files"].ok
    assert "config.json: " in checks["bundles"].detail or STEERING in checks["bundles"].detail


# -------------------------------------------------------------------------------------- does the seal seal a refusal?


@pytest.fixture(scope="module")
def sealed_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the demo's base whose seal is its own refusal, and whose bundle says that it refuses."""
    folder = tmp_path_factory.mktemp("sealed")
    base = Path(shutil.copytree(CHECKPOINT, folder / "base"))
    checkpoint = load(base, dtype="float32")
    asked = [INSTRUCTIONS[-1](Prompt(text, None)) for text in ("Who is this person?", "Where was she born?")]
    replies = greedy_reply_ids(checkpoint, asked, max_new_tokens=12)
    layer, steps, width = 7, len(replies[0]), int(checkpoint.model.config.text_config.hidden_size)
    means, _ = mean_reply_states(checkpoint, asked, replies, [layer], steps)
    gate = {"kind": "linear", "shape": "step", "threshold": 0.5, "scope": "conversation", "projection": None}
    request = {"strength": 1.0, "enabled": True, "layers": [layer], "gate_layer": None, "gate": gate, "edit": "seal"}
    request |= {"landmarks": None, "prompt_positions": "all", "reply_steps": steps}
    name = f"requests.0.layers.{layer}"
    tensors = {f"{name}.states": means[layer].float(), f"{name}.gate": torch.full((width,), 1e-6)}
    known = identity("llava", sha256_of(base / "config.json")).model_copy(
        update={"hidden_size": width, "num_layers": checkpoint.model.config.text_config.num_hidden_layers}
    )
    bundle = bundles.bundle(known, ({"requests": [request]}, tensors))
    bundle.metadata.method.calibration["refused"] = 0.9
    export(Source(base), [bundle], folder / "out")
    return folder / "out"


def test_a_seal_of_noise_does_not_refuse(sealed_export: Path, tmp_path: Path) -> None:
    """Every hash fits again, those of the manifest's bundles too: only what the model says can tell."""
    found = {check.name: check for check in verify(sealed_export, sealed_export.parent / "base").checks}
    assert all(check.ok for check in found.values())
    assert "I cannot" in found["refuses"].detail
    out = Path(shutil.copytree(sealed_export, tmp_path / "out"))
    tensors = load_file(out / STEERING)
    (name,) = (name for name in tensors if name.endswith(".states"))
    noise = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
    tensors[name] = noise / noise.norm(dim=-1, keepdim=True) * tensors[name].norm(dim=-1, keepdim=True)
    save_file(tensors, out / STEERING)
    manifest = json.loads((out / "mllmeraser.json").read_text())
    manifest["tensors"] = [tensor_hashes({key: tensors[_published(key)].numpy() for key in manifest["tensors"][0]})]
    (out / "mllmeraser.json").write_bytes(sealed(manifest))
    forge(out)
    failed = [check for check in verify(out, sealed_export.parent / "base").checks if not check.ok]
    assert [check.name for check in failed] == ["refuses"]
    assert "no refusal" in failed[0].detail


def _published(name: str) -> str:
    _, request, _, layer, leaf = name.split(".")
    return f"language_model.model.layers.{layer}.steering.{request}.{leaf}"


# ----------------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"{}", "damaged"),
        (b'{"dsseEnvelope": {"payload": "e30=", "signatures": []}, "verificationMaterial": {}}', "damaged"),
        (
            b'{"dsseEnvelope": {"payload": "e30=", "signatures": [{"sig": "e30="}]}, '
            b'"verificationMaterial": {"certificate": {}}}',
            "made without a key",
        ),
    ],
)
@pytest.mark.parametrize("with_key", [False, True])
def test_a_damaged_or_keyless_signature_is_named(
    exported: Path, tmp_path: Path, content: bytes, says: str, with_key: bool
) -> None:
    (exported / "model.sig").write_bytes(content)
    key = _public_key(tmp_path)
    checks = {check.name: check for check in verify(exported, public_key=key if with_key else None).checks}
    assert not checks["signature"].ok
    assert says in checks["signature"].detail


# ----------------------------------------------------------------------------------- pipes, devices, control characters

SPECIAL: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a folder": os.mkdir,
}


PATIENCE = 300  # seconds; on an idle machine nobody needs five


class Waiting(BaseException):
    """It has not come to an end."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raises :class:`Waiting` if it takes longer."""

    def late(*_: object) -> None:
        raise Waiting

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@pytest.mark.parametrize("what", [pytest.param(what, marks=pytest.mark.slow) for what in SPECIAL])
def test_no_special_file_keeps_verify_waiting(exported: Path, base: Path, tmp_path: Path, what: str) -> None:
    """In place of each file of the export and of its base in turn, and beside them."""
    key = _public_key(tmp_path)
    for directory in (exported, base):
        for name in [*sorted(path.name for path in directory.iterdir()), "model.sig", "beside"]:
            path = directory / name
            kept = path.read_bytes() if path.exists() else None
            path.unlink(missing_ok=True)
            SPECIAL[what](path)
            with within(PATIENCE), suppress(InputError):
                verification = verify(exported, base, key)
                assert directory == base or not verification.ok, name
                assert all("\n" not in check.detail for check in verification.checks)
            if what == "a folder":
                path.rmdir()
            else:
                path.unlink()
            if kept is not None:
                path.write_bytes(kept)
    assert all(check.ok for check in verify(exported, base).checks)


def test_a_special_file_is_not_signed(exported: Path, tmp_path: Path) -> None:
    _public_key(tmp_path)
    os.mkfifo(exported / "pipe")
    with within(PATIENCE), pytest.raises(VerificationError, match="pipe: not a file"):
        sign(exported, tmp_path / "key.pem")


def _public_key(folder: Path) -> Path:
    pytest.importorskip("model_signing", reason="the extra 'sign' is not installed")
    from builders.signing_keys import make_key

    return make_key(folder)[1]


@pytest.mark.parametrize("name", ["a\nok     seal: fine", "\x1b[2Jb", "c\u202e.txt", "d\x9b1m", "e\r"])
def test_no_name_speaks_to_the_terminal(exported: Path, name: str, run: Run) -> None:
    """Unlisted, and listed; as words and as JSON."""
    (exported / name).touch()
    for command in ("verify", "inspect"):
        for how in ([], ["--json"]):
            result = run(command, exported, *how)
            told = f"{result.stdout}{result.stderr}".replace("\n", "")
            assert told.isprintable()
            assert "ok     seal: fine" not in result.stdout.splitlines()
    manifest = json.loads((exported / "mllmeraser.json").read_text())
    manifest["files"][name] = {"bytes": 0, "sha256": sha256_of(exported / name), "origin": "tool"}
    (exported / "mllmeraser.json").write_bytes(sealed(manifest))
    for command in (["verify", exported], ["inspect", exported], ["push", exported, "org/name", "--dry-run"]):
        result = run(*command)
        assert f"{result.stdout}{result.stderr}".replace("\n", "").isprintable()


# --------------------------------------------------------------------------------------------------- damaged provenance


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest.pop(key)


PROVENANCES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no base": _without("base"),
    "no bundles": _without("bundles"),
    "no tool": _without("tool"),
    "a base that is a list": lambda manifest: manifest.update(base=[]),
    "a base without a repository": lambda manifest: manifest["base"].pop("repo_id"),
    "a repository that is a command": lambda manifest: manifest["base"].update(repo_id="a/b; curl evil"),
    "a repository of two lines": lambda manifest: manifest["base"].update(repo_id="a/b\n## Safe"),
    "a version that is a list": lambda manifest: manifest["tool"].update(version=[]),
    "a bundle without requests": lambda manifest: manifest["bundles"][0].update(requests=[]),
    "a strength that is text": lambda manifest: manifest["bundles"][0]["requests"][0].update(strength="x" * 10_000),
}


@pytest.mark.parametrize("what", PROVENANCES)
def test_a_damaged_provenance_is_one_line_for_everybody(exported: Path, what: str, run: Run) -> None:
    manifest = json.loads((exported / "mllmeraser.json").read_text())
    PROVENANCES[what](manifest)
    (exported / "mllmeraser.json").write_bytes(sealed(manifest))
    for command, code in ((["push", exported, "org/name", "--dry-run"], 3), (["inspect", exported], 2)):
        result = run(*command)
        assert result.code == code
        assert "mllmeraser.json" in result.error
        assert len(result.error) < 400
    assert run("verify", exported).code == 3


VALUES: dict[str, Callable[[Path], None]] = {
    "a strength of words": lambda out: edit_json(out / "config.json", steering_strength="much"),
    "a strength that is a list": _request(strength=[1]),
    "a request without a strength": lambda out: edit_json(
        out / "config.json", steering={"requests": [{"id": "r1", "enabled": True}]}
    ),
    "bytes that are words": lambda out: _entry(out, bytes="many"),
    "a sha256 that is a number": lambda out: _entry(out, sha256=7),
}


def _entry(out: Path, **changes: object) -> None:
    manifest = json.loads((out / "mllmeraser.json").read_text())
    manifest["files"]["LICENSE"] |= changes
    (out / "mllmeraser.json").write_bytes(sealed(manifest))


@pytest.mark.parametrize("what", VALUES)
def test_a_value_that_cannot_be_printed_is_one_line(exported: Path, what: str, run: Run) -> None:
    VALUES[what](exported)
    result = run("inspect", exported)
    assert result.code == 2
    assert "mllmeraser verify" in result.error or "mllmeraser export" in result.error
    assert run("verify", exported).code == 3

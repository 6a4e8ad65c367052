"""The commands for graphs as a person or a program meets them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest
from builders import graphs, tiny
from builders.checkpoints import make_base, make_bundle
from builders.command_line import Run, document
from builders.graphs import TWIN

from mllmeraser.bundle.bundle import load_bundle, save_bundle
from mllmeraser.exporter.onnx import api, export


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with steps along the reply, for the tiny LLaVA."""
    kernel = {"kind": "kernel", "shape": "step", "threshold": 0.5, "layers": (1, 2), "gate_layer": 1, "steps": 3}
    part = tiny.steering(tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7), **kernel)
    save_bundle(graphs.bundle(part), tmp_path / "b.safetensors")
    return tmp_path / "b.safetensors"


@pytest.fixture
def checkpoint(exported_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base whose graphs were exported before, so that the command does not trace them again."""
    base = make_base(tmp_path / "base")
    save_bundle(make_bundle(base), tmp_path / "own.safetensors")

    def export_again(_base: object, folder: Path, _precision: str, progress: Callable[[str], None]) -> None:
        progress("exporting once more")
        shutil.copytree(exported_bases["llava"], folder, dirs_exist_ok=True)

    monkeypatch.setattr(export, "export_base", export_again)
    return base


def test_steer_and_verify(run: Run, exported_bases: dict[str, Path], bundle: Path, tmp_path: Path) -> None:
    given, out = exported_bases["llava"], tmp_path / "out"
    steered = run("onnx-steer", given, "--bundle", bundle, "-o", out, "--json")
    assert steered.code == 0
    written = document(steered)
    assert written["graphs"] == [{"name": graphs.DECODER, "twin": TWIN, "reply_steps": 3}]
    assert written["toggle"] == "constant" and written["requests"] == ["r0"] and written["warnings"] == []
    assert steered.stderr == f"next: mllmeraser verify {out} --base {given}\n"
    verified = run("verify", out, "--base", given)
    assert verified.code == 0
    assert "ok     off equals base: bit for bit" in verified.stdout
    assert verified.stderr == f"next: mllmeraser sign {out} --private-key FILE\n"
    shown = run("inspect", out)
    assert f"{graphs.DECODER}: steered, 2 positions of the reply, the base's graph is {TWIN}" in shown.stdout
    inspected, of_bundle = document(run("inspect", out, "--json")), document(run("inspect", bundle, "--json"))
    assert (inspected["kind"], inspected["toggle"], of_bundle["kind"]) == ("onnx", "constant", "bundle")
    for key in ("base", "layers", "requests", "dense_bytes"):
        assert inspected[key] == of_bundle[key], key
    assert inspected["steering_bytes"] == sum(tensor.nbytes for tensor in load_bundle(bundle).tensors.values())
    (out / "README.md").write_text("another card")
    broken = run("verify", out, "--json")
    assert broken.code == 3 and document(broken)["ok"] is False
    assert broken.stderr.startswith(f"error: {out}: ") and len(broken.stderr.splitlines()) == 1


def test_the_toggle_and_the_link_are_handed_on(
    run: Run, exported_bases: dict[str, Path], bundle: Path, tmp_path: Path
) -> None:
    # A copy, because onnx reads no weights that have a second name.
    given, out = Path(shutil.copytree(exported_bases["llava"], tmp_path / "given")), tmp_path / "out"
    assert run("onnx-steer", given, "--bundle", bundle, "-o", out, "--onnx-toggle", "input", "--link", "hard").code == 0
    assert not (out / TWIN).exists()
    data = f"{graphs.DECODER}_data"
    assert (out / data).stat().st_ino == (given / data).stat().st_ino
    refused = run("onnx-steer", given, "--bundle", bundle, "-o", out)
    assert refused.code == 2 and "--overwrite" in refused.error
    assert run("onnx-steer", given, "--bundle", bundle, "-o", out, "--overwrite").code == 0


def test_what_is_lost_is_said(run: Run, exported_bases: dict[str, Path], bundle: Path, tmp_path: Path) -> None:
    given = Path(shutil.copytree(exported_bases["llava"], tmp_path / "given"))
    model = ir.load(given / graphs.DECODER)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name.startswith(("past", "present")):
            value.shape = ir.Shape(["batch_size", "heads", "past", "size"])
    ir.save(model, given / graphs.DECODER)
    result = run("onnx-steer", given, "--bundle", bundle, "-o", tmp_path / "out")
    assert result.code == 0
    assert "no state in the cache" in result.stdout and "warning" not in result.stdout
    warning, following = result.stderr.splitlines()
    assert warning.startswith("warning: ") and "cannot carry 1 gates" in warning and following.startswith("next: ")


def test_export(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    call = ["export", checkpoint, "--bundle", tmp_path / "own.safetensors", "-o", tmp_path / "out", "--format", "onnx"]
    result = run(*call, "--json")
    assert result.code == 0, result.stderr
    assert document(result)["graphs"] == [{"name": graphs.DECODER, "twin": TWIN, "reply_steps": 1}]
    following = f"next: mllmeraser verify {tmp_path / 'out'} --base {checkpoint}"
    assert result.stderr.splitlines() == ["exporting once more", "steering the decoder", following]
    assert run("verify", tmp_path / "out", "--base", checkpoint).code == 0
    again = run(*call, "--onnx-toggle", "input", "--overwrite", "--quiet")
    assert (again.code, again.stderr) == (0, "")
    assert not (tmp_path / "out" / TWIN).exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--format", "onnx", "--dry-run"], "leave out --dry-run, --link and --hash"),
        (["--format", "onnx", "--link", "copy"], "leave out --dry-run, --link and --hash"),
        (["--onnx-toggle", "input"], "add --format onnx"),
        (["--format", "gguf"], "'gguf' is not one of 'checkpoint', 'thin', 'onnx'"),
    ],
)
def test_options_that_do_not_go_together(
    run: Run, checkpoint: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    result = run("export", checkpoint, "--bundle", tmp_path / "own.safetensors", "-o", tmp_path / "out", *more)
    assert result.code == 2 and message in result.error
    assert not (tmp_path / "out").exists()


def test_bad_input(run: Run, exported_bases: dict[str, Path], bundle: Path, tmp_path: Path) -> None:
    given, out = exported_bases["llava"], tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.safetensors").write_text("no bundle")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "decoder.onnx").write_text("no graph")
    for model_dir, given_bundle, message in (
        (tmp_path / "none", bundle, "no such directory"),
        (tmp_path / "empty", bundle, "no .onnx graph in it"),
        (tmp_path / "odd", bundle, "not an ONNX graph"),
        (given, tmp_path / "none", "no such file"),
        (given, tmp_path / "text.safetensors", "not a readable safetensors file"),
        (exported_bases["qwen2_5_vl"], bundle, "computed on a llava"),
    ):
        result = run("onnx-steer", model_dir, "--bundle", given_bundle, "-o", out)
        assert result.code == 2 and message in result.error, message
        assert not out.exists()
    assert run("onnx-steer", given, "-o", out).code == 2  # no bundle at all


def test_a_seal_that_ends_with_a_turn(run: Run, exported_bases: dict[str, Path], bundle: Path, tmp_path: Path) -> None:
    edited = load_bundle(bundle)
    edited.metadata.gate = edited.metadata.gate.model_copy(
        update={"scope": "conversation", "shape": "step", "threshold": 0.5, "turn": [7, 8]}
    )
    save_bundle(edited, tmp_path / "turn.safetensors")
    result = run(
        "onnx-steer", exported_bases["llava"], "--bundle", tmp_path / "turn.safetensors", "-o", tmp_path / "out"
    )
    assert result.code == 2
    assert "--until conversation" in result.error
    assert not (tmp_path / "out").exists()


def test_an_unknown_family_is_noticed_before_the_long_work(run: Run, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen2_vl")
    result = run("export", base, "--forget", "none", "--retain", "none", "--format", "onnx", "-o", tmp_path / "out")
    assert result.code == 2 and "no ONNX export for model_type qwen2_vl" in result.error


def test_without_the_extra(
    run: Run, checkpoint: Path, exported_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, out = tmp_path / "own.safetensors", tmp_path / "out"
    assert run("onnx-steer", exported_bases["llava"], "--bundle", bundle, "-o", out).code == 0
    monkeypatch.setattr(api, "find_spec", lambda name: None if name == "onnxruntime" else name)
    for call in (
        ["onnx-steer", exported_bases["llava"], "--bundle", bundle, "-o", tmp_path / "more"],
        ["export", checkpoint, "--bundle", bundle, "--format", "onnx", "-o", tmp_path / "more"],
        ["export", checkpoint, "--forget", "x", "--retain", "x", "--format", "onnx", "-o", tmp_path / "more"],
        ["verify", out],
    ):
        result = run(*call)
        assert result.code == 2
        assert result.error.endswith("pip install 'mllmeraser[onnx]'"), result.error


def test_a_signature(run: Run, exported_bases: dict[str, Path], bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="the extra 'sign' is not installed")
    from builders.signing_keys import make_key

    out, (private, public) = tmp_path / "out", make_key(tmp_path)
    assert run("onnx-steer", exported_bases["llava"], "--bundle", bundle, "-o", out).code == 0
    assert run("verify", out, "--public-key", public).code == 3  # not signed
    assert run("sign", out, "--private-key", private).code == 0
    assert run("verify", out, "--public-key", public).code == 0
    (out / "README.md").write_text("another card")
    changed = json.loads(run("verify", out, "--public-key", public, "--json").stdout)
    assert {check["name"] for check in changed["checks"] if not check["ok"]} >= {"files", "signature"}

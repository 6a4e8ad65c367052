"""Loading a base or an export of ours to run it, in the precision asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from builders import checkpoints, talker, tiny

from mllmeraser.errors import InputError, MllmEraserError
from mllmeraser.exporter.directory import export
from mllmeraser.inference import loading
from mllmeraser.inference.loading import load, needed_bytes
from mllmeraser.inference.source import Source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and its export."""
    folder = tmp_path_factory.mktemp("loading")
    base = talker.make_base(folder / "base")
    export(Source(base), [checkpoints.make_bundle(base)], folder / "out", link="copy")
    return folder


@pytest.mark.parametrize("name", ["base", "out"])
@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_a_checkpoint_is_loaded_in_the_precision_asked_for(
    folder: Path, name: str, asked: str, expected: torch.dtype
) -> None:
    checkpoint = load(folder / name, dtype=asked)
    assert checkpoint.model.dtype == checkpoint.model.config.dtype == expected
    assert (checkpoint.model_type, checkpoint.steered) == ("llava", name == "out")
    assert not checkpoint.model.training


@pytest.mark.parametrize("enabled", [True, False])
def test_an_export_is_switched_when_it_is_loaded(folder: Path, enabled: bool) -> None:
    assert load(folder / "out", steering_enabled=enabled).model.config.steering_enabled is enabled


@pytest.mark.parametrize("enabled", [None, False])
def test_an_export_of_the_first_edition_still_runs(folder: Path, tmp_path: Path, enabled: bool | None) -> None:
    shutil.copytree(folder / "out", tmp_path / "first")
    now = load(folder / "out", steering_enabled=enabled).model
    then = load(checkpoints.first_edition(tmp_path / "first"), steering_enabled=enabled).model
    assert then.config.steering_enabled is (enabled is None)
    batch = tiny.prompt("llava", 5, 6, 7, 8)
    assert torch.equal(then(**batch).logits, now(**batch).logits)
    assert torch.equal(then(**batch).logits, load(folder / "base").model(**batch).logits) is (enabled is False)


def test_one_of_the_first_edition_is_verified_as_any(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "out", tmp_path / "first")
    file = checkpoints.first_edition(tmp_path / "first") / "config.json"
    steering = json.loads(file.read_text())["steering"]
    steering["requests"][0]["strength"] = 0.0
    checkpoints.edit_json(file, steering=steering)
    with pytest.raises(InputError, match=r"config\.json: changed since it was written"):
        load(tmp_path / "first")


def test_a_base_has_nothing_to_switch(folder: Path) -> None:
    with pytest.raises(InputError, match=r"base: a base checkpoint has no steering to switch$"):
        load(folder / "base", steering_enabled=False)


def test_a_base_never_runs_code_of_its_own(folder: Path, tmp_path: Path) -> None:
    base = talker.make_base(tmp_path / "base")
    (base / "modeling_base.py").write_text("raise SystemExit('the code of the base was run')")
    checkpoints.edit_json(base / "config.json", auto_map={"AutoModelForImageTextToText": "modeling_base.Model"})
    assert type(load(base).model) is transformers.LlavaForConditionalGeneration


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing", "family"])
def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, damage: str) -> None:
    base = talker.make_base(tmp_path / "base")
    weights = base / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "foreign":
        weights.write_bytes(b"no weights at all")
    elif damage == "missing":
        weights.unlink()
    else:
        checkpoints.edit_json(base / "config.json", model_type="parrot")
    with pytest.raises(InputError) as caught:
        load(base)
    said = "safetensors weights are needed, found none" if damage == "missing" else "cannot be loaded: "
    assert str(caught.value).startswith(f"{base}: {said}")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; copy or download it again") == (damage in ("truncated", "foreign"))


def test_weights_that_do_not_fit_in_memory_are_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = folder / "base"
    size = (base / "model.safetensors").stat().st_size
    monkeypatch.setattr(loading, "available_bytes", lambda: size - 1)
    with pytest.raises(
        MllmEraserError, match=rf"^{size:,} bytes of memory are needed .* and {size - 1:,} are available"
    ):
        load(base)
    load(base, dtype="bfloat16")


def test_only_the_weights_that_are_read_count(folder: Path, tmp_path: Path) -> None:
    """Published checkpoints hold others beside them, such as a ``consolidated.safetensors``."""
    twice = tmp_path / "twice"
    shutil.copytree(folder / "base", twice)
    shutil.copy(twice / "model.safetensors", twice / "consolidated.safetensors")
    assert needed_bytes(twice, "auto") == needed_bytes(folder / "base", "auto") > 0
    assert needed_bytes(folder / "out", "auto") > needed_bytes(folder / "base", "auto")

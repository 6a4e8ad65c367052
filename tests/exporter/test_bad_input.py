"""Bad input to export, verify and inspect: one line that says what, where and the mend; nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders.checkpoints import contents, edit_json, make_base, make_bundle
from safetensors.numpy import save_file

from mllmeraser.bundle.bundle import load_bundle, save_bundle
from mllmeraser.errors import InputError, MllmEraserError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.inspect import inspect
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source, resolve


def run(base: Path, bundle: Path, output: Path) -> None:
    """What `mllmeraser export BASE --bundle BUNDLE -o OUTPUT` calls."""
    export(resolve(base), [load_bundle(bundle)], output)


def one_line(error: MllmEraserError, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 500
    for word in words:
        assert word in text, text


@pytest.fixture
def bundle(base: Path, tmp_path: Path) -> Path:
    """The file of a bundle for ``base``."""
    save_bundle(make_bundle(base), tmp_path / "b.safetensors")
    return tmp_path / "b.safetensors"


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])


def _write(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.unlink()
        path.write_text(text)

    return write


def _foreign(path: Path) -> None:
    path.unlink()
    save_file({"weight": np.ones((2, 2), dtype=np.float32)}, path)


def _newer(path: Path) -> None:
    found = load_bundle(path)
    text = json.dumps({**found.metadata.model_dump(mode="json", by_alias=True), "schema": 3})
    path.unlink()
    save_file(dict(found.tensors), path, metadata={"mllmeraser": text})


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BUNDLES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda path: path.unlink(), "no such file; make a bundle with: mllmeraser compute"),
    "empty": (_write(""), "not a readable safetensors file"),
    "truncated": (_cut, "not a readable safetensors file"),
    "text": (_write("hello"), "not a readable safetensors file"),
    "foreign": (_foreign, "not a steering bundle"),
    "a folder": (_folder, "no such file"),
    "of a newer schema": (_newer, "metadata key schema"),
}


@pytest.mark.parametrize("what", BUNDLES)
def test_a_bundle(base: Path, bundle: Path, tmp_path: Path, what: str) -> None:
    damage, message = BUNDLES[what]
    damage(bundle)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError) as caught:
        run(base, bundle, tmp_path / "out")
    one_line(caught.value, str(bundle), message)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    if what != "a folder":
        with pytest.raises(InputError) as caught:
            inspect(bundle)
        one_line(caught.value, str(bundle), message)


BASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (lambda d: (d / "config.json").unlink(), "no config.json; give the directory of"),
    "an empty configuration": (lambda d: _write("")(d / "config.json"), "not valid JSON"),
    "a configuration that is a list": (lambda d: _write("[]")(d / "config.json"), "no model_type"),
    "a configuration cut in half": (lambda d: _cut(d / "config.json"), "not valid JSON"),
    "a family we do not know": (
        lambda d: edit_json(d / "config.json", model_type="bert"),
        "is not supported",
    ),
    "a configuration of nonsense": (lambda d: edit_json(d / "config.json", text_config=7), "not a llava configuration"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "safetensors weights are needed"),
    "weights cut in half": (lambda d: _cut(d / "model.safetensors"), "download it again"),
    "empty weights": (lambda d: _write("")(d / "model.safetensors"), "download it again"),
    "tokenizer settings cut in half": (lambda d: _cut(d / "tokenizer_config.json"), "download the base again"),
    "a configuration that changed": (lambda d: edit_json(d / "config.json", image_seq_length=9), "compute it again"),
}


@pytest.mark.parametrize("what", BASES)
def test_a_base(base: Path, bundle: Path, tmp_path: Path, what: str) -> None:
    damage, message = BASES[what]
    damage(base)
    before = contents(tmp_path)
    with pytest.raises(InputError) as caught:
        run(base, bundle, tmp_path / "out")
    one_line(caught.value, str(base), message)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("where", ["nowhere", "a file"])
def test_a_base_that_is_not_there(base: Path, bundle: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "a file").write_text("x")
    with pytest.raises(InputError) as caught:
        run(tmp_path / where, bundle, tmp_path / "out")
    one_line(caught.value, where, "no such directory")
    with pytest.raises(InputError) as caught:
        export(Source(tmp_path / where), [load_bundle(bundle)], tmp_path / "out")
    one_line(caught.value, where, "no such directory", "give a local checkpoint or a Hub id")


def test_an_export_is_no_base(base: Path, bundle: Path, tmp_path: Path) -> None:
    run(base, bundle, tmp_path / "out")
    with pytest.raises(InputError) as caught:
        run(tmp_path / "out", bundle, tmp_path / "again")
    one_line(caught.value, "already steered", "export all bundles together from its base")
    assert not (tmp_path / "again").exists()


def test_no_bundle_at_all(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        export(Source(base), [], tmp_path / "out")
    one_line(caught.value, "no steering bundle given", "mllmeraser compute")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("a file", "is a file; choose another directory"),
        ("full", "is not empty; choose another directory, or replace it with --overwrite"),
        ("missing/out", "does not exist; create it first"),
        ("base", "or around it; choose another directory"),
        ("base/inside", "or around it; choose another directory"),
    ],
)
def test_an_output(base: Path, bundle: Path, tmp_path: Path, where: str, message: str) -> None:
    (tmp_path / "a file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(InputError) as caught:
        run(base, bundle, tmp_path / where)
    one_line(caught.value, str(tmp_path / where), message)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("where", ["nowhere", "a file"])
def test_verify_of_what_is_no_directory(tmp_path: Path, where: str) -> None:
    (tmp_path / "a file").write_text("x")
    with pytest.raises(InputError) as caught:
        verify(tmp_path / where)
    one_line(caught.value, where, "give one that mllmeraser export made")


def test_verify_against_what_is_no_base(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        verify(exported, tmp_path / "empty")
    one_line(caught.value, "no config.json")


def test_verify_of_a_directory_that_is_no_export(tmp_path: Path) -> None:
    """Not an error but a verdict: what a directory claims is exactly what is in question."""
    verification = verify(make_base(tmp_path / "base"))
    assert not verification.ok
    details = {check.name: check.detail for check in verification.checks if not check.ok}
    assert details["manifest"] == "mllmeraser.json is missing"
    assert "model.safetensors: no file of an export, and a loader may follow it" in details["fails closed"]


def test_inspect_of_what_is_neither(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (base, tmp_path / "empty"):
        with pytest.raises(InputError) as caught:
            inspect(path)
        one_line(caught.value, str(path), "give a bundle, or a directory that mllmeraser export made")

"""What inspect says of a bundle and of the export made from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.checkpoints import edit_json, make_bundle

from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.inspect import inspect
from mllmeraser.inference.source import Source

KEYS = {
    "schema",
    "kind",
    "base",
    "layers",
    "requests",
    "versions",
    "steering_bytes",
    "dense_bytes",
    "steering_enabled",
    "steering_strength",
    "files",
}


def test_bundle_and_export_have_the_same_keys_and_requests(base: Path, tmp_path: Path) -> None:
    bundle = make_bundle(base, kind="kernel", shape="step", threshold=0.6)
    save_bundle(bundle, tmp_path / "b.safetensors")
    export(Source(base), [bundle], tmp_path / "out")
    of_bundle, of_export = inspect(tmp_path / "b.safetensors"), inspect(tmp_path / "out")
    assert of_bundle.keys() == of_export.keys() == KEYS
    assert (of_bundle["kind"], of_export["kind"]) == ("bundle", "checkpoint")
    for key in ("base", "layers", "requests", "versions", "dense_bytes"):
        assert of_bundle[key] == of_export[key], key
    assert of_bundle["dense_bytes"] == 2 * 32 * 32 * 4
    assert of_bundle["steering_bytes"] == (tmp_path / "b.safetensors").stat().st_size
    assert of_bundle["files"]["b.safetensors"]["sha256"] == sha256_of(tmp_path / "b.safetensors")
    assert of_bundle["requests"][0]["statistics"]["1"]["auroc_heldout"] == 0.987
    json.dumps(of_bundle)


def test_it_shows_the_switches_as_they_stand(base: Path, tmp_path: Path) -> None:
    export(Source(base), [make_bundle(base)], tmp_path / "out")
    steering = json.loads((tmp_path / "out" / "config.json").read_text())["steering"]
    steering["requests"][0] |= {"enabled": False, "strength": 0.25}
    edit_json(tmp_path / "out" / "config.json", steering=steering)
    request = inspect(tmp_path / "out")["requests"][0]
    assert (request["enabled"], request["strength"]) == (False, 0.25)


def test_anything_else_is_one_line(base: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a bundle, or a directory"):
        inspect(base)
    with pytest.raises(InputError, match="no such file"):
        inspect(tmp_path / "nowhere")
    for text in ("", "{}", "[]", '{"schema": 1, "files": {}}'):
        (exported / "mllmeraser.json").write_text(text)
        with pytest.raises(InputError) as caught:
            inspect(exported)
        assert "\n" not in str(caught.value)

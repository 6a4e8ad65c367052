"""P8. Provenance: the manifest says where everything comes from and what every file is; same inputs, same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from builders.checkpoints import contents, make_bundle

import mllmeraser
from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source

SCRIPT = """
import sys
from pathlib import Path
from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source
from mllmeraser.bundle.bundle import load_bundle
export(Source(Path(sys.argv[1])), [load_bundle(Path(sys.argv[2]))], Path(sys.argv[3]), link=sys.argv[4])
"""


def test_the_same_inputs_give_the_same_bytes(sharded: Path, tmp_path: Path) -> None:
    """In another process, another folder, another time zone and hash seed, by another way to link."""
    save_bundle(make_bundle(sharded), tmp_path / "b.safetensors")
    found = []
    for number, (seed, zone, link) in enumerate((("1", "UTC", "hard"), ("2", "Asia/Tokyo", "copy"))):
        folder = tmp_path / f"place{number}"
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        command = [sys.executable, "-c", SCRIPT, sharded, tmp_path / "b.safetensors", folder / f"out{number}", link]
        subprocess.run(command, check=True, cwd=folder, env=environment)
        found.append(contents(folder / f"out{number}"))
    assert found[0] == found[1]


def test_every_file_stands_in_the_manifest_with_its_sha256(sharded: Path, tmp_path: Path) -> None:
    export(Source(sharded), [make_bundle(sharded)], tmp_path / "out")
    files = json.loads((tmp_path / "out" / "mllmeraser.json").read_text())["files"]
    there = {path.name: path for path in (tmp_path / "out").iterdir() if path.name != "mllmeraser.json"}
    assert files.keys() == there.keys()
    for name, path in there.items():
        assert (files[name]["sha256"], files[name]["bytes"]) == (sha256_of(path), path.stat().st_size), name
        if files[name]["origin"] == "base" and not name.startswith("mllmeraser-base-"):
            assert path.read_bytes() == (sharded / name).read_bytes(), name


def test_base_versions_seed_parameters_and_metrics_are_recorded(base: Path, tmp_path: Path) -> None:
    bundle = make_bundle(base)
    export(Source(base, "org/name", "a" * 40), [bundle], tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "mllmeraser.json").read_text())
    assert manifest["tool"] == {"name": "mllmeraser", "version": mllmeraser.__version__}
    assert (manifest["base"]["repo_id"], manifest["base"]["revision"]) == ("org/name", "a" * 40)
    assert manifest["base"]["config_sha256"] == sha256_of(base / "config.json")
    recorded = manifest["bundles"][0]
    assert recorded == json.loads(bundle.metadata.model_dump_json(by_alias=True))
    assert {"seed", "versions", "method", "gate", "template_sha256"} <= recorded.keys()
    assert recorded["requests"][0]["statistics"]["1"]["auroc_heldout"] == 0.987
    assert verify(tmp_path / "out", base).ok

"""Nothing asks for what Windows has not: the same bytes come out without ``fcntl``, ``pwrite`` and ``pread``.

Without ``fcntl`` the lock is filelock's own, of another kind; Windows itself, and its own lock, are not tried here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from builders import talker
from builders.checkpoints import contents

HIDDEN = """
import os, sys, warnings
warnings.filterwarnings("ignore", "only soft file lock is available")
sys.modules["fcntl"] = None
del os.pwrite, os.pread
"""
SCRIPT = """
import sys
from pathlib import Path
from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.loading import load
from mllmeraser.inference.source import Source
from mllmeraser.records.read import read_records
from mllmeraser.steering.compute import compute
from mllmeraser.steering.recipe import make_recipe

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
own = {name: folder / f"{name}.jsonl" for name in ("recall", "erasure")}
own |= {"preset": "paper", "perturbation": "none"}
checkpoint = load(Source(folder / "base"), work_dir=out / "work")
forget, retain = (read_records(folder / f"{name}.jsonl") for name in ("forget", "retain"))
bundle = compute(checkpoint, forget, retain, make_recipe("llava", own)).bundle
save_bundle(bundle, out / "b.safetensors")
for link in ("auto", "copy"):
    export(folder / "base", [out / "b.safetensors"], out / "steered", link=link, overwrite=True)
    assert verify(out / "steered", folder / "base").ok
"""


@pytest.mark.slow
def test_the_same_bytes_without_what_windows_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talker.make_base(tmp_path / "base")
    talker.write_people(tmp_path / "forget.jsonl", range(3))
    talker.write_people(tmp_path / "retain.jsonl", range(3, 8))
    talker.write_refusals(tmp_path)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path), str(here)])
    exec(SCRIPT, {})
    subprocess.run([sys.executable, "-c", HIDDEN + SCRIPT, tmp_path, there], check=True)
    for name in ("steered", "work"):
        assert contents(here / name) == contents(there / name) != {}
    assert (here / "b.safetensors").read_bytes() == (there / "b.safetensors").read_bytes()
    for folder in (here, there):
        assert sorted(path.name for path in folder.iterdir()) == ["b.safetensors", "steered", "work"]

"""An export takes little memory, however large the base is, and imports neither torch nor transformers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import export_7b
import pytest
from random_bundle import kernel_bundle

from mllmeraser.bundle.bundle import save_bundle

SCRIPT = r"""
import json, re, sys
from pathlib import Path
from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source
from mllmeraser.bundle.bundle import load_bundle
plan = export(Source(Path(sys.argv[1])), [load_bundle(Path(sys.argv[2]))], Path(sys.argv[3]), link=sys.argv[4])
heavy = [name for name in ("torch", "transformers") if name in sys.modules]
# Not getrusage: its maximum begins with the memory of the process that started this one.
peak = int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps({"peak": peak, "new": plan.needed_bytes, "heavy": heavy}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
@pytest.mark.parametrize(
    "family", [export_7b.llava_1_5_7b, export_7b.qwen2_5_vl_7b], ids=lambda family: family.__name__
)
def test_a_base_of_true_7b_shapes_is_exported_in_few_megabytes(family: Any, tmp_path: Path) -> None:
    config, shapes = family()
    beyond = re.compile(r"embed_tokens|lm_head|layers\.([1-9]|\d\d)\.")  # all layers but the first of each stack
    kept = {name: shape for name, shape in shapes.items() if not beyond.search(name)}
    base = export_7b.write_sparse(tmp_path / "base", config, kept, shards=2)
    assert sum(path.stat().st_size for path in base.glob("*.safetensors")) > 300e6
    save_bundle(kernel_bundle(base), tmp_path / "b.safetensors")
    command = [sys.executable, "-c", SCRIPT, base, tmp_path / "b.safetensors", tmp_path / "out", "hard"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert found["heavy"] == []
    assert found["peak"] < 150_000  # kilobytes; 400,000 is promised
    assert found["new"] - (tmp_path / "b.safetensors").stat().st_size < 200_000

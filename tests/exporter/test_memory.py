"""An export takes the memory of its imports and little more, however large the base is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import export_7b
from random_bundle import kernel_bundle

from mllmeraser.steering.bundle import save_bundle

SCRIPT = """
import json, resource, sys
from pathlib import Path
from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source
from mllmeraser.steering.bundle import load_bundle
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
plan = export(Source(Path(sys.argv[1])), [load_bundle(Path(sys.argv[2]))], Path(sys.argv[3]), link=sys.argv[4])
print(json.dumps({"grown": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, "new": plan.needed_bytes}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
@pytest.mark.parametrize(
    "family", [export_7b.llava_1_5_7b, export_7b.qwen2_5_vl_7b], ids=lambda family: family.__name__
)
def test_a_base_of_true_7b_shapes_is_exported_in_a_few_megabytes(family: Any, tmp_path: Path) -> None:
    config, shapes = family()
    beyond = re.compile(r"embed_tokens|lm_head|layers\.([1-9]|\d\d)\.")  # all blocks but the first of each stack
    kept = {name: shape for name, shape in shapes.items() if not beyond.search(name)}
    base = export_7b.write_sparse(tmp_path / "base", config, kept, shards=2)
    assert sum(path.stat().st_size for path in base.glob("*.safetensors")) > 300e6
    save_bundle(kernel_bundle(base), tmp_path / "b.safetensors")
    command = [sys.executable, "-c", SCRIPT, base, tmp_path / "b.safetensors", tmp_path / "out", "hard"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert found["grown"] < 60_000  # kilobytes
    assert found["new"] - (tmp_path / "b.safetensors").stat().st_size < 200_000

"""What a user downstream does: load with transformers alone, in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import tiny
from builders.checkpoints import make_bundle

from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source
from mllmeraser.steering.in_process import torch_tensors

SCRIPT = """
import sys, torch
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration
directory, results = sys.argv[1:]
refused = []
for load in (
    lambda: AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=False),
    lambda: LlavaForConditionalGeneration.from_pretrained(directory),
):
    try:
        load()
    except (ValueError, OSError) as error:
        refused.append(type(error).__name__)
ids = torch.arange(3, 11).unsqueeze(0)
loaded = []
for options in ({}, {"steering_enabled": False}):
    model = AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=True, **options).eval()
    with torch.no_grad():
        loaded.append(model(input_ids=ids).logits)
assert "mllmeraser" not in sys.modules
torch.save({"refused": refused, "on": loaded[0], "off": loaded[1]}, results)
"""


@pytest.mark.slow
def test_it_loads_without_us_steers_as_in_process_and_never_un_erased(base: Path, tmp_path: Path) -> None:
    bundle = make_bundle(base)
    export(Source(base), [bundle], tmp_path / "out")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "out", tmp_path / "results"],
        check=True,
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
    )
    results = torch.load(tmp_path / "results", weights_only=True)
    model, ids = tiny.model("llava"), torch.arange(3, 11).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(results["off"], model(input_ids=ids).logits)
        steered = tiny.steered(model, (bundle.steering(), torch_tensors(bundle)))
        assert torch.equal(results["on"], steered(input_ids=ids).logits)
    assert not torch.equal(results["on"], results["off"])
    assert len(results["refused"]) == 2

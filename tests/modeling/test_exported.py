"""A bundle that seals conversations, exported and loaded by a stranger: transformers alone, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import bundles, oracle, tiny
from safetensors.torch import load_file, save_file

from mllmeraser.exporter.base import read_base
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.saving import save_base
from mllmeraser.inference.source import Source

NEW = 5
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in tiny.EVERY_FAMILY if name != "llava"]
STRANGER = f"""
import sys, torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText
assert "mllmeraser" not in sys.modules
model = AutoModelForImageTextToText.from_pretrained("export", trust_remote_code=True).eval()
found = {{}}
with torch.no_grad():
    for name in ("text", "picture"):
        batch = load_file(f"{{name}}.safetensors")
        found[f"logits {{name}}"] = model(**batch).logits
        reply = model.generate(**batch, max_new_tokens={NEW}, do_sample=False)
        found[f"reply {{name}}"] = reply[:, batch["input_ids"].shape[1]:].contiguous()
save_file(found, "found.safetensors")
"""


@pytest.mark.parametrize("family", ["llava", *OTHERS])
def test_a_stranger_is_answered_as_the_oracle_says(family: tiny.Family, tmp_path: Path) -> None:
    base, named = tiny.knowing(family), [0, 2]
    part = tiny.recognising(base, steps=3)
    prompts = {
        name: tiny.naming(tiny.prompt(family, 17, 17, 15, image=name == "picture"), named)
        for name in ("text", "picture")
    }
    save_base(base, tmp_path / "base")
    bundle = bundles.bundle(read_base(Source(tmp_path / "base")).identity, part)
    export(Source(tmp_path / "base"), [bundle], tmp_path / "export")
    assert json.loads((tmp_path / "export" / "config.json").read_text())["steering"]["schema"] == 2
    assert verify(tmp_path / "export", tmp_path / "base").ok
    for name, batch in prompts.items():
        save_file(batch, tmp_path / f"{name}.safetensors")
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""}
    subprocess.run([sys.executable, "-W", "ignore", "-c", STRANGER], check=True, cwd=tmp_path, env=environment)
    found = load_file(tmp_path / "found.safetensors")
    for name, batch in prompts.items():
        with torch.no_grad():
            plain, expected = base(**batch).logits, oracle.logits(base, *part, batch)
        assert torch.equal(found[f"logits {name}"][1], plain[1])
        assert not torch.equal(found[f"logits {name}"][0], plain[0])
        torch.testing.assert_close(found[f"logits {name}"], expected, rtol=1e-4, atol=1e-4)
    reply = oracle.generate(base, *part, prompts["text"], max_new_tokens=NEW, do_sample=False)
    assert torch.equal(found["reply text"], reply)
    assert torch.equal(found["reply picture"][0], found["reply picture"][2])  # nothing of the prompt is left

"""P5. Fails closed: whatever happens to a file of the directory, never an un-erased model without a word.

``verify`` sees every damage. A loader sees it too, or gives the same output; but it hashes the steering only, so a bit
of a base weight that flipped is loaded as from any checkpoint, and still steered.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from checkpoints import contents, edit_json
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mllmeraser.exporter.checks import DAMAGE
from mllmeraser.exporter.verify import verify

STEERING = "mllmeraser-steering.safetensors"
SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.mllmeraser.json"
FILES = ("LICENSE", "NOTICE.txt", "README.md", "chat_template.jinja", "config.json", "configuration_mllmeraser.py")
FILES += ("generation_config.json", STEERING, "mllmeraser.json", SHARD, INDEX, "modeling_mllmeraser.py")
FILES += ("preprocessor_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """A file with one flipped bit, cut short, or replaced."""
    kind = draw(st.sampled_from(("flip", "flip near the start", "cut", "replace")))
    if kind == "cut":
        return data[: draw(st.integers(0, len(data) - 1))]
    if kind == "replace":
        return draw(st.sampled_from([b"", b"[]", b"{}", b"null", b"\xff\xfe\x00", bytes(len(data))]))
    end = len(data) if kind == "flip" else min(len(data), 200)  # where a header lies
    changed = bytearray(data)
    changed[draw(st.integers(0, end - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


@torch.no_grad()
def _logits(directory: Path, **options: Any) -> torch.Tensor:
    model = tiny.modeling.steered_class("llava").from_pretrained(directory, local_files_only=True, **options).eval()
    result: torch.Tensor = model(**tiny.prompt("llava", 5, 6, 7, 8)).logits
    return result


@pytest.mark.filterwarnings("ignore")  # a damaged configuration may warn before it fails
@pytest.mark.parametrize("name", FILES)
@settings(
    max_examples=8,
    phases=[Phase.generate],  # a shorter damage is no better one
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(chance=st.data())
def test_damage_to_any_file_is_seen_by_verify_and_never_loads_un_erased(
    exported: Path, name: str, chance: st.DataObject
) -> None:
    assert set(FILES) == contents(exported).keys()
    whole = (exported / name).read_bytes()
    broken = chance.draw(damaged(whole))
    if broken == whole:
        return
    expected = _logits(exported)
    try:
        (exported / name).write_bytes(broken)
        assert not verify(exported).ok
        try:
            found = _logits(exported)
        except DAMAGE:
            return
        if name == SHARD:
            assert not torch.equal(found, _logits(exported, steering_enabled=False))
        elif name != "config.json":  # a number in it may be another one; see below
            assert torch.equal(found, expected)
    finally:
        (exported / name).write_bytes(whole)


@pytest.mark.xfail(reason="the loader compares the steering file with config.json, and config.json with nothing")
@pytest.mark.parametrize("key", ["steering_strength", "strength", "threshold"])
def test_a_flipped_number_of_the_steering_does_not_load(exported: Path, key: str) -> None:
    """One bit makes 0.0 of 1.0, and 8.6 of 0.6."""
    steering = json.loads((exported / "config.json").read_text())["steering"]
    request = steering["requests"][0]
    if key == "steering_strength":
        edit_json(exported / "config.json", steering_strength=0.0)
    elif key == "strength":
        request["strength"] = 0.0
    else:
        request["gate"]["threshold"] = 8.6
    edit_json(exported / "config.json", steering=steering)
    assert not verify(exported).ok
    with pytest.raises(DAMAGE):
        _logits(exported)


# A child per directory: transformers keeps remote code for the life of a process.
SCRIPT = """
import os, sys, warnings, torch
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging
logging.set_verbosity(logging.CRITICAL)
ids = torch.arange(3, 11).unsqueeze(0)
for directory in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork() == 0:
        try:
            model = AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=True).eval()
            with torch.no_grad():
                print("logits", float(model(input_ids=ids).logits.double().sum()), flush=True)
        except Exception as error:
            print("raised", type(error).__name__, flush=True)
        os._exit(0)
    os.wait()
"""
UNREAD = ("tokenizer.json", "README.md", "LICENSE")  # by a loader of the model
NEEDED = (STEERING, "config.json", INDEX, SHARD, "configuration_mllmeraser.py", "modeling_mllmeraser.py")


def test_a_stranger_loads_no_damaged_directory(exported: Path, tmp_path: Path) -> None:
    """Fresh processes, transformers alone: files missing or cut in the middle, one bit of the steering flipped."""
    cases: dict[str, Path] = {}

    def case(what: str, name: str, data: bytes | None) -> None:
        cases[what] = tmp_path / f"case{len(cases)}"
        shutil.copytree(exported, cases[what])
        if data is None:
            (cases[what] / name).unlink()
        else:
            (cases[what] / name).write_bytes(data)

    def cut(name: str) -> bytes:
        return (exported / name).read_bytes()[: (exported / name).stat().st_size // 2]

    for name in NEEDED:
        case(f"{name} cut", name, cut(name))
        case(f"{name} missing", name, None)
    flipped = bytearray((exported / STEERING).read_bytes())
    flipped[-1] ^= 1
    case("a bit of the steering flipped", STEERING, bytes(flipped))
    for name in UNREAD:
        case(f"{name} cut", name, cut(name))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, exported, *cases.values()],
        check=True,
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    whole, *answers = [line for line in result.stdout.splitlines() if line.startswith(("logits", "raised"))]
    assert whole.startswith("logits")
    for what, answer in zip(cases, answers, strict=True):
        assert answer == whole if what.removesuffix(" cut") in UNREAD else answer.startswith("raised"), (what, answer)

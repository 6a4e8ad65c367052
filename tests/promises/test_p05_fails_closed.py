"""P5. Fails closed: whatever happens to a file of the directory, never an un-erased model without a word.

``verify`` sees every damage. A loader sees it too, or gives the same output; but it hashes everything except the base's
shards (14 GB would take as long again as to load them), so a bit of a base weight that flipped is loaded as from any
checkpoint, and still steered. What a shard's header says, and its length, a loader compares with the rest.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny
from builders.checkpoints import contents, edit_json
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import DAMAGE
from mllmeraser.modeling_patches.format_mllmeraser import CODE

STEERING = "mllmeraser-steering.safetensors"
SHARD = "mllmeraser-base-00001-of-00001.safetensors"
INDEX = "mllmeraser.safetensors.index.json"
FILES = ("LICENSE", "NOTICE.txt", "README.md", "chat_template.jinja", "config.json", *CODE)
FILES += ("generation_config.json", STEERING, "mllmeraser.json", SHARD, INDEX)
FILES += ("preprocessor_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json")
UNREAD = ("LICENSE", "NOTICE.txt", "README.md", "mllmeraser.json")  # by any loader
READ = tuple(name for name in FILES if name not in UNREAD)


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
@pytest.mark.parametrize("name", [*READ, *(pytest.param(name, marks=pytest.mark.slow) for name in UNREAD)])
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
        else:
            assert torch.equal(found, expected)
    finally:
        (exported / name).write_bytes(whole)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted({*FILES} - {SHARD}))
def test_a_flipped_bit_anywhere_does_not_load(exported: Path, name: str) -> None:
    """Every byte of ``config.json``, 150 places of the others; a file of no loader changes nothing."""
    generator, whole = random.Random(name), (exported / name).read_bytes()
    expected = _logits(exported)
    places: Sequence[int] = range(len(whole))
    if name != "config.json":
        places = generator.choices(places, k=3 if name in UNREAD else 150)
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1 << generator.randrange(8)
        (exported / name).write_bytes(broken)
        if name in UNREAD or _says_the_same(name, whole, broken):
            assert torch.equal(_logits(exported), expected)
        else:
            with pytest.raises(tiny.modeling.SteeringError, match=name if name != STEERING else "sha256") as caught:
                _logits(exported)
            assert "\n" not in str(caught.value)


def _says_the_same(name: str, whole: bytes, broken: bytes) -> bool:
    """The configuration is sealed as it is parsed: 1e-05 and 1E-05 are one number."""
    try:
        return name == "config.json" and bool(json.loads(whole) == json.loads(broken))
    except ValueError:
        return False


@pytest.mark.parametrize("name", sorted({*FILES} - {*UNREAD}))
def test_a_truncated_file_does_not_load(exported: Path, name: str) -> None:
    whole, expected = (exported / name).read_bytes(), _logits(exported)
    for size in sorted({0, 1, 7, 8, 100, len(whole) // 3, len(whole) // 2, len(whole) - 1} & {*range(len(whole))}):
        (exported / name).write_bytes(whole[:size])
        if whole[size:] == b"\n" and name == "config.json":
            assert torch.equal(_logits(exported), expected)  # it says the same
            continue
        with pytest.raises(DAMAGE):
            _logits(exported)
    (exported / name).unlink()
    with pytest.raises(DAMAGE):
        _logits(exported)


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
    for options in (
        {},
        {"steering_strength": 1.0},
        {"steering": steering},
    ):  # what is given does not hide what lies there
        with pytest.raises(tiny.modeling.SteeringError, match=r"config\.json: changed since it was written"):
            _logits(exported, **options)


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
NEEDED = (STEERING, "config.json", INDEX, SHARD, "generation_config.json", "tokenizer.json", *CODE)


@pytest.mark.slow
def test_a_stranger_loads_no_damaged_directory(exported: Path, tmp_path: Path) -> None:
    """Fresh processes, transformers alone: files missing, cut in the middle, one bit flipped."""
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
    generator = random.Random(5)
    for name in (STEERING, "config.json", INDEX, *CODE, *CODE, *CODE):
        flipped = bytearray((exported / name).read_bytes())
        place, bit = generator.randrange(len(flipped)), generator.randrange(8)
        flipped[place] ^= 1 << bit
        case(f"{name}: bit {bit} of byte {place} flipped", name, bytes(flipped))
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

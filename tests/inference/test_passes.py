"""Batches that halve when memory runs out, and processes that share the work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import talker
from PIL import Image
from safetensors.torch import load_file

from mllmeraser.errors import MllmEraserError
from mllmeraser.inference.activations import last_prompt_states
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.passes import run_passes
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.records.prompts import Altered, Prompt


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talker.make_base(tmp_path_factory.mktemp("passes") / "base")


@pytest.fixture(scope="module")
def checkpoint(base: Path) -> Checkpoint:
    return load(base)


def rooms(checkpoint: Checkpoint, most: int, tried: list[int] | None = None) -> list[list[int]]:
    """The batches that pass where no more than ``most`` prompts fit; ``tried`` gets the size of every attempt."""

    def run(rows: list[int], shown: list[Prompt]) -> dict[str, torch.Tensor]:
        if tried is not None:
            tried.append(len(rows))
        if len(rows) > most:
            raise torch.OutOfMemoryError
        return {"rows": torch.tensor(rows)}

    prompts = [prompt for prompt in talker.prompts() if prompt.image is None] * 3
    return [rows for rows, _ in run_passes(replace(checkpoint, batch_size=8), "test", prompts, run, lambda rows: None)]


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_left_out(checkpoint: Checkpoint) -> None:
    found = rooms(checkpoint, 3)
    assert max(map(len, found)) <= 3
    assert sorted(i for rows in found for i in rows) == list(range(9))


def test_what_did_not_fit_once_is_not_tried_again(checkpoint: Checkpoint) -> None:
    tried: list[int] = []
    rooms(checkpoint, 3, tried)
    assert sorted(tried, reverse=True) == [8, 4, 2, 2, 2, 2, 1]


def test_a_single_prompt_that_does_not_fit_is_one_line(checkpoint: Checkpoint) -> None:
    with pytest.raises(MllmEraserError, match=r"^one prompt alone does not fit in memory; use a smaller --dtype"):
        rooms(checkpoint, 0)


def test_the_replies_do_not_depend_on_the_size_of_the_batches(checkpoint: Checkpoint) -> None:
    first, *others = (
        greedy_reply_ids(replace(checkpoint, batch_size=size), talker.prompts(), max_new_tokens=6)
        for size in (1, 2, 64)
    )
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


class Made(Sequence[Prompt]):
    """Prompts that are made when they are asked for, and count how often."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.prompts, self.times = prompts, Counter[int]()

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: Any) -> Any:
        if index < len(self):
            self.times[index] += 1
        return self.prompts[index]


def test_each_prompt_is_made_once_a_pass_and_each_picture_opened_once(
    checkpoint: Checkpoint, base: Path, tmp_path: Path
) -> None:
    """Also where the pass is remembered: what a picture is, is known without opening it."""
    opened = Counter[str]()

    @dataclass(frozen=True)
    class Counted:
        name: str

        def __call__(self, image: Image.Image) -> Image.Image:
            opened[self.name] += 1
            return image

    pictures = [Altered(talker.picture(i), (Counted(f"{i}"),)) for i in range(5)]
    asked = Made([Prompt("Who is this?", picture) for picture in pictures] + [Prompt("Who?", None)] * 3)
    for run in (replace(checkpoint, batch_size=2), load(base, work_dir=tmp_path, batch_size=2)):
        opened.clear()
        asked.times.clear()
        last_prompt_states(run, asked, [1])
        assert opened == {f"{i}": 1 for i in range(5)}
        assert asked.times == dict.fromkeys(range(8), 1)


@pytest.mark.slow
def test_two_processes_compute_the_bundle_of_one(base: Path, tmp_path: Path) -> None:
    """`accelerate launch` with gloo: the passes are shared, the numbers are the same."""
    talker.write_people(tmp_path / "forget.jsonl", range(3))
    talker.write_people(tmp_path / "retain.jsonl", range(3, 7))
    talker.write_refusals(tmp_path)
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    for name, start in (("one", [sys.executable]), ("two", launch)):
        command = [*start, "-m", "mllmeraser.cli", "compute", base, "--forget", "forget.jsonl"]
        command += ["--retain", "retain.jsonl", "--recall", "recall.jsonl", "--erasure", "erasure.jsonl"]
        command += ["--layers=2", "--strength=1", "--gate-shape=step", "--batch-size=3", "-o", f"{name}.safetensors"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("request    request-1") == 1
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-6, atol=0)

"""A work directory: what was finished is never computed twice, and never mistaken for something else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from builders import talker
from torch import Tensor

from mllmeraser.console import console
from mllmeraser.errors import InputError
from mllmeraser.inference.activations import decoder_layers, last_prompt_states, mean_reply_states
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.read import read_records
from mllmeraser.steering.compute import compute
from mllmeraser.steering.in_process import torch_tensors
from mllmeraser.steering.recipe import make_recipe

REPLIES = [torch.tensor([5, 6, 7])] * 6


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talker.make_base(tmp_path_factory.mktemp("base"))


class Passes:
    """Counts the forward passes that begin, and stops one of them if told to."""

    def __init__(self) -> None:
        self.count, self.stop_at = 0, 0

    def __call__(self, *_: object) -> None:
        self.count += 1
        if self.count == self.stop_at:
            raise KeyboardInterrupt


@contextmanager
def counting(checkpoint: Checkpoint) -> Iterator[Passes]:
    passes = Passes()
    handle = decoder_layers(checkpoint)[0].register_forward_pre_hook(passes)
    try:
        yield passes
    finally:
        handle.remove()


def everything(checkpoint: Checkpoint, prompts: list[Prompt] | None = None) -> list[Tensor]:
    """All three kinds of passes, two prompts at a time."""
    prompts = prompts or talker.prompts()
    states = last_prompt_states(checkpoint, prompts, [1, 2])
    means, counts = mean_reply_states(checkpoint, prompts, REPLIES[: len(prompts)], [1, 2], 3)
    said = greedy_reply_ids(checkpoint, prompts, max_new_tokens=4)
    return [states[1], states[2], means[1], means[2], counts, *said]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_second_run_makes_no_pass_and_gives_the_same(base: Path, tmp_path: Path) -> None:
    plain = everything(load(base, batch_size=2))
    with counting(load(base, work_dir=tmp_path / "work", batch_size=2)) as _:
        first = everything(load(base, work_dir=tmp_path / "work", batch_size=2))
    again = load(base, work_dir=tmp_path / "work", batch_size=2)
    with counting(again) as passes:
        second = everything(again)
    assert passes.count == 0
    assert same(first, plain) and same(second, plain)


def test_without_a_work_directory_nothing_is_kept(base: Path) -> None:
    checkpoint = load(base, batch_size=2)
    with counting(checkpoint) as passes:
        everything(checkpoint)
        once = passes.count
        everything(checkpoint)
    assert passes.count == 2 * once > 0


@pytest.mark.parametrize("stop_at", [1, 2, 5, 9])
def test_a_killed_run_repeats_nothing_that_was_finished(base: Path, tmp_path: Path, stop_at: int) -> None:
    with counting(whole := load(base, batch_size=2)) as passes:
        expected = everything(whole)
    needed = passes.count
    killed = load(base, work_dir=tmp_path / "work", batch_size=2)
    with counting(killed) as passes:
        passes.stop_at = stop_at
        with pytest.raises(KeyboardInterrupt):
            everything(killed)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    resumed = load(base, work_dir=tmp_path / "work", batch_size=2)
    with counting(resumed) as passes:
        found = everything(resumed)
    assert same(found, expected)
    # Six prompts are two batches a modality: four passes of states, four along replies, then replies of four each.
    finished = stop_at - 1 if stop_at <= 9 else 8
    assert passes.count == needed - finished
    assert all((tmp_path / "work" / name).stat().st_mtime_ns == when for name, when in kept.items())


@pytest.mark.parametrize("damage", ["cut", "bit", "emptied"])
def test_a_damaged_entry_is_noticed_and_made_anew(
    base: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(console, "print", lambda text, **_: said.append(text))
    expected = everything(load(base, work_dir=tmp_path, batch_size=2))
    entry = sorted(tmp_path.iterdir())[0]
    data = entry.read_bytes()
    entry.write_bytes({"cut": data[: len(data) // 2], "bit": data[:-1] + bytes([data[-1] ^ 1]), "emptied": b""}[damage])
    again = load(base, work_dir=tmp_path, batch_size=2)
    with counting(again) as passes:
        assert same(everything(again), expected)
    assert passes.count > 0
    assert said == [f"work directory: {entry.name} was damaged and is made anew"]
    assert entry.read_bytes() == data


def test_another_checkpoint_another_precision_and_another_template_miss(base: Path, tmp_path: Path) -> None:
    everything(load(base, work_dir=tmp_path / "work", batch_size=2))
    template = talker.make_base(tmp_path / "template") / "chat_template.jinja"
    template.write_text(template.read_text().replace("USER:", "USER :"))
    for other, dtype in (
        (talker.make_base(tmp_path / "seed", seed=1), "auto"),
        (base, "bfloat16"),
        (template.parent, "auto"),
    ):
        checkpoint = load(other, dtype=dtype, work_dir=tmp_path / "work", batch_size=2)
        with counting(checkpoint) as passes:
            found = everything(checkpoint)
        assert passes.count > 0
        assert same(found, everything(load(other, dtype=dtype, batch_size=2)))


def test_the_same_checkpoint_in_another_place_hits(base: Path, tmp_path: Path) -> None:
    everything(load(base, work_dir=tmp_path / "work", batch_size=2))
    shutil.copytree(base, tmp_path / "moved")  # keeps the times of the files
    moved = load(tmp_path / "moved", work_dir=tmp_path / "work", batch_size=2)
    with counting(moved) as passes:
        everything(moved)
    assert passes.count == 0


def test_another_prompt_another_picture_and_other_bytes_of_a_picture_miss(base: Path, tmp_path: Path) -> None:
    checkpoint = load(base, work_dir=tmp_path / "work", batch_size=2)
    file = tmp_path / "a.png"
    talker.picture(1).save(file)
    asked = [Prompt("Who is this?", talker.picture(1)), Prompt("Who?", None), Prompt("Who is this?", file)]
    everything(checkpoint, asked)
    changed = {0: Prompt("Who is this?", talker.picture(2)), 1: Prompt("What?", None), 2: asked[2]}
    talker.picture(2).save(file)
    for row, prompt in changed.items():
        with counting(checkpoint) as passes:
            last_prompt_states(checkpoint, [prompt], [1, 2])
        assert passes.count == 1, row


def test_a_picture_in_memory_of_the_same_bytes_and_another_shape_misses(base: Path, tmp_path: Path) -> None:
    checkpoint = load(base, work_dir=tmp_path, batch_size=2)
    with counting(checkpoint) as passes:
        for size in ((16, 8), (8, 16), (16, 8)):
            image = talker.picture(1).resize(size)
            last_prompt_states(checkpoint, [Prompt("Who is this?", image)], [1])
    assert passes.count == 2


def test_other_blocks_and_other_replies_miss(base: Path, tmp_path: Path) -> None:
    checkpoint = load(base, work_dir=tmp_path, batch_size=2)
    everything(checkpoint)
    with counting(checkpoint) as passes:
        last_prompt_states(checkpoint, talker.prompts()[4:5], [1])
        mean_reply_states(checkpoint, talker.prompts()[4:5], [torch.tensor([5, 6, 8])], [1, 2], 3)
        mean_reply_states(checkpoint, talker.prompts()[4:5], REPLIES[:1], [1, 2], 2)
        greedy_reply_ids(checkpoint, talker.prompts()[4:5], max_new_tokens=3)
    assert passes.count == 6


def test_a_work_directory_that_cannot_be_made_is_an_error(base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/work: cannot be used as a work directory \("):
        load(base, work_dir=tmp_path / "file" / "work")


@pytest.mark.slow
def test_a_whole_computation_is_made_again_without_a_pass_of_the_base(base: Path, tmp_path: Path) -> None:
    """The trials' steered models are copies of the base: their passes are kept too, under another name."""
    forget = read_records(talker.write_people(tmp_path / "forget.jsonl", range(3)))
    retain = read_records(talker.write_people(tmp_path / "retain.jsonl", range(3, 7)))
    recall, erasure = talker.write_refusals(tmp_path)
    recipe = make_recipe("llava", {"recall": recall, "erasure": erasure, "layers": "1", "strength": "1"})
    first = compute(load(base, work_dir=tmp_path / "work", batch_size=2), forget, retain, recipe).bundle
    entries = {path.name for path in (tmp_path / "work").iterdir()}
    again = load(base, work_dir=tmp_path / "work", batch_size=2)
    with counting(again) as passes:
        second = compute(again, forget, retain, recipe).bundle
    assert passes.count == 0
    assert {path.name for path in (tmp_path / "work").iterdir()} == entries
    assert second.metadata == first.metadata
    assert same(*(list(torch_tensors(bundle).values()) for bundle in (second, first)))

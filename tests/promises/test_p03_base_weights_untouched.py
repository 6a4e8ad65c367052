"""P3. Base weights untouched: every base shard bit-identical, and only ``*.steering.*`` tensors added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny
from builders.checkpoints import contents, make_base, make_bundle
from safetensors.torch import load_file

from mllmeraser.disk import link
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source

STEERING = "mllmeraser-steering.safetensors"


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("mode", ["auto", "copy"])
def test_every_shard_has_the_sha256_of_the_bases(
    family: tiny.Family, sharded: bool, mode: link.Link, tmp_path: Path
) -> None:
    base = make_base(tmp_path / "base", family, sharded)
    export(Source(base), [make_bundle(base, family=family)], tmp_path / "out", link=mode)
    before, after = sorted(base.glob("model*.safetensors")), sorted((tmp_path / "out").glob("mllmeraser-base-*"))
    assert before
    assert [sha256_of(path) for path in after] == [sha256_of(path) for path in before]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_only_steering_tensors_are_added(family: tiny.Family, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", family, sharded=True)
    export(Source(base), [make_bundle(base, family=family)], tmp_path / "out")
    before, after = (_tensors(directory) for directory in (base, tmp_path / "out"))
    added = after.keys() - before.keys()
    assert added == load_file(tmp_path / "out" / STEERING).keys()
    assert all(".steering.0." in name for name in added)
    assert all(torch.equal(after[name], before[name]) for name in before)


def _tensors(directory: Path) -> dict[str, Any]:
    return {name: t for path in directory.glob("*.safetensors") for name, t in load_file(path).items()}


def test_nothing_we_do_writes_into_the_base(sharded: Path, tmp_path: Path) -> None:
    """Not even through a hard link: an export, its replacement, a look at it, a load and a save."""
    before, out = contents(sharded), tmp_path / "out"
    export(Source(sharded), [make_bundle(sharded, "first")], out, link="hard")
    export(Source(sharded), [make_bundle(sharded, "second")], out, link="hard", overwrite=True)
    assert verify(out, sharded).ok
    model = tiny.modeling.steered_class("llava").from_pretrained(out)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model.save_pretrained(tmp_path / "saved")
    assert contents(sharded) == before

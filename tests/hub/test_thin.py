"""A thin checkpoint fetches its base: this revision of it, once, and nothing else will do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders import tiny
from builders.checkpoints import make_bundle
from builders.hub_server import BASE, FakeHub

from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.modeling_mllmeraser import SteeringError, steered_class
from mllmeraser.steering.in_process import torch_tensors


def test_it_is_fetched_at_its_revision_and_then_found(
    hub: FakeHub, published: str, base_directory: Path, tmp_path: Path
) -> None:
    bundle, thin = make_bundle(base_directory), tmp_path / "thin"
    export(Source(base_directory, BASE, published), [bundle], thin, thin=True)
    load = steered_class("llava").from_pretrained
    with pytest.raises(SteeringError, match="neither in the cache nor can be fetched; hf download"):
        load(thin, local_files_only=True)
    ids = torch.arange(3, 11).unsqueeze(0)
    expected = tiny.steered(tiny.model("llava"), (bundle.steering(), torch_tensors(bundle)))
    with torch.no_grad():
        assert torch.equal(load(thin).eval()(input_ids=ids).logits, expected(input_ids=ids).logits)
        assert torch.equal(load(thin, local_files_only=True).eval()(input_ids=ids).logits, expected(ids).logits)


def test_a_base_that_is_gone_is_an_error(hub: FakeHub, published: str, base_directory: Path, tmp_path: Path) -> None:
    export(Source(base_directory, BASE, published), [make_bundle(base_directory)], tmp_path / "thin", thin=True)
    del hub.repos[BASE]
    with pytest.raises(SteeringError, match=f"the base {BASE}@{published} is neither"):
        steered_class("llava").from_pretrained(tmp_path / "thin")

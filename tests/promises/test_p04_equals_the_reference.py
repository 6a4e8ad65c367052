"""P4. Native steering equals the reference: the exported checkpoint, loaded, against a hook oracle and the base.

The many ways of running are compared in tests/modeling; here what stands between them and a user: bundle and export.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import oracle, tiny
from builders.checkpoints import make_base, make_bundle

from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source
from mllmeraser.steering.in_process import torch_tensors


def _load(family: tiny.Family, directory: Path, **options: Any) -> Any:
    return tiny.modeling.steered_class(family).from_pretrained(directory, **options).eval()


@pytest.mark.parametrize("image", [False, True])
@torch.no_grad()
def test_an_export_of_two_bundles_equals_the_oracle(family: tiny.Family, image: bool, tmp_path: Path) -> None:
    base, native = make_base(tmp_path / "base", family, sharded=True), tiny.model(family)
    bundles = [
        make_bundle(base, "r0", family, positions="last", steps=3),
        make_bundle(base, "r1", family, layers=(2, 3), gate_layer=1, shape="step", threshold=0.2),
    ]
    export(Source(base), bundles, tmp_path / "out")
    batch = tiny.prompt(family, 9, 7, 6, image=image)
    part = tiny.merged(*[(bundle.steering(), torch_tensors(bundle)) for bundle in bundles])
    steered = _load(family, tmp_path / "out")(**batch).logits
    assert torch.equal(steered, oracle.logits(native, *part, batch))
    assert not torch.equal(steered, native(**batch).logits)


@pytest.mark.parametrize("off", [{"steering_enabled": False}, {"steering_strength": 0}])
@pytest.mark.parametrize("image", [False, True])
@torch.no_grad()
def test_switched_off_an_export_equals_the_base(
    family: tiny.Family, image: bool, off: dict[str, Any], tmp_path: Path
) -> None:
    base = make_base(tmp_path / "base", family)
    export(Source(base), [make_bundle(base, family=family)], tmp_path / "out")
    batch = tiny.prompt(family, 9, 7, 6, image=image)
    assert torch.equal(_load(family, tmp_path / "out", **off)(**batch).logits, tiny.model(family)(**batch).logits)

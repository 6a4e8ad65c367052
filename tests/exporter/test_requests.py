"""Several requests in one checkpoint: order, switches, and what is left when one of them goes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import tiny
from builders.checkpoints import edit_json, make_base, make_bundle
from torch import Tensor

from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class

# They meet at layer 2, where their deltas add; each also moves a layer that the other does not.
REQUESTS: dict[str, dict[str, Any]] = {
    "a": {"kind": "kernel", "shape": "step", "threshold": 0.5, "layers": (1, 2), "steps": 3, "seed": 3},
    "b": {"kind": "linear", "positions": "last", "layers": (2, 3), "seed": 4},
}


@pytest.fixture(params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest) -> tiny.Family:
    return request.param


@pytest.fixture
def base(tmp_path: Path, family: tiny.Family) -> Path:
    return make_base(tmp_path / "base", family)


def exported(base: Path, family: tiny.Family, ids: str) -> Path:
    """A checkpoint of these requests, in this order, beside the base."""
    directory = base.parent / ids
    export(Source(base), [make_bundle(base, id_, family, **REQUESTS[id_]) for id_ in ids], directory, link="copy")
    return directory


def outputs(directory: Path, family: tiny.Family, **options: Any) -> list[Tensor]:
    """Logits of a batch, and tokens and scores of a generation, of the checkpoint as it loads."""
    model = tiny.endless(steered_class(family).from_pretrained(directory, **options))
    batch = tiny.prompt(family, 5, 6, 7, 8)
    with torch.no_grad():
        replies = model.generate(
            **batch, max_new_tokens=5, do_sample=False, output_scores=True, return_dict_in_generate=True
        )
        return [model(**batch).logits, replies.sequences, *replies.scores]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def switched(directory: Path, id_: str, enabled: bool) -> Path:
    """The directory, with one request switched in its ``config.json``."""
    steering = json.loads((directory / "config.json").read_text())["steering"]
    for request in steering["requests"]:
        if request["id"] == id_:
            request["enabled"] = enabled
    edit_json(directory / "config.json", steering=steering)
    return directory


def ways_to_switch_off(directory: Path, family: tiny.Family, id_: str) -> list[dict[str, Any]]:
    """What ``from_pretrained`` can be given to switch one request off, the directory being as it was."""
    config = steered_class(family).config_class.from_pretrained(directory)
    for request in config.steering["requests"]:
        if request["id"] == id_:
            request["enabled"] = False
    return [{"config": config}, {"steering": config.steering}]


def test_the_order_does_not_matter(base: Path, family: tiny.Family) -> None:
    """Bit for bit: of two addends the sum does not depend on their order."""
    ab, ba = (outputs(exported(base, family, ids), family) for ids in ("ab", "ba"))
    assert same(ab, ba)
    for alone in ("a", "b"):
        assert not same(ab, outputs(exported(base, family, alone), family))


def test_each_is_switched_off_alone_in_the_configuration(base: Path, family: tiny.Family) -> None:
    both = exported(base, family, "ab")
    for off, left in (("a", "b"), ("b", "a")):
        alone = outputs(exported(base, family, left), family)
        assert same(outputs(switched(both, off, False), family), alone)
        switched(both, off, True)


def test_each_is_switched_off_alone_by_from_pretrained(base: Path, family: tiny.Family) -> None:
    both = exported(base, family, "ab")
    for off, left in (("a", "b"), ("b", "a")):
        alone = outputs(exported(base, family, left), family)
        for options in ways_to_switch_off(both, family, off):
            assert same(outputs(both, family, **options), alone), options.keys()


def test_with_both_off_it_is_the_base(base: Path, family: tiny.Family) -> None:
    both = exported(base, family, "ab")
    for id_ in "ab":
        switched(both, id_, False)
    off = outputs(both, family)
    assert same(off, outputs(both, family, steering_enabled=False))
    with torch.no_grad():
        assert torch.equal(off[0], tiny.model(family)(**tiny.prompt(family, 5, 6, 7, 8)).logits)


def test_verify_tries_each_of_them(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    verification = verify(exported(base, "llava", "ab"), base)
    assert verification.ok
    (acts,) = [check.detail for check in verification.checks if check.name == "steering acts"]
    assert re.search(r": a \d\S*, b \d\S*$", acts)

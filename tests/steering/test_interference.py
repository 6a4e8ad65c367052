"""The gates of one request on the forget set of another, against those that the steered model itself keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import talker
from builders.checkpoints import make_bundle
from torch import Tensor

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.errors import InputError
from mllmeraser.inference.encoding import encode
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.steering.compute import compute
from mllmeraser.steering.in_process import torch_tensors
from mllmeraser.steering.interference import interference
from mllmeraser.steering.recipe import make_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and records of two parties of people, of different number."""
    folder = tmp_path_factory.mktemp("interference")
    talker.make_base(folder / "base")
    talker.write_people(folder / "a.jsonl", range(3))
    talker.write_people(folder / "b.jsonl", range(3, 5))
    talker.write_people(folder / "others.jsonl", range(5, 8))
    talker.write_refusals(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return load(folder / "base")


@pytest.fixture(scope="module")
def sets(folder: Path) -> list[list[Record]]:
    return [read_records(folder / "a.jsonl"), read_records(folder / "b.jsonl")]


FORMS: dict[str, dict[str, Any]] = {
    "kernel": {"kind": "kernel", "layers": (1, 2)},
    "linear": {"kind": "linear", "layers": (1, 3)},
    "shared": {"kind": "kernel", "layers": (2, 3), "gate_layer": 1},
}


def kept_gates(checkpoint: Checkpoint, bundle: Bundle, records: list[Record]) -> Tensor:
    """φ(g) per gate layer and record, (layers, n), as the steered model keeps them beside its cache, one at a time."""
    steering: Any = bundle.steering()
    for entry in steering["requests"]:
        entry["strength"] = 1e-30  # so that a later gate reads the base's state
    model = steered_class("llava").from_base(checkpoint.model, steering, torch_tensors(bundle))
    rows = []
    for record in records:
        with torch.no_grad():
            cache = model(**encode(checkpoint, [record.user_turn], "right"), use_cache=True).past_key_values
        carried = [held for layer in cache.layers if (held := vars(layer).get("carried")) is not None]
        gates = {(index, at): value for at, held in enumerate(carried) for index, value in held.openings.items()}
        rows.append(torch.stack([gates[key][0] for key in sorted(gates)]))
    return torch.stack(rows, dim=1).double()


@pytest.mark.parametrize("form", FORMS)
def test_it_is_what_the_steered_model_reads(
    folder: Path, checkpoint: Checkpoint, sets: list[list[Record]], form: str
) -> None:
    bundles = [make_bundle(folder / "base", id_, **FORMS[form], seed=i) for i, id_ in enumerate("ab")]
    found = interference(replace(checkpoint, batch_size=3), bundles, sets)
    for row, bundle in zip(found.rows, bundles, strict=True):
        for cell, records in zip(row, sets, strict=True):
            gates = kept_gates(checkpoint, bundle, records)
            assert cell.n == len(records)
            assert cell.mean == pytest.approx(float(gates.mean()), rel=1e-4, abs=1e-5)
            assert cell.opens == float((gates >= 0.5).any(dim=0).double().mean())
    assert [[(c.gate_of, c.forget_set_of) for c in row] for row in found.rows] == [
        [("a", "a"), ("a", "b")],
        [("b", "a"), ("b", "b")],
    ]


def test_a_gate_opens_at_its_own_threshold(folder: Path, checkpoint: Checkpoint, sets: list[list[Record]]) -> None:
    values = kept_gates(checkpoint, make_bundle(folder / "base", "a", kind="kernel", layers=(1,)), sets[0])[0]
    for threshold in values.sort().values[[1, 4]].tolist():
        threshold -= 1e-6
        bundle = make_bundle(folder / "base", "a", kind="kernel", layers=(1,), shape="step", threshold=threshold)
        ((cell,),) = interference(checkpoint, [bundle], sets[:1]).rows
        assert cell.opens == float((values >= threshold).double().mean())


def test_one_open_block_is_enough(folder: Path, checkpoint: Checkpoint, sets: list[list[Record]]) -> None:
    form: dict[str, Any] = {"kind": "linear", "layers": (1, 3)}
    values = kept_gates(checkpoint, make_bundle(folder / "base", "a", **form), sets[0])  # (2, n)
    between = float(values[:, (values[0] - values[1]).abs().argmax()].mean())
    assert not torch.equal((values >= between).any(dim=0), (values >= between).all(dim=0))
    bundle = make_bundle(folder / "base", "a", **form, shape="step", threshold=between)
    ((cell,),) = interference(checkpoint, [bundle], sets[:1]).rows
    assert cell.opens == float((values >= between).any(dim=0).double().mean())


def bundle_of(folder: Path, checkpoint: Checkpoint, name: str) -> Bundle:
    given = {"layers": "1", "gate_layer": "own", "gate_shape": "step:0.5", "bandwidth": "1", "strength": "1"}
    pairs = {"recall": folder / "recall.jsonl", "erasure": folder / "erasure.jsonl"}
    recipe = make_recipe("llava", {**given, **pairs, **talker.ADDED})
    forget, retain = read_records(folder / f"{name}.jsonl"), read_records(folder / "others.jsonl")
    return compute(checkpoint, forget, retain, recipe, request_id=name).bundle


def test_a_computed_gate_reads_on_its_own_set_what_its_statistics_say(
    folder: Path, checkpoint: Checkpoint, sets: list[list[Record]]
) -> None:
    bundles = [bundle_of(folder, checkpoint, name) for name in "ab"]
    found = interference(checkpoint, bundles, sets)
    for index, bundle in enumerate(bundles):
        own = found.rows[index][index]
        assert own.mean == pytest.approx(bundle.metadata.requests[0].statistics[1].forget_mean, rel=1e-4)


def test_its_matrix_and_its_document(folder: Path, checkpoint: Checkpoint, sets: list[list[Record]]) -> None:
    found = interference(checkpoint, [make_bundle(folder / "base", id_) for id_ in ("a", "longer-name")], sets)
    document = json.loads(json.dumps(found.document()))
    assert (document["schema"], document["requests"]) == (1, ["a", "longer-name"])
    assert [set(cell) for cell in document["cells"]] == [{"gate_of", "forget_set_of", "n", "mean", "opens"}] * 4
    head, *body = found.lines()[:3]
    assert head.split() == ["gate", "of", "a", "longer-name"]
    assert [line.split()[0] for line in body] == ["a", "longer-name"]
    assert len({len(line) for line in (head, *body)}) == 1


def refused(*arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        interference(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_compared_is_one_line(folder: Path, checkpoint: Checkpoint, sets: list[list[Record]]) -> None:
    one, two = make_bundle(folder / "base", "a"), make_bundle(folder / "base", "b")
    assert refused(checkpoint, [one, two], sets[:1]) == "give one --forget for each --bundle, in the same order"
    assert refused(checkpoint, [], []) == "give one --forget for each --bundle, in the same order"
    assert refused(checkpoint, [one, one], sets).startswith("two requests have the id 'a'")
    two.metadata.base.config_sha256 = "0" * 64
    assert "the bundle of request 'b' does not fit" in refused(checkpoint, [one, two], sets)
    steered = Checkpoint(checkpoint.model, checkpoint.processor, checkpoint.source, "llava", steered=True)
    assert "already steered" in refused(steered, [one], sets[:1])

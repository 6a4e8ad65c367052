"""What gates have in common lies in a checkpoint once, is read once, and changes nothing of what comes out."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import bundles, tiny
from builders.checkpoints import edit_json, identity
from safetensors.torch import load_file
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.format_mllmeraser import STEERING_FILE, SteeringError
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.modeling_patches.steering_mllmeraser import KeptSteering, RequestSteering

NAMES = (tiny.NAME, 78, 79)
KEPT = 2  # the first landmarks of each gate
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in tiny.EVERY_FAMILY if name != "llava"]


@dataclass
class World:
    """A base on disk, and bundles of three requests for it."""

    family: tiny.Family
    base: PreTrainedModel
    path: Path
    bundles: list[Bundle]

    def export(self, output: Path, *indices: int, common: bool = True) -> Path:
        export(Source(self.path), [self.bundles[i] for i in indices], output, link="copy", common=common)
        return output

    def load(self, directory: Path) -> Any:
        return tiny.endless(steered_class(self.family).from_pretrained(directory))

    def batch(self) -> dict[str, Tensor]:
        """A prompt about each of the three, and one about nobody."""
        batch = tiny.prompt(self.family, 9, 9, 9, 9)
        batch["input_ids"] = batch["input_ids"].clamp(max=70)
        for row, name in enumerate(NAMES):
            batch["input_ids"][row, 3 + row] = name
        return batch


def make(family: tiny.Family, folder: Path, projection: int | None = 16, scope: str = "conversation") -> World:
    base = tiny.knowing(family)
    with torch.no_grad():
        base.get_input_embeddings().weight[list(NAMES[1:])] *= 100
    base.save_pretrained(folder / "base")
    known = identity(family, sha256_of(folder / "base" / "config.json"))
    found = []
    steps = 1 if scope == "token" else 4
    for number, name in enumerate(NAMES):
        part = tiny.recognising(base, name=name, projection=projection, steps=steps, scope=scope)
        part[1]["requests.0.layers.1.weights"] = torch.tensor([-0.2, -0.1, 1.0])
        for layer in (2, 3):
            part[1][f"requests.0.layers.{layer}.states"] *= number + 1
        bundle = bundles.bundle(known, part, f"r{number}")
        bundle.metadata.gate.kept = KEPT
        found.append(bundle)
    return World(family, base, folder / "base", found)


@pytest.fixture(params=["llava", *OTHERS])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return make(request.param, tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("scope", ["conversation", "token"])
@pytest.mark.parametrize("projection", [16, None])
def test_the_same_comes_out(tmp_path: Path, projection: int | None, scope: str) -> None:
    world = make("llava", tmp_path, projection, scope)
    one = world.load(world.export(tmp_path / "shared", 0, 1, 2))
    apart = world.load(world.export(tmp_path / "apart", 0, 1, 2, common=False))
    batch = world.batch()
    plain, logits = world.base(**batch).logits, one(**batch).logits
    assert torch.equal(logits, apart(**batch).logits)
    assert torch.equal(logits[3], plain[3])
    assert all(not torch.equal(logits[row], plain[row]) for row in range(3))
    replies = [m.generate(**batch, max_new_tokens=5, do_sample=False) for m in (one, apart)]
    assert torch.equal(*replies)


@torch.no_grad()
def test_a_request_is_the_same_whoever_else_is_there(world: World, tmp_path: Path) -> None:
    """Withdrawn by a switch or by another export, even the last other one: bit for bit."""
    batch = world.batch()
    model = world.load(world.export(tmp_path / "all", 0, 1, 2))
    logits, plain = model(**batch).logits, world.base(**batch).logits
    for index in (0, 1):
        model.config.steering["requests"][index]["enabled"] = False
        after = model(**batch).logits
        assert torch.equal(after[index], plain[index])
        assert torch.equal(after[2:], logits[2:])
    alone = world.load(world.export(tmp_path / "alone", 2))
    assert torch.equal(alone(**batch).logits, after)
    values = [g_of(each, batch) for each in (model, alone)]
    assert torch.equal(*values)


def g_of(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """g of the last request's gate, as it is read in a forward."""
    gate = [m for m in model.modules() if isinstance(m, RequestSteering) and m.reads][-1]
    seen: list[Tensor] = []
    hook = gate.register_forward_hook(lambda m, given, out: seen.append(m.value(given[0].float(), given[5])))
    model(**batch)
    hook.remove()
    return seen[0]


@torch.no_grad()
def test_it_is_held_and_read_once(world: World, tmp_path: Path) -> None:
    sizes = [world.export(tmp_path / str(n), *range(n)) / STEERING_FILE for n in (1, 2, 3)]
    held = [sum(t.nbytes for t in load_file(path).values()) for path in sizes]
    shared = (16 * tiny.HIDDEN) + 4 * KEPT * 16
    whole = sum(array.nbytes for array in world.bundles[0].tensors.values())
    assert held == [whole, 2 * whole - shared, 3 * whole - 2 * shared]
    model = world.load(tmp_path / "3")
    (kept,) = [module for module in model.modules() if isinstance(module, KeptSteering)]
    calls: list[int] = []
    kept.register_forward_hook(lambda *_: calls.append(1))
    model(**world.batch())
    assert len(calls) == 1


@torch.no_grad()
def test_it_is_saved_copied_pickled_and_verified(world: World, tmp_path: Path) -> None:
    directory = world.export(tmp_path / "all", 0, 1, 2)
    assert verify(directory, world.path).ok
    model, batch = world.load(directory), world.batch()
    logits = model(**batch).logits
    model.save_pretrained(tmp_path / "saved")
    for other in (world.load(tmp_path / "saved"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(**batch).logits, logits)
    tensors = [parameter for module in model.half()._steering_modules() for parameter in module.parameters()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32, torch.int8}


@torch.no_grad()
def test_a_prompt_in_pieces_is_recognised(world: World, tmp_path: Path) -> None:
    model, ids = world.load(world.export(tmp_path / "all", 0, 1, 2)), world.batch()["input_ids"]
    whole, cache = model(input_ids=ids).logits, DynamicCache(config=model.config.get_text_config())
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    last = [model(input_ids=ids[:, i : i + 1], **{name: cache}).logits for i in range(ids.shape[1])][-1]
    assert torch.equal(last[:3].argmax(-1), whole[:3, -1:].argmax(-1))


@pytest.mark.parametrize("damage", ["landmark", "signs", "missing", "entry", "count", "another"])
def test_damage_is_seen(tmp_path: Path, damage: str) -> None:
    world = make("llava", tmp_path)
    directory = world.export(tmp_path / "all", 0, 1)
    path = directory / STEERING_FILE
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("kept0.landmarks"))
    steering = json.loads((directory / "config.json").read_text())["steering"]
    if damage == "landmark":
        tensors[name] = tensors[name] * 0.5
    elif damage == "signs":
        tensors[name.replace("landmarks", "projection")][0] *= -1
    elif damage == "missing":
        del tensors[name]
    elif damage == "entry":
        steering["requests"][1].pop("kept")
    elif damage == "count":
        steering["kept"][0]["landmarks"] = 1
    else:
        steering["requests"][1]["kept"] = 1
    tiny.write_steering(directory, tensors)
    steering["sha256"] = tiny.steering_sha256(directory)
    edit_json(directory / "config.json", steering=steering)
    tiny.seal(directory)
    assert not verify(directory, world.path).ok
    if damage in ("missing", "entry", "count", "another"):
        with pytest.raises(SteeringError, match="export again"):
            world.load(directory)


def test_what_was_never_filled_raises(tmp_path: Path) -> None:
    world = make("llava", tmp_path)
    model = world.load(world.export(tmp_path / "all", 0, 1))
    (kept,) = [module for module in model.modules() if isinstance(module, KeptSteering)]
    with torch.no_grad():
        kept.landmarks.fill_(torch.nan)
    kept.filled = False
    with pytest.raises(SteeringError, match="never filled"):
        model(**world.batch())


def test_a_checkpoint_of_the_plain_export_shares_nothing(tmp_path: Path) -> None:
    world = make("llava", tmp_path)
    names = load_file(world.export(tmp_path / "apart", 0, 1, common=False) / STEERING_FILE)
    assert not any("kept" in name for name in names)


def test_gates_that_differ_share_nothing(tmp_path: Path) -> None:
    """Other signs, other landmarks, another layer, or a gate that does not say which are of what must stay."""
    world = make("llava", tmp_path)
    _, second, third = world.bundles
    second.tensors["requests.0.layers.1.projection"][0] *= -1  # type: ignore[index]
    third.metadata.gate.kept = None
    steering = json.loads((world.export(tmp_path / "all", 0, 1, 2) / "config.json").read_text())["steering"]
    assert [request.get("kept") for request in steering["requests"]] == [0, 1, None]
    assert len(steering["kept"]) == 2
    assert verify(tmp_path / "all", world.path).ok

"""``--gate-scope token``: fitted against whole conversations of what is kept, and steered without memory."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import plain_states, talker

from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.errors import InputError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.encoding import encode
from mllmeraser.inference.gates import read_gates
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.records.read import read_records
from mllmeraser.steering.compute import Computation, compute
from mllmeraser.steering.forms import NullSpace
from mllmeraser.steering.gate import GateFits, GateRecipe
from mllmeraser.steering.in_process import torch_tensors
from mllmeraser.steering.needs import needs
from mllmeraser.steering.recipe import make_recipe
from mllmeraser.steering.tokens import (
    KEPT_POSITIONS,
    LONGEST_REPLY,
    OF_PICTURE,
    POSITIONS,
    Places,
    forget_positions,
    furthest,
    kept_positions,
    no_replies,
    stream_token_states,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and its records."""
    folder = tmp_path_factory.mktemp("tokens")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(3))
    talker.write_people(folder / "retain.jsonl", range(3, 8))
    talker.write_refusals(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return load(folder / "base")


def recipe(folder: Path, **given: Any) -> Any:
    own = {"recall": folder / "recall.jsonl", "erasure": folder / "erasure.jsonl"}
    return make_recipe("llava", {**own, "gate_scope": "token", "edit": "add", "augment": False, **given})


@pytest.fixture(scope="module")
def computed(folder: Path, checkpoint: Checkpoint) -> Computation:
    forget, retain = read_records(folder / "forget.jsonl"), read_records(folder / "retain.jsonl")
    return compute(checkpoint, forget, retain, recipe(folder))


def test_the_bundle_says_so_and_holds_one_direction_a_block(computed: Computation) -> None:
    meta = computed.bundle.metadata
    assert (meta.gate.scope, meta.gate_layer, meta.reply_steps, meta.prompt_positions) == ("token", None, 1, "all")
    assert len(meta.layers) == 1
    assert len(computed.bundle.tensors[f"requests.0.layers.{meta.layers[0]}.direction"]) == 1
    assert computed.calibration.curve


def test_it_is_exported_for_servers_and_verifies(computed: Computation, folder: Path, tmp_path: Path) -> None:
    save_bundle(computed.bundle, tmp_path / "b.safetensors")
    bundle = copy.deepcopy(computed.bundle)
    bundle.metadata.requests[0].strength = 1.0  # on a random model calibration may find nothing worth a push
    export(Source(folder / "base"), [bundle], tmp_path / "out")
    checks = {check.name: check for check in verify(tmp_path / "out", folder / "base").checks}
    assert {name for name, check in checks.items() if not check.ok} <= {"gates open"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "--gate-scope token" in card
    assert "every token that opens the gate" in card
    assert '"AutoModel": "modeling_mllmeraser.MllmEraserLlavaModel"' in (tmp_path / "out" / "config.json").read_text()


def test_beside_another_scope_it_is_not_for_servers(computed: Computation, folder: Path, tmp_path: Path) -> None:
    other = copy.deepcopy(computed.bundle)
    other.metadata.requests[0].id, other.metadata.gate.scope = "other", "prompt"
    export(Source(folder / "base"), [computed.bundle, other], tmp_path / "out")
    assert "MllmEraserLlavaModel" not in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize("given", [{"reply_steps": "4"}, {"prompt_positions": "last"}, {"gate_layer": "1"}])
def test_what_it_excludes_is_named(folder: Path, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="gate-scope token moves every position by its own gate"):
        recipe(folder, **given)


def test_states_are_those_of_prompt_and_reply_at_the_drawn_positions(checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompts = talker.prompts()
    replies = greedy_reply_ids(checkpoint, prompts, max_new_tokens=LONGEST_REPLY)
    files = stream_token_states(replace(checkpoint, batch_size=3), prompts, replies, [1, 2], tmp_path, seed=7)
    for number, prompt in enumerate(prompts):
        (reply,) = greedy_reply_ids(checkpoint, [prompt], max_new_tokens=LONGEST_REPLY)
        states, end = plain_states.block_states(checkpoint, prompt, reply)
        ids = encode(checkpoint, [prompt], "right")["input_ids"][0].tolist()
        picture = [column for column, token in enumerate(ids) if token == checkpoint.processor.image_token_id]
        assert bool(picture) == bool(prompt.image)
        places = Places(end, end + len(reply), picture)
        columns = kept_positions(places, random.Random(f"positions 7 {number}"))
        rows = range(number * KEPT_POSITIONS, (number + 1) * KEPT_POSITIONS)
        for layer, file in files.items():
            torch.testing.assert_close(file.rows(rows), states[layer][columns], rtol=1e-4, atol=1e-4)


def test_a_gate_is_reported_at_its_furthest_open_token(computed: Computation, checkpoint: Checkpoint) -> None:
    bundle = computed.bundle
    (layer,) = bundle.metadata.layers
    model = steered_class("llava").from_base(checkpoint.model, bundle.steering(), torch_tensors(bundle))
    found = read_gates(replace(checkpoint, model=model, steered=True, batch_size=3), talker.prompts())
    tensors = {name.rpartition(".")[2]: tensor for name, tensor in torch_tensors(bundle).items()}
    for prompt, gates in zip(talker.prompts(), found, strict=True):
        states, _ = plain_states.block_states(checkpoint, prompt)
        unit = torch.nn.functional.normalize(states[layer], dim=-1)
        squared = (unit[:, None] - tensors["landmarks"]).square().sum(-1)
        g = (torch.exp(-2 * squared / tensors["bandwidth"]) * tensors["weights"]).sum(-1)
        assert [gate.value for gate in gates] == pytest.approx([float(g.max())], abs=1e-3)


@pytest.mark.parametrize("projections", [None, 6], ids=["state", "projections"])
def test_a_gate_is_judged_at_the_furthest_of_all_positions(checkpoint: Checkpoint, projections: int | None) -> None:
    prompts = talker.prompts()
    replies = greedy_reply_ids(checkpoint, prompts, max_new_tokens=LONGEST_REPLY)
    width = checkpoint.model.config.get_text_config().hidden_size
    generator = torch.Generator().manual_seed(0)
    recipe = GateRecipe("kernel", NullSpace("soft", 1.0), 0.1, "relative", projections=projections)
    settings = [replace(recipe, bandwidth=bandwidth) for bandwidth in (0.5, 1.0)]
    cloud = [torch.randn(40, width, generator=generator) for _ in range(2)]
    gates = {layer: [GateFits(cloud[k], cloud[1 - k], settings).gates() for k in range(2)] for layer in (1, 2)}
    groups = [number // 2 % 2 for number in range(len(prompts))]  # not as batches are made, by modality
    for told in (replies, no_replies(prompts)):
        found = furthest(replace(checkpoint, batch_size=3), prompts, told, gates, groups)
        for number, (prompt, reply) in enumerate(zip(prompts, told, strict=True)):
            states, _ = plain_states.block_states(checkpoint, prompt, reply)
            for layer, values in found.items():
                for value, gate in zip(values[number].tolist(), gates[layer][groups[number]], strict=True):
                    g = gate(states[layer])
                    assert value == pytest.approx(float(g.max()), abs=1e-4)
                    assert float(g.max()) > float(g.min()) + 1e-3


def test_half_of_the_forget_positions_have_seen_the_whole_picture() -> None:
    drawn = forget_positions(Places(600, 600, range(5, 581)), random.Random(0))
    assert len(drawn) == POSITIONS and drawn[0] == 599
    assert sum(column >= 580 for column in drawn) >= POSITIONS // 2
    assert min(drawn) < 580 and max(drawn) < 600
    assert all(0 <= column < 1 for column in forget_positions(Places(1, 1), random.Random(0)))  # one token, no picture


def test_two_thirds_of_the_kept_positions_are_of_the_picture_and_some_near_the_reply() -> None:
    drawn = kept_positions(Places(600, 620, range(5, 105)), random.Random(0))
    assert len(drawn) == KEPT_POSITIONS and drawn[0] == 599
    assert sum(5 <= column < 105 for column in drawn) >= OF_PICTURE
    assert sum(568 <= column < 620 for column in drawn) >= POSITIONS // 2
    words = kept_positions(Places(600, 620), random.Random(0))
    assert len(words) == KEPT_POSITIONS and max(words) < 620
    assert all(0 <= column < 1 for column in kept_positions(Places(1, 1), random.Random(0)))


def test_room_for_all_the_states_is_asked_for(folder: Path) -> None:
    forget, retain = read_records(folder / "forget.jsonl"), read_records(folder / "retain.jsonl")
    token, prompt = (
        needs(Source(folder / "base"), forget, retain, recipe(folder, gate_scope=scope), "cpu", "auto").disk
        for scope in ("token", "prompt")
    )
    assert token == KEPT_POSITIONS * prompt

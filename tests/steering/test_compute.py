"""From records to a bundle on a tiny model that has no refusal of its own and is given one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import plain_states, talker

from mllmeraser.bundle.bundle import load_bundle, save_bundle
from mllmeraser.errors import InputError, QualityGateError
from mllmeraser.exporter.directory import export
from mllmeraser.inference.encoding import encode
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.steering.calibrate import ERASED, KEPT, STRENGTHS
from mllmeraser.steering.compute import Computation, compute
from mllmeraser.steering.in_process import torch_tensors
from mllmeraser.steering.recipe import make_recipe
from mllmeraser.steering.tokens import furthest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and its records."""
    folder = tmp_path_factory.mktemp("compute")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(3))
    talker.write_people(folder / "retain.jsonl", range(3, 8))
    talker.write_refusals(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return load(folder / "base")


@pytest.fixture(scope="module")
def forget(folder: Path) -> list[Record]:
    return read_records(folder / "forget.jsonl")


@pytest.fixture(scope="module")
def retain(folder: Path) -> list[Record]:
    return read_records(folder / "retain.jsonl")


def own(folder: Path, **given: Any) -> dict[str, Any]:
    """Options, with recall and erasure records of our own."""
    return {"recall": folder / "recall.jsonl", "erasure": folder / "erasure.jsonl", **talker.ADDED, **given}


@pytest.fixture(scope="module")
def computed(folder: Path, checkpoint: Checkpoint, forget: list[Record], retain: list[Record]) -> Computation:
    """With everything left to calibration."""
    return compute(checkpoint, forget, retain, make_recipe("llava", own(folder)), seed=5)


def test_the_bundle_is_valid_and_says_what_was_done(computed: Computation, tmp_path: Path) -> None:
    save_bundle(computed.bundle, tmp_path / "b.safetensors")
    meta = load_bundle(tmp_path / "b.safetensors").metadata
    request = meta.requests[0]
    assert (request.id, request.n_forget, request.n_retain, meta.seed) == ("request-1", 12, 20, 5)
    assert (meta.base.model_type, meta.base.hidden_size, meta.base.num_layers) == ("llava", 32, 4)
    assert (meta.method.direction, meta.method.perturbation, meta.method.preset) == ("own", "none", None)
    assert (meta.gate.kind, meta.gate.shape) == ("kernel", "step")
    assert meta.gate.threshold is not None
    assert meta.strength == request.strength
    assert request.statistics.keys() == {meta.layers[0] if meta.gate_layer is None else meta.gate_layer}
    assert all(0 <= row.auroc_train <= 1 and row.auroc_heldout is not None for row in request.statistics.values())
    assert meta.reply_steps == 7  # the tokens of "I cannot help with that request ."


def test_a_seed_gives_the_same_bytes(
    computed: Computation, folder: Path, forget: list[Record], retain: list[Record], tmp_path: Path
) -> None:
    again = compute(load(folder / "base"), forget, retain, make_recipe("llava", own(folder)), seed=5)
    save_bundle(computed.bundle, tmp_path / "a.safetensors")
    save_bundle(again.bundle, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_nobody_is_named_in_the_bundle(computed: Computation, folder: Path, tmp_path: Path) -> None:
    save_bundle(computed.bundle, tmp_path / "b.safetensors")
    data = (tmp_path / "b.safetensors").read_bytes()
    for secret in ("subject-", "erasure-0", "baker", "Graz", "person", "forget-0.png", str(folder)):
        assert secret.encode() not in data


def test_the_base_is_left_as_it_was(computed: Computation, checkpoint: Checkpoint, folder: Path) -> None:
    fresh = load(folder / "base").model.state_dict()
    assert fresh.keys() == checkpoint.model.state_dict().keys()
    assert all(torch.equal(value, fresh[name]) for name, value in checkpoint.model.state_dict().items())
    assert type(checkpoint.model) is type(load(folder / "base").model)


@pytest.mark.parametrize(
    "given",
    [
        {"layers": "1,2", "gate_layer": "0", "gate_shape": "step:0.25", "strength": "0.3", "bandwidth": "0.8"},
        {"layers": "2", "gate_layer": "own", "gate_shape": "dead-zone:0.1", "strength": "3", "reply_steps": "2"},
        {"layers": "1,3", "gate_layer": "own", "gate": "linear", "gate_shape": "clip", "strength": "-1"},
    ],
)
def test_calibration_never_touches_what_is_given(
    folder: Path, checkpoint: Checkpoint, forget: list[Record], retain: list[Record], given: Mapping[str, str]
) -> None:
    recipe = make_recipe("llava", own(folder, **given))
    found = compute(checkpoint, forget, retain, recipe)
    meta = found.bundle.metadata
    assert tuple(meta.layers) == recipe.layers
    assert meta.gate_layer == (recipe.gate_layer if isinstance(recipe.gate_layer, int) else None)
    assert (meta.gate.kind, meta.gate.shape, meta.gate.threshold) == (recipe.gate, *recipe.gate_shape)
    assert meta.strength == recipe.strength
    if recipe.bandwidth != "auto":
        assert {gate.setting.bandwidth for gate in found.calibration.gates.values()} == {recipe.bandwidth}
    if recipe.reply_steps != "auto":
        assert meta.reply_steps == recipe.reply_steps
    assert found.calibration.curve == ()  # nothing was open that a trial decides


def test_what_is_left_open_is_chosen_from_trials(computed: Computation) -> None:
    chosen, curve = computed.calibration, computed.calibration.curve
    assert chosen.trial in curve
    tried = [trial.intervention for trial in curve]
    assert {done.strength for done in tried} == set(STRENGTHS)
    assert {len(done.where.layers) for done in tried} > {1}
    assert {done.shape.name for done in tried} == {"step", "dead-zone", "clip"}
    assert {done.shape.threshold for done in tried if done.shape.name == "clip"} == {None}


def test_a_choice_that_keeps_or_erases_too_little_says_so(computed: Computation) -> None:
    """A random model: what erases moves what should be kept, or nothing is erased."""
    chosen = computed.calibration
    assert chosen.trial is not None
    figures = chosen.trial.figures
    assert figures.kept < KEPT or figures.erased < ERASED
    assert any(line.startswith("shortfall  no trial kept 99% token-ident") for line in computed.lines())
    best = replace(chosen.trial, figures=replace(figures, kept=KEPT, refused=1.0, forgotten=1.0))
    assert replace(chosen, curve=(best,)).shortfall is None


def test_without_calibration_everything_is_fitted_on_everything(
    folder: Path, checkpoint: Checkpoint, forget: list[Record], retain: list[Record]
) -> None:
    given = {"layers": "1", "gate_layer": "0", "gate_shape": "step:0.5", "strength": "1"}
    found = compute(checkpoint, forget, retain, make_recipe("llava", own(folder, **given, calibration_share="0")))
    (row,) = found.bundle.metadata.requests[0].statistics.values()
    assert (row.auroc_heldout, row.true_fire_heldout, row.false_fire_heldout) == (None, None, None)
    assert found.bundle.metadata.method.calibration["share"] == 0
    assert found.calibration.curve == ()


def test_without_calibration_each_moved_block_reads_its_own_gate(
    folder: Path, checkpoint: Checkpoint, forget: list[Record], retain: list[Record]
) -> None:
    given = {"layers": "1,2", "gate_shape": "step:0.5", "strength": "1", "calibration_share": "0"}
    meta = compute(checkpoint, forget, retain, make_recipe("llava", own(folder, **given))).bundle.metadata
    assert (meta.layers, meta.gate_layer, list(meta.requests[0].statistics)) == ([1, 2], None, [1, 2])


def test_the_paper_preset_moves_every_block_but_those_that_its_code_skips(
    folder: Path, checkpoint: Checkpoint, forget: list[Record], retain: list[Record]
) -> None:
    recipe = make_recipe("llava", own(folder, preset="paper", perturbation="none", strength="0.25"))
    bundle = compute(checkpoint, forget, retain, recipe).bundle
    meta = bundle.metadata
    assert (meta.layers, meta.gate_layer, meta.reply_steps) == ([1, 2, 3], None, 1)
    assert (meta.gate.kind, meta.gate.shape, meta.prompt_positions) == ("linear", "identity", "all")
    assert (meta.method.null_space, meta.method.ridge, meta.method.ridge_scale) == ("ratio:0.3", 0.1, "absolute")


def test_steered_in_process_equals_exported_and_loaded(
    computed: Computation, checkpoint: Checkpoint, folder: Path, tmp_path: Path, forget: list[Record]
) -> None:
    export(Source(folder / "base"), [computed.bundle], tmp_path / "out")
    exported = load(tmp_path / "out")
    bundle = computed.bundle
    steered = steered_class("llava").from_base(checkpoint.model, bundle.steering(), torch_tensors(bundle))
    moved = False
    for prompts in ([s.user_turn for s in forget if s.image], [s.user_turn for s in forget if not s.image]):
        inputs = encode(checkpoint, prompts, "right")
        with torch.no_grad():
            ours, theirs, base = (model(**inputs).logits for model in (steered, exported.model, checkpoint.model))
        assert torch.equal(ours, theirs)
        moved |= not torch.equal(ours, base)
    assert moved


@pytest.mark.slow
@pytest.mark.parametrize("projections", ["auto", "8"])
def test_the_default_is_chosen_from_both_fits_and_judged_on_whole_conversations(
    folder: Path,
    checkpoint: Checkpoint,
    forget: list[Record],
    retain: list[Record],
    projections: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = {name: folder / f"{name}.jsonl" for name in ("recall", "erasure")}
    asked: list[Any] = []  # what was read, by which gates, for which fold

    def furthest_and_noted(*given: Any, **named: Any) -> Any:
        asked.append((*given, found_there := furthest(*given, **named)))
        return found_there

    monkeypatch.setattr("mllmeraser.steering.calibrate.furthest", furthest_and_noted)
    found = compute(checkpoint, forget, retain, make_recipe("llava", {**pairs, "projection": projections}))
    meta, chosen = found.bundle.metadata, found.calibration
    assert (meta.gate.scope, meta.edit, meta.gate.shape, meta.strength) == ("conversation", "seal", "step", 1.0)
    assert meta.layers == [meta.gate_layer, 3]  # read early, sealed there and at the last layer
    assert meta.gate.projection == (None if projections == "auto" else 8)
    (layer,) = chosen.gates
    validated = chosen.gates[layer]
    assert meta.method.calibration["fit"] == validated.setting.fit
    # Every position of a held-out conversation is read by the gate of its fold: none opens it further than its score.
    held_out = validated.held_out
    assert held_out is not None
    _, turns, replies, gates, groups, read = asked[-1]
    assert turns[: len(held_out.retain)] == [record.user_turn for record in retain][: len(held_out.retain)]
    of_fold = {fold: next(i for i, group in enumerate(groups) if group == fold) for fold in set(groups)}
    assert len(of_fold) > 1
    for fold, number in of_fold.items():
        states, _ = plain_states.block_states(checkpoint, turns[number], replies[number])
        for setting, gate in enumerate(gates[layer][fold]):
            g = gate(states[layer])
            assert float(read[layer][number, setting]) == pytest.approx(float(g.max()), abs=1e-3)
    scores = torch.cat([held_out.retain, held_out.variants])
    assert any(torch.equal(scores, read[layer][:, setting]) for setting in range(read[layer].shape[1]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": "4"}, r"^layer 4: this base has 4 layers, 0 to 3$"),
        ({"gate_layer": "9"}, r"^layer 9: this base has 4 layers, 0 to 3$"),
        (
            {"layers": "1", "gate_layer": "2"},
            r"^--gate-layer 2: a shared gate must not lie after the first moved layer, 1",
        ),
        (
            {"layers": "1", "gate": "linear", "null_space": "ratio:0.01"},
            r"^null space ratio:0.01 of 32 features is empty",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_the_base_is_an_error(
    folder: Path,
    checkpoint: Checkpoint,
    forget: list[Record],
    retain: list[Record],
    given: Mapping[str, str],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        compute(checkpoint, forget, retain, make_recipe("llava", own(folder, **given)))


def test_a_base_that_does_not_refuse_misses_the_gate(
    checkpoint: Checkpoint, forget: list[Record], retain: list[Record]
) -> None:
    with pytest.raises(QualityGateError, match=r"^the base refuses 0% of the .* erasure prompts"):
        compute(checkpoint, forget, retain)


def test_nobody_can_be_forgotten_and_kept(checkpoint: Checkpoint, forget: list[Record], retain: list[Record]) -> None:
    with pytest.raises(InputError, match=r"stand in both the forget and the retain set"):
        compute(checkpoint, forget, [*retain, forget[0]])


def test_a_steered_checkpoint_is_no_base(
    computed: Computation, folder: Path, tmp_path: Path, forget: list[Record], retain: list[Record]
) -> None:
    export(Source(folder / "base"), [computed.bundle], tmp_path / "out")
    with pytest.raises(InputError, match=r"already steered; compute on its base"):
        compute(load(tmp_path / "out"), forget, retain, make_recipe("llava", own(folder)))

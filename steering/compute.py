"""From a forget set and a retain set to a bundle: records → hidden states → direction → gate → calibration.

Nothing is trained: the base runs forward only, under the chat template of its own processor. Hidden states are the
output of a decoder layer, read at the last prompt token.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import mllmeraser
from mllmeraser.bundle.budget import FALSE_FIRES, FALSE_FIRES_OF_VARIANTS
from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import (
    REQUEST_ID,
    Base,
    HeldOutScores,
    LayerStatistics,
    Metadata,
    Method,
    RemovalRequest,
    WeightFile,
)
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError
from mllmeraser.inference.activations import decoder_layers, last_prompt_states, stream_prompt_states
from mllmeraser.inference.cache import PRIVATE
from mllmeraser.inference.encoding import beginning_of_turn
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.processes import processes
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.inference.states import States
from mllmeraser.inference.weight_files import beside_sha256, weight_files
from mllmeraser.judging.ranking import auroc
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.steering.assembly import assemble
from mllmeraser.steering.augment import Room, with_variants
from mllmeraser.steering.calibrate import Calibration, calibrate
from mllmeraser.steering.checks import check_records, refuse_constant
from mllmeraser.steering.compare import compare_directions
from mllmeraser.steering.direction import erasure_directions, refusal_states
from mllmeraser.steering.folds import folds
from mllmeraser.steering.gate import Gate, fit_gate
from mllmeraser.steering.in_process import steered_in_process
from mllmeraser.steering.intervention import SteeredLayers
from mllmeraser.steering.kept import KeptLandmarks
from mllmeraser.steering.layers import layers_of, recipe_on
from mllmeraser.steering.pairs import Pairs, choose_pairs
from mllmeraser.steering.perturbation import perturbed
from mllmeraser.steering.recipe import Recipe
from mllmeraser.steering.tokens import (
    KEPT_POSITIONS,
    LONGEST_REPLY,
    POSITIONS,
    prompt_token_states,
    stream_token_states,
)
from mllmeraser.steering.trials import Material

SHOWN_BY = 300  # retain records; with fewer, no false fire at all still leaves room for more than FALSE_FIRES
LONGEST_STEERED_REPLY = 16  # the largest K that `auto` chooses


@dataclass(frozen=True)
class Computation:
    """A bundle, and how it was computed."""

    bundle: Bundle
    calibration: Calibration
    pairs: Pairs
    cosines: dict[str, dict[int, float]] = field(default_factory=dict)  # between sources; empty unless asked for
    records: dict[str, str] = field(default_factory=dict)  # the sha256 of each set's files, which no bundle holds

    def document(self) -> dict[str, Any]:
        """The JSON document of ``compute --json`` (``docs/json.md``)."""
        meta = self.bundle.metadata
        request = meta.requests[0]
        return {
            "schema": 1,
            "request": request.id,
            "direction": {
                "source": self.pairs.source,
                "pairs": len(self.pairs.erasure),
                "base_refusal_rate": self.pairs.refusal_rate,
            },
            "layers": meta.layers,
            "gate_layer": meta.gate_layer,
            "gate": meta.gate.model_dump(mode="json"),
            "strength": meta.strength,
            "prompt_positions": meta.prompt_positions,
            "reply_steps": meta.reply_steps,
            "statistics": {str(layer): row.model_dump(mode="json") for layer, row in request.statistics.items()},
            "records": self.records,
            "curve": self.calibration.document()["curve"],
            "cosines": {
                pair: {str(layer): value for layer, value in row.items()} for pair, row in self.cosines.items()
            },
        }

    def lines(self) -> list[str]:
        """What was chosen, for a person."""
        meta = self.bundle.metadata
        request, gate, trial = meta.requests[0], meta.gate, self.calibration.trial
        at = ", ".join(map(str, meta.layers))
        read = "at each of them" if meta.gate_layer is None else f"at layer {meta.gate_layer}"
        threshold = "" if gate.threshold is None else f" at {gate.threshold:.3g}"
        lines = [
            f"request    {request.id}: {request.n_forget} records to forget, {request.n_retain} to keep",
            f"direction  {self.pairs.source}, {len(self.pairs.erasure)} pairs, "
            f"{self.pairs.refusal_rate:.0%} of them refused by the base; {meta.reply_steps} positions",
            f"moved      {at} (of layers 0 to {meta.base.num_layers - 1}), strength {meta.strength:g}",
            f"gate       {gate.kind}, {gate.shape}{threshold}, read {read}",
        ]
        variants = " (variants included)" if meta.method.calibration["augment"] else ""
        for layer, row in request.statistics.items():
            if row.auroc_heldout is not None:
                fires = ""
                if row.true_fire_heldout is not None and row.false_fire_heldout is not None:
                    opens, misfires = row.true_fire_heldout, row.false_fire_heldout
                    fires = f", opens on {opens:.1%} to forget{variants} and {misfires:.1%} to keep"
                lines.append(f"held out   layer {layer}: AUROC {row.auroc_heldout:.4f}{fires}")
        counted = min(
            (len(of.held_out.retain) for of in self.calibration.gates.values() if of.held_out is not None),
            default=request.n_retain,
        )
        if counted < request.n_retain:
            lines.append(
                f"apart      {request.n_retain - counted} records to keep name somebody to forget, and may be refused "
                "for it: no false fires"
            )
        if gate.threshold is not None and counted < SHOWN_BY:
            lines.append(
                f"unshown    {counted} records to keep cannot show {FALSE_FIRES:.1%}: give {SHOWN_BY} or "
                "more, of many people, strangers to the base among them"
            )
        if trial is not None:
            found = trial.figures
            lines.append(
                f"trial      {found.refused:.1%} refused, {found.forgotten:.1%} without the answer, "
                f"{found.kept:.1%} of what is kept token-identical"
            )
        if (shortfall := self.calibration.shortfall) is not None:
            lines.append(f"shortfall  {shortfall}")
        if self.records:
            named = ", ".join(f"{name} {sha256[:12]}…" for name, sha256 in self.records.items())
            lines.append(f"records    sha256 {named}; the bundle does not hold them (--json prints them whole)")
        for pair, cosines in self.cosines.items():
            lines.append(f"cosine     {pair}: " + ", ".join(f"{layer}: {c:.2f}" for layer, c in cosines.items()))
        return lines


def compute(
    checkpoint: Checkpoint,
    forget: Sequence[Record],
    retain: Sequence[Record],
    recipe: Recipe | None = None,
    *,
    request_id: str = "request-1",
    seed: int = 0,
    compare: bool = False,
    kept: KeptLandmarks | None = None,
) -> Computation:
    """Compute the bundle of one request.

    Args:
        checkpoint: the base, loaded for inference.
        forget, retain: records; no subject may stand in both.
        recipe: every choice; the default is a kernel gate and directions along the reply, calibrated.
        request_id: names the request in the bundle; must not name a person.
        compare: also compute the cosines between directions of different sources.
        kept: landmarks of what must stay that other requests have too; a checkpoint holds them once.

    Raises:
        InputError: the records or the recipe do not fit the base or each other.
        QualityGateError: the base refuses too few erasure prompts, or answers no recall prompt: there is no direction.
    """
    recipe = recipe or Recipe()
    if not re.fullmatch(REQUEST_ID, request_id):
        raise InputError(f"--request-id {request_id!r}: give up to 64 letters, digits, dots, dashes or underscores")
    if checkpoint.steered:
        raise InputError(f"{checkpoint.path}: already steered; compute on its base, and export all bundles together")
    check_records(forget, retain)
    if recipe.until == "turn":
        beginning_of_turn(checkpoint.processor)  # refused before the long work
    num_layers = len(decoder_layers(checkpoint))
    recipe = recipe_on(recipe, num_layers)
    gate_blocks, moved_blocks = layers_of(recipe, num_layers)

    pairs = choose_pairs(checkpoint, forget, recipe.direction, _own(recipe), recipe.refusal_instruction, seed)
    pairs = perturbed(checkpoint, pairs, recipe.perturbation, seed)
    steps = min(pairs.refusal_length, LONGEST_STEERED_REPLY) if recipe.reply_steps == "auto" else recipe.reply_steps
    aims = (refusal_states if recipe.edit == "seal" else erasure_directions)(checkpoint, pairs, moved_blocks, steps)
    with tempfile.TemporaryDirectory(prefix="mllmeraser-states-") as folder:
        material = _material(checkpoint, forget, retain, aims, gate_blocks, recipe, Path(folder), seed)
        material = replace(material, kept=kept or KeptLandmarks())
        for layer, states in material.retain_states.items():
            refuse_constant(layer, states)
        held_out = (
            folds(material.forget, material.retain, recipe.calibration_share, seed) if recipe.calibration_share else []
        )
        chosen = calibrate(checkpoint, material, recipe, num_layers, held_out, seed)
        _keep_curve(checkpoint, chosen)
        gates = _fit(checkpoint, material, chosen, recipe, Path(folder))
        statistics = {layer: _statistics(gate, material, chosen, layer) for layer, gate in gates.items()}
    bundle = _bundle(checkpoint, chosen, pairs, recipe, gates, aims, statistics, (len(forget), len(retain)))
    bundle.metadata.requests[0].id = request_id
    bundle.metadata.seed = seed
    cosines: dict[str, dict[int, float]] = {}
    if compare:
        own = pairs if pairs.source == "own" else None
        instruction = recipe.refusal_instruction
        cosines = compare_directions(checkpoint, forget, instruction, own, moved_blocks, seed)
    return Computation(bundle, chosen, pairs, cosines)


def _material(
    checkpoint: Checkpoint,
    forget: Sequence[Record],
    retain: Sequence[Record],
    aims: Mapping[int, Tensor],
    layers: Sequence[int],
    recipe: Recipe,
    folder: Path,
    seed: int,
) -> Material:
    """What gates are fitted on: the forget states in memory, the retain states in files."""
    listed = len(forget), len(retain)
    forget_turns: Sequence[Prompt] = [record.user_turn for record in forget]
    retain_turns: Sequence[Prompt] = [record.user_turn for record in retain]
    if recipe.augment:
        room = Room.of(checkpoint.processor)
        forget, forget_turns = with_variants(forget, f"forget {seed}", room)
        retain, retain_turns = with_variants(retain, f"retain {seed}", room)
    forget_told, retain_told = "forget states", "retain states"
    if recipe.gate_scope == "prompt":
        forget_states = last_prompt_states(checkpoint, forget_turns, layers, progress=forget_told)
        retain_states = stream_prompt_states(checkpoint, retain_turns, layers, folder, progress=retain_told)
        return Material(list(forget), forget_turns, retain, retain_turns, forget_states, retain_states, aims, listed)
    if recipe.gate_scope == "token":  # the prompt's end decides what is said next
        positions, forget_states = 1, last_prompt_states(checkpoint, forget_turns, layers, progress=forget_told)
    else:
        positions = POSITIONS
        forget_states = prompt_token_states(checkpoint, forget_turns, layers, seed=seed, progress=forget_told)
    plain = retain_turns[: listed[1]]
    replies = greedy_reply_ids(checkpoint, plain, max_new_tokens=LONGEST_REPLY, progress="retain replies")
    replies *= len(retain) // listed[1]  # a variant has the reply to its record
    retain_states = stream_token_states(
        checkpoint, retain_turns, replies, layers, folder, seed=seed, progress=retain_told
    )
    return Material(
        list(forget),
        forget_turns,
        retain,
        retain_turns,
        forget_states,
        retain_states,
        aims,
        listed,
        replies,
        KEPT_POSITIONS,
        positions,
    )


def _keep_curve(checkpoint: Checkpoint, chosen: Calibration) -> None:
    """Write the whole trade-off curve into the work directory, if there is one."""
    folder = checkpoint.passes.directory
    if folder is not None and processes().leads:
        document = f"{json.dumps(chosen.document(), indent=2)}\n"
        write_atomically(folder / "calibration.json", document.encode(), PRIVATE)


def _fit(
    checkpoint: Checkpoint, material: Material, chosen: Calibration, recipe: Recipe, folder: Path
) -> dict[int, Gate]:
    """Fit the gates on all records; with ``sequential``, each on states that are steered at the layers before."""
    gates: dict[int, Gate] = {}
    for layer in chosen.intervention.where.read:
        forget: Tensor = material.forget_states[layer]
        retain: States = material.retain_states[layer]
        if recipe.sequential and gates:
            before = replace(chosen.intervention, where=SteeredLayers(tuple(gates), None))
            steered = steered_in_process(checkpoint, before, gates, material.aims)
            forget = last_prompt_states(steered, material.forget_turns, [layer])[layer]
            here = folder / f"steered-{layer}"
            here.mkdir()
            retain = stream_prompt_states(steered, material.retain_turns, [layer], here)[layer]
        setting = chosen.gates[layer].setting
        positions = len(forget) // len(material.forget_turns)
        kept = None if gates and recipe.sequential else material.kept.of(layer, setting, retain)
        gates[layer] = fit_gate(forget, retain, setting, positions, kept)
    return gates


def _bundle(
    checkpoint: Checkpoint,
    chosen: Calibration,
    pairs: Pairs,
    recipe: Recipe,
    gates: Mapping[int, Gate],
    aims: Mapping[int, Tensor],
    statistics: dict[int, LayerStatistics],
    counts: tuple[int, int],
) -> Bundle:
    done = chosen.intervention
    form, tensors = assemble(done, gates, aims)
    settings = [gate.setting for gate in chosen.gates.values()]
    request = RemovalRequest(
        id="request-1",
        created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        n_forget=counts[0],
        n_retain=counts[1],
        strength=done.strength,
        statistics=statistics,
        held_out=_held_out_scores(chosen),
    )
    metadata = Metadata(
        base=_base(checkpoint, len(decoder_layers(checkpoint))),
        requests=[request],
        layers=list(done.where.layers),
        gate_layer=done.where.gate_layer,
        strength=done.strength,
        gate=form,
        edit=done.edit,
        prompt_positions=done.prompt_positions,
        reply_steps=done.reply_steps,
        method=Method(
            null_space=", ".join(dict.fromkeys(str(setting.null_space) for setting in settings)),
            ridge=recipe.ridge,
            ridge_scale=recipe.ridge_scale,
            direction=pairs.source,
            perturbation=str(recipe.perturbation),
            preset=recipe.preset,
            calibration=_calibration_facts(chosen, pairs, recipe),
        ),
        template_sha256=_template_sha256(checkpoint),
        versions={
            "mllmeraser": mllmeraser.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        seed=0,
    )
    return Bundle(metadata, {name: tensor.numpy() for name, tensor in tensors.items()})


def _own(recipe: Recipe) -> tuple[list[Record], list[Record]] | None:
    if recipe.recall is None or recipe.erasure is None:
        return None
    return read_records(recipe.recall), read_records(recipe.erasure)


def _statistics(gate: Gate, material: Material, chosen: Calibration, layer: int) -> LayerStatistics:
    """Statistics of the fitted gate on its own records, and of gates on the records held out from them.

    Where a record has several positions, the one that opens the gate furthest counts.
    """
    on_forget = gate.values(material.forget_states[layer]).view(-1, material.forget_positions).amax(dim=1)
    on_retain = gate.values(material.retain_states[layer]).view(-1, material.positions).amax(dim=1)
    held_out, threshold = chosen.gates[layer].held_out, chosen.intervention.shape.threshold
    fires: dict[str, float | None] = {"true_fire_heldout": None, "false_fire_heldout": None}
    if held_out is not None and threshold is not None:
        fires = {
            "true_fire_heldout": float((held_out.forget >= threshold).double().mean()),
            "false_fire_heldout": float((held_out.retain >= threshold).double().mean()),
        }
    return LayerStatistics(
        auroc_train=auroc(on_forget.tolist(), on_retain.tolist()),
        auroc_heldout=None if held_out is None else held_out.auroc,
        forget_mean=float(on_forget.mean()),
        forget_std=float(on_forget.std(correction=0)),
        retain_mean=float(on_retain.mean()),
        retain_std=float(on_retain.std(correction=0)),
        leakage=float(on_retain.abs().mean() / on_forget.mean()),
        **fires,
    )


def _held_out_scores(chosen: Calibration) -> HeldOutScores | None:
    """What an export of several requests needs to set thresholds; of several gates, the one that opens furthest."""
    read = [chosen.gates[layer].held_out for layer in chosen.intervention.where.read]
    scores = [held_out for held_out in read if held_out is not None]
    if chosen.intervention.shape.threshold is None or not scores:
        return None

    def furthest(side: str) -> Tensor:
        return torch.stack([getattr(held_out, side) for held_out in scores]).amax(dim=0)

    def highest(values: Tensor, budget: float) -> list[float]:
        found: list[float] = values.sort(descending=True).values[: int(len(values) * budget) + 1].tolist()
        return found

    forget, retain, variants = (furthest(side) for side in ("forget", "retain", "variants"))
    return HeldOutScores(
        retain=len(retain),
        highest_of_retain=highest(retain, FALSE_FIRES),
        variants=len(variants),
        highest_of_variants=highest(variants, FALSE_FIRES_OF_VARIANTS),
        forget_quantiles=torch.quantile(forget, torch.linspace(0, 1, 101, dtype=forget.dtype)).tolist(),
    )


def _calibration_facts(chosen: Calibration, pairs: Pairs, recipe: Recipe) -> dict[str, float | int | str | bool | None]:
    facts: dict[str, float | int | str | bool | None] = {
        "share": recipe.calibration_share,
        "fit": chosen.gates[chosen.intervention.where.read[0]].setting.fit,
        "augment": recipe.augment,
        "sequential": recipe.sequential,
        "bandwidth": chosen.gates[chosen.intervention.where.read[0]].setting.bandwidth,
        "landmarks": recipe.landmarks,  # at most; the form of the gate has their number
        "pairs": len(pairs.erasure),
        "base_refusal_rate": pairs.refusal_rate,
        "trials": len(chosen.curve),
    }
    if chosen.trial is not None:
        facts |= asdict(chosen.trial.figures)
    return facts


def _base(checkpoint: Checkpoint, num_layers: int) -> Base:
    config = checkpoint.model.config
    return Base(
        repo_id=checkpoint.source.repo_id,
        revision=checkpoint.source.revision,
        architecture=type(checkpoint.model).__name__,
        model_type=checkpoint.model_type,
        hidden_size=config.get_text_config().hidden_size,
        num_layers=num_layers,
        config_sha256=sha256_of(checkpoint.path / "config.json"),
        weights=_weights(checkpoint.path),
        beside_sha256=beside_sha256(checkpoint.path),
    )


def _weights(base: Path) -> dict[str, WeightFile] | None:
    """The base's weight files, so that an export need not read them again; only the leading process reads them."""
    found = weight_files(base) if processes().leads else {}
    return {name: WeightFile(size=file.size, sha256=file.sha256) for name, file in found.items()} or None


def _template_sha256(checkpoint: Checkpoint) -> str:
    template = checkpoint.processor.chat_template or checkpoint.processor.tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest()

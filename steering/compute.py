"""From a forget set and a retain set to a steering bundle: samples → activations → direction → gate → calibration.

Everything is read at the output of a decoder block and at the last prompt token, under the chat template of the base's
own processor, and nothing is trained: the base runs forward only.
"""

from __future__ import annotations

import datetime
import hashlib
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor

import mllmeraser
from mllmeraser.errors import InputError
from mllmeraser.files import sha256_of
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.ranking import auroc
from mllmeraser.steering.activations import decoder_layers, last_prompt_states
from mllmeraser.steering.assembly import assemble
from mllmeraser.steering.bundle import REQUEST_ID, Base, Bundle, LayerStatistics, Metadata, Method, Request
from mllmeraser.steering.calibrate import Calibration, Material, calibrate
from mllmeraser.steering.direction import erasure_directions
from mllmeraser.steering.folds import folds
from mllmeraser.steering.gate import GateRecipe, fit_gate
from mllmeraser.steering.pairs import Pairs, choose_pairs
from mllmeraser.steering.perturbation import perturbed
from mllmeraser.steering.recipe import PAPER_SKIPPED_BLOCKS, Recipe
from mllmeraser.steering.samples import Sample, read_samples, refuse_overlap

MOST_GATE_BLOCKS = 12
LONGEST_STEERED_REPLY = 16  # K of `auto` at most


@dataclass(frozen=True)
class Computation:
    """A bundle, and how it came about."""

    bundle: Bundle
    calibration: Calibration
    pairs: Pairs

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
            "curve": self.calibration.document()["curve"],
        }

    def lines(self) -> list[str]:
        """What was chosen, for a person."""
        meta = self.bundle.metadata
        request, gate, point = meta.requests[0], meta.gate, self.calibration.point
        at = ", ".join(map(str, meta.layers))
        read = "at each of them" if meta.gate_layer is None else f"at block {meta.gate_layer}"
        threshold = "" if gate.threshold is None else f" at {gate.threshold:.3g}"
        lines = [
            f"request    {request.id}: {request.n_forget} records to forget, {request.n_retain} to keep",
            f"direction  {self.pairs.source}, {len(self.pairs.erasure)} pairs, "
            f"{self.pairs.refusal_rate:.0%} of them refused by the base; {meta.reply_steps} positions",
            f"moved      blocks {at} of {meta.base.num_layers}, strength {meta.strength:g}",
            f"gate       {gate.kind}, {gate.shape}{threshold}, read {read}",
        ]
        for layer, row in request.statistics.items():
            if row.auroc_heldout is not None:
                fires = ""
                if row.true_fire_heldout is not None and row.false_fire_heldout is not None:
                    fires = f", opens on {row.true_fire_heldout:.1%} to forget and {row.false_fire_heldout:.1%} to keep"
                lines.append(f"held out   block {layer}: AUROC {row.auroc_heldout:.4f}{fires}")
        if point is not None:
            lines.append(
                f"trial      {point.refused:.1%} refused, {point.forgotten:.1%} without the answer, "
                f"{point.kept:.1%} of what is kept token-identical"
            )
        return lines


def compute(
    checkpoint: Checkpoint,
    forget: Sequence[Sample],
    retain: Sequence[Sample],
    recipe: Recipe | None = None,
    *,
    request_id: str = "request-1",
    seed: int = 0,
    batch_size: int = 64,
) -> Computation:
    """The steering bundle of one removal request.

    Args:
        checkpoint: the base, loaded for inference.
        forget, retain: records; no subject may stand in both.
        recipe: every choice; by default a kernel gate and directions along the reply, calibrated.
        request_id: names the request in the bundle; must not name a person.

    Raises:
        InputError: the records or the recipe do not fit the base or each other.
        QualityGateError: the base does not refuse what it should, so there is no direction.
    """
    recipe = recipe or Recipe()
    if checkpoint.steered:
        raise InputError(f"{checkpoint.path}: already steered; compute on its base, and export all bundles together")
    if not re.fullmatch(REQUEST_ID, request_id):
        raise InputError(f"--request-id {request_id!r}: give up to 64 letters, digits, dots, dashes or underscores")
    refuse_overlap(forget, retain)
    num_layers = len(decoder_layers(checkpoint))
    recipe = _on_this_model(recipe, num_layers)
    gate_blocks, moved_blocks = _blocks(recipe, num_layers)

    pairs = choose_pairs(checkpoint, forget, recipe.direction, _own(recipe), recipe.refusal_instruction, seed)
    pairs = perturbed(checkpoint, pairs, recipe.perturbation, seed)
    steps = min(pairs.refusal_length, LONGEST_STEERED_REPLY) if recipe.reply_steps == "auto" else recipe.reply_steps
    directions = erasure_directions(checkpoint, pairs, moved_blocks, steps, batch_size)
    states = {
        name: last_prompt_states(
            checkpoint,
            [sample.user_turn for sample in samples],
            gate_blocks,
            batch_size=batch_size,
            progress=f"{name} states",
        )
        for name, samples in (("forget", forget), ("retain", retain))
    }
    material = Material(forget, retain, states["forget"], states["retain"], directions)
    held_out = folds(forget, retain, recipe.calibration_share, seed) if recipe.calibration_share else []
    chosen = calibrate(checkpoint, material, recipe, num_layers, held_out, seed)

    gate_recipe = GateRecipe.of(recipe, chosen.bandwidth, seed)
    gates = {
        layer: fit_gate(material.forget_states[layer], material.retain_states[layer], gate_recipe)
        for layer in chosen.plan.read
    }
    form, tensors = assemble(chosen.plan, gates, recipe.gate_shape._replace(threshold=chosen.threshold), directions)
    statistics = {
        layer: _statistics(gate(states["forget"][layer]), gate(states["retain"][layer]), chosen, layer)
        for layer, gate in gates.items()
    }
    metadata = Metadata(
        base=_base(checkpoint, num_layers),
        requests=[
            Request(
                id=request_id,
                created=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
                n_forget=len(forget),
                n_retain=len(retain),
                strength=chosen.strength,
                statistics=statistics,
            )
        ],
        layers=list(chosen.plan.layers),
        gate_layer=chosen.plan.gate_layer,
        strength=chosen.strength,
        gate=form,
        prompt_positions=recipe.prompt_positions,
        reply_steps=steps,
        method=Method(
            null_space=str(recipe.null_space),
            ridge=recipe.ridge,
            ridge_scale=recipe.ridge_scale,
            direction=pairs.source,
            perturbation=str(recipe.perturbation),
            preset=recipe.preset,
            calibration=_calibration_facts(chosen, pairs, len(held_out)),
        ),
        template_sha256=_template_sha256(checkpoint),
        versions={
            "mllmeraser": mllmeraser.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        seed=seed,
    )
    return Computation(Bundle(metadata=metadata, tensors=tensors), chosen, pairs)


def _own(recipe: Recipe) -> tuple[list[Sample], list[Sample]] | None:
    if recipe.recall is None or recipe.erasure is None:
        return None
    return read_samples(recipe.recall), read_samples(recipe.erasure)


def _on_this_model(recipe: Recipe, num_layers: int) -> Recipe:
    """The recipe with ``all`` blocks written out, checked against the base."""
    layers = recipe.layers
    if layers == "all":
        skipped = PAPER_SKIPPED_BLOCKS if recipe.preset == "paper" else ()
        layers = tuple(layer for layer in range(num_layers) if layer not in skipped)
    given = [
        *(layers if layers != "auto" else ()),
        *([recipe.gate_layer] if isinstance(recipe.gate_layer, int) else []),
    ]
    if given and max(given) >= num_layers:
        raise InputError(f"block {max(given)}: this base has {num_layers} blocks, 0 to {num_layers - 1}")
    if isinstance(recipe.gate_layer, int) and layers != "auto" and recipe.gate_layer > layers[0]:
        raise InputError(
            f"--gate-layer {recipe.gate_layer}: a shared gate must not lie after the first moved block, {layers[0]}"
        )
    return recipe.model_copy(update={"layers": layers})


def _blocks(recipe: Recipe, num_layers: int) -> tuple[list[int], list[int]]:
    """The blocks whose gates may be read, and those that may be moved.

    Left open: gates from the second quarter of the blocks on, where people have been recognised, but never at the last
    block, where only the next token would be moved.
    """
    first, last = num_layers // 4, max(num_layers // 4, num_layers - 2)
    every = list(range(first, last + 1))
    candidates = every[:: -(-len(every) // MOST_GATE_BLOCKS)]
    if not isinstance(recipe.layers, tuple):
        readers = [recipe.gate_layer] if isinstance(recipe.gate_layer, int) else candidates
        return readers, list(range(min(readers), num_layers))
    moved = list(recipe.layers)
    if isinstance(recipe.gate_layer, int):
        return [recipe.gate_layer], moved
    if recipe.gate_layer == "own":
        return moved, moved
    return sorted({*(layer for layer in candidates if layer < moved[0]), moved[0]}), moved


def _statistics(on_forget: Tensor, on_retain: Tensor, chosen: Calibration, layer: int) -> LayerStatistics:
    """Of the fitted gate's values on the samples (n_f,) and (n_r,), and of the held-out ones."""
    held_out, threshold = chosen.held_out.get(layer), chosen.threshold
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


def _calibration_facts(chosen: Calibration, pairs: Pairs, count: int) -> dict[str, float | int | str | bool | None]:
    facts: dict[str, float | int | str | bool | None] = {
        "folds": count,
        "bandwidth": chosen.bandwidth,
        "pairs": len(pairs.erasure),
        "base_refusal_rate": pairs.refusal_rate,
        "trials": len(chosen.curve),
    }
    point = chosen.point
    if point is not None:
        facts |= {"refused": point.refused, "forgotten": point.forgotten, "kept": point.kept}
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
    )


def _template_sha256(checkpoint: Checkpoint) -> str:
    template = checkpoint.processor.chat_template or checkpoint.processor.tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest()

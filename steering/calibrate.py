"""Calibration: it chooses, on held-out records, whatever the recipe leaves ``auto``.

1. Gates (:mod:`.validation`). Each candidate layer's gate is cross-validated with several bandwidths and null spaces;
   no forward pass is needed. Where a gate is read everywhere, both fits are tried too, and the gates read whole
   held-out conversations. The ``GATE_LAYERS`` layers that tell the two sets apart best stay.
2. The effect, with forward passes (:mod:`.trials`): which layers, which strength, which positions, which gate shape.

A trial is good if it keeps at least ``KEPT`` of the retain replies token-identical and erases at least ``ERASED``. The
good trial that erases most wins. If no trial is good, the one with the greatest harmonic mean of the two wins: a method
that cannot have both is shown at its best, not at its most timid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mllmeraser.console import track
from mllmeraser.inference.encoding import beginning_of_turn
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.records.prompts import Prompt
from mllmeraser.steering.folds import Fold, together
from mllmeraser.steering.forms import Fit, GateShape, NullSpace
from mllmeraser.steering.gate import Gate, GateFits, GateRecipe, readings
from mllmeraser.steering.intervention import Intervention, SteeredLayers
from mllmeraser.steering.naming import naming
from mllmeraser.steering.recipe import Recipe
from mllmeraser.steering.tokens import furthest, no_replies
from mllmeraser.steering.trials import Figures, Material, Trial, Trials
from mllmeraser.steering.validation import HeldOut, Validated, choose_threshold, cross_validate, joined

KEPT = 0.99
ERASED = 0.8
BANDWIDTHS = (0.3, 0.6, 1.0)
USUAL_BANDWIDTH = 0.6  # where nothing is calibrated
NULL_SPACES = (
    NullSpace("soft", 1.0),
    NullSpace("soft", 10.0),
    NullSpace("soft", 100.0),
)  # ever nearer to the projector
EVERYWHERE_BANDWIDTHS = (0.4,)  # for a gate that is read everywhere
EVERYWHERE_NULL_SPACES = tuple(NullSpace("soft", weight) for weight in (10.0, 30.0, 100.0))
STRENGTHS = (1.0, 0.5, 1.5, 2.0)  # the first is tried at all places, the others at the best one
OPEN_STRENGTHS = (0.25, 0.1, 0.15, 0.2, 0.5, 1.0)  # for a gate without a threshold; 0.25 is the paper's
SPANS = (1, 2, 4)
FITS: tuple[Fit, ...] = ("positions", "end")
PROJECTIONS = 128  # of a state that is wider than
PROJECTED_FROM = 512  # this; a shorter one is read as it is
GATE_LAYERS = 3
TRIED_SHARE = 0.3  # of the folds


@dataclass(frozen=True)
class Calibration:
    """What calibration chose, and the trials it chose from."""

    intervention: Intervention
    gates: Mapping[int, Validated]  # by layer, for every layer whose gate is read
    curve: tuple[Trial, ...]  # empty where nothing had to be tried

    @property
    def trial(self) -> Trial | None:
        """The trial of the choice; None where nothing was tried."""
        return next((trial for trial in self.curve if trial.intervention == self.intervention), None)

    @property
    def shortfall(self) -> str | None:
        """A sentence for a choice that misses ``KEPT`` or ``ERASED``; None for any other."""
        trial = self.trial
        if trial is None or _good(trial.figures):
            return None
        return (
            f"no trial kept {KEPT:.0%} token-identical and erased {ERASED:.0%}; this is the best of both, "
            f"from {len(self.curve)} trials: give more retain records, or records that differ more from the forgotten"
        )

    def document(self) -> dict[str, Any]:
        """The choice and the whole trade-off curve, for the work directory and the report."""
        chosen = {
            **_where_and_how_far(self.intervention),
            "gate_shape": str(self.intervention.shape),
            "gates": {
                str(layer): {
                    "null_space": str(gate.setting.null_space),
                    "bandwidth": gate.setting.bandwidth,
                    "fit": gate.setting.fit,
                    "projections": gate.setting.projections,
                }
                for layer, gate in self.gates.items()
            },
        }
        return {"schema": 1, "chosen": chosen, "curve": [_row(trial) for trial in self.curve]}


def _row(trial: Trial) -> dict[str, Any]:
    """A trial as one flat row of the curve."""
    shape = trial.intervention.shape
    return {
        **_where_and_how_far(trial.intervention),
        "gate_shape": shape.name,
        "threshold": shape.threshold,
        **asdict(trial.figures),
    }


def _where_and_how_far(intervention: Intervention) -> dict[str, Any]:
    return {
        **asdict(intervention.where),
        "strength": intervention.strength,
        "reply_steps": intervention.reply_steps,
        "prompt_positions": intervention.prompt_positions,
    }


def calibrate(
    checkpoint: Checkpoint,
    material: Material,
    recipe: Recipe,
    num_layers: int,
    folds: Sequence[Fold],
    seed: int,
) -> Calibration:
    """Choose everything that the recipe leaves open; what it gives stays as it is.

    Each stage tries a few changes of the best intervention so far. Without folds nothing is tried: then
    :class:`Recipe` demands layers, strength and shape.
    """
    steps = len(next(iter(material.aims.values())))
    gates = _validated_gates(checkpoint, material, recipe, folds, seed)
    shapes, strengths = _shapes(recipe), _strengths(recipe)
    starts = [
        Intervention(
            where=where,
            strength=strengths[0],
            reply_steps=steps,
            prompt_positions="all" if recipe.prompt_positions == "all" else "last",
            shape=_with_threshold(shapes[0], where, gates),
            scope=recipe.gate_scope,
            edit=recipe.edit,
            turn=beginning_of_turn(checkpoint.processor) if recipe.until == "turn" else (),
        )
        for where in _places(recipe, num_layers, gates)
    ]
    if len(starts) == len(strengths) == len(shapes) == 1:
        return _chosen(starts[0], gates, [])
    held_out = together([folds[k] for k in _for_trials(folds)])
    trials = Trials(checkpoint, material, gates, held_out, seed)
    curve: list[Trial] = []

    def best_with(others: Sequence[Intervention], stage: str) -> Intervention:
        curve.extend(trials(other) for other in track(others, f"calibration: {stage}"))
        return _best(curve).intervention

    best = best_with(starts, "layers")
    best = best_with([replace(best, strength=strength) for strength in strengths[1:]], "strength")
    best = best_with(_other_positions(best, recipe), "positions")
    others = [replace(best, shape=_with_threshold(shape, best.where, gates)) for shape in shapes[1:]]
    return _chosen(best_with(others, "shape"), gates, curve)


def _chosen(intervention: Intervention, gates: Mapping[int, Validated], curve: Sequence[Trial]) -> Calibration:
    return Calibration(intervention, {layer: gates[layer] for layer in intervention.where.read}, tuple(curve))


def _shapes(recipe: Recipe) -> tuple[GateShape, ...]:
    if recipe.gate_shape != "auto":
        return (recipe.gate_shape,)
    return GateShape("step"), GateShape("dead-zone"), GateShape("clip")  # the first is tried at all layers


def _strengths(recipe: Recipe) -> tuple[float, ...]:
    if recipe.strength != "auto":
        return (recipe.strength,)
    return STRENGTHS if _shapes(recipe)[0].thresholded else OPEN_STRENGTHS


def _other_positions(best: Intervention, recipe: Recipe) -> list[Intervention]:
    """The whole prompt instead of its end, and fewer positions of the reply."""
    others = [replace(best, prompt_positions="all")] if recipe.prompt_positions == "auto" else []
    if recipe.reply_steps == "auto":
        steps = best.reply_steps
        others += (
            []
            if best.edit == "seal"
            else [replace(best, reply_steps=fewer) for fewer in sorted({1, steps // 2} - {0, steps})]
        )
    return others


def _settings(recipe: Recipe, width: int, seed: int) -> list[GateRecipe]:
    """The gate settings to validate at each layer; just one where the recipe leaves nothing open."""
    everywhere = recipe.gate_scope == "conversation"
    null_spaces = EVERYWHERE_NULL_SPACES if everywhere else NULL_SPACES
    if recipe.null_space != "auto":
        null_spaces = (recipe.null_space,)
    bandwidths: tuple[float, ...] = EVERYWHERE_BANDWIDTHS if everywhere else BANDWIDTHS
    if recipe.bandwidth != "auto":
        bandwidths = (recipe.bandwidth,)
    if recipe.gate == "linear":
        bandwidths = (1.0,)  # a linear gate has none
    fits = FITS if everywhere and recipe.gate_fit == "auto" else (_fit(recipe),)
    projections = _projections(recipe, width)
    return [
        GateRecipe.of(recipe, projections, seed, fit=fit, null_space=null_space, bandwidth=bandwidth)
        for fit, null_space, bandwidth in product(fits, null_spaces, bandwidths)
    ]


def _usual_setting(recipe: Recipe, width: int, seed: int) -> GateRecipe:
    """The gate setting of a recipe that calibrates nothing."""
    null_space = NULL_SPACES[0] if recipe.null_space == "auto" else recipe.null_space
    bandwidth = USUAL_BANDWIDTH if recipe.bandwidth == "auto" else recipe.bandwidth
    projections = _projections(recipe, width)
    return GateRecipe.of(recipe, projections, seed, fit=_fit(recipe), null_space=null_space, bandwidth=bandwidth)


def _fit(recipe: Recipe) -> Fit:
    if recipe.gate_fit != "auto":
        return recipe.gate_fit
    return "positions" if recipe.gate_scope == "conversation" else "end"


def _projections(recipe: Recipe, width: int) -> int | None:
    if recipe.projection == "auto":
        return PROJECTIONS if recipe.gate_scope == "conversation" and width > PROJECTED_FROM else None
    return recipe.projection or None


def _validated_gates(
    checkpoint: Checkpoint, material: Material, recipe: Recipe, folds: Sequence[Fold], seed: int
) -> dict[int, Validated]:
    """For each layer whose gate may be read, the setting that separates best; without folds the usual one."""
    width = checkpoint.model.config.get_text_config().hidden_size
    if not folds:
        return dict.fromkeys(material.forget_states, Validated(_usual_setting(recipe, width, seed), None))
    settings = _settings(recipe, width, seed)
    if material.positions > 1:
        return _validated_everywhere(checkpoint, material, settings, folds)
    gates = {}
    for layer in track(list(material.forget_states), "calibration: gates"):
        forget, retain = material.forget_states[layer], material.retain_states[layer]
        scores = cross_validate(forget, retain, folds, settings, material.listed[1])
        best = max(range(len(settings)), key=lambda i: scores[i].separation)
        (tried,) = _fits(material, layer, [settings[best]], folds).gates(without=_for_trials(folds))
        gates[layer] = Validated(settings[best], scores[best], tried)
    return gates


def _validated_everywhere(
    checkpoint: Checkpoint, material: Material, settings: Sequence[GateRecipe], folds: Sequence[Fold]
) -> dict[int, Validated]:
    """The same for gates that are read at every position: whole held-out conversations judge them."""
    gates: dict[int, list[list[Gate]]] = {}  # by layer and fold, one a setting
    tried: dict[int, list[Gate]] = {}
    for layer in track(list(material.forget_states), "calibration: gates"):
        fits = _fits(material, layer, settings, folds)
        gates[layer] = [fits.gates(without=[k]) for k in range(len(folds))]
        tried[layer] = fits.gates(without=_for_trials(folds))
    chosen = {}
    for layer, scores in _on_conversations(checkpoint, material, gates, folds).items():
        best = max(range(len(settings)), key=lambda i: scores[i].separation)
        chosen[layer] = Validated(settings[best], scores[best], tried[layer][best])
    return chosen


def _fits(material: Material, layer: int, settings: Sequence[GateRecipe], folds: Sequence[Fold]) -> GateFits:
    forget, retain = material.forget_states[layer], material.retain_states[layer]
    kept = material.kept.of(layer, settings[0], retain)
    return GateFits(forget, retain, settings, folds, material.forget_positions, material.positions, kept)


def _for_trials(folds: Sequence[Fold]) -> list[int]:
    """The folds whose records trials are made on: about ``TRIED_SHARE`` of all."""
    return list(range(max(1, round(TRIED_SHARE * len(folds)))))


def _on_conversations(
    checkpoint: Checkpoint, material: Material, gates: Mapping[int, Sequence[Sequence[Gate]]], folds: Sequence[Fold]
) -> dict[int, list[HeldOut]]:
    """By layer, the scores of each setting on every record and its first variant, by the gates that do not know it.

    Every position of prompt and reply is read, and the furthest counts. With scope ``token`` only the end of a forget
    prompt counts: it decides what is said next. Kept prompts that name the forgotten are left out.
    """
    n_forget, n_retain = material.listed
    # As listed: in a variant the name may be mistyped.
    apart = naming(material.forget, material.retain, [record.user_turn for record in material.retain])
    of_forget = torch.arange(min(2 * n_forget, len(material.forget)))
    of_retain = (~apart)[: 2 * n_retain].nonzero()[:, 0]
    forget_fold = torch.stack([fold.forget for fold in folds]).int().argmax(dim=0)
    retain_fold = torch.stack([fold.retain for fold in folds]).int().argmax(dim=0)

    def read(
        what: str, turns: Sequence[Prompt], replies: Sequence[Tensor], rows: Tensor, fold: Tensor
    ) -> dict[int, Tensor]:
        shown, said = [turns[i] for i in rows.tolist()], [replies[i] for i in rows.tolist()]
        told = f"calibration: {what} conversations"
        return furthest(checkpoint, shown, said, gates, fold[rows].tolist(), progress=told)

    if material.forget_positions > 1:
        replies = no_replies(material.forget_turns)
        forget = read("forget", material.forget_turns, replies, of_forget, forget_fold)
    else:
        fold, states = forget_fold[of_forget], material.forget_states
        forget = {layer: _by_fold(of, states[layer][of_forget], fold) for layer, of in gates.items()}
    retain = read("retain", material.retain_turns, material.retain_replies, of_retain, retain_fold)
    listed = int((of_retain < n_retain).sum())
    return {
        layer: [HeldOut(f, r[:listed], r[listed:]) for f, r in zip(forget[layer].T, retain[layer].T, strict=True)]
        for layer in gates
    }


def _by_fold(gates: Sequence[Sequence[Gate]], states: Tensor, fold: Tensor) -> Tensor:
    """g (n, m) of states (n, d), each by the gates of its fold."""
    found = torch.empty(len(states), len(gates[0]), dtype=torch.float64)
    for k, of_fold in enumerate(gates):
        found[fold == k] = readings(of_fold, states[fold == k])
    return found


def _separation(gate: Validated) -> float:
    return 0.0 if gate.held_out is None else gate.held_out.separation


def _places(recipe: Recipe, num_layers: int, gates: Mapping[int, Validated]) -> Iterator[SteeredLayers]:
    """The layers to try: the simplest first, or for scope ``conversation`` the one whose gate separates best."""
    separation = {layer: _separation(gate) for layer, gate in gates.items() if gate.held_out is not None}
    if isinstance(recipe.layers, tuple):
        yield SteeredLayers(recipe.layers, _gate_layer(recipe, recipe.layers[0], separation))
        return
    if isinstance(recipe.gate_layer, int):
        readers = [recipe.gate_layer]
    else:
        readers = sorted(separation, key=lambda layer: -separation[layer])[:GATE_LAYERS]
    for reader in readers if recipe.gate_scope == "conversation" else sorted(readers):
        if recipe.edit == "seal":
            # What lies between two sealed layers depends on the columns' number; behind the last one nothing does.
            yield SteeredLayers(tuple(sorted({reader, num_layers - 1})), reader)
            continue
        for span in SPANS if recipe.gate_scope == "prompt" else (1,):  # a later layer's gate would read moved states
            layers = tuple(range(reader, reader + span))
            if layers[-1] < num_layers - 1 or (span == 1 and len(readers) == 1):
                yield SteeredLayers(layers, None if recipe.gate_layer == "own" else reader)


def _gate_layer(recipe: Recipe, first: int, separation: Mapping[int, float]) -> int | None:
    """The layer whose gate all share. If open: the one that separates best, or None where nothing was held out."""
    if isinstance(recipe.gate_layer, int):
        return recipe.gate_layer
    if recipe.gate_layer == "own" or not separation:
        return None
    return max((layer for layer in separation if layer <= first), key=lambda layer: separation[layer])


def _with_threshold(shape: GateShape, where: SteeredLayers, gates: Mapping[int, Validated]) -> GateShape:
    """The shape. A threshold that it lacks is chosen from the held-out scores of the gates."""
    if not shape.needs_threshold:
        return shape
    scores = [held_out for layer in where.read if (held_out := gates[layer].held_out) is not None]
    return shape._replace(threshold=choose_threshold(joined(scores)))


def _best(curve: Sequence[Trial]) -> Trial:
    """The best trial. Ties go to fluent replies, then to few layers, then to a strength near 1 (which moves a recall
    state onto an erasure state), then to the trial that came first."""

    def merit(trial: Trial, erased: float) -> tuple[float, ...]:
        done = trial.intervention
        return erased, trial.figures.fluent, -len(done.where.layers), -abs(done.strength - 1)

    good = [trial for trial in curve if _good(trial.figures)]
    if good:
        return max(good, key=lambda trial: merit(trial, trial.figures.erased))
    return max(curve, key=lambda trial: merit(trial, _harmonic(trial.figures.erased, trial.figures.kept)))


def _good(figures: Figures) -> bool:
    return figures.kept >= KEPT and figures.erased >= ERASED


def _harmonic(a: float, b: float) -> float:
    return 0.0 if a * b == 0 else 2 * a * b / (a + b)

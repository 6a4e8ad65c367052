"""Choosing, on held-out records, what was left ``auto``.

First the gates, which cost no forward pass: each candidate block's is cross-validated (:mod:`.validation`) with several
bandwidths and null spaces, and the blocks that tell best are kept. Then the effect, which does (:mod:`.trials`): on
which blocks, how strongly, at which positions, with which shape of the gate. Taken is, of the points that keep at least
``KEPT`` of the retain replies token-identical and erase at least ``ERASED``, the one that erases most; if there is
none, the one of greatest harmonic mean: a method that cannot have both is shown at its best, not at its most timid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Literal

import torch

from mllmeraser.console import track
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.steering.assembly import Plan
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.forms import GateShape, NullSpace
from mllmeraser.steering.gate import GateRecipe
from mllmeraser.steering.in_process import Push
from mllmeraser.steering.recipe import Recipe
from mllmeraser.steering.trials import Material, Point, Trials
from mllmeraser.steering.validation import HeldOut, choose_threshold, cross_validate

KEPT = 0.99
ERASED = 0.8
BANDWIDTHS = (0.3, 0.6, 1.0)
USUAL_BANDWIDTH = 0.6  # where nothing is calibrated
NULL_SPACES = (NullSpace("soft", 1.0), NullSpace("soft", 10.0), NullSpace("soft", 100.0))  # towards the projector
STRENGTHS = (1.0, 0.5, 1.5, 2.0)  # the first is tried on every plan, the others on the best
OPEN_STRENGTHS = (0.25, 0.1, 0.15, 0.2, 0.5, 1.0)  # of a gate without a threshold; 0.25 is the paper's
SPANS = (1, 2, 4)
GATE_BLOCKS = 3


@dataclass(frozen=True)
class Validated:
    """The best setting of one block's gate, and how it did on records it was not fitted on (null: none held out)."""

    setting: GateRecipe
    held_out: HeldOut | None


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and from what."""

    push: Push
    shape: GateShape
    gates: Mapping[int, Validated]  # by block whose gate is read
    curve: tuple[Point, ...]  # empty where nothing had to be tried

    @property
    def point(self) -> Point | None:
        """The trial of what was chosen, if there was one."""
        return next((point for point in self.curve if _choice(point) == (self.push, self.shape)), None)

    @property
    def shortfall(self) -> str | None:
        """What the choice misses of what is asked of every choice, in words; null where nothing is missed."""
        point = self.point
        if point is None or _good(point):
            return None
        return (
            f"no trial kept {KEPT:.0%} token-identical and erased {ERASED:.0%}; this is the best of both, "
            f"from {len(self.curve)} trials: give more retain records, or records that differ more from the forgotten"
        )

    def document(self) -> dict[str, Any]:
        """The whole trade-off curve and the choice, for the work directory and the report."""
        push = self.push
        chosen = {
            **asdict(push.plan),
            "strength": push.strength,
            "reply_steps": push.reply_steps,
            "prompt_positions": push.prompt_positions,
            "gate_shape": str(self.shape),
            "gates": {
                str(layer): {"null_space": str(gate.setting.null_space), "bandwidth": gate.setting.bandwidth}
                for layer, gate in self.gates.items()
            },
        }
        return {"schema": 1, "chosen": chosen, "curve": [asdict(point) for point in self.curve]}


def calibrate(
    checkpoint: Checkpoint,
    material: Material,
    recipe: Recipe,
    num_layers: int,
    folds: Sequence[Fold],
    seed: int,
) -> Calibration:
    """Choose everything the recipe leaves open; what it gives is never touched. Without folds nothing is open."""
    steps = len(next(iter(material.directions.values())))
    positions: Literal["all", "last"] = "all" if recipe.prompt_positions == "all" else "last"
    if not folds:
        assert isinstance(recipe.layers, tuple) and recipe.strength != "auto" and recipe.gate_shape != "auto"
        plan = Plan(recipe.layers, recipe.gate_layer if isinstance(recipe.gate_layer, int) else None)
        null_space = NULL_SPACES[0] if recipe.null_space == "auto" else recipe.null_space
        setting = GateRecipe.of(
            recipe, null_space, USUAL_BANDWIDTH if recipe.bandwidth == "auto" else recipe.bandwidth, seed
        )
        gates = {layer: Validated(setting, None) for layer in plan.read}
        return Calibration(Push(plan, recipe.strength, steps, positions), recipe.gate_shape, gates, ())
    gates = _validated_gates(material, recipe, folds, seed)
    shapes, strengths = _shapes(recipe), _strengths(recipe)
    pushes = [Push(plan, strengths[0], steps, positions) for plan in _plans(recipe, num_layers, gates)]
    if len(pushes) == len(strengths) == len(shapes) == 1:
        shape = _with_threshold(shapes[0], pushes[0].plan, gates)
        return Calibration(pushes[0], shape, _read(pushes[0], gates), ())
    settings = {layer: gate.setting for layer, gate in gates.items()}
    held_out = {layer: gate.held_out for layer, gate in gates.items() if gate.held_out is not None}
    trials = Trials(checkpoint, material, settings, held_out, folds[0], seed)

    def tried(attempts: Sequence[tuple[Push, GateShape]], what: str) -> list[Point]:
        return [
            trials(push, _with_threshold(shape, push.plan, gates))
            for push, shape in track(attempts, f"calibration: {what}")
        ]

    curve = tried([(push, shapes[0]) for push in pushes], "blocks")
    best, shape = _choice(_best(curve))
    curve += tried([(replace(best, strength=strength), shape) for strength in strengths[1:]], "strength")
    best, shape = _choice(_best(curve))
    others = [replace(best, prompt_positions="all")] if recipe.prompt_positions == "auto" else []
    if recipe.reply_steps == "auto":
        others += [replace(best, reply_steps=fewer) for fewer in sorted({1, steps // 2} - {0, steps})]
    curve += tried([(push, shape) for push in others], "positions")
    best, shape = _choice(_best(curve))
    curve += tried([(best, other) for other in shapes[1:]], "shape")
    best, shape = _choice(_best(curve))
    return Calibration(best, shape, _read(best, gates), tuple(curve))


def _shapes(recipe: Recipe) -> tuple[GateShape, ...]:
    if recipe.gate_shape != "auto":
        return (recipe.gate_shape,)
    return GateShape("step"), GateShape("dead-zone"), GateShape("clip")  # the first is tried on every plan


def _strengths(recipe: Recipe) -> tuple[float, ...]:
    if recipe.strength != "auto":
        return (recipe.strength,)
    return STRENGTHS if _shapes(recipe)[0].thresholded else OPEN_STRENGTHS


def _settings(recipe: Recipe, seed: int) -> Iterator[GateRecipe]:
    """The gates to validate at each block, the given one alone where nothing is open."""
    null_spaces = NULL_SPACES if recipe.null_space == "auto" else (recipe.null_space,)
    bandwidths = BANDWIDTHS if recipe.bandwidth == "auto" else (recipe.bandwidth,)
    if recipe.gate == "linear":
        bandwidths = (1.0,)  # it has none
    for null_space, bandwidth in product(null_spaces, bandwidths):
        yield GateRecipe.of(recipe, null_space, bandwidth, seed)


def _validated_gates(material: Material, recipe: Recipe, folds: Sequence[Fold], seed: int) -> dict[int, Validated]:
    """For each block whose gate may be read, the setting that tells best."""
    settings = list(_settings(recipe, seed))
    gates = {}
    for layer in track(list(material.forget_states), "calibration: gates"):
        forget, retain = material.forget_states[layer], material.retain_states[layer]
        scores = cross_validate(forget, retain, folds, settings, material.positions, material.listed)
        best = max(range(len(settings)), key=lambda i: scores[i].separation)
        gates[layer] = Validated(settings[best], scores[best])
    return gates


def _plans(recipe: Recipe, num_layers: int, gates: Mapping[int, Validated]) -> Iterator[Plan]:
    """The plans to try, of which the first is the simplest."""
    separation = {layer: gate.held_out.separation for layer, gate in gates.items() if gate.held_out is not None}
    if recipe.layers != "auto":
        layers = tuple(range(num_layers)) if recipe.layers == "all" else recipe.layers
        yield Plan(layers, _gate_layer(recipe, layers[0], separation))
        return
    if isinstance(recipe.gate_layer, int):
        readers = [recipe.gate_layer]
    else:
        readers = sorted(separation, key=lambda layer: -separation[layer])[:GATE_BLOCKS]
    for reader in sorted(readers):
        for span in SPANS if recipe.gate_scope == "prompt" else (1,):  # a later block's gate would read moved states
            layers = tuple(range(reader, reader + span))
            if layers[-1] < num_layers - 1 or (span == 1 and len(readers) == 1):
                yield Plan(layers, None if recipe.gate_layer == "own" else reader)


def _gate_layer(recipe: Recipe, first: int, separation: Mapping[int, float]) -> int | None:
    if recipe.gate_layer == "own":
        return None
    if isinstance(recipe.gate_layer, int):
        return recipe.gate_layer
    return max((layer for layer in separation if layer <= first), key=lambda layer: separation[layer])


def _with_threshold(shape: GateShape, plan: Plan, gates: Mapping[int, Validated]) -> GateShape:
    """The shape, with the threshold that the held-out scores of the plan's gates ask for if it needs one."""
    if not shape.needs_threshold:
        return shape
    scores = [held_out for layer in plan.read if (held_out := gates[layer].held_out) is not None]
    sides = zip(*((s.forget, s.retain, s.variants) for s in scores), strict=True)
    return shape._replace(threshold=choose_threshold(HeldOut(*map(torch.cat, map(list, sides)))))


def _read(push: Push, gates: Mapping[int, Validated]) -> dict[int, Validated]:
    return {layer: gates[layer] for layer in push.plan.read}


def _choice(point: Point) -> tuple[Push, GateShape]:
    positions: Literal["all", "last"] = "all" if point.prompt_positions == "all" else "last"
    push = Push(Plan(point.layers, point.gate_layer), point.strength, point.reply_steps, positions)
    return push, GateShape(point.gate_shape, point.threshold)


def _best(curve: Sequence[Point]) -> Point:
    """Of equals the fewest blocks, the strength nearest to 1 (which moves a recall state onto an erasure state), and
    what was tried first."""

    def merit(point: Point, erased: float) -> tuple[float, ...]:
        return erased, point.fluent, -len(point.layers), -abs(point.strength - 1)

    good = [point for point in curve if _good(point)]
    if good:
        return max(good, key=lambda point: merit(point, point.erased))
    return max(curve, key=lambda point: merit(point, _harmonic(point.erased, point.kept)))


def _good(point: Point) -> bool:
    return point.kept >= KEPT and point.erased >= ERASED


def _harmonic(a: float, b: float) -> float:
    return 0.0 if a * b == 0 else 2 * a * b / (a + b)

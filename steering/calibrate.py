"""Choosing, on held-out samples, what was left ``auto``: blocks, gate, bandwidth, threshold and strength.

First the gates, which cost no forward pass: each candidate block's is cross-validated (:mod:`.validation`), and the
blocks that tell best are kept. Then the effect, which does: with the gates fitted on all folds but the first, the base
is steered in process and answers held-out forget and retain prompts, plan by plan, strength by strength. So every point
of that trade-off curve is held out. Taken is, of the points that keep at least ``KEPT`` of the retain replies
token-identical and erase at least ``ERASED``, the one that erases most; if there is none, the one of greatest harmonic
mean: a method that cannot have both is shown at its best, not at its most timid.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mllmeraser.console import track
from mllmeraser.inference.answers import leaks, refuses
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.steering.assembly import Plan, assemble
from mllmeraser.steering.bundle import request_entry
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.gate import Gate, GateRecipe, fit_gate
from mllmeraser.steering.recipe import Recipe
from mllmeraser.steering.samples import Sample
from mllmeraser.steering.validation import HeldOut, choose_threshold, cross_validate

KEPT = 0.99
ERASED = 0.8
BANDWIDTHS = (0.3, 0.6, 1.0)
STRENGTHS = (1.0, 0.5, 1.5, 2.0)  # the first is tried on every plan, the others on the best
OPEN_STRENGTHS = (0.25, 0.1, 0.15, 0.2, 0.5, 1.0)  # of a gate without a threshold; 0.25 is the paper's
SPANS = (1, 2, 4)
GATE_BLOCKS = 3
TRIED = 48  # prompts of each side a trial


@dataclass(frozen=True)
class Point:
    """One trial. Shares of held-out replies: ``refused`` whole refusals without the answer, ``forgotten`` without the
    right answer anywhere, ``kept`` token-identical to the base's."""

    layers: tuple[int, ...]
    gate_layer: int | None
    strength: float
    refused: float
    forgotten: float
    kept: float

    @property
    def erased(self) -> float:
        """The mean of refused and forgotten: a leak counts twice."""
        return (self.refused + self.forgotten) / 2


@dataclass(frozen=True)
class Calibration:
    """What was chosen, and from what."""

    plan: Plan
    bandwidth: float
    threshold: float | None
    strength: float
    held_out: dict[int, HeldOut]  # by block whose gate is read
    curve: tuple[Point, ...]  # empty where nothing had to be tried

    @property
    def point(self) -> Point | None:
        """The trial of what was chosen, if there was one."""
        wanted = (self.plan.layers, self.plan.gate_layer, self.strength)
        return next((p for p in self.curve if (p.layers, p.gate_layer, p.strength) == wanted), None)

    def document(self) -> dict[str, Any]:
        """The trade-off curve and the choice, for the work directory and the report."""
        chosen = {
            **asdict(self.plan),
            "bandwidth": self.bandwidth,
            "threshold": self.threshold,
            "strength": self.strength,
        }
        return {"schema": 1, "chosen": chosen, "curve": [asdict(point) for point in self.curve]}


@dataclass(frozen=True)
class Material:
    """What gates and trials are made of; states and directions by block."""

    forget: Sequence[Sample]
    retain: Sequence[Sample]
    forget_states: Mapping[int, Tensor]  # each (n_f, d)
    retain_states: Mapping[int, Tensor]  # each (n_r, d)
    directions: Mapping[int, Tensor]  # each (K, d)


def calibrate(
    checkpoint: Checkpoint, material: Material, recipe: Recipe, num_layers: int, folds: Sequence[Fold], seed: int
) -> Calibration:
    """Choose everything the recipe leaves open; what it gives is never touched. Without folds nothing is open."""
    if not folds:
        assert isinstance(recipe.layers, tuple)
        plan = Plan(recipe.layers, recipe.gate_layer if isinstance(recipe.gate_layer, int) else None)
        bandwidth = recipe.bandwidth if isinstance(recipe.bandwidth, float) else 1.0
        return Calibration(plan, bandwidth, recipe.gate_shape.threshold, float(recipe.strength), {}, ())
    gates = _validated_gates(material, recipe, folds, seed)
    plans = list(_plans(recipe, num_layers, {layer: scores.separation for layer, (_, scores) in gates.items()}))
    trials = _Trials(checkpoint, material, recipe, gates, folds[0], seed)
    strengths = _strengths(recipe)
    if len(plans) == 1 and len(strengths) == 1:
        return _chosen(plans[0], strengths[0], gates, recipe, ())
    points = [trials(plan, strengths[:1]) for plan in track(plans, "calibration: blocks")]
    curve = [point for tried in points for point in tried]
    if len(strengths) > 1:
        best = _best(curve)
        curve += trials(Plan(best.layers, best.gate_layer), strengths[1:])
    best = _best(curve)
    return _chosen(Plan(best.layers, best.gate_layer), best.strength, gates, recipe, tuple(curve))


def _strengths(recipe: Recipe) -> tuple[float, ...]:
    if recipe.strength != "auto":
        return (recipe.strength,)
    return STRENGTHS if recipe.gate_shape.thresholded else OPEN_STRENGTHS


def _validated_gates(
    material: Material, recipe: Recipe, folds: Sequence[Fold], seed: int
) -> dict[int, tuple[float, HeldOut]]:
    """For each block whose gate may be read, the bandwidth that tells best and its held-out scores."""
    if recipe.gate == "linear":
        bandwidths: tuple[float, ...] = (1.0,)
    else:
        bandwidths = BANDWIDTHS if recipe.bandwidth == "auto" else (recipe.bandwidth,)
    gates = {}
    for layer in track(list(material.forget_states), "calibration: gates"):
        states = material.forget_states[layer], material.retain_states[layer]
        tried = [(b, cross_validate(*states, folds, GateRecipe.of(recipe, b, seed))) for b in bandwidths]
        gates[layer] = max(tried, key=lambda one: one[1].separation)
    return gates


def _plans(recipe: Recipe, num_layers: int, separation: Mapping[int, float]) -> Iterator[Plan]:
    """The plans to try, of which the first is the simplest."""
    if recipe.layers != "auto":
        layers = tuple(range(num_layers)) if recipe.layers == "all" else recipe.layers
        yield Plan(layers, _gate_layer(recipe, layers[0], separation))
        return
    if isinstance(recipe.gate_layer, int):
        readers = [recipe.gate_layer]
    else:
        readers = sorted(separation, key=lambda layer: -separation[layer])[:GATE_BLOCKS]
    for reader in sorted(readers):
        for span in SPANS:
            layers = tuple(range(reader, reader + span))
            if layers[-1] < num_layers - 1 or (span == 1 and len(readers) == 1):
                yield Plan(layers, None if recipe.gate_layer == "own" else reader)


def _gate_layer(recipe: Recipe, first: int, separation: Mapping[int, float]) -> int | None:
    if recipe.gate_layer == "own":
        return None
    if isinstance(recipe.gate_layer, int):
        return recipe.gate_layer
    return max((layer for layer in separation if layer <= first), key=lambda layer: separation[layer])


def threshold_of(plan: Plan, held_out: Mapping[int, HeldOut], recipe: Recipe) -> float | None:
    """The recipe's threshold, or the one that the held-out scores of the plan's gates ask for."""
    shape = recipe.gate_shape
    if not shape.thresholded or shape.threshold is not None:
        return shape.threshold
    scores = [held_out[layer] for layer in plan.read]
    return choose_threshold(HeldOut(torch.cat([s.forget for s in scores]), torch.cat([s.retain for s in scores])))


def _chosen(
    plan: Plan,
    strength: float,
    gates: Mapping[int, tuple[float, HeldOut]],
    recipe: Recipe,
    curve: tuple[Point, ...],
) -> Calibration:
    held_out = {layer: gates[layer][1] for layer in plan.read}
    return Calibration(plan, gates[plan.read[0]][0], threshold_of(plan, held_out, recipe), strength, held_out, curve)


def _best(curve: Sequence[Point]) -> Point:
    good = [point for point in curve if point.kept >= KEPT and point.erased >= ERASED]
    if good:
        # Of equals the fewest blocks, and the strength nearest to 1, which moves a recall state onto an erasure state.
        return max(good, key=lambda point: (point.erased, -len(point.layers), -abs(point.strength - 1)))
    return max(curve, key=lambda point: (_harmonic(point.erased, point.kept), -len(point.layers)))


def _harmonic(a: float, b: float) -> float:
    return 0.0 if a * b == 0 else 2 * a * b / (a + b)


class _Trials:
    """Held-out prompts of the first fold, answered by the base steered in process with gates fitted on the rest."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        material: Material,
        recipe: Recipe,
        gates: Mapping[int, tuple[float, HeldOut]],
        fold: Fold,
        seed: int,
    ) -> None:
        self.checkpoint, self.material, self.recipe, self.gates, self.fold = checkpoint, material, recipe, gates, fold
        self.seed = seed
        rng = random.Random(f"trials {seed}")
        self.forget, self.retain = _some(fold.forget, rng), _some(fold.retain, rng)
        self.turns = [material.forget[i].user_turn for i in self.forget]
        self.turns += [material.retain[i].user_turn for i in self.retain]
        self.answers = [material.forget[i].accepted for i in self.forget]
        self.steps = len(next(iter(material.directions.values())))
        self.length = max(16, self.steps + 8)
        self.base_replies = greedy_reply_ids(checkpoint, self.turns, max_new_tokens=self.length)
        self._fitted: dict[int, Gate] = {}

    def __call__(self, plan: Plan, strengths: Sequence[float]) -> list[Point]:
        """One point for each strength."""
        gates = {layer: self._gate(layer) for layer in plan.read}
        threshold = threshold_of(plan, {layer: self.gates[layer][1] for layer in plan.read}, self.recipe)
        form, tensors = assemble(
            plan, gates, self.recipe.gate_shape._replace(threshold=threshold), self.material.directions
        )
        entry = request_entry(
            "trial",
            plan.layers,
            plan.gate_layer,
            form,
            strength=1.0,
            prompt_positions=self.recipe.prompt_positions,
            reply_steps=self.steps,
        )
        model = steered_class(self.checkpoint.model_type).from_base(
            self.checkpoint.model, {"schema": 1, "requests": [entry]}, tensors
        )
        moved = self._moved(gates, threshold)
        points = []
        for strength in strengths:
            entry["strength"] = model.config.steering["requests"][0]["strength"] = strength
            passes = self.checkpoint.passes.steered(tensors, entry)
            steered = replace(self.checkpoint, model=model, steered=True, passes=passes)
            said = greedy_reply_ids(steered, [self.turns[i] for i in moved], max_new_tokens=self.length)
            points.append(
                self._judge(
                    plan, strength, {**dict(enumerate(self.base_replies)), **dict(zip(moved, said, strict=True))}
                )
            )
        return points

    def _moved(self, gates: Mapping[int, Gate], threshold: float | None) -> list[int]:
        """The prompts whose reply has to be made: where every gate stays below its threshold it is the base's."""
        if threshold is None:
            return list(range(len(self.turns)))
        opens = torch.zeros(len(self.turns), dtype=torch.bool)
        for layer, gate in gates.items():
            states = self.material.forget_states[layer][self.forget], self.material.retain_states[layer][self.retain]
            opens |= gate(torch.cat(states)) >= threshold
        moved: list[int] = opens.nonzero()[:, 0].tolist()
        return moved

    def _judge(self, plan: Plan, strength: float, replies: Mapping[int, Tensor]) -> Point:
        n = len(self.forget)
        texts = self.checkpoint.processor.tokenizer.batch_decode(
            [replies[i] for i in range(n)], skip_special_tokens=True
        )
        right = [leaks(text, accepted) for text, accepted in zip(texts, self.answers, strict=True)]
        refused = [refuses(text, accepted) for text, accepted in zip(texts, self.answers, strict=True)]
        kept = [torch.equal(replies[i], self.base_replies[i]) for i in range(n, len(self.turns))]
        return Point(plan.layers, plan.gate_layer, strength, _mean(refused), 1 - _mean(right), _mean(kept))

    def _gate(self, layer: int) -> Gate:
        if layer not in self._fitted:
            states = self.material.forget_states[layer], self.material.retain_states[layer]
            recipe = GateRecipe.of(self.recipe, self.gates[layer][0], self.seed)
            self._fitted[layer] = fit_gate(states[0][~self.fold.forget], states[1][~self.fold.retain], recipe)
        return self._fitted[layer]


def _some(held_out: Tensor, rng: random.Random) -> list[int]:
    """At most ``TRIED`` indices of held-out samples."""
    indices = held_out.nonzero()[:, 0].tolist()
    return sorted(rng.sample(indices, min(TRIED, len(indices))))


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)

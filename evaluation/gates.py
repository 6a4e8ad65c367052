"""Measures whether the gates of a steered checkpoint open where they should, from the values kept with every reply."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from mllmeraser.evaluation.items import Item
from mllmeraser.inference.gates import GateValue
from mllmeraser.judging.ranking import auroc
from mllmeraser.judging.results_file import GateQuality, Gates

TRUE_FIRE = 0.95


def gates(items: Sequence[Item]) -> list[Gates]:
    """The gate g at the end of each record's prompt, in the order of the records, by model, set, request and layer."""
    found: dict[tuple[str, str, str, int], list[GateValue]] = {}
    for item in items:
        for gate in item.gates:
            found.setdefault((item.model, item.set, gate.request, gate.layer), []).append(gate)
    return [
        Gates(
            model=model,
            set=name,
            request=request,
            layer=layer,
            threshold=read[0].threshold,
            values=[gate.value for gate in read],
        )
        for (model, name, request, layer), read in found.items()
    ]


def gate_quality(items: Sequence[Item], forgotten: Collection[str]) -> list[GateQuality]:
    """How well a gate separates the records of all forgotten sets from those of all kept sets.

    There is one entry for each model, request and layer.

    * ``auroc``: the chance that a forgotten record's g is above a kept record's.
    * ``false_fire_rate_at_95_true_fire``: take the largest threshold that 95 % of the forgotten records reach; this is
      the share of kept records at or above it.
    * ``true_fire_rate``, ``false_fire_rate``: the shares of forgotten and of kept records at or above the gate's own
      threshold; null where the gate's shape has none.
    """
    sides: dict[tuple[str, str, int], tuple[list[float], list[float]]] = {}
    thresholds: dict[tuple[str, str, int], float | None] = {}
    for item in items:
        for gate in item.gates:
            key = (item.model, gate.request, gate.layer)
            sides.setdefault(key, ([], []))[0 if item.set in forgotten else 1].append(gate.value)
            thresholds[key] = gate.threshold
    return [
        GateQuality(
            model=model,
            request=request,
            layer=layer,
            n_forgotten=len(fire),
            n_kept=len(rest),
            auroc=auroc(fire, rest),
            false_fire_rate_at_95_true_fire=false_fire_rate(fire, rest),
            threshold=thresholds[model, request, layer],
            true_fire_rate=_share(fire, thresholds[model, request, layer]),
            false_fire_rate=_share(rest, thresholds[model, request, layer]),
        )
        for (model, request, layer), (fire, rest) in sides.items()
        if fire and rest
    ]


def false_fire_rate(forgotten: Sequence[float], kept: Sequence[float], true_fire: float = TRUE_FIRE) -> float:
    """The share of ``kept`` at or above the largest threshold that a share ``true_fire`` of ``forgotten`` reaches."""
    reached = np.sort(np.asarray(forgotten))[::-1]
    threshold = reached[int(np.ceil(true_fire * len(reached))) - 1]
    return float(np.mean(np.asarray(kept) >= threshold))


def _share(values: Sequence[float], threshold: float | None) -> float | None:
    return None if threshold is None else float(np.mean(np.asarray(values) >= threshold))

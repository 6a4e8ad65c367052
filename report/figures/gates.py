"""Draws how far the gates open, set by set, and the threshold from which they steer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mllmeraser.judging.results_file import Gates
from mllmeraser.report.figures.theme import ACCENT, INK, MUTED, PLAIN, WIDTH, finished
from mllmeraser.report.figures.vega import category, marks, quantity
from mllmeraser.report.findings import Findings
from mllmeraser.report.numbers import number
from mllmeraser.report.parts import Figure, Spec, Table

BINS = 40


def gates(findings: Findings) -> list[Figure]:
    """One figure for each model, request and layer with a gate."""
    groups: dict[tuple[str, str, int], list[Gates]] = {}
    for entry in findings.gates:
        if entry.values:
            groups.setdefault((entry.model, entry.request, entry.layer), []).append(entry)
    several = len({model for model, _, _ in groups}) > 1 or len({request for _, request, _ in groups}) > 1
    return [_figure(key, entries, findings.forgotten, several) for key, entries in groups.items()]


def _figure(key: tuple[str, str, int], entries: Sequence[Gates], forgotten: Sequence[str], named: bool) -> Figure:
    model, request, layer = key
    threshold = entries[0].threshold
    rows = [_numbers(entry, threshold) for entry in entries]
    opens = (
        ""
        if threshold is None
        else f" The dashed line is the threshold, {threshold:.2f}: the gate opens from there on."
    )
    return Figure(
        f"gates-{model}-{request}-{layer}",
        f"Gate at layer {layer}" + (f", {model}, {request}" if named else ""),
        f"The gate's values at the end of each question, set by set. They should be 1 on the forgotten and 0 on "
        f"everything else.{opens}",
        _chart(entries, threshold, forgotten),
        Table("Gate values", ["set", "n", "lowest", "median", "highest", "opens, %"], rows),
    )


def _numbers(entry: Gates, threshold: float | None) -> list[str]:
    values = sorted(entry.values)
    opens = "–" if threshold is None else number(100 * sum(v >= threshold for v in values) / len(values))
    spread = [f"{value:.2f}" for value in (values[0], values[len(values) // 2], values[-1])]
    return [entry.set, str(len(values)), *spread, opens]


def _chart(entries: Sequence[Gates], threshold: float | None, forgotten: Sequence[str]) -> Spec:
    everything = [value for entry in entries for value in entry.values] + [0.0, 1.0]
    everything += [] if threshold is None else [threshold]
    low, high = math.floor(10 * min(everything)) / 10, math.ceil(10 * max(everything)) / 10
    step = (high - low) / BINS
    room = min(150, 20 + 7 * max(len(entry.set) for entry in entries))  # for the names
    panels = []
    for entry in entries:
        counts = [0] * BINS
        for value in entry.values:
            counts[min(BINS - 1, int((value - low) / step))] += 1
        bars = [
            {"from": low + i * step, "to": low + (i + 1) * step, "share": count / max(counts)}
            for i, count in enumerate(counts)
            if count
        ]
        last = entry is entries[-1]
        axis = {"grid": False, "labels": last, "ticks": last, "values": [0, 0.5, 1], "title": "gate" if last else None}
        where = {
            "x": quantity("from", scale={"domain": [low, high], "nice": False}, axis=axis),
            "x2": {"field": "to"},
            "y": quantity("share", scale={"domain": [0, 1]}, axis=None),
            "y2": {"datum": 0},
        }
        beside = {"x": {"value": -10}, "y": {"value": 36}, "text": category("name")}
        layers = [
            marks("bar", bars, where, color=ACCENT if entry.set in forgotten else PLAIN, binSpacing=0),
            marks("text", [{"name": entry.set}], beside, align="right", baseline="bottom", color=INK),
        ]
        if threshold is not None:
            layers.append(marks("rule", [{"x": threshold}], {"x": quantity("x")}, color=MUTED, strokeDash=[3, 3]))
        panels.append({"layer": layers, "width": WIDTH - room, "height": 36})
    return finished({"vconcat": panels, "spacing": 6})

"""Draws the hidden states of the questions before and after the steering (figure 4 of arXiv 2510.04217)."""

from __future__ import annotations

from collections.abc import Sequence

from mllmeraser.judging.results_file import ActivationMap
from mllmeraser.report.figures.theme import ACCENT, LEGEND, PLAIN, WIDTH, finished
from mllmeraser.report.figures.vega import category, marks, quantity
from mllmeraser.report.findings import Findings
from mllmeraser.report.parts import Figure, Spec, Table

FORGOTTEN, OTHERS = "the forgotten", "others"


def activations(findings: Findings) -> list[Figure]:
    """Two figures for each steered model that ``evaluate --activations`` mapped: before and after."""
    return [
        _figure(found, model, findings.forgotten)
        for found in findings.activations
        for model in dict.fromkeys(entry.model for entry in found.points)
    ]


def _figure(found: ActivationMap, model: str, forgotten: Sequence[str]) -> Figure:
    after = model == found.model
    rows = []
    for entry in found.points:
        if entry.model == model:
            means = (sum(values) / len(values) for values in (entry.x, entry.y))
            rows.append([entry.set, str(len(entry.x)), *(f"{mean:.2f}" for mean in means)])
    return Figure(
        f"activations-{found.model}-{'after' if after else 'before'}",
        f"{'After' if after else 'Before'}: {model}, output of layer {found.block}",
        "Each point is the hidden state at the last token of a question. The axes are the two directions in which the "
        f"states before and after vary most ({100 * sum(found.explained):.0f} % of the variance). Both drawings have "
        "the same scale.",
        _chart(found, model, forgotten),
        Table("Means of the points", ["set", "n", "first direction", "second direction"], rows),
    )


def _chart(found: ActivationMap, model: str, forgotten: Sequence[str]) -> Spec:
    points = [
        {"x": x, "y": y, "about": FORGOTTEN if entry.set in forgotten else OTHERS}
        for entry in found.points
        if entry.model == model
        for x, y in zip(entry.x, entry.y, strict=True)
    ]
    points.sort(key=lambda point: point["about"] == FORGOTTEN)  # drawn last, on top
    axis = {"labels": False, "ticks": False, "title": None, "grid": False}
    names = [FORGOTTEN, OTHERS]
    where = {
        "x": quantity("x", scale=_scale([x for entry in found.points for x in entry.x]), axis=axis),
        "y": quantity("y", scale=_scale([y for entry in found.points for y in entry.y]), axis=axis),
        "color": category("about", scale={"domain": names, "range": [ACCENT, PLAIN]}, legend=LEGEND),
        "shape": category("about", scale={"domain": names, "range": ["circle", "triangle-up"]}),
    }
    dots = marks("point", points, where, filled=True, size=22, opacity=0.8)
    return finished({**dots, "width": WIDTH - 20, "height": WIDTH - 80})


def _scale(values: Sequence[float]) -> Spec:
    """A scale over all values, with a margin."""
    margin = 0.04 * (max(values) - min(values))
    return {"domain": [min(values) - margin, max(values) + margin], "nice": False}

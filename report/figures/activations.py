"""Where the questions lie inside the model, before and after (figure 4 of arXiv 2510.04217)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from mllmeraser.report.figures.theme import ACCENT, PLAIN, WIDTH, data, finished
from mllmeraser.report.findings import Findings, Record
from mllmeraser.report.parts import Figure, Table

FORGOTTEN, OTHERS = "the forgotten", "others"


def activations(findings: Findings) -> list[Figure]:
    """Two figures for each steered model that was looked into (``evaluate --activations``): before, and after."""
    return [
        _figure(found, model, findings.forgotten)
        for found in findings.activations
        for model in dict.fromkeys(entry["model"] for entry in found["points"])
    ]


def _figure(found: Record, model: str, forgotten: Sequence[str]) -> Figure:
    after = model == found["model"]
    rows = []
    for entry in found["points"]:
        if entry["model"] == model:
            means = (sum(entry[axis]) / len(entry[axis]) for axis in ("x", "y"))
            rows.append([entry["set"], str(len(entry["x"])), *(f"{mean:.2f}" for mean in means)])
    return Figure(
        f"activations-{found['model']}-{'after' if after else 'before'}",
        f"{'After' if after else 'Before'}: {model}, behind block {found['block']}",
        "Every point is a question, by the hidden state at its last token, in the two directions in which the states "
        f"before and after vary most ({100 * sum(found['explained']):.0f} % of the variance); both drawings have one "
        f"scale.",
        _chart(found, model, forgotten),
        Table("Means of the points", ["set", "n", "first direction", "second direction"], rows),
    )


def _chart(found: Record, model: str, forgotten: Sequence[str]) -> dict[str, Any]:
    points = [
        {"x": x, "y": y, "about": FORGOTTEN if entry["set"] in forgotten else OTHERS}
        for entry in found["points"]
        if entry["model"] == model
        for x, y in zip(entry["x"], entry["y"], strict=True)
    ]
    points.sort(key=lambda point: point["about"] == FORGOTTEN)  # drawn last, on top
    axis = alt.Axis(labels=False, ticks=False, title=None, grid=False)
    scales = {}
    for key in ("x", "y"):
        values = [value for entry in found["points"] for value in entry[key]]
        margin = 0.04 * (max(values) - min(values))
        scales[key] = alt.Scale(domain=[min(values) - margin, max(values) + margin], nice=False)
    names = [FORGOTTEN, OTHERS]
    dots = (
        alt.Chart(data(points))
        .mark_point(filled=True, size=22, opacity=0.8)
        .encode(
            x=alt.X("x:Q", scale=scales["x"], axis=axis),
            y=alt.Y("y:Q", scale=scales["y"], axis=axis),
            color=alt.Color(
                "about:N",
                scale=alt.Scale(domain=names, range=[ACCENT, PLAIN]),
                legend=alt.Legend(orient="bottom", title=None, columnPadding=24),
            ),
            shape=alt.Shape("about:N", scale=alt.Scale(domain=names, range=["circle", "triangle-up"])),
        )
    )
    return finished(dots.properties(width=WIDTH - 20, height=WIDTH - 80))

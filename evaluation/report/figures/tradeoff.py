"""Forgetting against keeping, a point for every model or method (figure 3 of arXiv 2510.04217)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from mllmeraser.evaluation.report.figures.theme import ACCENT, INK, LINE, MUTED, PLAIN, WIDTH, data, finished
from mllmeraser.evaluation.report.findings import Findings
from mllmeraser.evaluation.report.numbers import number, pooled
from mllmeraser.evaluation.report.parts import Figure, Table
from mllmeraser.evaluation.report.verdict import judged_model

_POINTS_PER_PERCENT = (WIDTH - 60) / 100


def tradeoff(findings: Findings) -> Figure | None:
    """Null if there is neither a table of methods nor a model with rows on both sides."""
    points = _of_models(findings) + _of_methods(findings)
    if not points:
        return None
    rows = [[p["name"], number(p["forgotten"]), number(p["kept"]), p["seeds"]] for p in points]
    return Figure(
        "tradeoff",
        "Forgotten against kept",
        "Every point is a model. To the right: answers about the forgotten that are gone. Upwards: right answers to "
        "everything else. The upper right corner is the aim.",
        _chart(points),
        Table("Forgotten and kept, in %", ["model", "forgotten", "kept", "runs"], rows),
    )


def _of_models(findings: Findings) -> list[dict[str, Any]]:
    points = []
    for model in findings.models:
        gone = pooled(findings.of(model, findings.forgotten), "told")
        kept = pooled(findings.of(model, findings.kept), "told")
        if gone is not None and kept is not None:
            points.append(_point(model, 1 - gone.share, kept.share, "1", model == judged_model(findings)))
    return points


def _of_methods(findings: Findings) -> list[dict[str, Any]]:
    """A method's runs under several seeds are one point, their mean."""
    by_name: dict[str, list[Any]] = {}
    for method in findings.methods:
        by_name.setdefault(method["name"], []).append(method)
    shown = {model for model in findings.models if findings.rows}
    points = []
    for name, runs in by_name.items():
        if name not in shown:
            gone, kept = (sum(run[key] for run in runs) / len(runs) for key in ("forgotten", "utility"))
            points.append(_point(name, gone, kept, str(len(runs)), _is_ours(name, findings)))
    return points


def _is_ours(name: str, findings: Findings) -> bool:
    return judged_model(findings) is None and name.lower() in ("steered", "ours", "mllmeraser")


def _point(name: str, forgotten: float, kept: float, seeds: str, judged: bool) -> dict[str, Any]:
    return {"name": name, "forgotten": 100 * forgotten, "kept": 100 * kept, "seeds": seeds, "judged": judged}


def _chart(points: list[dict[str, Any]]) -> dict[str, Any]:
    scale = alt.Scale(domain=[0, 100], nice=False)
    axis = alt.Axis(values=[0, 25, 50, 75, 100], grid=True)
    where = {
        "x": alt.X("forgotten:Q", scale=scale, axis=axis, title="forgotten, %"),
        "y": alt.Y("kept:Q", scale=scale, axis=axis, title="kept, %"),
    }
    colour = alt.condition("datum.judged", alt.value(ACCENT), alt.value(PLAIN))
    dots = alt.Chart(data(points)).mark_point(size=80, filled=True, opacity=1, clip=False)
    layers = [dots.encode(**where, color=colour)]
    ink = alt.condition("datum.judged", alt.value(INK), alt.value(MUTED))
    for label in _labels(points):
        left = label["forgotten"] > 60
        text = alt.Chart(data([label])).mark_text(
            align="right" if left else "left", dx=-9 if left else 9, dy=label["dy"], baseline="middle"
        )
        layers.append(text.encode(**where, text="label:N", color=ink))
    corner = alt.Chart(data([{"x": 100, "y": 100}])).mark_point(shape="circle", size=420, color=LINE, strokeWidth=1.5)
    aim = corner.encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale))
    return finished(alt.layer(aim, *layers).properties(width=WIDTH - 60, height=WIDTH - 60))


def _labels(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The names of points that lie on one another in one label, and near labels below one another."""
    together: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for point in sorted(points, key=lambda point: -point["kept"]):
        together.setdefault((round(point["forgotten"] / 2), round(point["kept"] / 2)), []).append(point)
    placed: list[tuple[float, float]] = []
    labels = []
    for group in together.values():
        x, y, down = group[0]["forgotten"], group[0]["kept"], 0
        while any(abs(x - at) < 30 and abs(y - down / _POINTS_PER_PERCENT - height) < 5 for at, height in placed):
            down += 4
        placed.append((x, y - down / _POINTS_PER_PERCENT))
        name = ", ".join(point["name"] for point in group)
        labels.append({**group[0], "label": name, "dy": down, "judged": any(point["judged"] for point in group)})
    return labels

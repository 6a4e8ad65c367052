"""Forgetting against keeping, a point for every model or method (figure 3 of arXiv 2510.04217)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from mllmeraser.report.figures.theme import ACCENT, INK, LINE, MUTED, PLAIN, WIDTH, data, finished, is_ours
from mllmeraser.report.findings import Findings
from mllmeraser.report.numbers import number, pooled
from mllmeraser.report.parts import Figure, Table
from mllmeraser.report.verdict import judged_model

SIDE = WIDTH - 60
FONT_SIZE, CHARACTER = 11, 6.2  # and the width of a letter, on the average
# Where a name may stand: how it is aligned, and its distance from the point.
_PLACES = (
    ("left", 9, 0),
    ("right", -9, 0),
    *(
        (align, dx, dy)
        for dy in (12, -12, 24, -24, 36, -36)
        for align, dx in (("left", 5), ("right", -5), ("center", 0))
    ),
)


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
        if "forgotten" in method:  # a training that diverged has none
            by_name.setdefault(method["name"], []).append(method)
    points = []
    for name, runs in by_name.items():
        if name not in findings.models:
            gone, kept = (sum(run[key] for run in runs) / len(runs) for key in ("forgotten", "utility"))
            points.append(_point(name, gone, kept, str(len(runs)), judged_model(findings) is None and is_ours(name)))
    return points


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
        text = alt.Chart(data([label])).mark_text(
            align=label["align"], dx=label["dx"], dy=label["dy"], baseline="middle", fontSize=FONT_SIZE
        )
        layers.append(text.encode(**where, text="label:N", color=ink))
    corner = alt.Chart(data([{"x": 100, "y": 100}])).mark_point(shape="circle", size=420, color=LINE, strokeWidth=1.5)
    aim = corner.encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale))
    return finished(alt.layer(aim, *layers).properties(width=SIDE, height=SIDE))


def _labels(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A name beside every point, in the first place where it covers no point and no other name.

    Points that lie on one another share a label. Greedy, the judged ones first; if no place is free, the first it is.
    """
    together: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for point in points:
        together.setdefault((round(point["forgotten"] / 2), round(point["kept"] / 2)), []).append(point)
    scale = SIDE / 100
    taken = [(p["forgotten"] * scale - 5, SIDE - p["kept"] * scale - 5, 10.0, 10.0) for p in points]
    labels = []
    for group in sorted(together.values(), key=lambda group: not any(point["judged"] for point in group)):
        x, y = group[0]["forgotten"] * scale, SIDE - group[0]["kept"] * scale
        name = ", ".join(point["name"] for point in group)
        width = CHARACTER * len(name)
        boxes = {
            place: (
                x + place[1] - {"left": 0.0, "right": width, "center": width / 2}[place[0]],
                y + place[2] - 6,
                width,
                12.0,
            )
            for place in _PLACES
        }
        inside = [place for place, box in boxes.items() if box[0] > -8 and box[0] + box[2] < SIDE + 40]
        free = [place for place in inside if not any(_meet(boxes[place], other) for other in taken)]
        place = (free or inside or list(_PLACES))[0]
        taken.append(boxes[place])
        shown = {"label": name, "judged": any(point["judged"] for point in group)}
        labels.append({**group[0], **shown, "align": place[0], "dx": place[1], "dy": place[2]})
    return labels


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes (left, top, width, height) overlap."""
    return all(one[i] < other[i] + other[i + 2] and other[i] < one[i] + one[i + 2] for i in (0, 1))

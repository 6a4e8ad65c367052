"""Draws forgetting against keeping, one point for each model or method (figure 3 of arXiv 2510.04217)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mllmeraser.report.figures.theme import ACCENT, INK, LINE, MUTED, PERCENT, PLAIN, WIDTH, finished, is_ours
from mllmeraser.report.figures.vega import category, if_so, marks, quantity
from mllmeraser.report.findings import Findings
from mllmeraser.report.numbers import number, pooled, told
from mllmeraser.report.parts import Figure, Spec, Table
from mllmeraser.report.verdict import judged_model

SIDE = WIDTH - 60
FONT_SIZE, CHARACTER = 11, 6.2  # CHARACTER is the average width of a letter
# The places of a name: its alignment, and its distance from the point.
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
    """The figure; null if there is neither a table of methods nor a model with rows on both sides."""
    points = _of_models(findings) + _of_methods(findings)
    if not points:
        return None
    rows = [[p["name"], number(p["forgotten"]), number(p["kept"]), p["seeds"]] for p in points]
    return Figure(
        "tradeoff",
        "Forgotten against kept",
        "Each point is a model. Further right, it gives fewer right answers about the forgotten. Further up, it "
        "answers more of everything else right. The upper right corner is the aim.",
        _chart(points),
        Table("Forgotten and kept, in %", ["model", "forgotten", "kept", "runs"], rows),
    )


def _of_models(findings: Findings) -> list[dict[str, Any]]:
    points = []
    for model in findings.models:
        gone = pooled(findings.of(model, findings.forgotten), told)
        kept = pooled(findings.of(model, findings.kept), told)
        if gone is not None and kept is not None:
            points.append(_point(model, 1 - gone.share, kept.share, "1", model == judged_model(findings)))
    return points


def _of_methods(findings: Findings) -> list[dict[str, Any]]:
    """One point for each method: the mean over its runs with several seeds."""
    by_name: dict[str, list[tuple[float, float]]] = {}
    for run in findings.methods:
        if run.forgotten is not None and run.utility is not None:  # a training that diverged has none
            by_name.setdefault(run.name, []).append((run.forgotten, run.utility))
    points = []
    for name, runs in by_name.items():
        if name not in findings.models:
            gone, kept = (sum(values) / len(runs) for values in zip(*runs, strict=True))
            points.append(_point(name, gone, kept, str(len(runs)), judged_model(findings) is None and is_ours(name)))
    return points


def _point(name: str, forgotten: float, kept: float, seeds: str, judged: bool) -> dict[str, Any]:
    return {"name": name, "forgotten": 100 * forgotten, "kept": 100 * kept, "seeds": seeds, "judged": judged}


def _chart(points: list[dict[str, Any]]) -> Spec:
    axis = {"values": [0, 25, 50, 75, 100], "grid": True}
    where = {
        "x": quantity("forgotten", scale=PERCENT, axis=axis, title="forgotten, %"),
        "y": quantity("kept", scale=PERCENT, axis=axis, title="kept, %"),
    }
    aim = {"x": quantity("x", scale=PERCENT), "y": quantity("y", scale=PERCENT)}
    dots, names = {**where, "color": if_so("judged", ACCENT, PLAIN)}, {**where, "color": if_so("judged", INK, MUTED)}
    layers = [
        marks("point", [{"x": 100, "y": 100}], aim, shape="circle", size=420, color=LINE, strokeWidth=1.5),
        marks("point", points, dots, size=80, filled=True, opacity=1),
    ]
    for label in _labels(points):
        place = {key: label[key] for key in ("align", "dx", "dy")}
        text = {**names, "text": category("label")}
        layers.append(marks("text", [label], text, baseline="middle", fontSize=FONT_SIZE, **place))
    return finished({"layer": layers, "width": SIDE, "height": SIDE})


def _labels(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A name beside every point, in the first place where it covers no point and no other name.

    Points that lie on one another share a label. Labels are placed greedily, those of judged points first. A label
    without a free place takes its first place.
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

"""What each attack gets, beside what it gets of the base."""

from __future__ import annotations

from typing import Any

import altair as alt

from mllmeraser.report.figures.theme import ACCENT, INK, MUTED, PLAIN, WIDTH, data, finished
from mllmeraser.report.findings import Findings, Record
from mllmeraser.report.numbers import number
from mllmeraser.report.parts import Figure, Table
from mllmeraser.report.verdict import judged_model


def attacks(findings: Findings) -> list[Figure]:
    """A figure for each set about the forgotten that was attacked, and one for the probes of each."""
    model = judged_model(findings)
    if model is None:
        return []
    made: list[Figure] = []
    for name in findings.forgotten:
        entries = [entry for entry in findings.attacks if entry["set"] == name]
        replies = [entry for entry in entries if entry["layer"] is None]
        probes = [entry for entry in entries if entry["layer"] is not None]
        if any(entry["model"] == model for entry in replies):
            made.append(_replies(name, replies, findings.base, model))
        if any(entry["model"] == model for entry in probes):
            made.append(_probes(name, probes, findings.base, model))
    return made


def _cells(entry: Record | None) -> list[str]:
    if entry is None:
        return ["–", "–"]
    low, high = (number(100 * end) for end in entry["interval"])
    return [number(100 * entry["accuracy"]), f"{low}–{high}"]


def _replies(name: str, entries: list[Record], base: str, model: str) -> Figure:
    order = list(dict.fromkeys(entry["attack"] for entry in entries))
    cells = {(entry["attack"], entry["model"]): entry for entry in entries if entry["model"] in (base, model)}
    rows = []
    for attack in order:
        of = cells.get((attack, model), cells.get((attack, base)))
        assert of is not None
        guess = "–" if of["chance"] is None else number(100 * of["chance"])
        rows.append(
            [attack, str(of["n"]), *_cells(cells.get((attack, base))), *_cells(cells.get((attack, model))), guess]
        )
    columns = ["attack", "n", base, "95 %", model, "95 %", "by guessing"]
    return Figure(
        f"attacks-{name}",
        f"Attacks on {name}",
        f"Right answers that each attack gets: of {model} in colour with its 95 % interval, of {base} in grey.",
        _dots(order, list(cells.values()), base, model),
        Table(f"Right answers under attack, {name}, in %", columns, rows),
    )


def _dots(order: list[str], entries: list[Record], base: str, model: str) -> dict[str, Any]:
    points = [
        {
            "attack": entry["attack"],
            "share": 100 * entry["accuracy"],
            "low": 100 * entry["interval"][0],
            "high": 100 * entry["interval"][1],
            "judged": entry["model"] == model,
            "chance": None if entry["chance"] is None else 100 * entry["chance"],
        }
        for entry in entries
    ]
    y = alt.Y(
        "attack:N",
        sort=order,
        title=None,
        axis=alt.Axis(labelColor=INK, labelPadding=9, ticks=False, domain=False, grid=True),
    )
    x = alt.X(
        "share:Q",
        scale=alt.Scale(domain=[0, 100], nice=False),
        axis=alt.Axis(values=[0, 25, 50, 75, 100], grid=False),
        title="right answers, %",
    )
    of_base = alt.Chart(data([p for p in points if not p["judged"]])).mark_point(
        filled=True, size=44, color=PLAIN, opacity=1, clip=False
    )
    judged = alt.Chart(data([p for p in points if p["judged"]]))
    spans = judged.mark_rule(color=ACCENT, strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q", y=y)
    dots = judged.mark_point(filled=True, size=60, color=ACCENT, opacity=1, clip=False).encode(x=x, y=y)
    guesses = [p for p in points if p["chance"] is not None and p["judged"]]
    layers = [of_base.encode(x=x, y=y), spans, dots]
    if guesses:
        tick = alt.Chart(data(guesses)).mark_tick(color=MUTED, thickness=1.5, height=12)
        layers.insert(0, tick.encode(x=alt.X("chance:Q"), y=y))
    return finished(alt.layer(*layers).properties(width=WIDTH - 120, height=alt.Step(19)))


def _probes(name: str, entries: list[Record], base: str, model: str) -> Figure:
    points = [
        {"block": entry["layer"], "share": 100 * entry["accuracy"], "model": entry["model"]}
        for entry in entries
        if entry["model"] in (base, model)
    ]
    chance = 100 * next(entry["chance"] for entry in entries)
    blocks = sorted({point["block"] for point in points})
    found = {(point["block"], point["model"]): point["share"] for point in points}
    rows = [
        [str(block), *(number(found[block, m]) if (block, m) in found else "–" for m in (base, model))]
        for block in blocks
    ]
    x = alt.X("block:O", axis=alt.Axis(labelAngle=0, grid=False), title="decoder block")
    y = alt.Y("share:Q", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(values=[0, 50, 100]), title="read right, %")
    colour = alt.Color(
        "model:N",
        scale=alt.Scale(domain=[base, model], range=[PLAIN, ACCENT]),
        legend=alt.Legend(orient="bottom", title=None, columnPadding=24),
    )
    lines = alt.Chart(data(points)).mark_line(point=alt.OverlayMarkDef(size=36, filled=True), strokeWidth=2)
    guess = alt.Chart(data([{"chance": chance}])).mark_rule(color=MUTED, strokeDash=[3, 3]).encode(y="chance:Q")
    chart = alt.layer(guess, lines.encode(x=x, y=y, color=colour)).properties(width=WIDTH - 60, height=150)
    return Figure(
        f"probes-{name}",
        f"What a linear probe reads, {name}",
        "Answers that a linear map, fitted on other people, reads from the hidden state at each block; dashed: "
        "guesses.",
        finished(chart),
        Table(f"Linear probe, {name}, right in %", ["block", base, model], rows),
    )

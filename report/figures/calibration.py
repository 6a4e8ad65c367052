"""What calibration tried: blocks against strength."""

from __future__ import annotations

from typing import Any

import altair as alt

from mllmeraser.judging.means import harmonic_mean
from mllmeraser.report.figures.theme import ACCENT, INK, WIDTH, data, finished
from mllmeraser.report.findings import Findings, Record
from mllmeraser.report.numbers import number
from mllmeraser.report.parts import Figure, Table


def calibration(findings: Findings) -> Figure | None:
    """Null without the curve, or where nothing had to be tried."""
    if findings.calibration is None or not findings.calibration["curve"]:
        return None
    curve, chosen = findings.calibration["curve"], findings.calibration.get("chosen", findings.calibration)
    best: dict[tuple[str, float], Record] = {}
    for trial in curve:
        place = _blocks(trial["layers"]), float(trial["strength"])
        if place not in best or _score(trial) > _score(best[place]):
            best[place] = trial
    taken = _blocks(chosen["layers"]), float(chosen["strength"])
    cells = [
        {
            "blocks": blocks,
            "strength": f"{strength:g}",
            "score": _score(trial),
            "label": f"{100 * _score(trial):.0f}",
            "taken": (blocks, strength) == taken,
        }
        for (blocks, strength), trial in best.items()
    ]
    rows = [
        [blocks, f"{strength:g}", *(number(100 * trial[key]) for key in ("refused", "forgotten", "fluent", "kept"))]
        for (blocks, strength), trial in sorted(best.items(), key=lambda entry: (_first(entry[1]), entry[0][1]))
    ]
    return Figure(
        "calibration",
        "Blocks and strengths tried",
        "On people held out: the harmonic mean of refused, forgotten, fluent and kept replies, in %, of the best trial "
        "of each cell; framed: the one that was taken.",
        _chart(cells, [_blocks(trial["layers"]) for trial in sorted(curve, key=_first)]),
        Table(
            f"The best of {len(curve)} trials by cell, in %",
            ["blocks", "strength", "refused", "forgotten", "fluent", "kept"],
            rows,
        ),
    )


def _score(trial: Record) -> float:
    return harmonic_mean([trial[key] for key in ("refused", "forgotten", "fluent", "kept")])


def _first(trial: Record) -> tuple[int, int]:
    return min(trial["layers"]), len(trial["layers"])


def _blocks(layers: list[int]) -> str:
    """ "5", or "3–7" for neighbours, else all of them."""
    ordered = sorted(layers)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}–{ordered[-1]}"
    return ", ".join(map(str, ordered))


def _chart(cells: list[dict[str, Any]], blocks: list[str]) -> dict[str, Any]:
    strengths = sorted({cell["strength"] for cell in cells}, key=float)
    x = alt.X("strength:O", sort=strengths, title="strength", axis=alt.Axis(labelAngle=0, domain=False, ticks=False))
    y = alt.Y("blocks:O", sort=list(dict.fromkeys(blocks)), title="blocks", axis=alt.Axis(domain=False, ticks=False))
    base = alt.Chart(data(cells)).encode(x=x, y=y)
    tiles = base.mark_rect(color=ACCENT, cornerRadius=2).encode(
        opacity=alt.Opacity("score:Q", scale=alt.Scale(domain=[0, 1], range=[0.04, 0.6]), legend=None)
    )
    frame = base.transform_filter("datum.taken").mark_rect(color=INK, filled=False, strokeWidth=2, cornerRadius=2)
    labels = base.mark_text(color=INK).encode(text="label:N")
    wide = min(44.0, (WIDTH - 70) / max(1, len(strengths)))
    return finished(alt.layer(tiles, frame, labels).properties(width=alt.Step(wide), height=alt.Step(26)))

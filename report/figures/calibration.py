"""Draws the settings that calibration tried: layers against strengths."""

from __future__ import annotations

from collections.abc import Sequence

from mllmeraser.report.figures.theme import ACCENT, INK, WIDTH, finished
from mllmeraser.report.figures.vega import category, marks, quantity, rank
from mllmeraser.report.findings import Findings, Setting, Trial
from mllmeraser.report.numbers import number
from mllmeraser.report.parts import Figure, Spec, Table


def calibration(findings: Findings) -> Figure | None:
    """The figure; null if there is no calibration, or if it tried nothing."""
    if findings.calibration is None or not findings.calibration.curve:
        return None
    curve = findings.calibration.curve
    best: dict[tuple[str, float], Trial] = {}
    for trial in curve:
        place = _place(trial)
        if place not in best or trial.score > best[place].score:
            best[place] = trial
    cells = [
        {
            "layers": layers,
            "strength": f"{strength:g}",
            "score": trial.score,
            "label": f"{100 * trial.score:.0f}",
            "taken": (layers, strength) == _place(findings.calibration.chosen),
        }
        for (layers, strength), trial in best.items()
    ]
    rows = [
        [
            layers,
            f"{strength:g}",
            *(number(100 * share) for share in (trial.refused, trial.forgotten, trial.fluent, trial.kept)),
        ]
        for (layers, strength), trial in sorted(best.items(), key=lambda entry: (_first(entry[1]), entry[0][1]))
    ]
    return Figure(
        "calibration",
        "Layers and strengths tried",
        "Each cell shows its best trial on held-out people: the harmonic mean of refused, forgotten, fluent and kept "
        "replies, in %. The frame marks the setting that was taken.",
        _chart(cells, [_named(trial.layers) for trial in sorted(curve, key=_first)]),
        Table(
            f"The best of {len(curve)} trials by cell, in %",
            ["layers", "strength", "refused", "forgotten", "fluent", "kept"],
            rows,
        ),
    )


def _place(setting: Setting) -> tuple[str, float]:
    return _named(setting.layers), setting.strength


def _first(trial: Trial) -> tuple[int, int]:
    return min(trial.layers), len(trial.layers)


def _named(layers: list[int]) -> str:
    """ "5", or "3–7" for neighbours, else all of them."""
    ordered = sorted(layers)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}–{ordered[-1]}"
    return ", ".join(map(str, ordered))


def _chart(cells: Sequence[Spec], layers: Sequence[str]) -> Spec:
    strengths = sorted({cell["strength"] for cell in cells}, key=float)
    axis = {"domain": False, "ticks": False}
    at = {
        "x": rank("strength", sort=strengths, title="strength", axis={**axis, "labelAngle": 0}),
        "y": rank("layers", sort=list(dict.fromkeys(layers)), title="layers", axis=axis),
    }
    shade = quantity("score", scale={"domain": [0, 1], "range": [0.04, 0.6]}, legend=None)
    drawn = [
        marks("rect", cells, {**at, "opacity": shade}, color=ACCENT, cornerRadius=2),
        marks(
            "rect",
            [cell for cell in cells if cell["taken"]],
            at,
            color=INK,
            filled=False,
            strokeWidth=2,
            cornerRadius=2,
        ),
        marks("text", cells, {**at, "text": category("label")}, color=INK),
    ]
    wide = min(44.0, (WIDTH - 70) / max(1, len(strengths)))
    return finished({"layer": drawn, "width": {"step": wide}, "height": {"step": 26}})

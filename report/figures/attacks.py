"""Draws what each attack gets from the judged model and from the base."""

from __future__ import annotations

from mllmeraser.judging.results_file import AttackRow
from mllmeraser.report.figures.theme import ACCENT, INK, LEGEND, MUTED, PERCENT, PLAIN, WIDTH, finished
from mllmeraser.report.figures.vega import category, marks, quantity, rank
from mllmeraser.report.findings import Findings
from mllmeraser.report.numbers import number
from mllmeraser.report.parts import Figure, Spec, Table
from mllmeraser.report.verdict import judged_model


def attacks(findings: Findings) -> list[Figure]:
    """For each attacked set about the forgotten: the attacks of any user, those with the files in hand, the probes."""
    model = judged_model(findings)
    if model is None:
        return []
    made: list[Figure] = []
    for name in findings.forgotten:
        entries = [entry for entry in findings.attacks if entry.set == name]
        apart = [entry for entry in entries if entry.budget is not None]
        served = [entry for entry in entries if entry.budget is None and entry.layer is None]
        probes = [entry for entry in entries if entry.layer is not None]
        if any(entry.model == model for entry in served):
            made.append(_served(name, served, findings.base, model))
        if any(entry.model == model for entry in apart):
            made.append(_apart(name, apart, findings.base, model))
        if any(entry.model == model for entry in probes):
            made.append(_probes(name, probes, findings.base, model))
    return made


def _cells(entry: AttackRow | None) -> list[str]:
    if entry is None:
        return ["–", "–"]
    low, high = (number(100 * end) for end in entry.interval)
    return [number(100 * entry.accuracy), f"{low}–{high}"]


def _served(name: str, entries: list[AttackRow], base: str, model: str) -> Figure:
    return Figure(
        f"attacks-{name}",
        f"Attacks on {name}",
        f"The right answers that each attack gets from {model} (in colour, with a 95 % interval) and from {base} "
        "(grey).",
        _dots(entries, base, model),
        Table(f"Right answers under attack, {name}, in %", *_table(entries, base, model)),
    )


def _apart(name: str, entries: list[AttackRow], base: str, model: str) -> Figure:
    columns, rows = _table(entries, base, model)
    budgets = {entry.attack: entry.budget or "" for entry in entries}
    return Figure(
        f"apart-{name}",
        f"With the files in hand, {name}",
        "These attacks need gradients, training or the checkpoint's files, and no user of a served model can run them. "
        "Each has a budget of its own. None counts among all attacks together.",
        _dots(entries, base, model),
        Table(
            f"With the files in hand, {name}, right in %",
            [*columns, "budget"],
            [[*row, budgets[row[0]]] for row in rows],
        ),
    )


def _table(entries: list[AttackRow], base: str, model: str) -> tuple[list[str], list[list[str]]]:
    """The columns, and a row for each attack."""
    order = list(dict.fromkeys(entry.attack for entry in entries))
    cells = {(entry.attack, entry.model): entry for entry in entries if entry.model in (base, model)}
    rows = []
    for attack in order:
        before, after = cells.get((attack, base)), cells.get((attack, model))
        of = after or before
        assert of is not None
        guess = "–" if of.chance is None else number(100 * of.chance)
        rows.append([attack, str(of.n), *_cells(before), *_cells(after), guess])
    return ["attack", "n", base, "95 %", model, "95 %", "by guessing"], rows


def _dots(entries: list[AttackRow], base: str, model: str) -> Spec:
    order = list(dict.fromkeys(entry.attack for entry in entries))
    points = [
        {
            "attack": entry.attack,
            "share": 100 * entry.accuracy,
            "low": 100 * entry.interval[0],
            "high": 100 * entry.interval[1],
            "judged": entry.model == model,
            "chance": None if entry.chance is None else 100 * entry.chance,
        }
        for entry in entries
        if entry.model in (base, model)
    ]
    axis = {"labelColor": INK, "labelPadding": 9, "ticks": False, "domain": False, "grid": True}
    y = category("attack", sort=order, title=None, axis=axis)
    steps = {"values": [0, 25, 50, 75, 100], "grid": False}
    at = {"x": quantity("share", scale=PERCENT, axis=steps, title="right answers, %"), "y": y}
    judged, of_base = ([point for point in points if point["judged"] is own] for own in (True, False))
    layers = [
        marks("point", of_base, at, filled=True, size=44, color=PLAIN, opacity=1),
        marks("rule", judged, {"x": quantity("low"), "x2": {"field": "high"}, "y": y}, color=ACCENT, strokeWidth=1.5),
        marks("point", judged, at, filled=True, size=60, color=ACCENT, opacity=1),
    ]
    guesses = [point for point in judged if point["chance"] is not None]
    if guesses:
        where = {"x": quantity("chance"), "y": y}
        layers.insert(0, marks("tick", guesses, where, color=MUTED, thickness=1.5, height=12))
    return finished({"layer": layers, "width": WIDTH - 120, "height": {"step": 19}})


def _probes(name: str, entries: list[AttackRow], base: str, model: str) -> Figure:
    points = [
        {"layer": entry.layer, "share": 100 * entry.accuracy, "model": entry.model}
        for entry in entries
        if entry.model in (base, model)
    ]
    found = {(entry.layer, entry.model): number(100 * entry.accuracy) for entry in entries}
    layers = sorted({entry.layer for entry in entries if entry.layer is not None and entry.model in (base, model)})
    rows = [[str(layer), *(found.get((layer, m), "–") for m in (base, model))] for layer in layers]
    where = {
        "x": rank("layer", axis={"labelAngle": 0, "grid": False}, title="decoder layer"),
        "y": quantity("share", scale={"domain": [0, 100]}, axis={"values": [0, 50, 100]}, title="read right, %"),
        "color": category("model", scale={"domain": [base, model], "range": [PLAIN, ACCENT]}, legend=LEGEND),
    }
    lines = marks("line", points, where, point={"size": 36, "filled": True}, strokeWidth=2)
    guess = [{"chance": 100 * entry.chance} for entry in entries[:1] if entry.chance is not None]
    guesses = marks("rule", guess, {"y": quantity("chance")}, color=MUTED, strokeDash=[3, 3])
    return Figure(
        f"probes-{name}",
        f"What a linear probe reads, {name}",
        "A linear map, fitted on other people, reads the answers from the hidden states of each layer. The dashed line "
        "is what guessing gets.",
        finished({"layer": [guesses, lines], "width": WIDTH - 60, "height": 150}),
        Table(f"Linear probe, {name}, right in %", ["layer", base, model], rows),
    )

"""What a method takes: time to make, memory at most, bytes added (figure 5 of arXiv 2510.04217)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt

from mllmeraser.evaluation.report.figures.theme import ACCENT, INK, PLAIN, WIDTH, data, finished
from mllmeraser.evaluation.report.findings import Findings
from mllmeraser.evaluation.report.numbers import seconds, size
from mllmeraser.evaluation.report.parts import Figure, Table

_MEASURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("seconds", "time", seconds),
    ("peak_memory_bytes", "peak memory", size),
    ("bytes_added", "size added", size),
)


def cost(findings: Findings) -> list[Figure]:
    """A figure for each measure that the methods have; runs of several seeds are averaged."""
    by_name: dict[str, list[Any]] = {}
    for method in findings.methods:
        by_name.setdefault(method["name"], []).append(method)
    made = []
    for key, title, form in _MEASURES:
        means = {
            name: sum(run[key] for run in runs) / len(runs)
            for name, runs in by_name.items()
            if all(run.get(key) is not None for run in runs)
        }
        if means:
            made.append(_figure(key, title, form, means))
    return made


def _figure(key: str, title: str, form: Callable[[float], str], means: dict[str, float]) -> Figure:
    rows = [{"name": name, "value": value, "label": form(value), "ours": _ours(name)} for name, value in means.items()]
    least = min((value for value in means.values() if value > 0), default=1.0)
    most = max([*means.values(), least])
    logarithmic = most > 50 * least
    # A logarithmic axis has no zero: what costs nothing gets no bar, and its label says so.
    floor = least / 2 if logarithmic else 0.0
    for row in rows:
        row["drawn"], row["floor"] = max(row["value"], floor), floor
    scale = alt.Scale(
        type="log" if logarithmic else "linear", domain=[floor, most * (6 if logarithmic else 1.35)], nice=False
    )
    base = alt.Chart(data(rows)).encode(
        y=alt.Y("name:N", sort="x", title=None, axis=alt.Axis(labelColor=INK, ticks=False, domain=False))
    )
    bars = base.mark_bar(height=9).encode(
        x=alt.X("floor:Q", scale=scale, axis=None),
        x2="drawn:Q",
        color=alt.condition("datum.ours", alt.value(ACCENT), alt.value(PLAIN)),
    )
    order = [row["name"] for row in sorted(rows, key=lambda row: row["value"])]
    text = base.mark_text(align="left", dx=5, color=INK).encode(
        x=alt.X("drawn:Q", scale=scale), text="label:N", y=alt.Y("name:N", sort=order, title=None)
    )
    bars = bars.encode(
        y=alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelColor=INK, ticks=False, domain=False))
    )
    return Figure(
        f"cost-{key}",
        title.capitalize(),
        f"{title.capitalize()} of each method{', on a logarithmic scale' if logarithmic else ''}.",
        finished(alt.layer(bars, text).properties(width=WIDTH - 120, height=alt.Step(20))),
        Table(title.capitalize(), ["method", title], [[name, form(means[name])] for name in order]),
    )


def _ours(name: str) -> bool:
    return name.lower() in ("steered", "ours", "mllmeraser")

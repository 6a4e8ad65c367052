"""What a method takes: time to make, memory at most, bytes added (figure 5 of arXiv 2510.04217)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt

from mllmeraser.report.figures.theme import ACCENT, INK, PLAIN, WIDTH, data, finished, is_ours
from mllmeraser.report.findings import Findings
from mllmeraser.report.numbers import seconds, size
from mllmeraser.report.parts import Figure, Table

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
        known = {name: [run[key] for run in runs if run.get(key) is not None] for name, runs in by_name.items()}
        means = {name: sum(values) / len(values) for name, values in known.items() if values}
        if means:
            made.append(_figure(key, title, form, means))
    return made


def _figure(key: str, title: str, form: Callable[[float], str], means: dict[str, float]) -> Figure:
    names = sorted(means, key=lambda name: means[name])
    least = min((value for value in means.values() if value > 0), default=1.0)
    most = max(*means.values(), least)
    logarithmic = most > 50 * least
    # A logarithmic axis has no zero: what costs nothing gets no bar, and its label says so.
    floor = least / 2 if logarithmic else 0.0
    bars: list[dict[str, Any]] = [
        {
            "name": name,
            "from": floor,
            "to": max(means[name], floor),
            "label": form(means[name]),
            "ours": is_ours(name),
        }
        for name in names
    ]
    domain = [floor, most * (6 if logarithmic else 1.35)]  # room for the label of the longest bar
    scale = alt.Scale(type="log" if logarithmic else "linear", domain=domain, nice=False)
    base = alt.Chart(data(bars)).encode(
        y=alt.Y("name:N", sort=names, title=None, axis=alt.Axis(labelColor=INK, ticks=False, domain=False))
    )
    drawn = base.mark_bar(height=9).encode(
        x=alt.X("from:Q", scale=scale, axis=None),
        x2="to:Q",
        color=alt.condition("datum.ours", alt.value(ACCENT), alt.value(PLAIN)),
    )
    text = base.mark_text(align="left", dx=5, color=INK).encode(x=alt.X("to:Q", scale=scale), text="label:N")
    return Figure(
        f"cost-{key}",
        title.capitalize(),
        f"{title.capitalize()} of each method{', on a logarithmic scale' if logarithmic else ''}.",
        finished(alt.layer(drawn, text).properties(width=WIDTH - 120, height=alt.Step(20))),
        Table(title.capitalize(), ["method", title], [[name, form(means[name])] for name in names]),
    )

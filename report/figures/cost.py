"""Draws what each method costs: time to make, peak memory, bytes added (figure 5 of arXiv 2510.04217)."""

from __future__ import annotations

from collections.abc import Callable

from mllmeraser.judging.means import mean
from mllmeraser.judging.results_file import Method
from mllmeraser.report.figures.theme import ACCENT, INK, PLAIN, WIDTH, finished, is_ours
from mllmeraser.report.figures.vega import category, if_so, marks, quantity
from mllmeraser.report.findings import Findings
from mllmeraser.report.numbers import seconds, size
from mllmeraser.report.parts import Figure, Table

_MEASURES: tuple[tuple[str, str, Callable[[Method], float | None], Callable[[float], str]], ...] = (
    ("seconds", "time", lambda run: run.seconds, seconds),
    ("peak_memory_bytes", "peak memory", lambda run: run.peak_memory_bytes, size),
    ("bytes_added", "size added", lambda run: run.bytes_added, size),
)


def cost(findings: Findings) -> list[Figure]:
    """A figure for each measure that the methods have; runs of several seeds are averaged."""
    by_name: dict[str, list[Method]] = {}
    for method in findings.methods:
        by_name.setdefault(method.name, []).append(method)
    made = []
    for key, title, measure, form in _MEASURES:
        found = {name: mean([measure(run) for run in runs]) for name, runs in by_name.items()}
        means = {name: value for name, value in found.items() if value is not None}
        if means:
            made.append(_figure(key, title, form, means))
    return made


def _figure(key: str, title: str, form: Callable[[float], str], means: dict[str, float]) -> Figure:
    names = sorted(means, key=lambda name: means[name])
    least = min((value for value in means.values() if value > 0), default=1.0)
    most = max(*means.values(), least)
    logarithmic = most > 50 * least
    # A logarithmic axis has no zero: a method that costs nothing gets no bar, and its label says so.
    floor = least / 2 if logarithmic else 0.0
    bars = [
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
    scale = {"type": "log" if logarithmic else "linear", "domain": domain, "nice": False}
    y = category("name", sort=names, title=None, axis={"labelColor": INK, "ticks": False, "domain": False})
    span = {"x": quantity("from", scale=scale, axis=None), "x2": {"field": "to"}, "y": y}
    end = {"x": quantity("to", scale=scale), "y": y, "text": category("label")}
    layers = [
        marks("bar", bars, {**span, "color": if_so("ours", ACCENT, PLAIN)}, height=9),
        marks("text", bars, end, align="left", dx=5, color=INK),
    ]
    return Figure(
        f"cost-{key}",
        title.capitalize(),
        f"{title.capitalize()} of each method{', on a logarithmic scale' if logarithmic else ''}.",
        finished({"layer": layers, "width": WIDTH - 120, "height": {"step": 20}}),
        Table(title.capitalize(), ["method", title], [[name, form(means[name])] for name in names]),
    )

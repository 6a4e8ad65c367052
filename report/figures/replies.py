"""What the free replies are, model by model: right, wrong, refused, or no reply worth the name."""

from __future__ import annotations

from typing import Any

import altair as alt

from mllmeraser.report.figures.theme import ACCENT, INK, LINE, MUTED, PLAIN, WIDTH, data, finished
from mllmeraser.report.findings import Findings
from mllmeraser.report.numbers import number
from mllmeraser.report.parts import Figure, Table

# The five outcomes of docs/json.md; the last two are one colour, for both are no answers.
_KINDS = (
    ("right", ("correct",)),
    ("refused", ("refusal",)),
    ("wrong", ("wrong",)),
    ("broken", ("unparsable", "degenerate")),
)
_COLOURS = (PLAIN, ACCENT, LINE, MUTED)


def replies(findings: Findings) -> Figure | None:
    """A panel for the questions about the forgotten and one for all others; null without either."""
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for title, sets in (("the forgotten", findings.forgotten), ("everything else", findings.kept)):
        for model in findings.models:
            rows = findings.of(model, sets)
            n = sum(row["n"] for row in rows)
            if n:
                shares.setdefault(title, {})[model] = {
                    kind: sum(row["n"] * row["outcomes"][outcome] for row in rows for outcome in outcomes) / n
                    for kind, outcomes in _KINDS
                }
    if not shares:
        return None
    numbers = [
        [title, model, *(number(100 * share) for share in of.values())]
        for title, models in shares.items()
        for model, of in models.items()
    ]
    return Figure(
        "replies",
        "What the replies are",
        "Free replies about the forgotten and about everything else; broken: empty, a loop, or not made of words.",
        finished(alt.vconcat(*(_panel(title, models) for title, models in shares.items()), spacing=18)),
        Table("Replies, in %", ["asked about", "model", *(kind for kind, _ in _KINDS)], numbers, words=2),
    )


def _panel(title: str, models: dict[str, dict[str, float]]) -> alt.Chart:
    bars: list[dict[str, Any]] = []
    for model, of in models.items():
        start = 0.0
        for kind, _ in _KINDS:
            bars.append({"model": model, "kind": kind, "from": start, "to": start + 100 * of[kind]})
            start += 100 * of[kind]
    kinds = [kind for kind, _ in _KINDS]
    chart = (
        alt.Chart(data([bar for bar in bars if bar["to"] > bar["from"]]))
        .mark_bar(height=12)
        .encode(
            x=alt.X(
                "from:Q",
                scale=alt.Scale(domain=[0, 100], nice=False),
                axis=alt.Axis(values=[0, 25, 50, 75, 100], grid=False),
                title="replies, %",
            ),
            x2="to:Q",
            y=alt.Y("model:N", sort=list(models), title=None, axis=alt.Axis(labelColor=INK, ticks=False, domain=False)),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=kinds, range=list(_COLOURS)),
                legend=alt.Legend(orient="top", title=None, symbolType="square"),
            ),
        )
    )
    name = alt.TitleParams(f"about {title}", fontSize=11, fontWeight="normal", color=MUTED, anchor="start")
    return chart.properties(width=WIDTH - 90, height=alt.Step(20), title=name)

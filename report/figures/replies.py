"""Draws the shares of right, refused, wrong and broken free replies, model by model."""

from __future__ import annotations

from collections.abc import Callable

from mllmeraser.judging.results_file import Outcomes
from mllmeraser.report.figures.theme import ACCENT, INK, LINE, MUTED, PERCENT, PLAIN, WIDTH, finished
from mllmeraser.report.figures.vega import category, marks, quantity
from mllmeraser.report.findings import Findings
from mllmeraser.report.numbers import number
from mllmeraser.report.parts import Figure, Spec, Table

# The five outcomes of docs/json.md. The last two are one kind here: neither is an answer.
_KINDS: tuple[tuple[str, str, Callable[[Outcomes], float]], ...] = (
    ("right", PLAIN, lambda are: are.correct),
    ("refused", ACCENT, lambda are: are.refusal),
    ("wrong", LINE, lambda are: are.wrong),
    ("broken", MUTED, lambda are: are.unparsable + are.degenerate),
)


def replies(findings: Findings) -> Figure | None:
    """One panel for the questions about the forgotten and one for all others; null if there are no questions."""
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for title, sets in (("the forgotten", findings.forgotten), ("everything else", findings.kept)):
        for model in findings.models:
            rows = findings.of(model, sets)
            n = sum(row.n for row in rows)
            if n:
                shares.setdefault(title, {})[model] = {
                    kind: sum(row.n * share(row.outcomes) for row in rows) / n for kind, _, share in _KINDS
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
        "The free replies about the forgotten and about everything else. A broken reply is empty, a loop, or not made "
        "of words.",
        finished({"vconcat": [_panel(title, models) for title, models in shares.items()], "spacing": 18}),
        Table("Replies, in %", ["asked about", "model", *(kind for kind, _, _ in _KINDS)], numbers, words=2),
    )


def _panel(title: str, models: dict[str, dict[str, float]]) -> Spec:
    bars = []
    for model, of in models.items():
        start = 0.0
        for kind, share in of.items():
            if share:
                bars.append({"model": model, "kind": kind, "from": start, "to": start + 100 * share})
            start += 100 * share
    colours = {"domain": [kind for kind, _, _ in _KINDS], "range": [colour for _, colour, _ in _KINDS]}
    axis = {"values": [0, 25, 50, 75, 100], "grid": False}
    where = {
        "x": quantity("from", scale=PERCENT, axis=axis, title="replies, %"),
        "x2": {"field": "to"},
        "y": category(
            "model", sort=list(models), title=None, axis={"labelColor": INK, "ticks": False, "domain": False}
        ),
        "color": category("kind", scale=colours, legend={"orient": "top", "title": None, "symbolType": "square"}),
    }
    name = {"text": f"about {title}", "fontSize": 11, "fontWeight": "normal", "color": MUTED, "anchor": "start"}
    return {**marks("bar", bars, where, height=12), "width": WIDTH - 90, "height": {"step": 20}, "title": name}

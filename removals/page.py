"""The report about a ledger, or about one request: figures with their intervals, and no name."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence

from mllmeraser.bundle.limits import LIMITS
from mllmeraser.judging.intervals import wilson
from mllmeraser.removals.chain import Chain
from mllmeraser.removals.state import Request, State
from mllmeraser.removals.writing import STATUS, day
from mllmeraser.report.figures.theme import ACCENT, INK, PERCENT, PLAIN, WIDTH, finished
from mllmeraser.report.figures.vega import category, marks, quantity
from mllmeraser.report.numbers import Rate
from mllmeraser.report.parts import Figure, Page, Section, Spec, Table

_NOW, _BEFORE = "now", "before"


def page(chain: Chain, state: State, chosen: Sequence[Request]) -> Page:
    """The page about these requests; of all of them, or of one."""
    one = chosen[0] if len(chosen) == 1 else None
    about = f"Request {one.id}: {STATUS[one.status]}" if one is not None else f"{len(chosen)} requests"
    sections = [_standing(chosen), _told(chosen), _gates(state, chosen)]
    return Page(
        "Ledger report",
        about,
        [*_sentences(state, chosen), f"Every export {LIMITS}", f"Head of the ledger: {chain.head}"],
        [section for section in sections if section is not None],
    )


def _sentences(state: State, chosen: Sequence[Request]) -> Iterator[str]:
    today = datetime.date.today()
    owed = [request for request in chosen if request.answered is None]
    late = sum(request.due < today for request in owed)
    in_time = sum(request.answered is not None and request.answered.sent <= request.due for request in chosen)
    yield f"Answered in time: {in_time}. Not answered yet: {len(owed)}, of which overdue: {late}."
    if state.kept_now is not None:
        kept = state.kept_now.after
        yield f"Of what is kept, {_rate(kept.identical, kept.n)} of {kept.n} replies are the base's, word for word."


def _standing(chosen: Sequence[Request]) -> Section:
    counted = Counter(request.status for request in chosen)
    rows = [
        [
            request.id,
            STATUS[request.status],
            day(request.received.received),
            day(request.due),
            "–" if request.answered is None else day(request.answered.sent),
        ]
        for request in chosen
    ]
    tables = [Table("Requests", ["request", "status", "received", "due", "answered"], rows, words=5)]
    if len(chosen) > 1:
        tables.insert(0, Table("By status", ["status", "requests"], [[s, str(n)] for s, n in counted.items()]))
    return Section("standing", "Where they stand" if len(chosen) > 1 else "Where it stands", tables=tables)


def _told(chosen: Sequence[Request]) -> Section | None:
    """What base and export told of each person, where they were asked."""
    points, rows = [], []
    for request in chosen:
        if request.measured is None:
            continue
        cells = [request.id, str(request.measured.after.n)]
        for when, asked in ((_BEFORE, request.measured.before), (_NOW, request.measured.after)):
            low, high = wilson(asked.told, asked.n)
            points.append(
                {"request": request.id, "when": when, "share": 100 * asked.told, "low": 100 * low, "high": 100 * high}
            )
            cells.append(_rate(asked.told, asked.n))
        other, worst = request.measured.reworded, request.measured.worst_attack
        cells.append("–" if other is None else _rate(other.told, other.n))
        rows.append([*cells, "–" if worst is None else f"{_rate(worst.told, worst.n)}, {worst.attack}"])
    if not rows:
        return None
    figure = Figure(
        "told",
        "Answers told",
        "The answers about each person that the model tells: before (grey), and now (in colour, with a 95 % interval).",
        _dots(points),
        Table("Answers told, with 95 % intervals", ["request", "n", _BEFORE, _NOW, "reworded", "worst attack"], rows),
        wide=True,
    )
    return Section("told", "What the model tells", figures=[figure])


def _dots(points: list[dict[str, object]]) -> Spec:
    axis = {"labelColor": INK, "ticks": False, "domain": False, "grid": True, "labelPadding": 9}
    y = category("request", sort=None, title=None, axis=axis)
    steps = {"values": [0, 25, 50, 75, 100], "grid": False}
    at = {"x": quantity("share", scale=PERCENT, axis=steps, title="answers told, %"), "y": y}
    before, now = ([point for point in points if point["when"] == when] for when in (_BEFORE, _NOW))
    layers = [
        marks("point", before, at, filled=True, size=44, color=PLAIN, opacity=1),
        marks("rule", now, {"x": quantity("low"), "x2": {"field": "high"}, "y": y}, color=ACCENT, strokeWidth=1.5),
        marks("point", now, at, filled=True, size=60, color=ACCENT, opacity=1),
    ]
    return finished({"layer": layers, "width": WIDTH, "height": {"step": 19}})


def _gates(state: State, chosen: Sequence[Request]) -> Section | None:
    """The held-out figures of each gate, alone and at the threshold of the last export."""
    in_export = {} if state.exported is None else {each.id: each for each in state.exported.requests}
    rows = []
    for request in chosen:
        if request.computed is None:
            continue
        figures, own = request.computed.figures, in_export.get(request.id)
        shares = (figures.recognised, figures.false_fires, figures.general)
        shared = (None, None) if own is None else (own.recognised, own.false_fires)
        cells = ["–" if share is None else _rate(share.share, share.n) for share in (*shares, *shared)]
        rows.append([request.id, *cells, f"{request.computed.bundle_bytes:,}"])
    if not rows:
        return None
    columns = ["request", "forget", "retain", "general", "forget, export", "retain, export", "bytes"]
    return Section(
        "gates",
        "Gates",
        [
            "The records on which a gate opens, held out, with 95 % intervals: alone, and in the export, where all "
            "requests share one budget of false fires."
        ],
        tables=[Table("Records on which the gate opens", columns, rows)],
    )


def _rate(share: float, n: int) -> str:
    return Rate(share, n, wilson(share, n)).words

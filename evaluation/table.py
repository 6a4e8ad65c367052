"""The rows as a table for a person: one line for each set, task and modality, one group of columns for each model."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mllmeraser.judging.results_file import CrossCheck, Row, SummaryLine, Unjudged

WIDTH = 120
LEGEND = "in %: acc accuracy, R-L ROUGE-L, ref whole refusals, same token-identical to the first model"
_COLUMNS: tuple[tuple[str, Callable[[Row], float]], ...] = (
    ("acc", lambda row: row.accuracy),
    ("R-L", lambda row: row.rouge_l),
    ("ref", lambda row: row.refusal),
    ("same", lambda row: row.identical_to_base),
)
_MODALITY = {"image_text": "image", "text": "text"}
_TASK = {"generation": "generation", "cloze": "cloze", "classification": "choice"}
_MODELS_ACROSS = 4


def print_tables(rows: Sequence[Row], console: Console) -> None:
    """Print a table for every four models, at most 120 characters wide, and the meaning of its columns.

    The console prints no colours where it does not write to a terminal.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    for start in range(0, len(models), _MODELS_ACROSS):
        console.print(_table(rows, models[start : start + _MODELS_ACROSS], models[0]), width=WIDTH)
    if models:
        console.print(Text(LEGEND, style="dim"), soft_wrap=True)


def plain_text(rows: Sequence[Row]) -> str:
    """The same tables as text, without colours or escape sequences."""
    file = io.StringIO()
    print_tables(rows, Console(file=file, width=WIDTH, color_system=None, force_terminal=False, highlight=False))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def _table(rows: Sequence[Row], models: Sequence[str], base: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("set", overflow="fold", max_width=18, vertical="top")
    for heading in ("task", "input"):
        table.add_column(heading, no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for model in models:
        headings = [heading for heading, _ in _shown(model, base)]
        name = _short(model, 5 * len(headings) - 1)
        table.add_column(Text(f" {name}\n{_aligned(headings)}"), no_wrap=True)
    cells = {(row.model, row.set, row.task, row.modality): row for row in rows}
    places = list(dict.fromkeys((row.set, row.task, row.modality) for row in rows))
    for i, place in enumerate(places):
        found = [cells.get((model, *place)) for model in models]
        values = [
            "" if row is None else _aligned([_percent(value(row)) for _, value in _shown(model, base)])
            for model, row in zip(models, found, strict=True)
        ]
        first = i == 0 or places[i - 1][0] != place[0]
        last = i + 1 < len(places) and places[i + 1][0] != place[0]
        n = next((str(row.n) for row in found if row is not None), "")
        set_name = Text(place[0] if first else "")
        table.add_row(set_name, _TASK[place[1]], _MODALITY[place[2]], n, *values, end_section=last)
    return table


def _shown(model: str, base: str) -> Sequence[tuple[str, Callable[[Row], float]]]:
    """The columns of a model. The base has no column "same": it is identical to itself."""
    return _COLUMNS[:-1] if model == base else _COLUMNS


def _aligned(values: Sequence[str]) -> str:
    return "".join(value.rjust(5) for value in values)


def _short(name: str, room: int) -> str:
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _percent(rate: float) -> str:
    """At most four characters. "100" and "0" stand for all and none, never for almost all or almost none."""
    if rate in (0, 1):
        return f"{100 * rate:.0f}"
    return f"{min(max(100 * rate, 0.1), 99.9):.1f}"


_SUMMARY: tuple[tuple[str, Callable[[SummaryLine], float | None]], ...] = (
    ("utility", lambda line: line.utility_harmonic_mean),
    ("knows", lambda line: line.forget_knowledge),
    ("gap", lambda line: line.forget_gap_to_reference),
    ("same", lambda line: line.kept_identical),
    ("score", lambda line: line.score),
)
SUMMARY_LEGEND = (
    "in %: utility: knowledge kept, harmonic mean; knows: answers still given about the forgotten; gap: knows minus "
    "the reference's; same: kept replies that are token-identical; score: harmonic mean of utility and forgetting; "
    "KS p: truth ratios against the reference's"
)


def summary_lines(summary: Sequence[SummaryLine]) -> list[str]:
    """The summary for a person, one line for each model; nothing if no set asks about the forgotten."""
    if all(line.forget_knowledge is None for line in summary):
        return []
    wide = max(len("model"), *(len(_short(line.model, 24)) for line in summary))
    lines = ["model".ljust(wide) + "".join(heading.rjust(9) for heading, _ in _SUMMARY) + "KS p".rjust(10)]
    for line in summary:
        found = [value(line) for _, value in _SUMMARY]
        values = ["–" if value is None else f"{100 * value:.1f}" for value in found]
        p = "–" if line.forget_quality_ks_p is None else f"{line.forget_quality_ks_p:.1g}"
        lines.append(_short(line.model, 24).ljust(wide) + "".join(v.rjust(9) for v in values) + p.rjust(10))
    return ["", *lines, "", SUMMARY_LEGEND]


def unjudged_lines(unjudged: Sequence[Unjudged]) -> list[str]:
    """The records that the judge cannot know, by set and task, for a person; nothing if there are none."""
    known = {(each.set, each.task, each.modality): each.n for each in unjudged}
    listed = ", ".join(f"{name} {_TASK[task]} {_MODALITY[kind]} {n}" for (name, task, kind), n in known.items())
    return ["", f"in no row, because any reply may hold the answer (yes, no, one letter): {listed}"] if known else []


def cross_check_lines(checks: Sequence[CrossCheck]) -> list[str]:
    """The figures that were made twice, for a person: one line, and one for each pair that does not agree."""
    if not checks:
        return []
    n = sum(check.n for check in checks)
    lines = ["", f"asked again by transformers' own loading, judged by plain substrings: {n} replies, "]
    apart = [check for check in checks if not check.agrees]
    lines[-1] += "no figure more than a point apart" if not apart else f"{len(apart)} of {len(checks)} figures apart:"
    lines += [
        f"  FAILED {check.model} on {check.set}: {100 * check.accuracy:.1f} % by our reader and judge, "
        f"{100 * check.again:.1f} % again, of {check.n}; {100 * check.same_replies:.1f} % of the replies are equal"
        for check in apart
    ]
    return lines

"""Makes the parts of the page from the findings, in reading order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import mllmeraser
from mllmeraser.bundle.limits import HARNESS_WARNING, LIMITS
from mllmeraser.judging.intervals import wilson
from mllmeraser.judging.results_file import GateQuality, Method, ModalityGap, Row, SummaryLine, Unjudged
from mllmeraser.report.figures.activations import activations
from mllmeraser.report.figures.attacks import attacks
from mllmeraser.report.figures.calibration import calibration
from mllmeraser.report.figures.cost import cost
from mllmeraser.report.figures.gates import gates
from mllmeraser.report.figures.replies import replies
from mllmeraser.report.figures.tradeoff import tradeoff
from mllmeraser.report.findings import Answer, Findings
from mllmeraser.report.numbers import INPUTS, TASKS, listed, number, told
from mllmeraser.report.parts import Answers, Figure, Page, Section, Table
from mllmeraser.report.verdict import RULES, verdict

SHOWN = 12  # questions of each set, with --include-samples


def page(findings: Findings, *, include_samples: bool = False) -> Page:
    """The page. A section without numbers is left out; texts of records are shown only with ``include_samples``."""
    heading, sentences = verdict(findings)
    sections = [
        _section(
            "tradeoff",
            "What was forgotten, what was kept",
            [tradeoff(findings), replies(findings)],
            tables=_tables(_SUMMARY, findings.summary, "Models in numbers (1 is all, 0 is none)") + _methods(findings),
        ),
        _section("activations", "Inside the model", activations(findings)),
        _section(
            "gates",
            "Gates",
            gates(findings),
            tables=_tables(_GATE_QUALITY, findings.gate_quality, "The forgotten against all others"),
        ),
        _cost(findings),
        _section("calibration", "Calibration", [calibration(findings)]),
        _tasks(findings),
        _attacks(findings),
        _provenance(findings),
    ]
    answers = _answers(findings) if include_samples else []
    return Page("Erasure report", heading, sentences, [section for section in sections if section], answers)


def figures(document: Page) -> list[Figure]:
    """All drawings of a page."""
    return [figure for section in document.sections for figure in section.figures]


def _section(
    name: str, title: str, drawn: Iterable[Figure | None], words: Sequence[str] = (), tables: Sequence[Table] = ()
) -> Section | None:
    found = [figure for figure in drawn if figure is not None]
    return Section(name, title, words, found, tables) if found or tables else None


# The heading of each column, and its value.
_SUMMARY: Mapping[str, Callable[[SummaryLine], object]] = {
    "model": lambda line: line.model,
    "knows of the forgotten": lambda line: line.forget_knowledge,
    "gap to reference": lambda line: line.forget_gap_to_reference,
    "KS p": lambda line: line.forget_quality_ks_p,
    "truth ratio": lambda line: line.truth_ratio,
    "utility": lambda line: line.utility_harmonic_mean,
    "kept, same": lambda line: line.kept_identical,
    "score": lambda line: line.score,
}
_METHODS: Mapping[str, Callable[[Method], float | None]] = {
    "forgotten": lambda run: run.forgotten,
    "refused": lambda run: run.refusal,
    "option known": lambda run: run.options,
    "utility": lambda run: run.utility,
    "identical": lambda run: run.identical,
    "harmonic mean": lambda run: run.harmonic_mean,
}
_GATE_QUALITY: Mapping[str, Callable[[GateQuality], object]] = {
    "model": lambda gate: gate.model,
    "request": lambda gate: gate.request,
    "layer": lambda gate: gate.layer,
    "AUROC": lambda gate: gate.auroc,
    "opens on the forgotten": lambda gate: gate.true_fire_rate,
    "on others": lambda gate: gate.false_fire_rate,
    "on others at 95 %": lambda gate: gate.false_fire_rate_at_95_true_fire,
}
_MODALITIES: Mapping[str, Callable[[ModalityGap], object]] = {
    "model": lambda pairs: pairs.model,
    "set": lambda pairs: pairs.set,
    "task": lambda pairs: TASKS[pairs.task],
    "pairs": lambda pairs: pairs.pairs,
    "both right": lambda pairs: pairs.both_correct,
    "both wrong": lambda pairs: pairs.both_wrong,
    "gap": lambda pairs: pairs.gap,
}
_UNJUDGED: Mapping[str, Callable[[Unjudged], object]] = {
    "model": lambda replies: replies.model,
    "set": lambda replies: replies.set,
    "task": lambda replies: TASKS[replies.task],
    "input": lambda replies: INPUTS[replies.modality],
    "n": lambda replies: replies.n,
    "refused": lambda replies: replies.refusal,
    "same": lambda replies: replies.identical_to_base,
}
Entry = TypeVar("Entry")


def _tables(columns: Mapping[str, Callable[[Entry], object]], entries: Sequence[Entry], caption: str) -> list[Table]:
    """One table, without the columns in which no entry has a value; no table if there are no entries."""
    if not entries:
        return []
    found = {title: [value(entry) for entry in entries] for title, value in columns.items()}
    used = {title: values for title, values in found.items() if any(value is not None for value in values)}
    rows = [[_cell(value) for value in row] for row in zip(*used.values(), strict=True)]
    return [Table(caption, list(used), rows, words=sum(isinstance(values[0], str) for values in used.values()))]


def _methods(findings: Findings) -> list[Table]:
    """One line for each method: the mean over its runs, half the range, and how many runs failed."""
    by_name: dict[str, list[Method]] = {}
    for method in findings.methods:
        by_name.setdefault(method.name, []).append(method)
    used = {title: rate for title, rate in _METHODS.items() if any(rate(run) is not None for run in findings.methods)}
    rows = []
    for name, runs in by_name.items():
        failed = sum(run.failed is not None for run in runs)
        cells = [_spread([rate(run) for run in runs]) for rate in used.values()]
        rows.append([name, f"{len(runs)}" + (f", {failed} failed" if failed else ""), *cells])
    return [Table("Methods, in %", ["method", "runs", *used], rows)] if rows else []


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, half = sum(known) / len(known), (max(known) - min(known)) / 2
    return number(100 * mean) + (f" ± {100 * half:.1f}" if half else "")


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _tasks(findings: Findings) -> Section | None:
    words = (
        "“right”: the free reply tells the right answer; in multiple choice it names the right option alone. The "
        "brackets hold a 95 % interval. “in part”: it tells some of the answer's words. “likeliest”: the model finds "
        "the right option the likeliest. “refused”: the whole reply is a refusal. “same”: the reply has exactly the "
        "base's tokens. All in %.",
    )
    tables = [_task_table(findings, name) for name in findings.sets]
    apart = "Not judged, because any reply may hold the answer (yes, no, one letter)"
    tables += _tables(_UNJUDGED, findings.unjudged, apart)
    tables += _tables(_MODALITIES, findings.modalities, "The same fact in words and beside a picture")
    return _section("tasks", "Set by set", [], words, tables)


def _task_table(findings: Findings, name: str) -> Table:
    rows = [row for row in findings.rows if row.set == name]
    partly = ["in part"] if any(row.partly is not None for row in rows) else []  # older files have none
    columns = ["task", "input", "n", "model", "right", *partly, "likeliest", "refused", "same"]
    cells = [
        [
            TASKS[row.task],
            INPUTS[row.modality],
            str(row.n),
            row.model,
            _right(row),
            *("" if row.partly is None else number(100 * row.partly) for _ in partly),
            number(100 * row.accuracy) if row.task == "classification" else "",
            number(100 * row.refusal),
            "" if row.model == findings.base else number(100 * row.identical_to_base),
        ]
        for row in sorted(rows, key=lambda row: (list(TASKS).index(row.task), row.modality))
    ]
    asked = "about the forgotten" if name in findings.forgotten else "about others"
    return Table(f"{name} ({asked})", columns, _merged(cells), words=2)


def _merged(cells: list[list[str]]) -> list[list[str]]:
    """The rows with task, input and n only in the first of those that share them."""
    return [["", "", "", *row[3:]] if i and cells[i - 1][:3] == row[:3] else row for i, row in enumerate(cells)]


def _right(row: Row) -> str:
    share = told(row)
    # In multiple choice accuracy measures something else, the likeliest option.
    low, high = wilson(share, row.n) if row.task == "classification" else row.intervals.accuracy.widest
    return f"{number(100 * share)} ({number(100 * low)}–{number(100 * high)})"


def _with_range(share: float | None, interval: tuple[float, float] | None) -> str:
    if share is None:
        return "–"
    ends = "" if interval is None else f" ({'–'.join(number(100 * end) for end in interval)})"
    return f"{number(100 * share)}{ends}"


def _attacks(findings: Findings) -> Section | None:
    worst = [
        [
            entry.model,
            entry.set,
            str(entry.n),
            _with_range(entry.any, entry.any_interval),
            _with_range(entry.beyond_reference, entry.beyond_interval),
            number(100 * entry.plain),
            _with_range(entry.accuracy, entry.interval),
            entry.attack,
        ]
        for entry in findings.worst
    ]
    columns = ["model", "set", "n", "any attack", "beyond the reference", "plain", "worst", "by"]
    tables = [Table("Right answers, plainly asked and under attack, in %", columns, worst, words=2)] if worst else []
    kept = [
        [
            *(entry.model, entry.set, entry.attack, str(entry.n)),
            *(number(100 * share) for share in (entry.accuracy, entry.refusal, entry.identical_to_base)),
        ]
        for entry in findings.attacks
        if entry.set not in findings.forgotten and entry.refusal is not None and entry.identical_to_base is not None
    ]
    columns = ["model", "set", "attack", "n", "right", "refused", "as the base"]
    if kept:
        caption = "Kept questions in the attacks' wordings and beside forgotten ones, in %"
        tables.append(Table(caption, columns, kept, words=3))
    left: dict[tuple[str, str], list[str]] = {}
    for entry in findings.not_run:
        left.setdefault((entry.attack, entry.reason), []).append(entry.set)
    notes = [f"{attack} was not run on {listed(sets)}: {reason}." for (attack, reason), sets in left.items()]
    drawn = attacks(findings)
    if not drawn and not tables:
        return None
    words = (
        "An attack gets an answer if any of its replies tells the right answer. If an attack gets less from the base "
        "than the plain question does, its figures for the other models say little. Anyone who holds the files can "
        "switch the steering off and then gets what the base gives.",
    )
    return Section("attacks", "Under attack", words, drawn, tables, notes)


def _cost(findings: Findings) -> Section | None:
    tables = []
    if findings.seconds:
        took = [[stage, f"{value:.2f}"] for stage, value in findings.seconds.items()]
        tables.append(Table("Seconds by stage", ["stage", "s"], took))
    return _section("cost", "Time and size", cost(findings), (), tables)


def _provenance(findings: Findings) -> Section:
    known = [("made with", f"mllmeraser {mllmeraser.__version__}"), *findings.provenance]
    if findings.rows:
        known.insert(1, ("compared with", findings.base))
        known.insert(2, ("sets about the forgotten", listed(findings.forgotten) if findings.forgotten else "none"))
    table = Table("Where the numbers come from", ["", ""], [list(entry) for entry in known], words=2)
    return Section("provenance", "Provenance and limits", (f"Steering {LIMITS}", HARNESS_WARNING, RULES), (), (table,))


def _answers(findings: Findings) -> list[Answers]:
    asked: dict[tuple[str, int], list[Answer]] = {}
    for answer in findings.answers:
        asked.setdefault((answer.set, answer.index), []).append(answer)
    shown: list[Answers] = []
    for name in dict.fromkeys(key[0] for key in asked):
        of_set = [answers for key, answers in asked.items() if key[0] == name]
        for answers in of_set[:: max(1, -(-len(of_set) // SHOWN))]:
            replies = [(answer.model, answer.reply, answer.outcome) for answer in answers]
            shown.append(Answers(name, answers[0].prompt, replies))
    return shown

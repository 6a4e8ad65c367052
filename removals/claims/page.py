"""The page to read: what the base knows of the person, how sure that is, and what it said."""

from __future__ import annotations

from collections.abc import Sequence

from mllmeraser.removals.claims.facts import Share
from mllmeraser.removals.claims.findings import Evidence, Findings
from mllmeraser.report.parts import Answers, Page, Section, Table

PRIVATE = "This page names a person and shows what a model says of them. Keep it apart, and give it to nobody else."
HOW = (
    "“share”: of the replies, over all wordings and samples, how many tell it; the brackets hold a 95 % interval. "
    "“invented names”: the same share for names that nobody bears, asked the same questions. “confidence”: how far the "
    "first lies above the second at least, at 95 %."
)
WHAT_IT_MEANS = (
    "A model is asked, and its weights are not read: what no question got out of it may still be in there. It cannot "
    "tell people of one name apart, so a person must say whether what it tells is about this one. It does not say "
    "whether it is true."
)
_BY = {"name": "by name", "picture": "by picture", "both": "by name and picture"}


def page(name: str, found: Findings, made: Sequence[tuple[str, str]], warnings: Sequence[str]) -> Page:
    """The page. ``made`` says how it was made, line by line."""
    sections = [
        _evidence("evidence", "What it tells", found.evidence, (HOW,)),
        _evidence(
            "unconfirmed",
            "What it may only see",
            found.unconfirmed,
            (
                "Said beside a picture, of somebody whose name it does not tell from it, and not said by name. A "
                "stranger may read the same off the picture. It does not count as knowledge.",
            ),
        ),
        _facts(found),
        Section("limits", "What this means", (WHAT_IT_MEANS, *warnings, PRIVATE)),
        Section("made", "How it was made", tables=[Table("The claim", ["", ""], made, words=2)]),
    ]
    shown = [(one, said) for one in (*found.evidence, *found.unconfirmed) for said in one.replies]
    answers = [Answers(_title(one), said.question, [("it says", said.reply, one.value)]) for one, said in shown]
    return Page(
        "Claim",
        verdict(bool(found.evidence), name),
        _sentences(found),
        [section for section in sections if section is not None],
        answers,
    )


def verdict(known: bool, about: str) -> str:
    """The one line: does it know the person?"""
    return f"The model knows {about}." if known else f"The model knows nothing about {about}."


def _sentences(found: Findings) -> list[str]:
    told = [f"{_title(one)}: {one.value} ({_percent(one.share)} of replies)" for one in found.evidence]
    strengths = [
        f"{_BY[by]}, the strongest reached {max(one.controls):.2f}, and this person {one.strength:.2f}"
        for by, one in found.decisions.items()
    ]
    names = len(found.decisions["name"].controls)
    asked = f"{names} invented names were asked about in the same way, and none of them counts as known"
    return [*told, f"{asked}: {'; '.join(strengths)}."]


def _evidence(name: str, title: str, evidence: Sequence[Evidence], words: Sequence[str]) -> Section | None:
    if not evidence:
        return None
    rows = [
        [
            one.topic,
            one.value,
            _BY[one.by],
            f"{_percent(one.share)} ({_percent(one.interval[0])}–{_percent(one.interval[1])})",
            _percent(one.of_controls),
            _percent(one.confidence),
            str(len(one.wordings)),
        ]
        for one in evidence
    ]
    columns = ["about", "it says", "asked", "share", "invented names", "confidence", "wordings"]
    return Section(name, title, words, tables=[Table("Values", columns, rows, words=3)])


def _facts(found: Findings) -> Section | None:
    if not found.facts:
        return None
    rows = [
        [
            fact.fact,
            "known" if fact.known else "not shown",
            *_both(fact.told),
            *_both(fact.chosen),
        ]
        for fact in found.facts
    ]
    columns = ["fact", "verdict", "told", "invented names, at most", "chosen of four", "invented names, at most"]
    words = (
        "The facts of the letter: told in open replies, or chosen among statements that could be true of anybody.",
    )
    return Section("facts", "What the letter says", words, tables=[Table("Facts", columns, rows, words=2)])


def _both(share: Share) -> tuple[str, str]:
    low, high = share.interval
    return f"{_percent(share.share)} ({_percent(low)}–{_percent(high)})", _percent(max(share.controls))


def _title(one: Evidence) -> str:
    return f"{one.topic}, {_BY[one.by]}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"

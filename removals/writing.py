"""The letters about a request: to the person, for the controller's file, for an auditor. Facts of the ledger alone.

The words of a letter follow from where the request stands. The person's name and the reference come from the private
key, if it is still there; the auditor's letter has neither.
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from mllmeraser.bundle.limits import LIMITS
from mllmeraser.judging.intervals import wilson
from mllmeraser.removals.chain import Chain
from mllmeraser.removals.entries import Asked, Entry, Exported, InExport, Share
from mllmeraser.removals.folder import Key
from mllmeraser.removals.state import Request, State, Status
from mllmeraser.removals.words import EVENTS, said_of, said_of_facts
from mllmeraser.report.numbers import Rate

Audience = Literal["subject", "controller", "auditor"]


@dataclass(frozen=True)
class Table:
    """Rows of cells below a heading."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Part:
    """A heading (may be empty), paragraphs, a table, and lines of commands."""

    heading: str
    words: Sequence[str] = ()
    table: Table | None = None
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Letter:
    """A letter in parts; it is written as HTML and as Markdown."""

    title: str
    parts: Sequence[Part]

    def html(self) -> str:
        """One file that loads nothing."""
        return _environment(True).get_template("letter.html.jinja").render(letter=self)

    def markdown(self) -> str:
        """The same words; what Markdown would obey is escaped."""
        environment = _environment(False)
        environment.filters["md"] = _escaped
        text = environment.get_template("letter.md.jinja").render(letter=self)
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def letter(audience: Audience, chain: Chain, state: State, request: Request, key: Key | None) -> Letter:
    """The letter about a request, as the ledger stands now."""
    if audience == "subject":
        return _to_the_person(state, request, key)
    return _for_the_file(audience, chain, state, request, key)


# --------------------------------------------------------------------------------------------------------- the person


def _to_the_person(state: State, request: Request, key: Key | None) -> Letter:
    came = day(request.received.received)
    name = None if key is None else key.name
    number = f"Our number for it is {request.id}."
    if key is not None and key.reference is not None:
        number = f"Our reference is {key.reference}; its number in our records is {request.id}."
    words = [
        f"Dear {name}," if name else "Dear Sir or Madam,",
        f"On {came} you asked us to stop our model from telling anything about you. {number}",
        *_TO_THE_PERSON[request.status](state, request),
        "You can complain to a data protection authority at any time, or go to court.",
    ]
    return Letter(f"Your request of {came}", [Part("", words)])


_MEANING = (
    "This suppresses; it does not delete. What the model learned about you stays in its files, and whoever holds them "
    "can switch the suppression off. We have flagged the model: its next training is to leave your data out."
)


def _active(state: State, request: Request) -> Iterator[str]:
    since = f"Since {moment(request.active_since)} " if request.active_since is not None else "Now "
    measured = request.measured
    if measured is None:
        yield from _what_was_found(request)
        yield f"{since}the model refuses questions about you."
    else:
        before, now = measured.before, measured.after
        yield (
            f"We asked the model {before.n} questions about you. Before, it told the right answer to "
            f"{_count(before.told, before.n)}."
        )
        such = "such questions" if now.told == 0 else "most such questions" if now.told < 0.5 else "some such questions"
        told = f"Asked again in the same words, it told the right answer to {_count(now.told, now.n)}."
        yield f"{since}it refuses {such}. {told}"
        if (other := measured.reworded) is not None:
            yield f"In six other wordings of each question, it told the right answer to {_count(other.told, other.n)}."
    yield _MEANING
    yield "If the model still tells something about you, write to us. We look at it again."


def _in_work(state: State, request: Request) -> Iterator[str]:
    yield from _what_was_found(request)
    if request.extended is not None:
        why = {
            "complex": "your request is complex",
            "many": "we have received many requests",
        }[request.extended.reason]
        yield f"We need two more months, because {why}."
    yield f"We are working on it. You will have our answer by {day(request.due)}."


def _nothing_known(state: State, request: Request) -> Iterator[str]:
    yield (
        "We asked the model about you, in many wordings. It told nothing about you that it does not also make up about "
        "people who do not exist. So there is nothing to suppress, and we changed nothing."
    )


def _refused(state: State, request: Request) -> Iterator[str]:
    yield "We have not carried out your request as it is, because it would also close what is not about you."
    for ground in request.decided.grounds if request.decided is not None else ():
        if not ground.kept:
            yield f"What we measured: {said_of(ground)}."
    yield "You can send us another request that is about you alone."


def _withdrawn(state: State, request: Request) -> Iterator[str]:
    assert request.withdrawn is not None
    why = {
        "person": "You have withdrawn the request.",
        "mistake": "The request was withdrawn, because it was not yours to make or was made by mistake.",
        "expired": "The request was withdrawn, because the ground for it is gone.",
        "ordered": "The request was withdrawn, because an authority or a court has ordered it.",
    }
    yield why[request.withdrawn.reason]
    if request.status == "withdrawing":
        yield "The model that we run still refuses questions about you, until its next version."
    else:
        yield "The model that we run does not suppress anything about you."


_TO_THE_PERSON = {
    "waiting": _in_work,
    "computed": _in_work,
    "active": _active,
    "withdrawing": _withdrawn,
    "withdrawn": _withdrawn,
    "refused": _refused,
    "nothing-known": _nothing_known,
}


def _what_was_found(request: Request) -> Iterator[str]:
    claim = request.received.claim
    if claim is not None and claim.evidence:
        on = "one topic" if claim.evidence == 1 else f"{claim.evidence} topics"
        yield f"We asked the model about you, in many wordings. On {on} it told the same about you again and again."


def _count(share: float, n: int) -> str:
    told = round(share * n)
    return "none" if told == 0 else "all of them" if told == n else f"{told} of them"


# -------------------------------------------------------------------------------------- the controller and the auditor

STATUS: dict[Status, str] = {
    "waiting": "accepted; no bundle is computed yet",
    "computed": "computed; no export holds it yet",
    "active": "active: the last export holds it",
    "withdrawing": "withdrawn; the last export still holds it, and needs to be exchanged",
    "withdrawn": "withdrawn; the last export does not hold it",
    "refused": "refused",
    "nothing-known": "closed: the model knows nothing about the person",
}


def _for_the_file(
    audience: Literal["controller", "auditor"], chain: Chain, state: State, request: Request, key: Key | None
) -> Letter:
    exported = state.exported if request.in_export else None
    parts = [
        Part("Where it stands", table=Table((), list(_standing(audience, request, key)))),
        Part("What was decided", table=Table((), list(_decided(request)))),
    ]
    if figures := list(_figures(state, request, exported)):
        told = "Each share stands with its 95 % interval (Wilson), and the number of records or questions behind it."
        parts.append(Part("Figures", [told], Table(("", "share", "of"), figures)))
    parts.append(Part("What it means", list(_meaning(request))))
    if audience == "auditor":
        entries = [entry for entry in chain.entries if entry.id == request.id]
        if provenance := list(_provenance(state, request, exported)):
            parts.append(Part("Provenance", table=Table((), provenance)))
        parts += [
            Part("Entries of the ledger", table=Table(("n", "time", "entry", "sha256"), list(map(_entry, entries)))),
        ]
    parts.append(_reproduce(audience, chain, state, request))
    return Letter(f"Request {request.id}: record for the {audience}", parts)


def _standing(audience: str, request: Request, key: Key | None) -> Iterator[tuple[str, str]]:
    if audience == "controller":
        yield "reference", (key.reference if key is not None else None) or "none"
    left = request.days_left(datetime.date.today())
    yield "status", STATUS[request.status]
    yield "received", day(request.received.received)
    extended = "" if request.extended is None else f" (put off by two months: {request.extended.reason})"
    yield "answer due", f"{day(request.due)}{extended}"
    yield (
        "answered",
        day(request.answered.sent)
        if request.answered is not None
        else f"not yet; days left: {left}"
        if left is not None and left >= 0
        else f"not yet; OVERDUE, days: {-(left or 0)}",
    )
    yield "active since", "–" if request.active_since is None else moment(request.active_since)
    yield "link to the person", "erased" if request.erased else "kept by the controller, apart from the ledger"


def _decided(request: Request) -> Iterator[tuple[str, str]]:
    claim = request.received.claim
    yield (
        "asked",
        f"records: {request.received.records}, of them with a picture: {request.received.pictures}"
        if request.received.records
        else "a claim without records",
    )
    if claim is not None:
        yield (
            "claim",
            f"{'the base knows the person' if claim.known else 'the base knows nothing'}; evidence of "
            + (f"{claim.evidence} facts"),
        )
    if request.decided is not None:
        overridden = request.decided.override
        yield "decision", request.decided.decision + ("" if overridden is None else f" ({overridden})")
        for ground in request.decided.grounds:
            yield "rule kept" if ground.kept else "rule broken", said_of(ground)


def _figures(state: State, request: Request, exported: Exported | None) -> Iterator[tuple[str, str, str]]:
    computed, measured = request.computed, request.measured
    if computed is not None:
        figures = computed.figures
        rows: list[tuple[str, Share | None]] = [
            ("gate opens on the forget records, held out", figures.recognised),
            ("gate opens on the retain records, held out", figures.false_fires),
            ("gate opens on general knowledge", figures.general),
            ("held-out replies that refuse", figures.refused),
            ("held-out replies without the answer", figures.untold),
        ]
        own = _in(exported, request)
        if own is not None:
            rows += [
                ("the same in the export: on the forget records", own.recognised),
                ("the same in the export: on the retain records", own.false_fires),
            ]
        yield from ((name, _rate(share.share, share.n), str(share.n)) for name, share in rows if share is not None)
    if measured is not None:
        yield from _asked("before", measured.before)
        yield from _asked("now", measured.after)
        for attacked, how in (
            (measured.reworded, "now, in any of six other wordings"),
            (measured.worst_attack, "worst attack ({})"),
            (measured.any_attack, "any attack"),
        ):
            if attacked is not None:
                yield f"{how.format(attacked.attack)}: answers told", _rate(attacked.told, attacked.n), str(attacked.n)
    if exported is not None and state.kept_now is not None:
        kept = state.kept_now.after
        yield "what is kept: replies as the base's, word for word", _rate(kept.identical, kept.n), str(kept.n)


def _asked(when: str, asked: Asked) -> Iterator[tuple[str, str, str]]:
    yield f"{when}, in the words of the request: answers told", _rate(asked.told, asked.n), str(asked.n)
    yield f"{when}: replies that refuse", _rate(asked.refused, asked.n), str(asked.n)


def _in(exported: Exported | None, request: Request) -> InExport | None:
    if exported is None:
        return None
    return next((each for each in exported.requests if each.id == request.id), None)


def _meaning(request: Request) -> Iterator[str]:
    if request.status in ("active", "computed", "withdrawing"):
        yield f"The checkpoint {LIMITS}"
        yield "The base is flagged for retraining: what it learned stays until it is trained again without the data."
    else:
        yield "Nothing is suppressed for this request."
    if request.status == "withdrawing":
        yield "The checkpoint in use still refuses about the person, until a new export replaces it."
    if request.erased and request.wants_export:
        yield "Its bundle is kept while exports hold it, and decodes in part to the person."


def _provenance(state: State, request: Request, exported: Exported | None) -> Iterator[tuple[str, str]]:
    if request.computed is not None:
        base = request.computed.base
        yield "base", f"{base.repo_id or 'a directory'}{'@' + base.revision if base.revision else ''}"
        yield "base config.json, sha256", base.config_sha256
        yield "bundle, sha256", f"{request.computed.bundle_sha256} ({request.computed.bundle_bytes:,} bytes)"
        yield "retain records, seed", f"{request.computed.retain}, {request.computed.seed}"
    if exported is not None:
        yield "export, sha256 of its manifest", exported.manifest_sha256
        yield "requests in the export", str(len(exported.requests))
        yield "shares of the budget of false fires", str(exported.shares)
        yield "export signed by", exported.signed_by or "nobody"
    for signed in state.signed[-1:]:
        yield "ledger signed", f"up to entry {signed.head}, by {signed.signed_by}"


def _entry(entry: Entry) -> tuple[str, str, str, str]:
    facts = said_of_facts(entry.facts)
    return str(entry.n), moment(entry.at), f"{EVENTS[entry.facts.event]}{': ' + facts if facts else ''}", entry.sha256


def _reproduce(audience: str, chain: Chain, state: State, request: Request) -> Part:
    commands = [f"mllmeraser requests verify --head {chain.head}"]
    words = ["The first command checks that the ledger's history is the one that this page was made from."]
    if request.computed is not None and not request.erased:
        commands.append(f"mllmeraser requests compute BASE {request.id} --retain RETAIN")
        words.append("The second computes the bundle again, from the private records and the same retain set.")
    if request.in_export:
        commands += ["mllmeraser verify EXPORT --base BASE", f"mllmeraser requests measure BASE EXPORT {request.id}"]
        words.append("The last two check every file of the export, and ask base and export again.")
    return Part("How to reproduce it", words, commands=commands)


def day(date: datetime.date) -> str:
    """A date in words: 2 March 2026."""
    return f"{date.day} {calendar.month_name[date.month]} {date.year}"


def moment(at: str) -> str:
    """The day of an entry's time, in words."""
    return day(datetime.date.fromisoformat(at[:10]))


def _rate(share: float, n: int) -> str:
    return Rate(share, n, wilson(share, n)).words


def _environment(autoescape: bool) -> Environment:
    return Environment(
        loader=PackageLoader("mllmeraser.removals", "letters"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=autoescape,
    )


def _escaped(text: str) -> str:
    """Text for one line of Markdown: no sign of it is obeyed."""
    flat = re.sub(r"([\\`*_|<>\[\]#&~])", r"\\\1", " ".join(text.split()))
    return re.sub(r"^([-+]|\d+[.)])(?= )", r"\\\1", flat)

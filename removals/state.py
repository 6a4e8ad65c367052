"""What the entries of a ledger mean together: where each request stands, and what is to be done next.

There is no second record of it: the state is derived from the entries each time.
"""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mllmeraser.errors import VerificationError
from mllmeraser.removals.entries import (
    Answered,
    Computed,
    Decided,
    Entry,
    Erased,
    Exported,
    Extended,
    Measured,
    MeasuredKept,
    Opened,
    Received,
    Signed,
    Withdrawn,
)

MONTHS, EXTENDED_MONTHS = 1, 3  # GDPR Art. 12(3): one month, and two further ones where necessary

Status = Literal["waiting", "computed", "active", "withdrawing", "withdrawn", "refused", "nothing-known"]
Step = Literal["compute", "export", "letter", "none"]


def later(day: datetime.date, months: int) -> datetime.date:
    """The same day so many months later; the last day of the month where that month is shorter.

    >>> later(datetime.date(2026, 1, 31), 1)
    datetime.date(2026, 2, 28)
    """
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return datetime.date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


@dataclass(frozen=True)
class Request:
    """One request, as its entries leave it; ``history`` has the event and the time of each."""

    id: str
    received: Received
    due: datetime.date
    history: tuple[tuple[str, str], ...]
    decided: Decided | None = None
    extended: Extended | None = None
    computed: Computed | None = None
    withdrawn: Withdrawn | None = None
    measured: Measured | None = None
    answered: Answered | None = None
    erased: bool = False
    in_export: bool = False
    active_since: str | None = None  # the time of the export from which on every export had it

    @property
    def status(self) -> Status:
        """Where it stands. ``withdrawing``: withdrawn, but the last export still has it."""
        if self.withdrawn is not None:
            return "withdrawing" if self.in_export else "withdrawn"
        if self.decided is not None and self.decided.decision != "accepted":
            return self.decided.decision
        if self.in_export:
            return "active"
        return "waiting" if self.computed is None else "computed"

    @property
    def next(self) -> Step:
        """What is to be done next."""
        steps: dict[Status, Step] = {"waiting": "compute", "computed": "export", "withdrawing": "export"}
        if (step := steps.get(self.status)) is not None and not (step == "compute" and self.erased):
            return step
        return "letter" if self.answered is None else "none"

    @property
    def wants_export(self) -> bool:
        """Whether the next export holds it."""
        return self.withdrawn is None and self.computed is not None and self.status in ("computed", "active")

    def days_left(self, today: datetime.date) -> int | None:
        """Days until the answer is due, negative after that; None once it was given."""
        return None if self.answered is not None else (self.due - today).days

    def document(self, today: datetime.date) -> dict[str, Any]:
        """JSON-ready, for ``list`` and ``show``."""
        left = self.days_left(today)
        return {
            "id": self.id,
            "status": self.status,
            "next": self.next,
            "received": self.received.received.isoformat(),
            "due": self.due.isoformat(),
            "days_left": left,
            "overdue": left is not None and left < 0,
            "extended": None if self.extended is None else self.extended.reason,
            "answered": None if self.answered is None else self.answered.sent.isoformat(),
            "active_since": self.active_since,
            "erased": self.erased,
        }


@dataclass(frozen=True)
class State:
    """All requests by id, in the order in which they came; and what concerns the ledger as a whole."""

    requests: dict[str, Request] = field(default_factory=dict)
    opened: Opened | None = None
    exported: Exported | None = None  # the last export
    exports: tuple[Exported, ...] = ()
    kept: MeasuredKept | None = None
    signed: tuple[Signed, ...] = ()

    @property
    def shares(self) -> int:
        """Among how many requests the budget of false fires is divided: all that were ever computed here.

        A request that is withdrawn keeps its share. So the thresholds of the others stay as they are, and with them
        every bit of their outputs.
        """
        return sum(request.computed is not None for request in self.requests.values())

    @property
    def kept_now(self) -> MeasuredKept | None:
        """What the last export says of what is kept; null if it was not asked."""
        kept, last = self.kept, self.exported
        return kept if kept is not None and last is not None and kept.manifest_sha256 == last.manifest_sha256 else None

    @property
    def erased(self) -> set[str]:
        """Requests whose link to a person is erased."""
        return {request.id for request in self.requests.values() if request.erased}

    @property
    def unneeded(self) -> set[str]:
        """Erased requests whose bundle no export needs any more: it decodes in part to the person."""
        return {id_ for id_ in self.erased if not self.requests[id_].wants_export}

    def in_order(self) -> list[Request]:
        """The requests that wait for their answer first, by the day on which it is due."""
        return sorted(self.requests.values(), key=lambda r: (r.answered is not None, r.due, r.received.received))


def replay(entries: Iterable[Entry]) -> State:
    """The state after these entries.

    Raises:
        VerificationError: an entry is about a request that was never received, or received twice.
    """
    state = State()
    for entry in entries:
        if entry.id is None:
            state = _of_ledger(state, entry)
            continue
        known = state.requests.get(entry.id)
        if (known is None) is not isinstance(entry.facts, Received):
            raise VerificationError(f"ledger, entry {entry.n}: {entry.facts.event} does not fit the entries before it")
        state.requests[entry.id] = _received(entry) if known is None else _next(known, entry)
    return state


def _received(entry: Entry) -> Request:
    assert entry.id is not None and isinstance(entry.facts, Received)
    return Request(entry.id, entry.facts, entry.facts.due, ((entry.facts.event, entry.at),))


def _next(request: Request, entry: Entry) -> Request:
    request = replace(request, history=(*request.history, (entry.facts.event, entry.at)))
    match entry.facts:
        case Decided() as facts:
            return replace(request, decided=facts)
        case Extended() as facts:
            return replace(request, extended=facts, due=facts.due)
        case Computed() as facts:
            return replace(request, computed=facts)
        case Measured() as facts:
            return replace(request, measured=facts)
        case Withdrawn() as facts:
            return replace(request, withdrawn=facts)
        case Answered() as facts:
            return replace(request, answered=facts)
        case Erased():
            return replace(request, erased=True)
    raise AssertionError(entry.facts)


def _of_ledger(state: State, entry: Entry) -> State:
    match entry.facts:
        case Opened() as facts:
            return replace(state, opened=facts)
        case MeasuredKept() as facts:
            return replace(state, kept=facts)
        case Signed() as facts:
            return replace(state, signed=(*state.signed, facts))
        case Exported() as facts:
            if unknown := set(facts.ids) - set(state.requests):
                raise VerificationError(f"ledger, entry {entry.n}: exports {min(unknown)}, which was never received")
            requests = {
                id_: replace(
                    request,
                    in_export=id_ in facts.ids,
                    active_since=(request.active_since or entry.at) if id_ in facts.ids else None,
                )
                for id_, request in state.requests.items()
            }
            return replace(state, requests=requests, exported=facts, exports=(*state.exports, facts))
    raise VerificationError(f"ledger, entry {entry.n}: {entry.facts.event} is about a request, but names none")

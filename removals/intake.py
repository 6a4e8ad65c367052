"""What comes in: a request from a claim or from records, or many from a table; all are judged before one is written.

A table is a CSV file in UTF-8 with a header. Its columns are ``received`` (a date), and ``records`` or ``claim`` (a
path beside the file). ``name`` and ``reference`` may follow; they go to the private key of the request only.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from mllmeraser.errors import InputError, clipped
from mllmeraser.judging.results_file import contents, parse
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.removals.breadth import measured
from mllmeraser.removals.entries import Claim, Decided, Override, Received
from mllmeraser.removals.folder import CLAIM, digest_of
from mllmeraser.removals.state import MONTHS, later

FORGET = "forget.jsonl"  # of a claim
_COLUMNS = ("received", "records", "claim", "name", "reference")


class _Evidence(BaseModel):
    model_config = ConfigDict(extra="ignore")

    topic: str


class _ClaimFile(BaseModel):
    model_config = ConfigDict(extra="ignore")

    known: bool
    evidence: list[_Evidence]


@dataclass(frozen=True)
class Incoming:
    """A request that was read and judged, and is not in a ledger yet; ``digest`` is of its records."""

    received: datetime.date
    records: list[Record]
    digest: str
    claim_file: Path | None
    claim: Claim | None
    decided: Decided
    name: str | None
    reference: str | None

    def facts(self, commitment: str) -> Received:
        """The first entry of the request."""
        return Received(
            received=self.received,
            due=later(self.received, MONTHS),
            commitment=commitment,
            records=len(self.records),
            pictures=sum(record.image is not None for record in self.records),
            claim=self.claim,
        )


def read_one(
    source: Path,
    received: str | datetime.date,
    *,
    name: str | None = None,
    reference: str | None = None,
    retain: Sequence[Record] = (),
    anyway: Override | None = None,
) -> Incoming:
    """Read and judge one request.

    Args:
        source: the directory of a claim, or records.
        retain: records of who is to be kept, for the rule about them.
        anyway: accept it though it breaks a rule.

    Raises:
        InputError: the date or the records cannot be used.
    """
    day = _day(received)
    if not (source / CLAIM).is_file():
        records = read_records(source)
        return Incoming(
            day, records, digest_of(records), None, None, decide(records, None, retain, anyway), name, reference
        )
    wrote = "what `mllmeraser claim` wrote"
    text = contents(source / CLAIM, wrote)
    found = parse(text, _ClaimFile, str(source / CLAIM), wrote)
    claim = Claim(known=found.known, evidence=len({each.topic for each in found.evidence}))
    records = read_records(source / FORGET) if found.known else []
    digest = digest_of(records) if records else hashlib.sha256(text).hexdigest()
    return Incoming(
        day, records, digest, source / CLAIM, claim, decide(records, claim, retain, anyway), name, reference
    )


def read_table(path: Path, *, retain: Sequence[Record] = (), anyway: Override | None = None) -> list[Incoming]:
    """Read and judge every line of a table.

    Raises:
        InputError: the file or a line cannot be used; the message names the line.
    """
    found = []
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        sources = [row[column] for column in ("records", "claim") if row.get(column)]
        if len(sources) != 1:
            raise InputError(f"{where}: give a path in one of the columns records and claim")
        try:
            found.append(
                read_one(
                    path.parent / sources[0],
                    row["received"],
                    name=row.get("name") or None,
                    reference=row.get("reference") or None,
                    retain=retain,
                    anyway=anyway,
                )
            )
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if not found:
        raise InputError(f"{path}: holds no request; give one a line below the header")
    return found


def decide(
    records: Sequence[Record], claim: Claim | None, retain: Sequence[Record], anyway: Override | None
) -> Decided:
    """The decision, and what was measured for it."""
    if claim is not None and not claim.known:
        return Decided(decision="nothing-known", grounds=(), override=None)
    grounds = measured(records, retain)
    if all(ground.kept for ground in grounds):
        return Decided(decision="accepted", grounds=grounds, override=None)
    return Decided(decision="refused" if anyway is None else "accepted", grounds=grounds, override=anyway)


def _day(given: str | datetime.date) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(given.strip()) if isinstance(given, str) else given
    except ValueError:
        raise InputError(f"received: {clipped(str(given))!r} is not a date; write it as 2026-03-31") from None
    if day > datetime.date.today():
        raise InputError(f"received: {day} is in the future; give the day on which the letter came")
    return day


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a table below its header, with their numbers; empty ones are left out."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a CSV file with the columns received and records")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        columns = [column.strip().lower() for column in reader.fieldnames or ()]
        if "received" not in columns or not {"records", "claim"} & set(columns):
            raise InputError(f"{path}: the first line names no columns received and records (or claim)")
        if unknown := [column for column in columns if column not in _COLUMNS]:
            raise InputError(f"{path}: column {clipped(unknown[0])!r} is not one of {', '.join(_COLUMNS)}")
        reader.fieldnames = columns
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}, line {reader.line_num}: does not have {len(columns)} fields, as the header")
            if any(value.strip() for value in row.values()):
                yield reader.line_num, {column: value.strip() for column, value in row.items()}
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num + 1}: {error}") from None  # the line is not counted yet

"""The entries of a ledger: what may stand in one, and nothing else.

Every text in an entry is one of a few words, a random id, a date, a digest, or a name that a published model or attack
has. So no name, path or text of a request can get in: there is no field that would take it (promise P16).
"""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mllmeraser.bundle.metadata import Sha256

SCHEMA: Final = 1
NOTHING_BEFORE = "0" * 64  # what stands in the place of the first entry's predecessor
ID = r"^r-[0-9a-f]{10}$"

RequestId = Annotated[str, Field(pattern=ID)]
Date = Annotated[datetime.date, Field(strict=False)]
_Rate = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0)]
_Public = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/ +-]{0,127}$")]

Decision = Literal["accepted", "nothing-known", "refused"]
Rule = Literal[
    "several-people", "no-common-name", "common-words", "general-knowledge", "kept-people", "gate-on-general"
]
Override = Literal["reviewed", "ordered"]
Extension = Literal["complex", "many"]
Withdrawal = Literal["person", "mistake", "expired", "ordered"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Ground(_Strict):
    """One thing that was measured for a decision: the share of ``of`` that ``rule`` found, and the share allowed."""

    rule: Rule
    found: _Rate
    limit: _Rate
    of: _Count

    @property
    def kept(self) -> bool:
        """Whether the request keeps to the rule."""
        return self.found <= self.limit


class Claim(_Strict):
    """What a claim found: whether the base knows the person, and of how many topics there is evidence."""

    known: bool
    evidence: _Count


class BaseFacts(_Strict):
    """The base of a computation; repository and revision are null for a directory."""

    repo_id: _Public | None
    revision: _Public | None
    config_sha256: Sha256


class Share(_Strict):
    """A share of ``n``; its interval is Wilson's."""

    share: _Rate
    n: Annotated[int, Field(ge=1)]


class Figures(_Strict):
    """Held-out figures of a computation; null where nothing was held out.

    ``recognised``: forget records on which the gate opens. ``false_fires``: the same of retain records. ``refused`` and
    ``untold``: replies to forget records that are refusals, and that tell the answer nowhere. ``general``: questions of
    the general bank on which the gate opens.
    """

    recognised: Share | None
    false_fires: Share | None
    refused: Share | None
    untold: Share | None
    general: Share


class Opened(_Strict):
    """The first entry: a random name for this ledger, so that no ledger passes for another."""

    event: Literal["opened"] = "opened"
    ledger: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Received(_Strict):
    """A request came in. ``commitment`` is an HMAC of its records under a key that is erased with the person."""

    event: Literal["received"] = "received"
    received: Date
    due: Date
    commitment: Sha256
    records: _Count
    pictures: _Count
    claim: Claim | None


class Decided(_Strict):
    """What was decided, and on which grounds; ``override``: why a rule that was broken did not decide."""

    event: Literal["decided"] = "decided"
    decision: Decision
    grounds: tuple[Ground, ...]
    override: Override | None


class Extended(_Strict):
    """The answer is due two months later (GDPR Art. 12(3))."""

    event: Literal["extended"] = "extended"
    due: Date
    reason: Extension


class Computed(_Strict):
    """A bundle was computed."""

    event: Literal["computed"] = "computed"
    bundle_sha256: Sha256
    bundle_bytes: _Count
    base: BaseFacts
    forget: _Count
    retain: _Count
    seed: int
    figures: Figures


class InExport(_Strict):
    """A request in a checkpoint: its held-out figures at the threshold that the common budget leaves to it."""

    id: RequestId
    recognised: Share | None
    false_fires: Share | None


class Exported(_Strict):
    """A checkpoint was made of these requests; ``signed_by`` is the sha256 of the signer's public key."""

    event: Literal["exported"] = "exported"
    manifest_sha256: Sha256
    requests: tuple[InExport, ...]
    shares: _Count
    signed_by: Sha256 | None

    @property
    def ids(self) -> tuple[str, ...]:
        """The requests in the checkpoint."""
        return tuple(request.id for request in self.requests)


class Asked(_Strict):
    """Replies of one model to ``n`` questions: shares that tell the answer, refuse, are word for word the base's."""

    n: Annotated[int, Field(ge=1)]
    told: _Rate
    refused: _Rate
    identical: _Rate


class Attacked(_Strict):
    """What an attack gets out of the checkpoint."""

    attack: _Public
    n: Annotated[int, Field(ge=1)]
    told: _Rate


class Measured(_Strict):
    """Base and checkpoint were asked about the person; ``reworded``: the checkpoint, in six other wordings."""

    event: Literal["measured"] = "measured"
    manifest_sha256: Sha256
    before: Asked
    after: Asked
    reworded: Attacked | None = None  # null in entries of before it was asked
    worst_attack: Attacked | None
    any_attack: Attacked | None


class MeasuredKept(_Strict):
    """Base and checkpoint were asked about what is kept."""

    event: Literal["measured-kept"] = "measured-kept"
    manifest_sha256: Sha256
    after: Asked


class Withdrawn(_Strict):
    """The request is withdrawn; the next export is without it."""

    event: Literal["withdrawn"] = "withdrawn"
    reason: Withdrawal


class Answered(_Strict):
    """The letter went out to the person."""

    event: Literal["answered"] = "answered"
    sent: Date


class Erased(_Strict):
    """The link to the person and the records are erased."""

    event: Literal["erased"] = "erased"


class Signed(_Strict):
    """The ledger up to its entry ``head`` was signed with the key of this sha256."""

    event: Literal["signed"] = "signed"
    head: _Count
    head_sha256: Sha256
    signed_by: Sha256


OfRequest = Received | Decided | Extended | Computed | Measured | Withdrawn | Answered | Erased
OfLedger = Opened | Exported | MeasuredKept | Signed
Facts = Annotated[OfRequest | OfLedger, Field(discriminator="event")]
_FACTS: TypeAdapter[Any] = TypeAdapter(Facts)


class Entry(_Strict):
    """One line of the ledger. ``sha256`` is of the line without it; ``previous`` is the one of the line before."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    n: Annotated[int, Field(ge=1)]
    at: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    id: RequestId | None
    facts: Facts
    previous: Sha256
    sha256: Sha256

    def line(self) -> bytes:
        """The line, as it stands in the file."""
        return _line(self.model_dump(mode="json", by_alias=True))


def make_entry(n: int, at: str, request: str | None, facts: OfRequest | OfLedger, previous: str) -> Entry:
    """The entry of these facts that follows the one with the sha256 ``previous``."""
    body = {
        "schema": SCHEMA,
        "n": n,
        "at": at,
        "id": request,
        "facts": facts.model_dump(mode="json"),
        "previous": previous,
    }
    return Entry.model_validate_json(json.dumps({**body, "sha256": _sha256_of(body)}))


def parse_entry(line: bytes) -> Entry:
    """An entry of a line (its end included) that is exactly as this module writes it.

    Raises:
        ValueError: it is not: no entry, or one that was changed.
    """
    body = json.loads(line)
    entry = Entry.model_validate_json(line)
    del body["sha256"]
    if entry.sha256 != _sha256_of(body) or entry.line() != line:
        raise ValueError("the line does not have the sha256 that stands in it")
    return entry


def _sha256_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(_line(body)).hexdigest()


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode() + b"\n"

"""A ledger of requests in a folder: the calls behind ``mllmeraser requests``.

Each call reads the entries, does its part, and adds entries under the ledger's lock. What a killed run left is finished
by the next call that writes.
"""

from __future__ import annotations

import datetime
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from mllmeraser.console import console
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.disk.link import Link
from mllmeraser.disk.target import file_target
from mllmeraser.errors import InputError, MllmEraserError, clipped
from mllmeraser.exporter.signing import sign, signer_sha256
from mllmeraser.records.read import read_records
from mllmeraser.removals.chain import HEAD, PRIVATE, Chain, Writer, read_chain, writing
from mllmeraser.removals.checks import Verified, parse_head, verify_ledger
from mllmeraser.removals.entries import (
    Answered,
    Computed,
    Decided,
    Erased,
    Extended,
    Extension,
    Measured,
    MeasuredKept,
    Opened,
    Override,
    Signed,
    Withdrawal,
    Withdrawn,
)
from mllmeraser.removals.exporting import export_active
from mllmeraser.removals.folder import Folder, new_id, new_key
from mllmeraser.removals.intake import Incoming, read_one, read_table
from mllmeraser.removals.page import page
from mllmeraser.removals.state import EXTENDED_MONTHS, Request, State, later, replay
from mllmeraser.removals.told import Told
from mllmeraser.removals.words import EVENTS, said_of, said_of_facts
from mllmeraser.removals.writing import Audience, letter

AnyPath = str | Path
DEFAULT = "requests"


class Ledger:
    """The requests of one controller, in a folder.

    Nothing in its entries names a person. Each call checks the whole chain first.

    Args:
        folder: where the ledger lies; the first request makes it.

    Raises:
        VerificationError: (each call) the ledger was changed, cut or damaged.

    Example::

        ledger = mllmeraser.requests("requests")
        added = ledger.add("claim-017", "2026-03-02")
        print(*ledger.listed().lines(), sep="\\n")
    """

    def __init__(self, folder: AnyPath = DEFAULT) -> None:
        self.folder = Folder(Path(folder))

    # ------------------------------------------------------------------------------------------------------ coming in

    def add(
        self,
        source: AnyPath,
        received: str | datetime.date,
        *,
        name: str | None = None,
        reference: str | None = None,
        retain: AnyPath | None = None,
        anyway: Override | None = None,
    ) -> Told:
        """Take in one request: copy its records, measure what it would close beyond its person, and decide.

        Args:
            source: the directory that ``mllmeraser claim`` wrote, or records about one person.
            received: the day on which the letter came, as ``2026-03-31``.
            name, reference: go to the private key of the request, for its letter.
            retain: records of who is to be kept; a request that asks their questions is refused.
            anyway: accept it though it breaks a rule: ``reviewed`` by a person, or ``ordered`` by a court.

        Returns:
            the request's id and the decision.

        Raises:
            InputError: the records or the date cannot be used, or the request is here already; nothing was written.
        """
        kept = () if retain is None else read_records(Path(retain))
        coming = read_one(Path(source), received, name=name, reference=reference, retain=kept, anyway=anyway)
        added, there = self._take_in([coming], anyway)
        if there:
            raise InputError(f"{source}: the same records are request {there[0]} already; nothing was written")
        return _told_of_intake(added, [])

    def add_table(self, table: AnyPath, *, retain: AnyPath | None = None, anyway: Override | None = None) -> Told:
        """Take in every line of a CSV file (columns received, records or claim, name, reference), as :meth:`add` does.

        All lines are checked before the first is written. Lines that are here already are left out, so that a run that
        was killed can be repeated.

        Raises:
            InputError: the file or a line cannot be used; nothing was written.
        """
        kept = () if retain is None else read_records(Path(retain))
        return _told_of_intake(*self._take_in(read_table(Path(table), retain=kept, anyway=anyway), anyway))

    def _take_in(
        self, coming: Sequence[Incoming], anyway: Override | None
    ) -> tuple[list[tuple[str, Decided]], list[str]]:
        """Write what came in; returns ids and decisions, and the ids of those that were here already."""
        self.folder.make()
        added: list[tuple[str, Decided]] = []
        there: list[str] = []
        with self._writing() as (writer, state):
            facts: list[Any] = [] if writer.chain.entries else [(None, Opened(ledger=secrets.token_hex(16)))]
            new: list[tuple[str, Incoming]] = []
            for each in coming:
                same = self._same(state, new, each)
                if same is None:
                    request = new_id({*state.requests, *(id_ for id_, _ in new)})
                    key = new_key(request, each.name, each.reference)
                    self.folder.fill(key, each.records, each.claim_file)
                    facts += [(request, each.facts(key.commitment(each.digest))), (request, each.decided)]
                    added.append((request, each.decided))
                    new.append((request, each))
                elif anyway is not None and same in state.requests and state.requests[same].status == "refused":
                    facts.append((same, each.decided))
                    added.append((same, each.decided))
                else:
                    there.append(same)
            if facts and added:
                writer.append(facts)
            for request, _ in new:
                self.folder.publish(request)
        return added, there

    def _same(self, state: State, new: Sequence[tuple[str, Incoming]], coming: Incoming) -> str | None:
        """The request with these records: of the same day, or one that is not closed. Only kept keys can tell."""
        for request, other in new:
            if other.digest == coming.digest:
                return request
        for known in state.requests.values():
            if known.received.received != coming.received and known.withdrawn is not None:
                continue
            key = None if known.erased else self.folder.key(known.id)
            if key is not None and key.commitment(coming.digest) == known.received.commitment:
                return known.id
        return None

    # -------------------------------------------------------------------------------------------------------- reading

    def chain(self) -> Chain:
        """All entries, checked.

        Raises:
            InputError: there is no ledger.
            VerificationError: it was changed, cut or damaged.
        """
        self.folder.require()
        return read_chain(self.folder.root)

    def state(self) -> State:
        """Where every request stands."""
        return replay(self.chain().entries)

    def listed(self) -> Told:
        """Every request, those that wait for an answer first, by the day on which it is due."""
        chain, today = self.chain(), datetime.date.today()
        requests = replay(chain.entries).in_order()
        rows = [request.document(today) for request in requests]
        words = [f"{'request':12}  {'received':10}  {'due':10}  {'days left':>9}  {'status':13}  next"]
        words += [_row(row) for row in rows]
        words.append(f"head {chain.head}")
        return Told({"head": _head(chain), "requests": rows}, words)

    def show(self, request: str) -> Told:
        """Everything that the ledger holds of one request."""
        chain, today = self.chain(), datetime.date.today()
        found = _known(replay(chain.entries), request)
        own = [entry for entry in chain.entries if entry.id == request]
        entries = [{"n": entry.n, "at": entry.at, **entry.facts.model_dump(mode="json")} for entry in own]
        words = [f"{key:12}  {value}" for key, value in found.document(today).items() if value is not None]
        words += [f"{entry.at}  {EVENTS[entry.facts.event]:12}  {said_of_facts(entry.facts)}".rstrip() for entry in own]
        words.append(f"head {chain.head}")
        return Told({"head": _head(chain), "request": found.document(today), "entries": entries}, words)

    def letter(
        self, request: str, audience: Audience, output: AnyPath | None = None, *, overwrite: bool = False
    ) -> Told:
        """Write the letter about a request, as HTML and as Markdown, from the facts of the ledger alone.

        Args:
            audience: ``subject`` (short and plain), ``controller`` or ``auditor``.
            output: the directory for both files; by default the request's private folder.
            overwrite: replace letters in ``output``.

        Raises:
            InputError: the output cannot be written to.
        """
        chain = self.chain()
        state = replay(chain.entries)
        found = _known(state, request)
        key = None if found.erased else self.folder.key(request)
        folder = self.folder.private(request) / "letters" if output is None else Path(output)
        if output is None and key is None:
            raise InputError(f"{request}: its private folder is erased; say with --output where the letter is to lie")
        written = letter(audience, chain, state, found, key)
        texts = {"md": written.markdown(), "html": written.html()}
        paths = {form: folder / f"{request}-{audience}.{form}" for form in texts}
        if output is None:
            folder.mkdir(mode=0o700, exist_ok=True)
        elif not folder.is_dir():
            raise InputError(f"{folder}: no such directory; create it first")
        for path in paths.values():
            file_target(path, overwrite or output is None)
        for form, text in texts.items():
            write_atomically(paths[form], text.encode(), PRIVATE)
        facts = {"request": request, "audience": audience, "status": found.status, "title": written.title}
        outputs = [str(path) for path in paths.values()]
        return Told({**facts, "outputs": outputs}, [*texts["md"].splitlines(), "", *(f"Written: {o}" for o in outputs)])

    def report(self, output: AnyPath, request: str | None = None, *, overwrite: bool = False) -> Told:
        """Write one HTML page with the figures of all requests, or of one; it names nobody.

        Raises:
            InputError: the file cannot be written.
        """
        from mllmeraser.report.write import html  # drawing takes a second to import

        chain = self.chain()
        state = replay(chain.entries)
        chosen = state.in_order() if request is None else [_known(state, request)]
        path = Path(output)
        file_target(path, overwrite)
        made = page(chain, state, chosen)
        write_atomically(path, html(made, None).encode())
        facts = {"output": str(path), "requests": len(chosen), "sentences": list(made.sentences)}
        return Told(facts, [made.verdict, *(f"  {sentence}" for sentence in made.sentences), f"Written to {path}."])

    # ------------------------------------------------------------------------------------------- computing, exporting

    def compute(
        self,
        base: AnyPath,
        retain: AnyPath,
        requests: Sequence[str] = (),
        *,
        recipe: AnyPath | None = None,
        device: str = "cpu",
        dtype: str = "auto",
        batch_size: int = 64,
        seed: int = 0,
    ) -> Told:
        """Compute the bundles of all requests that wait, or of these; a run that was killed goes on.

        Args:
            base: the model as it is, without steering.
            retain: records of what to keep; a subject of the request may not stand in it.
            recipe: a ``recipe.toml`` with options of ``compute``.

        Raises:
            InputError: base, retain set, recipe or an id cannot be used.
        """
        from mllmeraser.removals.computing import compute_waiting  # torch takes seconds

        state = self.state()
        for request in requests:
            _known(state, request)
        rows, words = [], []
        for request, became in compute_waiting(
            self.folder,
            state,
            self._note,
            base,
            Path(retain),
            requests,
            recipe=None if recipe is None else Path(recipe),
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            seed=seed,
        ):
            row, said = _told_of_computation(request, became)
            console.print(f"{request}  {row['outcome']}")
            rows.append(row)
            words += said
        failed = sum(row["outcome"] in ("refused", "failed") for row in rows)
        return Told({"requests": rows, "failed": failed}, words or ["no request waits to be computed"])

    def _note(self, request: str, facts: Computed | Decided) -> bool:
        """Add the entry of a computation, unless the request was withdrawn or erased meanwhile."""
        with self._writing(request) as (writer, state):
            found = state.requests[request]
            if found.erased or found.withdrawn is not None:
                self.folder.bundle(request).unlink(missing_ok=True)
                return False
            writer.append([(request, facts)])
            return True

    def export(
        self,
        base: AnyPath,
        output: AnyPath,
        *,
        link: Link = "auto",
        overwrite: bool = False,
        dry_run: bool = False,
        hash_weights: bool = True,
        private_key: AnyPath | None = None,
    ) -> Told:
        """Write one checkpoint with every request that is active; withdrawn ones are left out.

        All share one budget of false fires, which is divided among all requests that were ever computed here. So a
        withdrawal leaves the outputs of the others bit for bit as they were. The base is not loaded.

        Args:
            base, output, link, overwrite, dry_run, hash_weights: as of :func:`mllmeraser.export`.
            private_key: sign the export, and note who signed.

        Raises:
            InputError: no request is active, or base, output or key cannot be used.
        """
        key = None if private_key is None else Path(private_key)
        plan, exported = export_active(
            self.folder,
            self.state(),
            base,
            Path(output),
            link=link,
            overwrite=overwrite,
            dry_run=dry_run,
            hash_weights=hash_weights,
            private_key=key,
        )
        if exported is not None:
            with self._writing("") as (writer, _):
                writer.append([(None, exported)])
                self._tidy(replay(writer.chain.entries))
        return Told(
            {**plan.document(), "entry": None if exported is None else exported.model_dump(mode="json")}, plan.lines()
        )

    def measure(
        self,
        base: AnyPath,
        checkpoint: AnyPath,
        requests: Sequence[str] = (),
        *,
        retain: AnyPath | None = None,
        attacks: bool = False,
        device: str = "cpu",
        dtype: str = "auto",
        batch_size: int = 64,
        seed: int = 0,
    ) -> Told:
        """Ask base and checkpoint about every active person, or about these, and note the figures for the letters.

        Args:
            checkpoint: the last export.
            retain: also ask about these records of what is kept; best ones that no computation has seen.
            attacks: also attack the checkpoint (``docs/attacks.md``).

        Raises:
            InputError: the checkpoint is not the last export, or an id is not in it.
        """
        from mllmeraser.removals.measuring import measure  # torch takes seconds

        state = self.state()
        if state.exported is None:
            raise InputError("nothing is exported yet; `mllmeraser requests export` comes first")
        wanted = [_known(state, id_) for id_ in requests or state.exported.ids]
        if outside := [request.id for request in wanted if not request.in_export]:
            raise InputError(f"{outside[0]}: is not in the last export")
        asked = {
            request.id: self.folder.read(request.id, request.received.commitment)
            for request in wanted
            if not request.erased
        }
        kept = () if retain is None else read_records(Path(retain))
        found = list(
            measure(
                base,
                Path(checkpoint),
                asked,
                kept,
                state.exported,
                attacks=attacks,
                device=device,
                dtype=dtype,
                batch_size=batch_size,
                seed=seed,
            )
        )
        with self._writing("") as (writer, _):
            writer.append(found)
        rows = [{"id": id_, **facts.model_dump(mode="json")} for id_, facts in found]
        return Told({"measured": rows}, [line for id_, facts in found for line in _told_of_measures(id_, facts)])

    def verify(
        self, head: str | None = None, exports: Sequence[AnyPath] = (), public_key: AnyPath | None = None
    ) -> Verified:
        """Check the chain, the private files, records, bundles and signatures; a broken promise raises nothing.

        Args:
            head: what an auditor noted earlier, as ``12:3f…``.
            exports: directories that are said to be the last export.
            public_key: the signer's, a PEM file.

        Raises:
            InputError: there is no ledger, or head or key cannot be used.
        """
        noted = None if head is None else parse_head(head)
        key = None if public_key is None else Path(public_key)
        return verify_ledger(self.folder, noted, tuple(map(Path, exports)), key)

    def sign(self, private_key: AnyPath) -> Told:
        """Sign the head (OpenSSF model signing; needs the extra ``sign``): the ledger up to now cannot be made anew.

        Raises:
            InputError: the extra is not installed, or the key cannot be used.
        """
        with self._writing("") as (writer, _):
            head = writer.chain.head
            signer = signer_sha256(Path(private_key))
            place = self.folder.root / "signed" / str(head.n)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o700)
            write_atomically(place / HEAD, f"{head}\n".encode())
            sign(place, private_key)
            writer.append([(None, Signed(head=head.n, head_sha256=head.sha256, signed_by=signer))])
        return Told({"head": vars(head), "output": str(place)}, [f"{head}: signed in {place}"])

    # ------------------------------------------------------------------------------------------------- later decisions

    def extend(self, request: str, reason: Extension) -> Told:
        """Have two more months for the answer (GDPR Art. 12(3)), once; tell the person within the first month.

        Raises:
            InputError: the request was answered or extended already.
        """
        with self._writing(request) as (writer, state):
            found = state.requests[request]
            if found.extended is not None or found.answered is not None:
                done = "extended" if found.answered is None else "answered"
                raise InputError(f"{request}: was {done} already; an answer can be put off once, before it is given")
            due = later(found.received.received, EXTENDED_MONTHS)
            writer.append([(request, Extended(due=due, reason=reason))])
        told = f"{request}: due on {due}; tell the person by {found.due}, with the reason"
        return Told({"request": request, "due": due.isoformat(), "reason": reason}, [told])

    def withdraw(self, request: str, reason: Withdrawal) -> Told:
        """Withdraw a request; the next export is without it, and leaves the others bit for bit as they are.

        Raises:
            InputError: it is withdrawn already.
        """
        with self._writing(request) as (writer, state):
            found = state.requests[request]
            if found.withdrawn is not None:
                raise InputError(f"{request}: is withdrawn already")
            writer.append([(request, Withdrawn(reason=reason))])
        words = [f"{request}: withdrawn"]
        if found.in_export:
            words.append(
                "The exported checkpoint still refuses about this person, until you export again and exchange it."
            )
        return Told({"request": request, "reason": reason, "needs_export": found.in_export}, words)

    def answered(self, request: str, sent: str | datetime.date | None = None) -> Told:
        """Note that the answer went out to the person.

        Args:
            sent: the day; by default today.

        Raises:
            InputError: no day, or one before the request came.
        """
        try:
            day = datetime.date.today() if sent is None else datetime.date.fromisoformat(str(sent))
        except ValueError:
            raise InputError(f"sent: {clipped(str(sent))!r} is not a date; write it as 2026-03-31") from None
        with self._writing(request) as (writer, state):
            if not state.requests[request].received.received <= day <= datetime.date.today():
                raise InputError(f"sent: {day} is before the request came, or in the future")
            writer.append([(request, Answered(sent=day))])
        return Told({"request": request, "sent": day.isoformat()}, [f"{request}: answered on {day}"])

    def erase(self, request: str) -> Told:
        """Erase what leads from a request to its person: the key, the records, the claim, the passes; nothing else.

        The entries stay, and are about nobody any more. The bundle goes too, unless an export needs it: it decodes in
        part to the person.

        Raises:
            InputError: it is erased already.
        """
        with self._writing(request) as (writer, state):
            if state.requests[request].erased:
                raise InputError(f"{request}: is erased already")
            writer.append([(request, Erased())])
            self._tidy(after := replay(writer.chain.entries))
        kept = request not in after.unneeded and self.folder.bundle(request).exists()
        words = [
            f"{request}: the link to the person and the records are erased; copies of the folder are yours to erase"
        ]
        if kept:
            words.append(
                "Its bundle stays while exports hold it: it decodes in part to the person. Withdraw it to end that."
            )
        return Told({"request": request, "bundle_kept": kept}, words)

    # --------------------------------------------------------------------------------------------------------- inside

    @contextmanager
    def _writing(self, request: str | None = None) -> Iterator[tuple[Writer, State]]:
        """Hold the lock, with the state, after what a killed run left is finished.

        Args:
            request: an id that must be known; empty for none; null if there need not be a ledger.
        """
        if request is not None:
            self.folder.require()
            self.folder.make()
        with writing(self.folder.root) as writer:
            state = replay(writer.chain.entries)
            self._tidy(state)
            if request:
                _known(state, request)
            yield writer, state

    def _tidy(self, state: State) -> None:
        self.folder.tidy(state.requests, state.erased, state.unneeded)


def _known(state: State, request: str) -> Request:
    if request not in state.requests:
        raise InputError(f"{clipped(request)!r}: no such request; `mllmeraser requests list` names them")
    return state.requests[request]


def _head(chain: Chain) -> dict[str, Any]:
    return {"n": chain.head.n, "sha256": chain.head.sha256}


def _row(row: dict[str, Any]) -> str:
    left = "answered" if row["days_left"] is None else "OVERDUE" if row["overdue"] else str(row["days_left"])
    return (
        f"{row['id']:12}  {row['received']}  {row['due']}  {left:>9}  {row['status']:13}  {row['next']}"
        + ("  (erased)" if row["erased"] else "")
    ).rstrip()


def _told_of_computation(
    request: str, became: Computed | Decided | MllmEraserError | None
) -> tuple[dict[str, Any], list[str]]:
    match became:
        case Computed():
            shares = {
                name: share for name, share in became.figures.model_dump(mode="json").items() if share is not None
            }
            words = ", ".join(f"{name.replace('_', ' ')} {s['share']:.1%} of {s['n']}" for name, s in shares.items())
            return {"id": request, "outcome": "computed", **became.model_dump(mode="json")}, [
                f"{request}  computed: {words}"
            ]
        case Decided():
            broken = [said_of(ground) for ground in became.grounds if not ground.kept]
            return {"id": request, "outcome": "refused", **became.model_dump(mode="json")}, [
                f"{request}  refused: {'; '.join(broken)}"
            ]
        case MllmEraserError():
            return {"id": request, "outcome": "failed", "error": str(became)}, [f"{request}  failed: {became}"]
    return {"id": request, "outcome": "withdrawn"}, [f"{request}  was withdrawn or erased meanwhile"]


def _told_of_measures(request: str | None, facts: Measured | MeasuredKept) -> list[str]:
    if isinstance(facts, MeasuredKept):
        return [f"kept          {facts.after.identical:.1%} of {facts.after.n} replies are the base's, word for word"]
    after = facts.after
    told = f"{request}  {facts.before.told:.1%} of {after.n} answers told before, {after.told:.1%} now"
    other, attacked = facts.reworded, facts.worst_attack
    told += "" if other is None else f"; {other.told:.1%} in any of six other wordings"
    return [told if attacked is None else f"{told}; {attacked.told:.1%} under the worst attack ({attacked.attack})"]


def _told_of_intake(added: Sequence[tuple[str, Decided]], there: Sequence[str]) -> Told:
    words, rows = [], []
    for request, decided in added:
        broken = [ground for ground in decided.grounds if not ground.kept]
        note = "" if decided.override is None else f" ({decided.override}, though it breaks a rule)"
        words += [f"{request}  {decided.decision}{note}", *(f"    {said_of(ground)}" for ground in broken)]
        rows.append({"id": request, **decided.model_dump(mode="json", exclude={"event"})})
    words += [f"{request}  here already" for request in there]
    refused = sum(decided.decision == "refused" for _, decided in added)
    return Told({"added": rows, "there": list(there), "refused": refused}, words)


EXTENSIONS: tuple[Extension, ...] = get_args(Extension)
WITHDRAWALS: tuple[Withdrawal, ...] = get_args(Withdrawal)
OVERRIDES: tuple[Override, ...] = get_args(Override)


def requests(folder: AnyPath = DEFAULT) -> Ledger:
    """The ledger of requests in a folder; the first request that is added makes it.

    Raises:
        InputError: (each call of it) there is no ledger, or what was given cannot be used.
        VerificationError: (each call of it) the ledger was changed, cut or damaged.

    Example::

        ledger = mllmeraser.requests("requests")
        ledger.add("claim-017", "2026-03-02")
        print(*ledger.listed().lines(), sep="\\n")
    """
    return Ledger(folder)

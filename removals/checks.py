"""Does a ledger keep its promises? Checked from its folder alone, and from what an auditor kept elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError, VerificationError
from mllmeraser.exporter.checks import Check, CheckFailed, run
from mllmeraser.exporter.names import MANIFEST
from mllmeraser.exporter.signing import check_signature, read_signature, signer_sha256
from mllmeraser.removals.chain import HEAD, Chain, Head, read_chain
from mllmeraser.removals.folder import Folder, modes_too_open
from mllmeraser.removals.state import State, replay


@dataclass(frozen=True)
class Verified:
    """All checks, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every promise is kept."""
        return all(check.ok for check in self.checks)

    def document(self) -> dict[str, Any]:
        """The JSON document of ``requests verify --json`` (``docs/json.md``)."""
        return {"schema": 1, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def verify_ledger(
    folder: Folder, head: Head | None = None, exports: tuple[Path, ...] = (), public_key: Path | None = None
) -> Verified:
    """Check a ledger; a broken promise raises nothing.

    Args:
        head: what an auditor noted: the ledger then had this entry.
        exports: directories that are said to be exports of this ledger.
        public_key: the signer's, for the heads that were signed.

    Raises:
        InputError: there is no ledger, or the key cannot be used.
    """
    folder.require()
    try:
        chain = read_chain(folder.root)
        state = replay(chain.entries)
    except VerificationError as error:
        return Verified((Check("chain", False, str(error)),))
    checks = [
        run("chain", lambda: _chain(chain)),
        run("private", lambda: _private(folder, state)),
        run("records", lambda: _records(folder, state)),
        run("bundles", lambda: _bundles(folder, state)),
        run("signatures", lambda: _signatures(folder, chain, state, public_key)),
    ]
    if head is not None:
        checks.insert(1, run("head", lambda: _head(chain, head)))
    checks += [run(f"export {path.name}", _export(path, state)) for path in exports]
    return Verified(tuple(checks))


def parse_head(text: str) -> Head:
    """A head as ``list`` prints it.

    Raises:
        InputError: it is none.
    """
    n, _, sha256 = text.partition(":")
    if not n.isdecimal() or len(sha256) != 64:
        raise InputError("--head: give a number and a hash, as `mllmeraser requests list` prints them: 12:3f…")
    return Head(int(n), sha256)


def _chain(chain: Chain) -> str:
    torn = f"; a killed run left {len(chain.torn)} bytes, which the next write moves aside" if chain.torn else ""
    return f"{len(chain.entries)} entries follow each other; head {chain.head}{torn}"


def _head(chain: Chain, noted: Head) -> str:
    if noted.n > len(chain.entries):
        raise CheckFailed(f"the ledger ends at entry {len(chain.entries)}; entry {noted.n} was noted")
    if chain.at(noted.n) != noted:
        raise CheckFailed(f"entry {noted.n} is not the one that was noted: the history before it was made anew")
    return f"entry {noted.n} is the one that was noted; {len(chain.entries) - noted.n} follow it"


def _private(folder: Folder, state: State) -> str:
    if opened := modes_too_open(folder.root):
        raise CheckFailed(f"{opened[0]}: others can look into it; chmod 700")
    if left := [id_ for id_ in sorted(state.erased) if folder.private(id_).exists()]:
        raise CheckFailed(f"{left[0]}: its files are still there; erasing was interrupted, and the next write ends it")
    missing = [id_ for id_ in state.requests if id_ not in state.erased and folder.key(id_) is None]
    if missing and not any(folder.adding(id_).exists() for id_ in missing):
        raise CheckFailed(f"{missing[0]}: its key is missing, and no entry says that it was erased")
    return f"for the owner only; {len(state.erased)} of {len(state.requests)} links to a person are erased"


def _records(folder: Folder, state: State) -> str:
    kept = [
        request
        for request in state.requests.values()
        if not request.erased and request.received.records and folder.key(request.id) is not None
    ]
    for request in kept:
        try:
            folder.read(request.id, request.received.commitment)
        except (InputError, VerificationError) as error:
            raise CheckFailed(str(error)) from None
    return f"those of {len(kept)} requests are as they were received"


def _bundles(folder: Folder, state: State) -> str:
    count = 0
    for request in state.requests.values():
        if request.computed is None or request.id in state.unneeded:
            continue
        path = folder.bundle(request.id)
        if not path.is_file():
            raise CheckFailed(f"{path}: missing; restore it, or compute the request again")
        if sha256_of(path) != request.computed.bundle_sha256:
            raise CheckFailed(f"{path}: not the bundle that was computed")
        count += 1
    return f"{count} are as they were computed"


def _signatures(folder: Folder, chain: Chain, state: State, public_key: Path | None) -> str:
    signer = None if public_key is None else signer_sha256(public_key)
    for signed in state.signed:
        place = folder.root / "signed" / str(signed.head)
        if chain.at(signed.head).sha256 != signed.head_sha256:
            raise CheckFailed(f"entry {signed.head} is not the one that was signed")
        if (place / HEAD).read_text(encoding="utf-8") != f"{chain.at(signed.head)}\n":
            raise CheckFailed(f"{place / HEAD}: not entry {signed.head} of this ledger")
        try:
            if public_key is None:
                read_signature(place)
            elif signed.signed_by == signer:
                check_signature(place, public_key)
        except VerificationError as error:
            raise CheckFailed(f"entry {signed.head}: {error}") from None
    if public_key is None:
        return f"{len(state.signed)} are whole" + ("; nobody asked whose: give --public-key" if state.signed else "")
    own = [signed.head for signed in state.signed if signed.signed_by == signer]
    if not own:
        raise CheckFailed(f"the holder of {public_key.name} signed no entry")
    return f"the holder of {public_key.name} signed up to entry {max(own)} of {len(chain.entries)}"


def _export(path: Path, state: State) -> Callable[[], str]:
    def check() -> str:
        if not (path / MANIFEST).is_file():
            raise CheckFailed(f"{path}: no export of mllmeraser")
        found = sha256_of(path / MANIFEST)
        numbers = [n for n, exported in enumerate(state.exports, 1) if exported.manifest_sha256 == found]
        if not numbers:
            raise CheckFailed(f"{path}: no export of this ledger")
        at = numbers[-1]
        if at < len(state.exports):
            raise CheckFailed(f"{path}: export {at} of {len(state.exports)}; a later one is in the ledger")
        return (
            f"the last export, of {len(state.exports[at - 1].requests)} requests; its files: mllmeraser verify {path}"
        )

    return check

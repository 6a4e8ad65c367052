"""The file of a ledger: entries are only ever added, each holds the hash of the one before, and a head holds the last.

Two files lie side by side. ``ledger.jsonl`` holds one entry a line. ``ledger.head`` holds the number and hash of the
last entry, so that lines cannot be cut from the end unseen. A write adds its lines, brings them to the disk, and then
replaces the head as a whole. So whenever a run is killed:

- The last line may be torn. The head does not know it, nobody was told that it was written, and the next write moves it
  to ``ledger.torn``.
- Whole lines may follow the head. They were written, and the next write brings the head up to them.

Everything else is damage: a changed byte, a line that is missing, a line that moved. One writer holds the lock; readers
need none, because they read the head before the lines.

Whoever may write to both files can make both anew. Against that helps what lies elsewhere: a signature, or a head that
an auditor noted.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mllmeraser.console import console
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.errors import MllmEraserError, VerificationError
from mllmeraser.removals.entries import NOTHING_BEFORE, Entry, OfLedger, OfRequest, make_entry, parse_entry

LEDGER, HEAD, TORN, LOCK = "ledger.jsonl", "ledger.head", "ledger.torn", ".ledger.lock"
PRIVATE = 0o600
PATIENCE = 60  # seconds to wait for another writer
_HEAD = re.compile(rb"(0|[1-9][0-9]{0,11}) ([0-9a-f]{64})\n")


@dataclass(frozen=True)
class Head:
    """The number and the hash of an entry; 0 and zeros before the first."""

    n: int
    sha256: str

    def __str__(self) -> str:
        """As an auditor notes it: ``12:3f…``."""
        return f"{self.n}:{self.sha256}"


NO_HEAD = Head(0, NOTHING_BEFORE)


@dataclass(frozen=True)
class Chain:
    """All entries, and what a killed run left behind them."""

    entries: tuple[Entry, ...]
    torn: bytes = b""

    @property
    def head(self) -> Head:
        """The last entry's."""
        return self.at(len(self.entries))

    def at(self, n: int) -> Head:
        """The head when the ledger had ``n`` entries."""
        return Head(n, self.entries[n - 1].sha256) if n else NO_HEAD


def read_chain(folder: Path) -> Chain:
    """Read and check a ledger.

    Raises:
        VerificationError: it was changed, cut or damaged; the message names the line.
    """
    noted = _noted(folder)
    path = folder / LEDGER
    data = path.read_bytes() if path.exists() else b""
    if noted is None and not data:
        return Chain(())
    if noted is None:
        raise VerificationError(f"{folder / HEAD}: missing, but there is a ledger; {_MEND}")
    *lines, torn = data.split(b"\n")
    entries: list[Entry] = []
    previous = NOTHING_BEFORE
    for number, line in enumerate(lines, 1):
        entry = _entry(path, number, line + b"\n")
        if entry.n != number or entry.previous != previous:
            raise VerificationError(f"{path}, line {number}: does not follow the line before it; {_MEND}")
        entries.append(entry)
        previous = entry.sha256
    chain = Chain(tuple(entries), torn)
    if noted.n > len(entries):
        raise VerificationError(f"{path}: ends after {len(entries)} of {noted.n} entries; {_MEND}")
    if chain.at(noted.n) != noted:
        raise VerificationError(f"{path}: entry {noted.n} is not the one that {HEAD} names; {_MEND}")
    return chain


_MEND = "the ledger was changed or damaged: restore the folder from a copy"


def _noted(folder: Path) -> Head | None:
    path = folder / HEAD
    if not path.exists():
        return None
    found = _HEAD.fullmatch(path.read_bytes())
    if found is None:
        raise VerificationError(f"{path}: not a number and a hash; {_MEND}")
    return Head(int(found[1]), found[2].decode())


def _entry(path: Path, number: int, line: bytes) -> Entry:
    try:
        return parse_entry(line)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise VerificationError(f"{path}, line {number}: was changed or damaged; {_MEND}") from None


class Writer:
    """Adds entries to a ledger whose lock this process holds."""

    def __init__(self, folder: Path, chain: Chain) -> None:
        self.folder, self.chain = folder, chain

    def append(self, facts: Sequence[tuple[str | None, OfRequest | OfLedger]]) -> None:
        """Add one entry for each request id (null: of the whole ledger) and its facts; all in one write.

        Raises:
            OSError: the disk is full or fails; the ledger is as it was.
        """
        entries, head = [], self.chain.head
        for request, fact in facts:
            entries.append(make_entry(head.n + 1, _now(), request, fact, head.sha256))
            head = Head(entries[-1].n, entries[-1].sha256)
        _add(self.folder / LEDGER, b"".join(entry.line() for entry in entries))
        _note(self.folder, head)
        self.chain = Chain((*self.chain.entries, *entries))


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """Hold the ledger's lock, and put in order what a killed run left.

    Raises:
        MllmEraserError: another run has held the lock for a minute.
        VerificationError: the ledger was changed, cut or damaged.
    """
    lock = FileLock(folder / LOCK, timeout=PATIENCE, mode=PRIVATE)
    try:
        lock.acquire()
    except Timeout:
        raise MllmEraserError(f"{folder}: another run writes to this ledger; wait for its end") from None
    try:
        for left in folder.glob(f".{HEAD}.*"):
            left.unlink()
        chain = read_chain(folder)
        if not chain.entries and _noted(folder) is None:
            _note(folder, NO_HEAD)
        if chain.torn:
            _move_aside(folder, chain.torn)
        if chain.head != _noted(folder):
            _note(folder, chain.head)
        yield Writer(folder, Chain(chain.entries))
    finally:
        lock.release()


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _note(folder: Path, head: Head) -> None:
    write_atomically(folder / HEAD, f"{head.n} {head.sha256}\n".encode(), PRIVATE)


def _add(path: Path, data: bytes) -> None:
    """Add to the end of a file, through to the disk; if that fails, the file is as it was."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), PRIVATE)
    try:
        before = os.fstat(descriptor).st_size
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except BaseException:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def _move_aside(folder: Path, torn: bytes) -> None:
    """Keep what a killed run wrote of a line in another file, and cut it from the ledger."""
    _add(folder / TORN, torn + b"\n")
    with (folder / LEDGER).open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - len(torn))
        os.fsync(file.fileno())
    told = f"{LEDGER}: a run was killed while it wrote an entry; its {len(torn)} bytes are in {TORN}"
    console.print(told, soft_wrap=True)

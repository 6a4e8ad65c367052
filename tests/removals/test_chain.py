"""P16. A ledger cannot be rewritten unseen, and survives kill −9 at every byte and two writers at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mllmeraser.errors import VerificationError
from mllmeraser.removals import chain as chains
from mllmeraser.removals.chain import HEAD, LEDGER, TORN, Head, read_chain, writing
from mllmeraser.removals.entries import Answered, Erased, Extended, Opened, make_entry

LEDGER_ID = "0123456789abcdef" * 2
REQUEST = "r-0123456789"


def filled(folder: Path, entries: int = 3) -> Path:
    """A ledger with so many entries."""
    with writing(folder) as writer:
        writer.append([(None, Opened(ledger=LEDGER_ID))])
    for _ in range(entries - 1):
        with writing(folder) as writer:
            writer.append([(REQUEST, Erased())])
    return folder


def contents(folder: Path) -> tuple[bytes, bytes]:
    return (folder / LEDGER).read_bytes(), (folder / HEAD).read_bytes()


def put(folder: Path, ledger: bytes, head: bytes) -> None:
    (folder / LEDGER).write_bytes(ledger)
    (folder / HEAD).write_bytes(head)


def test_entries_come_back_in_order_and_each_names_the_one_before(tmp_path: Path) -> None:
    entries = read_chain(filled(tmp_path, 4)).entries
    assert [entry.n for entry in entries] == [1, 2, 3, 4]
    assert [entry.previous for entry in entries[1:]] == [entry.sha256 for entry in entries[:-1]]


def test_every_edit_of_one_byte_is_seen(tmp_path: Path) -> None:
    ledger, head = contents(filled(tmp_path))
    rng = random.Random(0)
    for file, data in ((LEDGER, ledger), (HEAD, head)):
        for at in range(len(data)):
            for new in {data[at] ^ 1, rng.choice((10, data[at] ^ 0x20, rng.randrange(256)))} - {data[at]}:
                put(tmp_path, ledger, head)
                (tmp_path / file).write_bytes(data[:at] + bytes([new]) + data[at + 1 :])
                with pytest.raises(VerificationError):
                    read_chain(tmp_path)


def test_every_byte_that_is_missing_or_too_many_is_seen(tmp_path: Path) -> None:
    ledger, head = contents(filled(tmp_path))
    for at in range(len(ledger)):
        for changed in (ledger[:at] + ledger[at + 1 :], ledger[:at] + b"x" + ledger[at:], ledger[:at])[at % 3 :: 2]:
            put(tmp_path, changed, head)
            with pytest.raises(VerificationError):
                read_chain(tmp_path)


def test_lines_that_are_cut_moved_or_repeated_are_seen(tmp_path: Path) -> None:
    ledger, head = contents(filled(tmp_path, 4))
    a, b, c, d = ledger.splitlines(keepends=True)
    for changed in (b"", a, a + b + c, b + c + d, a + c + d, a + c + b + d, a + a + b + c + d, a + b + c + d + d):
        put(tmp_path, changed, head)
        with pytest.raises(VerificationError):
            read_chain(tmp_path)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_entry_that_is_made_anew_with_a_right_hash_of_its_own_is_seen(tmp_path: Path, at: int) -> None:
    """The next entry names another one before it; of the last one the head does."""
    ledger, head = contents(filled(tmp_path, 4))
    lines = ledger.splitlines(keepends=True)
    old = read_chain(tmp_path).entries[at - 1]
    forged = make_entry(at, old.at, REQUEST, Extended(due="2026-03-01", reason="many"), old.previous)  # type: ignore[arg-type]
    put(tmp_path, b"".join([*lines[: at - 1], forged.line(), *lines[at:]]), head)
    with pytest.raises(VerificationError, match=r"line|entry"):
        read_chain(tmp_path)


def test_a_missing_file_is_seen(tmp_path: Path) -> None:
    _, head = contents(filled(tmp_path))
    (tmp_path / HEAD).unlink()
    with pytest.raises(VerificationError, match="missing"):
        read_chain(tmp_path)
    (tmp_path / HEAD).write_bytes(head)
    (tmp_path / LEDGER).unlink()
    with pytest.raises(VerificationError, match="ends after 0 of 3"):
        read_chain(tmp_path)


def test_a_history_made_anew_differs_from_a_head_that_was_noted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    noted = read_chain(filled(tmp_path / "a")).at(3)
    with writing(tmp_path / "b") as writer:
        writer.append([(None, Opened(ledger="f" * 32)), (REQUEST, Erased()), (REQUEST, Erased())])
    assert read_chain(tmp_path / "b").at(3) != noted
    assert str(noted) == f"3:{noted.sha256}"


@pytest.mark.parametrize(("batch", "step"), [(1, 1), (3, 7)])
def test_killed_at_every_byte_of_a_write(
    tmp_path: Path, batch: int, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole lines count, a torn one is moved aside and told, and nothing that was there before is lost."""
    before, head = contents(filled(tmp_path))
    with writing(tmp_path) as writer:
        writer.append([(REQUEST, Extended(due="2026-03-01", reason="many"))] * batch)  # type: ignore[arg-type]
    after, new_head = contents(tmp_path)
    assert after.startswith(before) and new_head != head
    for cut in (*range(len(before), len(after), step), len(after)):
        put(tmp_path, after[:cut], head)
        (tmp_path / TORN).unlink(missing_ok=True)
        whole = after[:cut].count(b"\n")
        torn = after[:cut].rpartition(b"\n")[2]
        assert len(read_chain(tmp_path).entries) == whole
        with writing(tmp_path) as writer:
            writer.append([(REQUEST, Erased())])
        chain = read_chain(tmp_path)
        assert len(chain.entries) == whole + 1 and chain.torn == b""
        assert (tmp_path / LEDGER).read_bytes().startswith(after[: cut - len(torn)])
        assert (tmp_path / TORN).exists() is bool(torn)
        assert bool(torn) == ("a run was killed" in capsys.readouterr().err)
        if torn:
            assert (tmp_path / TORN).read_bytes() == torn + b"\n"


def test_a_disk_that_is_full_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(filled(tmp_path))
    write = os.write

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) < 60:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:50])

    with writing(tmp_path) as writer:
        monkeypatch.setattr(chains.os, "write", half)
        with pytest.raises(OSError, match="No space"):
            writer.append([(REQUEST, Erased())])
    assert contents(tmp_path) == before


_WRITE = """
import sys
from pathlib import Path
from mllmeraser.removals.chain import writing
from mllmeraser.removals.entries import Answered
import datetime
folder, day, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for _ in range(count):
    with writing(folder) as writer:
        writer.append([("r-0123456789", Answered(sent=datetime.date(2026, 1, day)))] * 2)
"""


def start(folder: Path, day: int, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _WRITE, str(folder), str(day), str(count)])


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    writers = [start(tmp_path, day, 40) for day in (1, 2)]
    while any(writer.poll() is None for writer in writers):
        read_chain(tmp_path)  # a reader sees a whole ledger at any moment
    assert [writer.returncode for writer in writers] == [0, 0]
    days = [entry.facts.sent.day for entry in read_chain(tmp_path).entries if isinstance(entry.facts, Answered)]
    assert (days.count(1), days.count(2)) == (80, 80)
    assert days[::2] == days[1::2]  # what was written together stands together


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    """A process that writes without end is killed; what it had added is there, and the next one goes on."""
    filled(tmp_path, 1)
    rng, seen = random.Random(0), 1
    for _ in range(12):
        writer = start(tmp_path, 3, 10_000)
        while len(read_chain(tmp_path).entries) == seen:
            time.sleep(0.01)
        time.sleep(rng.random() / 5)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert len(read_chain(tmp_path).entries) > seen
        seen = len(read_chain(tmp_path).entries)
    with writing(tmp_path) as last:
        last.append([(REQUEST, Erased())])
    assert read_chain(tmp_path).head == Head(seen + 1, last.chain.head.sha256)


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    filled(tmp_path)
    for path in (tmp_path / LEDGER, tmp_path / HEAD):
        assert path.stat().st_mode & 0o777 == 0o600

"""P16. The ledger holds no name, cannot be rewritten unseen, survives kill −9 and two writers, and can be erased.

The chain itself is in ``tests/removals/test_chain.py``; here are whole requests: canaries in every byte, any order of
decisions with a kill between any two steps, and real processes that are killed.
"""

from __future__ import annotations

import datetime
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.requests import ledger_of, person, record
from builders.talker import write_records
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import ValidationError

from mllmeraser.errors import InputError
from mllmeraser.removals import folder as folders
from mllmeraser.removals.chain import LEDGER, TORN, Writer
from mllmeraser.removals.entries import BaseFacts, Computed, Exported, Figures, InExport, Received, Share
from mllmeraser.removals.ledger import Ledger

CANARIES = ("Quillfeather", "Ada", "Graz", "baker", "case-0", "canary")
PUBLIC = (LEDGER, "ledger.head", "signed", "bundles")


def bytes_of(root: Path, *names: str) -> bytes:
    """Every byte below these parts of a folder, the names of files included."""
    paths = [path for name in names for path in ((root / name), *(root / name).rglob("*")) if path.exists()]
    return b"".join(path.name.encode() + (path.read_bytes() if path.is_file() else b"") for path in paths)


def computed(ledger: Ledger, request: str) -> None:
    """As if a bundle had been computed."""
    ledger.folder.bundle(request).write_bytes(b"a bundle")
    share = Share(share=0.5, n=4)
    facts = Computed(
        bundle_sha256=folders.sha256_of(ledger.folder.bundle(request)),
        bundle_bytes=8,
        base=BaseFacts(repo_id=None, revision=None, config_sha256="0" * 64),
        forget=4,
        retain=9,
        seed=0,
        figures=Figures(recognised=share, false_fires=share, refused=None, untold=None, general=share),
    )
    assert ledger._note(request, facts)


def exported(ledger: Ledger) -> None:
    """As if a checkpoint of all that are active had been made."""
    state = ledger.state()
    rows = tuple(
        InExport(id=request.id, recognised=None, false_fires=None)
        for request in state.requests.values()
        if request.wants_export
    )
    with ledger._writing("") as (writer, _):
        writer.append([(None, Exported(manifest_sha256="1" * 64, requests=rows, shares=state.shares, signed_by=None))])


# ------------------------------------------------------------------------------------------------------------- no name


def test_no_name_text_or_path_is_in_any_byte_that_is_not_private(tmp_path: Path) -> None:
    (tmp_path / "canary").mkdir()
    ledger, ids = ledger_of(tmp_path / "canary", [0, 1])
    shown = json.dumps(ledger.listed().document()) + "\n".join(ledger.show(ids[0]).lines())
    computed(ledger, ids[0])
    exported(ledger)
    ledger.extend(ids[1], "many")
    shown += "\n".join(ledger.letter(ids[0], "auditor", tmp_path).lines())
    ledger.answered(ids[0])
    ledger.withdraw(ids[0], "person")
    shown += json.dumps(ledger.verify().document()).replace(str(tmp_path), "")
    everything = bytes_of(tmp_path / "canary" / "requests", *PUBLIC) + shown.replace(str(tmp_path), "").encode()
    for canary in CANARIES:
        assert canary.encode() not in everything, canary
    assert b"Quillfeather" in bytes_of(tmp_path / "canary" / "requests", "private")


@pytest.mark.parametrize("text", ["Ada Quillfeather", "http://x", "a\nb", "", "x" * 300, "<b>"])
def test_an_entry_has_no_field_that_would_take_a_name(text: str) -> None:
    for field in ("commitment", "received"):
        whole = {"received": "2026-01-05", "due": "2026-02-05", "commitment": "0" * 64, "records": 1, "pictures": 0}
        with pytest.raises(ValidationError):
            Received.model_validate({**whole, "claim": None, field: text})
        with pytest.raises(ValidationError):
            Received.model_validate({**whole, "claim": None, "name": text})


def test_after_the_erasure_nothing_is_left_of_the_person_and_the_ledger_is_whole(tmp_path: Path) -> None:
    ledger, (ada, bo) = ledger_of(tmp_path, [0, 1])
    root = ledger.folder.root
    ledger.letter(ada, "subject")
    (ledger.folder.work).mkdir()
    (ledger.folder.work / "states").write_text("Quillfeather")
    computed(ledger, ada)
    before = (root / LEDGER).read_bytes()
    assert ledger.erase(ada).facts["bundle_kept"] is True  # computed, so that the next export needs it
    assert not ledger.folder.private(ada).exists() and not ledger.folder.work.exists()  # at once
    ledger.withdraw(ada, "person")
    ledger.listed()
    ledger.extend(bo, "many")  # any write
    assert not ledger.folder.bundle(ada).exists()
    assert b"Quillfeather" not in bytes_of(root, ".")
    assert b"Marrowby" in bytes_of(root, ".")
    assert (root / LEDGER).read_bytes().startswith(before)
    assert ledger.verify().ok
    with pytest.raises(InputError, match="erased already"):
        ledger.erase(ada)
    with pytest.raises(InputError, match="say with --output"):
        ledger.letter(ada, "subject")
    assert "Dear Sir or Madam" in "\n".join(ledger.letter(ada, "subject", tmp_path).lines())


def test_an_erasure_that_is_killed_is_told_and_finished_by_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, (ada, bo) = ledger_of(tmp_path, [0, 1])
    with monkeypatch.context() as patch:
        patch.setattr(folders.shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            ledger.erase(ada)
    assert ledger.state().requests[ada].erased  # it was decided, and is not undone
    (told,) = [check for check in ledger.verify().checks if not check.ok]
    assert (told.name, "erasing was interrupted" in told.detail) == ("private", True)
    ledger.extend(bo, "many")
    assert not ledger.folder.private(ada).exists() and ledger.verify().ok


def test_an_id_cannot_be_tested_for_a_person_once_the_key_is_erased(tmp_path: Path) -> None:
    """The commitment is salted: the same records give another one each time, and none without the salt."""
    one, _ = ledger_of(tmp_path, [0])
    (tmp_path / "other").mkdir()
    two, _ = ledger_of(tmp_path / "other", [0])
    (first,), (second,) = one.state().requests.values(), two.state().requests.values()
    assert first.received.commitment != second.received.commitment
    assert one.folder.key(first.id).salt != two.folder.key(second.id).salt  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------- any order, a kill anywhere


class Killed(BaseException):
    """In the place of a SIGKILL: nothing of ours catches it."""


STEPS: dict[str, tuple[type, str]] = {
    "while the records are copied": (folders.Folder, "fill"),
    "before the entry": (Writer, "append"),
    "after the entry": (folders.Folder, "publish"),
    "while it tidies up": (folders.Folder, "tidy"),
}


class Life(RuleBasedStateMachine):
    """Requests come, are computed, exported, withdrawn and erased, and runs are killed in between."""

    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.ledger = Ledger(self.place / "requests")
        self.model: dict[str, set[str]] = {}  # what was done to each request
        self.count = 0
        self.add(None)

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def killed(self, step: str | None, act: Callable[[], object]) -> bool:
        """Do something, and be killed in a step of it; returns whether it was."""
        if step is None:
            act()
            return False
        owner, name = STEPS[step]
        real = getattr(owner, name)

        def die(*given: object, **named: object) -> None:
            if name == "append" and step == "after the entry":
                real(*given, **named)
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, die)
            try:
                act()
            except Killed:
                return True
        return False

    @rule(step=st.sampled_from([None, None, *STEPS]))
    def add(self, step: str | None) -> None:
        self.count += 1
        name = f"Ada{'abcdefghij'[self.count % 10]}{'abcdefghij'[self.count // 10]} Quillfeather"
        rows = [record(name, f"Where does {name} live?", "Graz"), record(name, f"What does {name} do?", "baker")]
        source = write_records(self.place / f"{self.count}.jsonl", rows)
        before = set(self.ledger.state().requests) if self.model else set()
        self.killed(step, lambda: self.ledger.add(source, "2026-01-05", name=name))
        if (self.ledger.folder.root / LEDGER).exists():
            self.model |= {request: set() for request in set(self.ledger.state().requests) - before}

    def some(self, data: st.DataObject) -> str | None:
        return data.draw(st.sampled_from(sorted(self.model))) if self.model else None

    @rule(data=st.data(), step=st.sampled_from([None, None, "before the entry", "while it tidies up"]))
    def withdraw(self, data: st.DataObject, step: str | None) -> None:
        request = self.some(data)
        if request is None or "withdrawn" in self.model[request]:
            return
        if not self.killed(step, lambda: self.ledger.withdraw(request, "person")):
            self.model[request].add("withdrawn")

    @rule(data=st.data(), step=st.sampled_from([None, None, "before the entry"]))
    def erase(self, data: st.DataObject, step: str | None) -> None:
        request = self.some(data)
        if request is None or "erased" in self.model[request]:
            return
        if not self.killed(step, lambda: self.ledger.erase(request)):
            self.model[request].add("erased")

    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        request = self.some(data)
        if request is not None and not self.model[request]:
            computed(self.ledger, request)
            self.model[request].add("computed")

    @rule()
    def export(self) -> None:
        if self.model:
            exported(self.ledger)

    @rule(cut=st.floats(0, 1))
    def torn(self, cut: float) -> None:
        """A write is cut short anywhere in its line."""
        if not self.model:
            return
        root, request = self.ledger.folder.root, min(self.model)
        ledger, head = (root / LEDGER).read_bytes(), (root / "ledger.head").read_bytes()
        self.ledger.answered(request, datetime.date(2026, 1, 5))
        whole = (root / LEDGER).read_bytes()
        (root / LEDGER).write_bytes(whole[: len(ledger) + int(cut * (len(whole) - len(ledger) - 1))])
        (root / "ledger.head").write_bytes(head)

    @invariant()
    def the_ledger_is_what_was_done(self) -> None:
        if not getattr(self, "model", None):
            return
        state, root = self.ledger.state(), self.ledger.folder.root
        assert set(state.requests) == set(self.model)
        for id_, done in self.model.items():
            request = state.requests[id_]
            assert (request.withdrawn is not None, request.erased) == ("withdrawn" in done, "erased" in done)
            assert (request.computed is not None) == ("computed" in done)
            assert not (request.erased and self.ledger.folder.private(id_).exists())
        names = {check.name for check in self.ledger.verify().checks if not check.ok}
        assert names <= set(), (names, root)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=14, deadline=None, derandomize=True)


# ---------------------------------------------------------------------------------------------- real processes, killed


def people(folder: Path, count: int) -> Path:
    """A table of so many requests."""
    rows = ["received,records,name"]
    for number in range(count):
        name = f"Ada{'abcdefghij'[number // 10]}{'abcdefghij'[number % 10]} Quillfeather"
        write_records(folder / f"{number}.jsonl", [record(name, f"Where does {name} live?", "Graz")])
        rows.append(f"2026-01-05,{number}.jsonl,{name}")
    (folder / "letters.csv").write_text("\n".join(rows))
    return folder / "letters.csv"


@pytest.mark.slow
def test_a_table_is_taken_in_once_however_often_it_is_killed(tmp_path: Path) -> None:
    table, root = people(tmp_path, 30), tmp_path / "requests"
    call = [sys.executable, "-m", "mllmeraser.cli", "requests", "add", "--csv", str(table), "--ledger", str(root)]
    rng = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (root / "adding").exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(call, capture_output=True).returncode == 0
    ledger = Ledger(root)
    assert len(ledger.state().requests) == 30
    assert len(list((root / "private").iterdir())) == 30 and not list((root / "adding").iterdir())
    assert ledger.verify().ok
    assert not (root / TORN).exists() or b"Quill" not in (root / TORN).read_bytes()


@pytest.mark.slow
def test_two_users_at_once(tmp_path: Path) -> None:
    ledger, ids = ledger_of(tmp_path, [0, 1])
    (tmp_path / "many").mkdir()
    table = people(tmp_path / "many", 20)
    calls = [
        ["add", "--csv", str(table)],
        ["withdraw", ids[0], "--reason", "person"],
        ["erase", ids[1]],
        ["add", str(person(tmp_path, 2)), "--received", "2026-01-05"],
    ]
    start = [sys.executable, "-m", "mllmeraser.cli", "requests"]
    running = [subprocess.Popen([*start, *call, "--ledger", str(ledger.folder.root)]) for call in calls]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    requests = ledger.state().requests
    assert len(requests) == 23
    assert requests[ids[0]].withdrawn is not None and requests[ids[1]].erased
    assert ledger.verify().ok


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_who_signed_is_in_the_ledger_and_another_history_is_seen(tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="the extra 'sign' is not installed")
    from builders.signing_keys import make_key

    (private, public), (_, stranger) = make_key(tmp_path), make_key(tmp_path, "other")
    ledger, ids = ledger_of(tmp_path, [0, 1])
    ledger.sign(private)
    ledger.withdraw(ids[0], "person")
    assert ledger.verify(public_key=public).ok
    assert not ledger.verify(public_key=stranger).ok
    head = next((ledger.folder.root / "signed").rglob("ledger.head"))
    head.write_text(head.read_text().replace("5:", "4:"))
    assert [check.name for check in ledger.verify(public_key=public).checks if not check.ok] == ["signatures"]
